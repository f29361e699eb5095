import importlib
import logging
import shutil
import sys

import keras
import numpy as np
import pytest
from little_memory import refuse_batches
from PIL import Image

import ensemble_keras as ek
from ensemble_keras.data.augmentation import augmentation_config
from ensemble_keras.data.decoding import BadImagesError
from ensemble_keras.features import extraction
from ensemble_keras.features.keys import architecture_fingerprint, augmentation_key, model_fingerprint


def small_backbone(name="small", units=5, seed=0):
    keras_input = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(keras_input)
    initializer = keras.initializers.RandomNormal(seed=seed)
    x = keras.layers.Conv2D(units, 3, kernel_initializer=initializer)(x)
    return keras.Model(keras_input, keras.layers.GlobalAveragePooling2D()(x), name=name)


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 256, (50, 16, 16, 3), dtype="uint8")


@pytest.fixture
def folder(tmp_path, pictures):
    for i, picture in enumerate(pictures):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "data"


def extract(backbones, x, **arguments):
    return ek.extract_features(backbones, x, **{"image_size": 16, "verbose": 0, "batch_size": 16, **arguments})


def test_features_are_what_each_backbone_gives(pictures):
    a, b = small_backbone("a"), small_backbone("b", 7, seed=1)
    features = extract([a, b], pictures)
    assert list(features) == ["a", "b"]
    for model in (a, b):
        np.testing.assert_allclose(features[model.name], model.predict(pictures, verbose=0), rtol=1e-5, atol=1e-6)
        assert features[model.name].dtype == np.float32


def test_a_long_pass_runs_with_folded_batch_norms_and_a_short_one_without(pictures, monkeypatch):
    model = ek.build_backbone("MobileNet(alpha=0.25)", input_shape=(32, 32, 3), weights=None)
    ran = []
    predict = extraction.predict_in_batches
    monkeypatch.setattr(
        extraction, "predict_in_batches", lambda network, *rest: ran.append(network) or predict(network, *rest)
    )
    plain = extract([model], pictures, image_size=32)[model.name]
    assert {id(network) for network in ran} == {id(model)}
    monkeypatch.setattr(extraction, "_FOLD_FROM", len(pictures))
    ran.clear()
    folded = extract([model], pictures, image_size=32)[model.name]
    assert len({id(network) for network in ran}) == 1
    assert ran[0] is not model
    np.testing.assert_allclose(folded, plain, atol=1e-5)


def test_files_and_arrays_give_the_same(folder):
    dataset = ek.ImageDataset.from_directory(folder)
    a = small_backbone("a")
    from_files = extract([a], dataset)["a"]
    np.testing.assert_allclose(from_files, extract([a], dataset.load(image_size=16))["a"], rtol=1e-6)


def test_every_image_is_read_and_decoded_once_for_all_backbones(folder, monkeypatch):
    from ensemble_keras.data import sources

    counts = {"read": 0, "decoded": 0}
    read, decode = sources.FileSource.read, sources.decode

    def counted_read(self, row):
        counts["read"] += 1
        return read(self, row)

    def counted_decode(*arguments):
        counts["decoded"] += 1
        return decode(*arguments)

    monkeypatch.setattr(sources.FileSource, "read", counted_read)
    monkeypatch.setattr(sources, "decode", counted_decode)
    dataset = ek.ImageDataset.from_directory(folder)
    extract([small_backbone("a"), small_backbone("b"), small_backbone("c")], dataset)
    assert counts == {"read": 50, "decoded": 50}
    dataset.digests()
    assert counts["read"] == 50


class Counted:
    """Counts the images that a model is run on."""

    def __init__(self, monkeypatch):
        self.images, self._predict = 0, extraction.predict_in_batches
        monkeypatch.setattr(extraction, "predict_in_batches", self)

    def __call__(self, model, pixels, batch_size):
        self.images += len(pixels)
        return self._predict(model, pixels, batch_size)


def test_a_store_makes_the_second_pass_free_and_equal(pictures, tmp_path, monkeypatch):
    store, counted = ek.FeatureStore(tmp_path / "f.sqlite"), Counted(monkeypatch)
    first = extract([small_backbone("a")], pictures, store=store)["a"]
    assert counted.images == 50
    # Built again: other layer names, the same network. The label does not count either.
    second = extract([small_backbone("z")], pictures, store=tmp_path / "f.sqlite")["z"]
    assert counted.images == 50
    np.testing.assert_array_equal(first, second)


def test_only_what_is_new_is_computed(pictures, tmp_path, monkeypatch):
    arguments, counted = {"store": tmp_path / "f.sqlite"}, Counted(monkeypatch)
    extract([small_backbone("a")], pictures[:30], **arguments)
    extract([small_backbone("a")], pictures[::-1], **arguments)
    assert counted.images == 50
    extract([small_backbone("a"), small_backbone("b", seed=1)], pictures, **arguments)
    assert counted.images == 100


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"backbone": small_backbone("a", seed=1)},
        lambda: {"image_size": 16, "backbone": resized()},
        lambda: {"policy": "mixed_bfloat16"},
    ],
)
def test_other_weights_another_network_or_precision_are_not_taken_from_the_store(
    pictures, tmp_path, monkeypatch, change
):
    counted = Counted(monkeypatch)
    extract([small_backbone("a")], pictures, store=tmp_path / "f.sqlite")
    changed = change()
    if "policy" in changed:
        monkeypatch.setattr(keras.config, "dtype_policy", lambda: keras.dtype_policies.DTypePolicy("mixed_bfloat16"))
    extract([changed.get("backbone") or small_backbone("a")], pictures, store=tmp_path / "f.sqlite")
    assert counted.images == 100


def resized():
    return ek.build_backbone(small_backbone("a"), input_shape=(16, 16, 3), resize_to=None, name="other")


def test_the_fingerprint_knows_weights_and_architecture_and_no_names():
    base = model_fingerprint(small_backbone("a"))
    assert model_fingerprint(small_backbone("b")) == base
    assert model_fingerprint(small_backbone("a", seed=1)) != base
    changed = small_backbone("a")
    changed.layers[1].scale = 1 / 127
    assert model_fingerprint(changed) != base


def network(*layers):
    x = inputs = keras.Input((4, 4, 3))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def test_a_layer_that_is_named_as_a_value_is_not_taken_for_it():
    activation = keras.layers.Activation
    relu, tanh, renamed = (
        architecture_fingerprint(network(activation(kind, name=name)))
        for kind, name in [("relu", "relu"), ("tanh", "tanh"), ("relu", "tanh")]
    )
    assert relu == renamed
    assert relu != tanh
    halves, wholes = (
        architecture_fingerprint(network(activation("relu", name=policy, dtype=policy)))
        for policy in ("mixed_float16", "float32")
    )
    assert halves != wholes


class Scaled(keras.layers.Layer):
    """A layer whose config Keras makes of its arguments, without its name."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor


def test_a_layer_without_a_config_of_its_own_is_known_by_its_arguments():
    two, again, three = (architecture_fingerprint(network(Scaled(factor))) for factor in (2, 2, 3))
    assert two == again != three


def test_the_fingerprint_knows_which_layer_is_joined_to_which():
    def joined(swapped, names):
        inputs = keras.Input((4, 4, 3))
        shared = keras.Sequential([keras.layers.Rescaling(2, name=names[0])], name=names[1])
        a, b = shared(inputs), keras.layers.TimeDistributed(keras.layers.Rescaling(3, name=names[2]))(inputs)
        x = keras.ops.subtract(b, a) if swapped else keras.ops.subtract(a, b)
        return architecture_fingerprint(keras.Model(inputs, [x, a]))

    assert joined(False, ["a", "b", "c"]) == joined(False, ["x", "a", "subtract"])
    assert joined(False, ["a", "b", "c"]) != joined(True, ["a", "b", "c"])


@pytest.mark.parametrize(
    "key", [lambda layer: architecture_fingerprint(network(layer)), augmentation_key], ids=["network", "augmentation"]
)
def test_an_edited_layer_of_ones_own_has_another_key(key, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for factor in (2, 2, 3):
        source = f"class Scaled(keras.layers.Layer):\n    def call(self, x):\n        return x * {factor}\n"
        (tmp_path / "edited_layer.py").write_text("import keras\n\n" + source)
        monkeypatch.delitem(sys.modules, "edited_layer", raising=False)
        importlib.invalidate_caches()
        found.append(key(importlib.import_module("edited_layer").Scaled()))
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert found[0] == found[1] != found[2]


def test_the_key_of_keras_layers_is_their_config():
    assert augmentation_key("cifar") == augmentation_config("cifar")
    assert augmentation_key(None) == []


def test_the_fingerprint_is_the_same_after_use_and_needs_no_source():
    typed = {}
    exec("import keras\nclass Typed(keras.layers.Layer):\n    def call(self, x):\n        return 2 * x\n", typed)
    model = network(typed["Typed"](), keras.layers.Flatten())
    before = model_fingerprint(model)
    model.predict(np.zeros((2, 4, 4, 3)), verbose=0)
    model.compile("sgd", "mse")
    assert model_fingerprint(model) == before


def test_memory_that_runs_out_halves_the_batch_and_keeps_the_result(pictures, monkeypatch, caplog):
    expected = extract([small_backbone("a")], pictures)["a"]
    refuse_batches(monkeypatch, lambda _, batch: len(batch) > 4, RuntimeError("RESOURCE_EXHAUSTED: out of memory"))
    with caplog.at_level(logging.WARNING, "ensemble_keras"):
        np.testing.assert_allclose(extract([small_backbone("a")], pictures)["a"], expected, rtol=1e-5, atol=1e-6)
    assert [r.getMessage() for r in caplog.records] == [
        "a: out of memory with 16 images at a time, going on with 8.",
        "a: out of memory with 8 images at a time, going on with 4.",
    ]


def test_a_backbone_without_memory_for_one_image_is_skipped_and_the_others_go_on(pictures, tmp_path, monkeypatch):
    refuse_batches(monkeypatch, lambda model, _: model.name == "a")
    models = {"a": small_backbone("a"), "b": small_backbone("b", seed=1)}
    dataset = ek.ImageDataset.from_arrays(pictures)
    result = extraction.extract(models, dataset, image_size=(16, 16), verbose=0)
    assert list(result.features) == ["b"]
    assert "one image at a time" in result.skipped["a"]
    store = ek.FeatureStore(tmp_path / "f.sqlite")
    with pytest.raises(MemoryError, match="No features of 'a': a: out of memory even with one image"):
        extract(list(models.values()), pictures, store=store)
    assert store.stats()["vectors"] == 50


def test_all_bad_files_are_listed_at_once_and_the_good_ones_kept(folder, tmp_path):
    (folder / "b" / "47.png").write_bytes(b"")
    (folder / "b" / "49.png").write_bytes((folder / "b" / "45.png").read_bytes()[:200])
    store = ek.FeatureStore(tmp_path / "f.sqlite")
    dataset = ek.ImageDataset.from_directory(folder)
    with pytest.raises(BadImagesError, match="2 files are no readable images") as caught:
        extract([small_backbone("a")], dataset, store=store)
    assert sorted(caught.value.failures) == ["b/47.png", "b/49.png"]


def test_bad_arguments_are_refused(pictures):
    with pytest.raises(ValueError, match="Two backbones are called 'a'"):
        extract([small_backbone("a"), small_backbone("a")], pictures)
    with pytest.raises(ValueError, match="`batch_size` must be an int of at least 1. Received: 0"):
        extract([small_backbone("a")], pictures, batch_size=0)
    with pytest.raises(ValueError, match=r"look scaled to \[0, 1\]"):
        extract([small_backbone("a")], pictures / 255.0)
    with pytest.raises(ValueError, match="`backbones` must be a list of backbones. Received: 'CNN'"):
        extract("CNN", pictures)
    with pytest.raises(ValueError, match="`seed` must be an int of at least 0. Received: -1"):
        extract([small_backbone("a")], pictures, seed=-1)
    with pytest.raises(ValueError, match="Did you mean 'CNN'"):
        extract(["CNNN"], pictures)


def test_progress_is_visible_and_quiet_is_possible(pictures, capsys):
    extraction.predict(small_backbone("a"), ek.ImageDataset.from_arrays(pictures), verbose=1)
    assert capsys.readouterr().out.startswith("Predicting")
    extract([small_backbone("a")], pictures, verbose=1)
    assert "50/50" in capsys.readouterr().out
    extract([small_backbone("a")], pictures, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.shared
def test_real_weights_give_what_keras_gives(shared):
    dataset = ek.ImageDataset.from_directory(shared / "data" / "chest_xray" / "test")[:8]
    features = ek.extract_features(["MobileNet(alpha=0.25)"], dataset, image_size=224, verbose=0)
    plain = keras.applications.MobileNet(alpha=0.25, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    pixels = keras.applications.mobilenet.preprocess_input(dataset.load(image_size=224).astype("float32"))
    expected = plain.predict(pixels, verbose=0)
    np.testing.assert_allclose(features["MobileNet(alpha=0.25)"], expected, rtol=1e-3, atol=1e-4)

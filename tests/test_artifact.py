import errno
import json
import os
import pathlib
import subprocess
import sys
import time
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image
from tiny_members import tiny_member

from ensemble_keras import artifact
from ensemble_keras._version import __version__
from ensemble_keras.artifact import load_ensemble, read_card, save_ensemble
from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.voting import SoftVoting

CARD = {"class_names": ["cat", "dog"], "filter": "bilinear"}


@pytest.fixture(scope="module")
def model():
    return build_ensemble([tiny_member("a"), tiny_member("b")], SoftVoting([2, 1]))


def rewrite(path, **entries):
    """Rewrites a `.keras` file with other texts in its entries."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in (parts | {f"{key}.json": text for key, text in entries.items()}).items():
            file.writestr(name, content)


def test_model_and_card_come_back(model, tmp_path, rng):
    card = {**CARD, "members": [{"name": "a"}, {"name": "b"}], "temperature": 1.5, "validation": {"accuracy": 0.9}}
    written = save_ensemble(model, tmp_path / "new" / "pets.keras", card=card, verbose=0)
    loaded, read = load_ensemble(tmp_path / "new" / "pets.keras")
    images = rng.integers(0, 256, (5, 8, 8, 3), dtype="uint8")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
    assert read == written == read_card(str(tmp_path / "new" / "pets.keras"))
    assert {key: read[key] for key in card} == card
    assert read["format"] == 1
    assert read["image_size"] == [8, 8]
    versions = {"ensemble_keras": __version__, "keras": keras.version(), "backend": keras.backend.backend()}
    assert read["versions"] == versions
    assert len(read["snippet"].strip().split("\n")) == 6


def test_keras_opens_the_file_and_ignores_the_card(model, tmp_path, rng):
    save_ensemble(model, tmp_path / "pets.keras", card=CARD, verbose=0)
    images = rng.integers(0, 256, (5, 8, 8, 3), dtype="uint8")
    loaded = keras.saving.load_model(tmp_path / "pets.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


def test_numpy_values_become_json(model, tmp_path):
    card = {
        "class_names": np.array(["cat", "dog"]),
        "filter": "bicubic",
        "weights": np.array([0.5, 0.25], "float32"),
        "n": np.int64(3),
        "auc": {"mean": np.float32(0.5), "low": float("nan"), "high": np.inf},
        "flag": np.bool_(True),
        "source": pathlib.PurePosixPath("a/b"),
        1: (1, 2),
    }
    save_ensemble(model, tmp_path / "pets.keras", card=card, verbose=0)
    read = read_card(tmp_path / "pets.keras")
    assert read["class_names"] == ["cat", "dog"]
    assert read["weights"] == [0.5, 0.25]
    assert (read["n"], read["flag"], read["source"], read["1"]) == (3, True, "a/b", [1, 2])
    assert read["auc"] == {"mean": 0.5, "low": None, "high": None}
    assert "Resampling.BICUBIC" in read["snippet"]


def test_saving_prints_the_snippet_or_nothing(model, tmp_path, capsys):
    card = save_ensemble(model, tmp_path / "pets.keras", card=CARD)
    printed = capsys.readouterr().out
    assert card["snippet"] in printed
    assert f"Saved {tmp_path / 'pets.keras'} (" in printed
    save_ensemble(model, tmp_path / "pets.keras", card=CARD, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_model_of_any_size_takes_its_size_from_the_card(tmp_path):
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    model = keras.Model(images, keras.layers.Dense(2, "softmax")(pooled))
    card = save_ensemble(model, tmp_path / "any.keras", card={**CARD, "image_size": (6, 4)}, verbose=0)
    assert card["image_size"] == [6, 4]
    assert ".resize((4, 6)" in card["snippet"]
    with pytest.raises(ValueError, match="`image_size` must be one int or"):
        save_ensemble(model, tmp_path / "any.keras", card=CARD, verbose=0)


def test_an_old_card_may_be_given_again(model, tmp_path):
    card = save_ensemble(model, tmp_path / "pets.keras", card=CARD, verbose=0)
    old = {**card, "format": 0, "versions": {"keras": "1"}, "snippet": "x"}
    assert save_ensemble(model, tmp_path / "pets.keras", card=old, verbose=0) == card


@pytest.mark.slow
@pytest.mark.parametrize("combiner", [SoftVoting([2, 1]), ConcatenateDense(2)], ids=lambda c: c.name)
def test_the_snippet_runs_without_the_package(combiner, tmp_path, rng):
    members = [tiny_member("a", size=16), tiny_member("b", size=16)]
    model = build_ensemble(members, combiner)
    card = save_ensemble(model, tmp_path / "pets.keras", card=CARD, verbose=0)
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype="uint8")).save(tmp_path / "image.jpg")
    blocked = "import sys\nsys.modules['ensemble_keras'] = None\n"
    command = [sys.executable, "-c", blocked + card["snippet"]]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    printed = json.loads(run.stdout.replace("'", '"'))
    picture = Image.open(tmp_path / "image.jpg").resize((16, 16), Image.Resampling.BILINEAR)
    expected = model.predict(np.asarray(picture, "float32")[None], verbose=0)[0]
    assert list(printed) == ["cat", "dog"]
    np.testing.assert_allclose(list(printed.values()), expected, atol=1e-6)


@pytest.mark.parametrize("failing", ["model", "card", "rename"])
def test_a_failure_leaves_the_old_file_and_nothing_else(failing, model, tmp_path, monkeypatch):
    path = tmp_path / "pets.keras"
    save_ensemble(model, path, card=CARD, verbose=0)
    before = path.read_bytes()

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    if failing == "model":
        monkeypatch.setattr(keras.Model, "save", full_disk)
    elif failing == "card":
        monkeypatch.setattr(zipfile.ZipFile, "writestr", full_disk)
    else:
        monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_ensemble(model, path, card={**CARD, "class_names": ["x", "y"]}, verbose=0)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["pets.keras"]


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.02, 0.35, 1.1])
def test_a_kill_while_saving_leaves_a_whole_file(wait, model, tmp_path):
    path = tmp_path / "pets.keras"
    save_ensemble(model, path, card=CARD, verbose=0)
    script = (
        "import sys\nfrom ensemble_keras.artifact import load_ensemble, save_ensemble\n"
        "model, card = load_ensemble(sys.argv[1])\nprint('ready', flush=True)\n"
        "while True:\n    save_ensemble(model, sys.argv[1], card=card, verbose=0)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    with subprocess.Popen([sys.executable, "-c", script, path], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(wait)
        process.kill()
    assert process.returncode == -9
    assert load_ensemble(path)[1]["class_names"] == ["cat", "dog"]


@pytest.mark.parametrize("name", ["pets", "pets.h5", "pets.keras.zip"])
def test_another_suffix_is_refused(name, model, tmp_path):
    for call in (lambda path: save_ensemble(model, path, card=CARD), load_ensemble):
        with pytest.raises(ValueError, match=r"`path` must end in \.keras\. Received: "):
            call(tmp_path / name)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`. Received: 'model'"):
        save_ensemble("model", tmp_path / "pets.keras", card=CARD)


@pytest.mark.parametrize(
    ("card", "error", "message"),
    [
        ({}, ValueError, "Missing: class_names, filter"),
        (None, TypeError, "`card` must be a dict. Received: None"),
        ({"class_names": ["cat", "dog"]}, ValueError, "Missing: filter"),
        ({**CARD, "class_names": ["cat"]}, ValueError, "each of the model's 2 classes. Received: 1 names"),
        ({**CARD, "filter": "bilinaer"}, ValueError, "Did you mean 'bilinear'"),
        ({**CARD, "image_size": 9}, ValueError, r"must be that of the model, \(8, 8\). Received: \(9, 9\)"),
        ({**CARD, "history": {"a": [object()]}}, TypeError, r"`card\['history'\]\['a'\]\[0\]` must be a JSON value"),
    ],
)
def test_a_card_that_is_wrong_is_refused_before_anything_is_written(card, error, message, model, tmp_path):
    with pytest.raises(error, match=message):
        save_ensemble(model, tmp_path / "pets.keras", card=card)
    assert os.listdir(tmp_path) == []


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*pets\.keras' in"):
        load_ensemble(tmp_path / "pets.keras")


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_file_that_is_no_zip_is_refused(content, model, tmp_path):
    path = tmp_path / "pets.keras"
    save_ensemble(model, path, card=CARD, verbose=0)
    # None: a copy that was cut off halfway.
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(ValueError, match="is not a .keras file: it is no zip archive, or a part of one is missing"):
        load_ensemble(path)


def test_a_plain_keras_file_is_left_to_keras(model, tmp_path):
    model.save(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match=r"holds no card.*Open it with `keras\.saving\.load_model\(path\)`"):
        load_ensemble(tmp_path / "plain.keras")


@pytest.mark.parametrize("text", ['{"format": 2}', "{}", "[1]", "1"])
def test_a_card_of_another_format_is_refused(text, model, tmp_path):
    path = tmp_path / "pets.keras"
    save_ensemble(model, path, card=CARD, verbose=0)
    rewrite(path, ensemble=text)
    with pytest.raises(ValueError, match="must have format 1. Received: "):
        load_ensemble(path)


@pytest.fixture
def model_with_code():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, keras.layers.Lambda(lambda x: x[:, 0, 0, :2], output_shape=(2,))(images))


@pytest.mark.parametrize("unsafe", [False, True], ids=["safe", "unsafe"])
def test_code_in_a_file_is_never_run(unsafe, model_with_code, tmp_path):
    path = tmp_path / "stranger.keras"
    model_with_code.save(path)
    rewrite(path, ensemble=json.dumps({**CARD, "format": 1}))
    # Set by anyone in the process, this makes Keras' own `load_model(path, safe_mode=True)` run the code.
    if unsafe:
        keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(ValueError, match="must hold no code, as Keras' safe mode demands. Received: Lambda"):
            load_ensemble(path)
    finally:
        keras.src.saving.serialization_lib.SafeModeScope(None).__enter__()


@pytest.mark.parametrize(
    ("card", "lacking"), [({"filter": "box"}, "'class_names'"), ({"class_names": "ab"}, "'class_names', 'filter'")]
)
def test_a_card_without_what_everyone_needs_is_refused(card, lacking, model, tmp_path):
    path = tmp_path / "pets.keras"
    save_ensemble(model, path, card=CARD, verbose=0)
    rewrite(path, ensemble=json.dumps({**card, "format": 1}))
    with pytest.raises(ValueError, match=f"pets.keras' lacks {lacking}. `save_ensemble` writes whole cards"):
        read_card(path)


def test_only_members_that_a_card_names_are_renamed():
    named = artifact.member_names({"members": [{"name": "A(b=1)"}, {"name": 3}, "c", {}]})
    assert named == {"A_b_1": "A(b=1)"}
    assert artifact.member_names({}) == artifact.member_names({"members": "ab"}) == {}


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError("[Errno 28] Can't write (No space left on device)")],
    ids=["number", "text"],
)
def test_a_full_disk_is_said_with_the_way_on(error, model, tmp_path, monkeypatch):
    path = tmp_path / "pets.keras"
    save_ensemble(model, path, card=CARD, verbose=0)
    before = path.read_bytes()

    def full(*_, **__):
        raise error

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match="no room to write .*pets.keras.*goes on from the last finished step"):
        save_ensemble(model, path, card=CARD, verbose=0)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["pets.keras"]


def test_another_failure_to_write_passes_unchanged(model, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(keras.Model, "save", refused)
    with pytest.raises(PermissionError, match="denied$"):
        save_ensemble(model, tmp_path / "pets.keras", card=CARD, verbose=0)


def test_the_snippet_says_which_pictures_it_is_for(model, tmp_path):
    lines = save_ensemble(model, tmp_path / "pets.keras", card=CARD, verbose=0)["snippet"].strip().split("\n")
    assert lines[0].endswith("# 8-bit pictures, no alpha")
    assert max(map(len, lines)) < 100


def test_a_model_with_code_is_refused_when_saving(model_with_code, tmp_path):
    with pytest.raises(ValueError, match="The model must hold no code.* Lambda.* Take a stock layer"):
        save_ensemble(model_with_code, tmp_path / "pets.keras", card=CARD, verbose=0)
    assert os.listdir(tmp_path) == []


def test_a_model_of_own_classes_is_saved_with_a_warning(tmp_path, capsys):
    class Halved(keras.layers.Layer):
        def call(self, x):
            return x / 2

    layers = [keras.Input((8, 8, 3)), Halved(), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    with pytest.warns(
        UserWarning, match=r"own.keras' does not open with Keras alone: .* of the classes Halved, which"
    ):
        save_ensemble(keras.Sequential(layers), tmp_path / "own.keras", card=CARD)
    assert "It opens where these classes are registered: Halved" in capsys.readouterr().out
    with pytest.raises(ValueError, match="cannot be loaded with Keras alone"):
        load_ensemble(tmp_path / "own.keras")


def test_a_file_that_needs_other_code_is_refused(model, tmp_path):
    path = tmp_path / "pets.keras"
    save_ensemble(model, path, card=CARD, verbose=0)
    with zipfile.ZipFile(path) as file:
        config = file.read("config.json").decode()
    rewrite(path, config=config.replace('"class_name": "Rescaling"', '"class_name": "Strange"'))
    with pytest.raises(ValueError, match="cannot be loaded with Keras alone, in safe mode.* Keras says: Could not"):
        load_ensemble(path)


def test_the_name_of_the_card_is_fixed():
    assert artifact.CARD == "ensemble.json"


@pytest.mark.parametrize("compiled", [False, True])
def test_weights_are_rounded_in_the_file_and_float32_when_loaded(tmp_path, rng, compiled):
    model = build_ensemble([tiny_member("a", width=1024), tiny_member("b", width=1024)], SoftVoting())
    images = rng.integers(0, 256, (20, 8, 8, 3), dtype="uint8")
    if compiled:
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(images, np.arange(20) % 2, verbose=0)
    sizes = {}
    for dtype in ("float32", "float16"):
        path = tmp_path / f"{dtype}.keras"
        card = save_ensemble(model, path, card=CARD, weights_dtype=dtype, verbose=0)
        assert card["weights_dtype"] == read_card(path)["weights_dtype"] == dtype
        sizes[dtype] = weights_bytes(path)
    assert sizes["float16"] < (0.9 if compiled else 0.6) * sizes["float32"]
    loaded = keras.saving.load_model(tmp_path / "float16.keras", safe_mode=True)
    for found, exact in zip(loaded.weights, model.weights, strict=True):
        exact = keras.ops.convert_to_numpy(exact)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), exact.astype("float16").astype("float32"))
    np.testing.assert_allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-3)
    if compiled:
        # Second moments would become 0 in float16.
        for found, exact in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), keras.ops.convert_to_numpy(exact))


def test_a_variable_that_float16_does_not_hold_stays_as_it_is(tmp_path):
    model = tiny_member("a")
    kernel, bias = model.get_layer("predictions").get_weights()
    kernel[0, 0], bias[0] = 1e5, 1 / 3
    model.get_layer("predictions").set_weights([kernel, bias])
    save_ensemble(model, tmp_path / "a.keras", card=CARD, weights_dtype="float16", verbose=0)
    found = load_ensemble(tmp_path / "a.keras")[0].get_layer("predictions").get_weights()
    np.testing.assert_array_equal(found[0], kernel)
    assert found[1][0] == np.float16(1 / 3)


def test_a_file_of_rounded_weights_saved_again_says_what_it_holds(model, tmp_path):
    save_ensemble(model, tmp_path / "a.keras", card=CARD, weights_dtype="float16", verbose=0)
    loaded, card = load_ensemble(tmp_path / "a.keras")
    assert save_ensemble(loaded, tmp_path / "b.keras", card=card, verbose=0)["weights_dtype"] == "float32"
    with pytest.raises(ValueError, match="`weights_dtype` must be one of 'float32', 'float16'. Received: 'bfloat16'"):
        save_ensemble(model, tmp_path / "a.keras", card=CARD, weights_dtype="bfloat16", verbose=0)


def weights_bytes(path):
    with zipfile.ZipFile(path) as file:
        return file.getinfo("model.weights.h5").file_size

"""Views: augmented images for frozen backbones depend on image, view and seed, and on nothing else."""

import keras
import numpy as np
import pytest
from PIL import Image

import ensemble_keras as ek
from ensemble_keras.data import sources
from ensemble_keras.data.augmentation import build_augmentation
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.features import extraction
from ensemble_keras.features.views import Views, check_views, stack_views

POLICY = ["flip", "brightness"]


def backbone(name="small"):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.RandomNormal(seed=0))(x)
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.AveragePooling2D(7)(x)), name=name)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype="uint8")


def extract(x, **arguments):
    given = {"image_size": 16, "batch_size": 8, "views": 3, "augmentation": POLICY, "verbose": 0}
    return ek.extract_features([backbone()], x, **given | arguments)["small"]


@pytest.fixture
def counted(monkeypatch):
    """The number of images that backbones are run on, by call."""
    calls, predict = [], extraction.predict_in_batches

    def counting(model, pixels, batch_size):
        calls.append(len(pixels))
        return predict(model, pixels, batch_size)

    monkeypatch.setattr(extraction, "predict_in_batches", counting)
    return calls


def test_views_are_the_backbones_vectors_of_augmented_images(pictures):
    features = extract(pictures, seed=5)
    assert features.shape == (20, 3, 16)
    model, layer = backbone(), build_augmentation(POLICY)
    np.testing.assert_allclose(features[:, 0], model.predict(pictures, verbose=0), rtol=1e-4, atol=1e-6)
    dataset = ImageDataset.from_arrays(pictures)
    for row, view in ((0, 1), (0, 2), (13, 1)):
        layer.reseed(int.from_bytes(dataset.read(row).digest, "big"), view, 5)
        changed = layer({"images": pictures[row : row + 1]}, training=True)["images"]
        rounded = np.rint(keras.ops.convert_to_numpy(changed))
        np.testing.assert_allclose(features[row, view], model.predict(rounded, verbose=0)[0], rtol=1e-4, atol=1e-6)
    assert (features[:, 1] != features[:, 0]).any()
    assert (features[:, 2] != features[:, 1]).any()


def test_a_view_depends_on_image_view_and_seed_alone(pictures):
    digests = [bytes([i]) * 16 for i in range(20)]
    views = Views(POLICY, 3, 0)
    expected = views.of(pictures, digests, 1, 8)
    assert expected.dtype == "uint8"
    np.testing.assert_array_equal(Views(POLICY, 9, 0).of(pictures[::-1], digests[::-1], 1, 5)[::-1], expected)
    np.testing.assert_array_equal(views.of(pictures[7:9], digests[7:9], 1, 8), expected[7:9])
    assert (views.of(pictures, digests, 2, 8) != expected).any()
    assert (Views(POLICY, 3, 1).of(pictures, digests, 1, 8) != expected).any()
    floats = views.of(pictures.astype("float32"), digests, 1, 8)
    assert floats.dtype == "float32"
    np.testing.assert_allclose(floats, expected, atol=0.5 + 1e-3)


def test_a_resumed_pass_equals_one_in_one_go(pictures, tmp_path, counted):
    expected = extract(pictures)
    store = tmp_path / "f.sqlite"
    # Other images before it, some of them without views, in another order and other batches.
    extract(pictures[5:9], store=store, views=1)
    extract(pictures[::-2], store=store, batch_size=3, views=2)
    done = sum(counted)
    np.testing.assert_allclose(extract(pictures, store=store), expected, rtol=1e-4, atol=1e-6)
    # 20 images, 3 views; of them 2 images as they are, and 10 in 2 views, were there.
    assert sum(counted) - done == 60 - 2 - 20
    np.testing.assert_allclose(extract(pictures, store=store), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(extract(pictures, store=store, views=1), expected[:, 0], rtol=1e-4, atol=1e-6)
    assert sum(counted) - done == 38


def test_another_seed_or_policy_is_not_taken_from_the_store(pictures, tmp_path, counted):
    store = tmp_path / "f.sqlite"
    extract(pictures, store=store)
    for change in ({"seed": 1}, {"augmentation": "contrast"}):
        before = sum(counted)
        extract(pictures, store=store, **change)
        # The images as they are were there.
        assert sum(counted) - before == 40
    assert sum("view" in space for space in ek.FeatureStore(store).stats()["spaces"]) == 6


def test_every_image_is_decoded_once_for_all_views(pictures, tmp_path, monkeypatch):
    folder, decoded, decode = tmp_path / "data" / "a", [], sources.decode
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:02}.png")

    def counting(*arguments):
        decoded.append(1)
        return decode(*arguments)

    monkeypatch.setattr(sources, "decode", counting)
    dataset = ek.ImageDataset.from_directory(tmp_path / "data")
    extract(dataset, store=tmp_path / "f.sqlite")
    assert len(decoded) == 20
    extract(dataset, store=tmp_path / "f.sqlite")
    assert len(decoded) == 20


def test_progress_counts_views(pictures, capsys):
    extract(pictures, verbose=1)
    assert "60/60" in capsys.readouterr().out


def test_what_makes_no_view_is_refused(pictures):
    with pytest.raises(ValueError, match="MixUp and CutMix mix an image with others"):
        extract(pictures, augmentation="strong")
    with pytest.raises(ValueError, match="Views need an augmentation that changes images. Received: 'none' for 3"):
        extract(pictures, augmentation="none")
    with pytest.raises(ValueError, match="`views` must be an int of at least 1. Received: 0"):
        extract(pictures, views=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("light", 0, True, False), "`views` must be an int of at least 1. Received: 0"),
        (("light", True, True, False), "`views` must be an int of at least 1. Received: True"),
        (("light", 4, False, True), "no backbone stays frozen"),
        (("light", 1, True, False), "augmentation='light', and all backbones stay frozen. Give `views`"),
        ((None, 4, True, True), "Views need an augmentation"),
        (("strong", 4, True, True), "MixUp and CutMix mix"),
        (("lihgt", 1, True, True), "Unknown augmentation 'lihgt'"),
    ],
)
def test_views_and_augmentation_without_effect_are_refused(arguments, message):
    augmentation, views, frozen, trained = arguments
    with pytest.raises(ValueError, match=message):
        check_views(augmentation, views, 0, frozen=frozen, trained=trained)


def test_stacked_views_share_label_and_fold(rng):
    features, y, folds = rng.normal(size=(4, 3, 2)), np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    rows, row_y, row_folds = stack_views(features, y, folds)
    for row in range(12):
        image, view = divmod(row, 3)
        np.testing.assert_array_equal(rows[row], features[image, view])
        assert (row_y[row], row_folds[row]) == (y[image], folds[image])
    np.testing.assert_array_equal(rows[::3], features[:, 0])
    with pytest.raises(ValueError, match=r"Received: shapes \(4, 2\), \(4,\) and \(4,\)"):
        stack_views(features[:, 0], y, folds)
    with pytest.raises(ValueError, match="a label and a fold per image"):
        stack_views(features, y[:3], folds)

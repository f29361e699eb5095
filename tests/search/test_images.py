import pickle

import numpy as np
import pytest

import ensemble_keras as ek
from ensemble_keras.search.images import search_data, search_images


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (40, 8, 8, 1), dtype="uint8")


def test_images_of_one_channel_are_taken_as_they_are(pixels):
    images, classes = search_images(pixels, np.array(["b", "a"] * 20), input_shape=(8, 8, 1))
    assert images.load([3, 1], image_size=(8, 8)).tolist() == pixels[[3, 1]].tolist()
    assert classes.tolist() == ["a", "b"]
    assert images.labels[:4].tolist() == [1, 0, 1, 0]


def test_a_dataset_is_decoded_at_the_size_of_the_networks(rng):
    x = rng.integers(0, 256, (6, 16, 16, 3), dtype="uint8")
    dataset = ek.ImageDataset.from_arrays(x, [0, 1, 0, 1, 0, 1], class_names=["no", "yes"])
    images, classes = search_images(dataset, None, input_shape=(8, 8, 3))
    assert images.pixels.tolist() == dataset.load(image_size=8).tolist()
    assert classes.tolist() == ["no", "yes"]


def test_parts_are_disjoint_stratified_and_keep_equal_pictures_together(pixels):
    pixels[1::2] = pixels[::2]
    y = np.repeat([0, 1], 20)
    data = search_data(pixels, y, None, input_shape=(8, 8, 1), shares=(0.4, 0.5), seed=0)
    digests = [set(part.digests()) for part in data.parts().values()]
    assert sum(len(part) for part in data.parts().values()) == 40
    assert sum(map(len, digests)) == len(set.union(*digests)) == 20
    assert np.bincount(data.train.labels).tolist() == [12, 12]
    assert np.bincount(data.selection.labels).tolist() == [4, 4]


def test_validation_data_are_labelled_by_the_classes_of_the_training_images(pixels):
    y = np.array(["b", "a"] * 20)
    data = search_data(pixels[:30], y[:30], [pixels[30:], y[30:]], input_shape=(8, 8, 1), shares=(0.2, 0.5), seed=0)
    assert len(data.train) == 30
    assert len(data.selection) + len(data.comparison) == 10
    with pytest.raises(ValueError, match="not in the training data: c"):
        search_data(pixels[:30], y[:30], (pixels[30:], ["c"] * 10), input_shape=(8, 8, 1), shares=(0.2, 0.5), seed=0)


def test_training_images_among_those_for_validation_are_told_of(pixels):
    y = np.arange(40) % 2
    with pytest.warns(UserWarning, match="5 of the 15 validation images are training images, too"):
        search_data(pixels[:30], y[:30], (pixels[25:], y[25:]), input_shape=(8, 8, 1), shares=(0.2, 0.5), seed=0)


def test_stored_images_go_to_other_processes_as_a_path(pixels, tmp_path):
    images, _ = search_images(pixels, np.arange(40) % 2, input_shape=(8, 8, 1))
    stored = images.stored(tmp_path)
    assert len(pickle.dumps(stored)) < pixels.nbytes / 2 < pixels.nbytes < len(pickle.dumps(images))
    again = pickle.loads(pickle.dumps(stored))
    assert again.fingerprint() == images.fingerprint()
    assert isinstance(again.pixels, np.memmap)


def test_the_fingerprint_depends_on_pixels_and_labels(pixels):
    images, _ = search_images(pixels, np.arange(40) % 2, input_shape=(8, 8, 1))
    other, _ = search_images(255 - pixels, np.arange(40) % 2, input_shape=(8, 8, 1))
    flipped, _ = search_images(pixels, (np.arange(40) + 1) % 2, input_shape=(8, 8, 1))
    assert len({part.fingerprint() for part in (images, other, flipped)}) == 3


def test_what_does_not_fit_is_refused(pixels):
    for shares, name in (
        ((0.01, 0.5), "validation_split"),
        ((2, 0.5), "validation_split"),
        ((0.2, 0), "comparison_"),
    ):
        with pytest.raises(ValueError, match=name):
            search_data(pixels, np.arange(40) % 2, None, input_shape=(8, 8, 1), shares=shares, seed=0)
    dataset = ek.ImageDataset.from_arrays(np.repeat(pixels, 3, axis=3), np.arange(40) % 2)
    with pytest.raises(ValueError, match=r"images of three channels. Received: a space of \(8, 8, 1\)"):
        search_images(dataset, None, input_shape=(8, 8, 1))
    with pytest.raises(ValueError, match=r"input shape \(9, 9, 1\). Received: shape \(40, 8, 8, 1\)"):
        search_images(pixels, np.arange(40) % 2, input_shape=(9, 9, 1))
    with pytest.raises(ValueError, match=r"images of shape \(n, height, width, 3\)"):
        search_images(pixels, np.arange(40) % 2, input_shape=(8, 8, 3))
    with pytest.raises(ValueError, match="look scaled to"):
        search_images(pixels / 255, np.arange(40) % 2, input_shape=(8, 8, 1))
    with pytest.raises(ValueError, match="Labels are needed"):
        search_images(pixels, None, input_shape=(8, 8, 1))

import types

import numpy as np
import pandas as pd
import pytest

import ensemble_keras as ek
from ensemble_keras import _validation as validation


@pytest.mark.parametrize(("given", "expected"), [(224, (224, 224)), ((96, 64), (96, 64)), ([np.int64(8), 9], (8, 9))])
def test_image_size_is_one_int_or_a_pair(given, expected):
    assert validation.check_image_size(given) == expected


@pytest.mark.parametrize("given", [2, 2.0, np.float32(2), np.int64(2)])
def test_a_number_is_one_of_python_or_numpy(given):
    assert validation.check_number("rate", given, "above 1", lambda rate: rate > 1) is given


@pytest.mark.parametrize("given", [1, True, "2", None, float("nan"), float("inf"), [2]])
def test_what_is_no_such_number_is_refused(given):
    with pytest.raises(ValueError, match="`rate` must be above 1. Received: "):
        validation.check_number("rate", given, "above 1", lambda rate: rate > 1)


@pytest.mark.parametrize("given", [1, True, 2.0, "2", None])
def test_what_is_no_such_int_is_refused(given):
    assert validation.check_at_least("size", np.int64(2), 2) == 2
    with pytest.raises(ValueError, match="`size` must be an int of at least 2. Received: "):
        validation.check_at_least("size", given, 2)


@pytest.mark.parametrize("given", [0, -1, (224,), (1, 2, 3), "224", None, 2.5, (10.5, 3)])
def test_another_image_size_is_refused(given):
    with pytest.raises(ValueError, match=r"`image_size` must be one int or \(height, width\)"):
        validation.check_image_size(given)


def test_uint8_images_pass_unchanged(images):
    assert validation.check_images(images) is images


def test_floats_in_0_255_are_not_cut_off(images):
    floats = images.astype("float64") * 0.999
    checked = validation.check_images(floats)
    assert checked.dtype == np.float32
    np.testing.assert_allclose(checked, floats, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x / 255.0, r"look scaled to \[0, 1\]. Multiply them by 255"),
        (lambda x: x[..., 0], r"shape \(12, 32, 32\)\. Repeat grey images"),
        (lambda x: x[0], r"Received: shape \(32, 32, 3\)\. One image is a batch of one: `x\[None\]`"),
        (lambda x: x[..., [0, 0, 0, 0]], r"shape \(12, 32, 32, 4\)\. Leave the fourth channel out: `x\[..., :3\]`"),
        (lambda x: np.moveaxis(x, -1, 1), r"Channels come last: `np.moveaxis\(x, 1, -1\)`"),
        (lambda x: x[:0], "no image"),
        (lambda x: x.astype("float32") - 128, "values from -128 to"),
        (lambda x: x / 127.5 - 1, r"values from -1 to .*Undo the scaling, such as by `\(x \+ 1\) \* 127.5`"),
        (lambda x: zip(x, range(12), strict=True), r"an object of class zip\. Take `ImageDataset.from_directory`"),
        (ek.ImageDataset.from_arrays, r"class ImageDataset\. Give its pixels: `x.load\(image_size=...\)`"),
        (lambda x: types.SimpleNamespace(load=None), r"class SimpleNamespace\. Take `ImageDataset.from_directory`"),
        (lambda x: [x[0][:8], *x[1:]], r"different shapes, such as \(8, 32, 3\) and \(32, 32, 3\)\. Resize them"),
        (lambda x: np.where(np.arange(12)[:, None, None, None] == 3, np.nan, x), "NaN pixels in 1 row: 3"),
        (lambda x: x.astype(str), "dtype <U.* Image files are read by `ImageDataset.from_files`"),
    ],
)
def test_other_images_are_refused_with_the_range_and_shape_taken(images, change, message):
    with pytest.raises(ValueError, match=message):
        validation.check_images(change(images))
    with pytest.raises(ValueError, match=r"shape \(n, height, width, 3\) with values in \[0, 255\]"):
        validation.check_images(change(images))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0, 2, 1], [0, 2, 1]),
        ([[0], [2], [1]], [0, 2, 1]),
        ([0.0, 2.0, 1.0], [0, 2, 1]),
        ([True, False, True], [1, 0, 1]),
        (np.array([0, 2, 1], dtype=object), [0, 2, 1]),
        (["a", "b", "a"], ["a", "b", "a"]),
    ],
)
def test_labels_become_one_column(given, expected):
    assert validation.check_labels(given, 3).tolist() == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0, 1], r"shape \(2,\) for 3 images"),
        (np.eye(3), r"For one-hot rows give `y.argmax\(axis=1\)`"),
        ([0, np.nan, 1], "NaN or None in 1 row: 1"),
        (np.array(["a", None, np.nan], dtype=object), "NaN or None in 2 rows: 1, 2"),
        (np.array([1, pd.NA, pd.NaT], dtype=object), "NaN or None in 2 rows: 1, 2"),
        (pd.Series([1, pd.NA, 2], dtype="Int64"), "NaN or None in 1 row: 1"),
        ([0, 0.5, 1], "fractions such as 0.5"),
        ([0, 1j, 1], "dtype complex128"),
    ],
)
def test_other_labels_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        validation.check_labels(given, 3)


def test_a_typo_in_a_choice_gets_a_suggestion():
    assert validation.check_choice("combiner", "stacking", ["stacking", "voting"]) == "stacking"
    with pytest.raises(ValueError, match="Did you mean 'stacking'"):
        validation.check_choice("combiner", "Staking", ["stacking", "voting"])
    assert validation.suggest("zzz", ["stacking"]) == ""

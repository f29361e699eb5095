import importlib

import keras
import numpy as np
import pytest

from ensemble_keras.backbones.applications import APPLICATIONS
from ensemble_keras.backbones.preprocessing import check_preprocessing, preprocess


@pytest.fixture
def pixels(rng):
    return rng.uniform(0, 255, (4, 5, 7, 3)).astype("float32")


@pytest.mark.parametrize("row", APPLICATIONS, ids=lambda row: row.name)
def test_every_row_preprocesses_as_keras_does(row, pixels):
    theirs = importlib.import_module(f"keras.applications.{row.module}").preprocess_input(pixels.copy())
    ours = keras.ops.convert_to_numpy(preprocess(pixels, row.preprocessing))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tf", lambda x: x / 127.5 - 1),
        ("torch", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("caffe", lambda x: x[..., ::-1] - [103.939, 116.779, 123.68]),
        ("unit", lambda x: x / 255),
        (None, lambda x: x),
        (lambda x: keras.ops.square(x), lambda x: x**2),
        (keras.layers.Rescaling(2.0), lambda x: 2 * x),
    ],
)
def test_a_kind_is_what_its_documentation_says(kind, expected, pixels):
    images = keras.Input((5, 7, 3))
    in_graph = keras.Model(images, preprocess(images, kind))
    np.testing.assert_allclose(in_graph.predict(pixels, verbose=0), expected(pixels), rtol=1e-5, atol=1e-4)
    assert in_graph.variables == []


def test_pixels_are_not_rounded_under_a_mixed_precision_policy(pixels):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        scaled = preprocess(pixels, "tf")
    finally:
        keras.config.set_dtype_policy(policy)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(scaled), pixels / 127.5 - 1, atol=1e-6)


def test_another_kind_is_refused_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r"'tf', 'torch', 'caffe', 'unit', None or a callable .* Did you mean 'caffe'"
    ):
        check_preprocessing("cafe")
    with pytest.raises(ValueError, match="Received: 255"):
        preprocess(np.zeros((1, 2, 2, 3)), 255)

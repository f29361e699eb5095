import keras
import numpy as np
import pytest
from keras import ops

from ensemble_keras.evaluation.gradients import gradients


def values(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in tensors]


def test_gradients_are_the_slopes_of_the_sum(rng):
    x, y = rng.normal(size=(2, 3, 4)).astype("float32")
    found = gradients(lambda t: ops.sin(t[0]) * t[1], [ops.convert_to_tensor(x), ops.convert_to_tensor(y)])
    np.testing.assert_allclose(values(found)[0], np.cos(x) * y, atol=1e-6)
    np.testing.assert_allclose(values(found)[1], np.sin(x), atol=1e-6)


def test_what_does_not_count_has_zeros():
    x = ops.ones((2, 3))
    one, other = values(gradients(lambda t: t[0] * 2.0, [x, x]))
    np.testing.assert_array_equal(one, np.full((2, 3), 2))
    np.testing.assert_array_equal(other, np.zeros((2, 3)))
    [nothing] = values(gradients(lambda t: ops.ones(()), [x]))
    np.testing.assert_array_equal(nothing, np.zeros((2, 3)))


def test_gradients_are_taken_inside_a_compiled_step(rng):
    class Slope(keras.Model):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def call(self, x):
            return gradients(lambda t: self.layer(t[0]), [x])[0]

    layer = keras.layers.Dense(1, use_bias=False)
    layer.build((None, 5))
    slopes = Slope(layer).predict_on_batch(rng.normal(size=(3, 5)).astype("float32"))
    np.testing.assert_allclose(slopes, np.tile(ops.convert_to_numpy(layer.kernel).T, (3, 1)), atol=1e-6)


def test_another_backend_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(ValueError, match="one of the backends tensorflow, jax, torch. Received: 'openvino'"):
        gradients(sum, [])

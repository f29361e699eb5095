import keras
import numpy as np
import pytest

from ensemble_keras.combiners.concatenation import ConcatenateDense


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.fixture
def features(rng):
    return [rng.normal(size=(10, width)).astype("float32") for width in (3, 5)]


def test_it_is_a_softmax_of_the_features_side_by_side(features):
    layer = ConcatenateDense(3)
    output = np.asarray(layer(features))
    kernel, bias = layer.get_weights()
    assert kernel.shape == (8, 3)
    np.testing.assert_allclose(output, softmax(np.hstack(features) @ kernel + bias), atol=1e-5)


def test_hidden_units_come_before_the_last_layer(features):
    layer = ConcatenateDense(3, units=(4,))
    output = np.asarray(layer(features))
    kernel_0, bias_0, kernel, bias = layer.get_weights()
    hidden = np.maximum(np.hstack(features) @ kernel_0 + bias_0, 0)
    np.testing.assert_allclose(output, softmax(hidden @ kernel + bias), atol=1e-5)


def test_one_sigmoid_unit_gives_two_columns_that_sum_to_1(features):
    layer = ConcatenateDense(1, activation="sigmoid")
    output = np.asarray(layer(features))
    kernel, bias = layer.get_weights()
    p = 1 / (1 + np.exp(-(np.hstack(features) @ kernel + bias)))
    np.testing.assert_allclose(output, np.hstack([1 - p, p]), atol=1e-5)


def test_half_precision_features_give_float32_probabilities(features):
    output = ConcatenateDense(3)([f.astype("float16") for f in features])
    assert keras.backend.standardize_dtype(output.dtype) == "float32"


def test_weights_are_drawn_from_a_seed(features):
    layers = [ConcatenateDense(3, units=(4,)) for _ in range(3)]
    for layer, seed in zip(layers, (0, 0, 1), strict=True):
        layer(features)
        layer.draw_weights(seed)
    first, same, other = (np.concatenate([w.ravel() for w in layer.get_weights()]) for layer in layers)
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


def test_the_config_makes_the_layer_again():
    layer = ConcatenateDense(1, units=(4, 2), activation="sigmoid", name="joint")
    again = ConcatenateDense.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.num_classes, again.units, again.activation, again.name) == (1, (4, 2), "sigmoid", "joint")


@pytest.mark.parametrize(
    "arguments", [{"num_classes": 1}, {"num_classes": 2, "activation": "sigmoid"}, {"num_classes": 0}]
)
def test_an_output_that_cannot_sum_to_1_is_refused(arguments):
    with pytest.raises(ValueError, match=r"so that rows sum to 1\. Received: activation="):
        ConcatenateDense(**arguments)


def test_an_empty_layer_is_refused():
    with pytest.raises(ValueError, match="`units` must be widths of at least 1"):
        ConcatenateDense(2, units=(8, 0))


def test_other_members_than_it_was_built_for_are_refused(features):
    layer = ConcatenateDense(2)
    layer(features)
    with pytest.raises(ValueError, match="built for 8 values per image. Received: 3 from 1 members"):
        layer.call([keras.ops.convert_to_tensor(features[0])])

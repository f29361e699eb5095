import numpy as np
import pytest

from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting


def test_it_sees_log_probabilities_of_at_least_1e_7(rng):
    predictions = [np.array([[1, 0], [0.25, 0.75]], "float32"), np.array([[0.5, 0.5], [0.1, 0.9]], "float32")]
    joined = np.asarray(StackedMetaLearner(2).join(predictions))
    np.testing.assert_allclose(joined, np.log(np.maximum(np.hstack(predictions), 1e-7)), rtol=1e-5, atol=1e-6)


def test_equal_weights_make_it_geometric_voting(rng):
    predictions = list(rng.dirichlet([1, 1, 1], size=(2, 20)).astype("float32"))
    layer = StackedMetaLearner(3)
    layer(predictions)
    layer.set_weights([np.vstack([np.eye(3)] * 2) / 2, np.zeros(3)])
    np.testing.assert_allclose(np.asarray(layer(predictions)), np.asarray(GeometricVoting()(predictions)), atol=1e-6)


def test_one_sigmoid_column_counts_as_two_classes(rng):
    p = rng.random((20, 1)).astype("float32")
    layer = StackedMetaLearner(2)
    one = layer([p, p])
    two = layer([np.hstack([1 - p, p])] * 2)
    np.testing.assert_allclose(np.asarray(one), np.asarray(two), atol=1e-6)


def test_the_config_makes_the_layer_again():
    layer = StackedMetaLearner(4, units=(8,))
    again = StackedMetaLearner.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.num_classes, again.units) == (4, (8,))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match='Expected `activation="softmax"` with 2 or more classes'):
        StackedMetaLearner(1)

import numpy as np
import pytest

from ensemble_keras.members.standardisation import Standardisation


@pytest.fixture
def features(rng):
    """More rows than are read at once, of means and deviations that float32 sums would lose."""
    return (rng.normal(size=(2500, 4)) * [1, 3, 0.2, 5] + [0, 1e4, -3, 7]).astype("float32")


def test_means_and_scales_are_those_of_all_rows(features):
    scaling = Standardisation(features)
    np.testing.assert_allclose(scaling.mean, features.mean(axis=0, dtype="float64"), rtol=1e-9)
    np.testing.assert_allclose(scaling.scale, features.std(axis=0, dtype="float64"), rtol=1e-6)


def test_rows_come_out_standardised_in_the_order_asked_for(features, rng):
    order = rng.permutation(2500)
    expected = (features[order] - features.mean(axis=0, dtype="float64")) / features.std(axis=0, dtype="float64")
    standardised = Standardisation(features).apply(features, order)
    assert standardised.dtype == np.float32
    np.testing.assert_allclose(standardised, expected, atol=1e-5)


def test_a_head_on_standardised_features_is_taken_back_to_features_as_they_are(features, rng):
    scaling, head = Standardisation(features), rng.normal(size=(5, 3))
    kernel, bias = scaling.undo(head)
    expected = scaling.apply(features, np.arange(2500)) @ head[:-1] + head[-1]
    np.testing.assert_allclose(features @ kernel + bias, expected, atol=1e-4)


def test_a_feature_that_hardly_varies_is_not_blown_up(rng):
    features = rng.normal(size=(500, 5)).astype("float32")
    features[:, 0] *= 1e-5
    features[:, 1:3] = [0, 1e6]
    features[7, 2] = np.nextafter(np.float32(1e6), np.float32(2e6))
    scaling = Standardisation(features)
    np.testing.assert_allclose(scaling.scale[0], 0.01 * np.median(features.std(axis=0, dtype="float64")), rtol=1e-6)
    standardised = scaling.apply(features, np.arange(500))
    np.testing.assert_array_equal(standardised[:, 1], 0)
    assert np.abs(standardised[:, 2]).max() < 0.2


def test_features_that_are_all_constant_become_zeros():
    features = np.full((10, 3), [0.0, 1.0, -2.0], "float32")
    np.testing.assert_array_equal(Standardisation(features).apply(features, np.arange(10)), 0)

import itertools

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from ensemble_keras.measures.calibration import expected_calibration_error, reliability


def predictions_of(rng, n=2000, num_classes=3, temperature=0.5):
    """Overconfident probabilities, and labels."""
    p = softmax(rng.normal(size=(n, num_classes)), axis=1)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=num_classes - 1)
    return softmax(np.log(p) / temperature, axis=1), y


def test_the_diagram_is_scikit_learns_curve_of_being_right(rng):
    p, y = predictions_of(rng)
    table = reliability(p, y, bins=10)
    accuracy, confidence = calibration_curve(p.argmax(axis=1) == y, p.max(axis=1), n_bins=10)
    np.testing.assert_allclose(table["accuracy"], accuracy)
    np.testing.assert_allclose(table["confidence"], confidence)
    assert table["count"].sum() == len(y)


@pytest.mark.parametrize("binning", ["equal_width", "adaptive"])
def test_the_error_is_the_mean_gap_of_the_bins(rng, binning):
    p, y = predictions_of(rng)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    shares = np.linspace(0, 1, 16)
    edges = shares if binning == "equal_width" else np.quantile(confidence, shares)
    edges[0] = -1
    gaps = []
    for low, high in itertools.pairwise(edges):
        rows = (confidence > low) & (confidence <= high)
        gaps.append(abs(right[rows].mean() - confidence[rows].mean()) * rows.mean() if rows.any() else 0)
    assert expected_calibration_error(p, y, binning=binning) == pytest.approx(sum(gaps))
    assert sum(gaps) > 0.1


def test_adaptive_bins_hold_as_many_rows(rng):
    p, y = predictions_of(rng)
    assert set(reliability(p, y, bins=8, binning="adaptive")["count"]) == {250}


def test_predictions_that_keep_what_they_say_have_no_error(rng):
    p = np.array([[0.8, 0.2]] * 10 + [[0.4, 0.6]] * 10)
    y = [0] * 8 + [1] * 2 + [1] * 6 + [0] * 4
    assert expected_calibration_error(p, y) == pytest.approx(0)
    assert expected_calibration_error(p, y, binning="adaptive") == pytest.approx(0)
    many, labels = predictions_of(rng, 20000, temperature=1)
    assert expected_calibration_error(many, labels) < 0.015


def test_a_confidence_at_the_end_of_a_bin_is_in_it():
    table = reliability([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]], [0, 0, 0], bins=4)
    assert table[["low", "high"]].to_numpy().tolist() == [[0.25, 0.5], [0.5, 0.75], [0.75, 1.0]]


def test_equal_confidences_are_one_bin():
    table = reliability([[0.9, 0.1]] * 4, [0, 0, 0, 1], binning="adaptive")
    assert table.to_numpy().tolist() == [pytest.approx([0.9, 0.9, 4, 0.9, 0.75])]
    assert expected_calibration_error([[1.0, 0.0]], [1]) == 1


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`bins` must be an int of at least 1. Received: 0"):
        reliability([[0.9, 0.1]], [0], bins=0)
    with pytest.raises(ValueError, match="`binning` must be one of 'equal_width', 'adaptive'"):
        expected_calibration_error([[0.9, 0.1]], [0], binning="quantile")
    with pytest.raises(ValueError, match="class indices from 0 to 1"):
        expected_calibration_error([[0.9, 0.1]], [2])

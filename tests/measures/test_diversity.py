import numpy as np
import pytest
from synthetic import member_predictions

from ensemble_keras.measures.diversity import diversity, marginal_gains
from ensemble_keras.measures.significance import compare


def counts(right_a, right_b):
    """The table of Kuncheva and Whitaker: both right, only the first, only the second, neither."""
    return [np.sum((right_a == a) & (right_b == b)) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]


def by_hand(measure, n11, n10, n01, n00):
    n = n11 + n10 + n01 + n00
    return {
        "disagreement": (n10 + n01) / n,
        "double_fault": n00 / n,
        "q_statistic": (n11 * n00 - n01 * n10) / (n11 * n00 + n01 * n10),
    }[measure]


@pytest.mark.parametrize("measure", ["disagreement", "double_fault", "q_statistic"])
def test_the_measures_are_those_of_the_counts(rng, measure):
    predictions, y = member_predictions([2.0, 1.0, 0.5])
    right = (predictions.argmax(axis=2) == y[:, None]).astype(int)
    table = diversity(predictions, y, measure=measure, names=list("abc"))
    assert list(table.index) == list(table.columns) == list("abc")
    for i, a in enumerate("abc"):
        for j, b in enumerate("abc"):
            assert table.loc[a, b] == pytest.approx(by_hand(measure, *counts(right[:, i], right[:, j])))


def test_the_correlation_is_that_of_the_errors(rng):
    predictions, y = member_predictions([2.0, 1.0, 0.5])
    right = predictions.argmax(axis=2) == y[:, None]
    np.testing.assert_allclose(diversity(predictions, y, measure="error_correlation"), np.corrcoef(right.T))


def test_what_has_no_value_is_nan(rng):
    predictions, y = member_predictions([2.0, 0.0])
    predictions[:, 0] = np.eye(3)[y]
    assert diversity(predictions, y, measure="error_correlation").isna().to_numpy().tolist() == [
        [True, True],
        [True, False],
    ]
    assert np.isnan(diversity(predictions, y, measure="q_statistic").loc[0, 1])
    assert diversity(predictions, y, measure="double_fault").loc[0, 1] == 0


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
@pytest.mark.parametrize("weights", [None, [3, 1, 0]])
def test_a_gain_is_the_vote_with_the_member_against_the_vote_without(rng, metric, weights):
    predictions, y = member_predictions([1.5, 1.0, 0.0])
    table = marginal_gains(predictions, y, weights=weights, metric=metric, names=list("abc"))
    share = np.ones(3) if weights is None else np.array(weights, float)
    for i, name in enumerate("abc"):
        rest = [j for j in range(3) if j != i]
        vote = np.average(predictions, axis=1, weights=share)
        without = np.average(predictions[:, rest], axis=1, weights=share[rest])
        expected = compare(vote, without, y, metric=metric)
        values = [expected.difference, expected.low, expected.high, expected.p_value]
        np.testing.assert_allclose(table.loc[name], values, atol=0.01)
        assert table.loc[name, "gain"] == pytest.approx(expected.difference, abs=1e-6)
    assert table.loc["a", "gain"] > 0
    assert weights is None or table.loc["c", "gain"] == pytest.approx(0, abs=1e-6)


def test_wrong_arguments_are_refused(rng):
    predictions, y = member_predictions([1.0, 1.0])
    with pytest.raises(ValueError, match="`measure` must be one of 'disagreement', .* Did you mean 'q_statistic'"):
        diversity(predictions, y, measure="q_statistics")
    with pytest.raises(ValueError, match="`names` must be one per member. Received: 1 names for 2 members"):
        diversity(predictions, y, names=["a"])
    for weights in ([1, 0], [1, 1, 1], [-1, 1]):
        with pytest.raises(ValueError, match="two of them above 0, so that one can be left out"):
            marginal_gains(predictions, y, weights=weights)
    with pytest.raises(ValueError, match="must hold images of all 3 classes"):
        diversity(predictions[:2], y[:2])
    predictions[4, 1] = np.nan
    with pytest.raises(ValueError, match="NaN from member 1 in 1 row: 4"):
        diversity(predictions, y)


@pytest.mark.parametrize("measure", [diversity, marginal_gains])
def test_a_member_of_another_class_order_is_refused(measure):
    predictions, y = member_predictions([2.0, 2.0])
    predictions[:, 1] = predictions[:, 1][:, [1, 2, 0]]
    with pytest.raises(ValueError, match="from member 1 columns that look shuffled: where `y` is 0, as in row 0"):
        measure(predictions, y)

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss
from synthetic import member_predictions

from ensemble_keras.combiners.scores import score_of, true_class_probabilities
from ensemble_keras.measures import predictions as checks

SCORES = {
    "log_loss": lambda y, p, times: -log_loss(y, p, sample_weight=times),
    "accuracy": lambda y, p, times: np.average(p.argmax(axis=1) == y, weights=times),
    "balanced_accuracy": lambda y, p, times: balanced_accuracy_score(y, p.argmax(axis=1), sample_weight=times),
}


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "balanced_accuracy"])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_score_is_that_of_the_mean_with_each_member_added(metric, num_classes, rng, monkeypatch):
    monkeypatch.setattr(checks, "_BLOCK", 100)
    predictions, y = member_predictions([1.0, 0.5, 0.8], n=107, num_classes=num_classes)
    times = rng.integers(0, 3, 107)
    weights = rng.random(107)
    score = score_of(metric, predictions, y, weights)
    total = score.start + score.parts[0] + score.parts[2]
    found = score.of_each(total, np.array([1, 2]), 3, times)
    votes = [predictions[:, [0, 2, i]].mean(axis=1, dtype="float64") for i in (1, 2)]
    votes = [vote / vote.sum(axis=1, keepdims=True) for vote in votes]
    np.testing.assert_allclose(found, [SCORES[metric](y, vote, times * weights) for vote in votes], rtol=1e-5)


def test_votes_that_tie_are_counted_as_argmax_counts_them():
    # Members that say nothing but a class: two of two disagree, and the first class wins.
    y = np.array([0, 0, 1, 1, 2, 2])
    said = np.array([[0, 1], [0, 0], [1, 0], [1, 2], [0, 2], [2, 2]])
    predictions = np.eye(3, dtype="float32")[said]
    score = score_of("accuracy", predictions, y)
    one = score.start + score.parts[0]
    found = score.of_each(one, [0, 1], 2, np.ones(6, int))
    votes = [predictions[:, [0, j]].mean(axis=1).argmax(axis=1) for j in (0, 1)]
    np.testing.assert_allclose(found, [np.mean(vote == y) for vote in votes])


def test_the_true_class_has_at_least_one_in_ten_million():
    predictions = np.eye(2, dtype="float32")[[[0, 1], [1, 1]]]
    np.testing.assert_array_equal(
        true_class_probabilities(predictions, np.array([0, 1])), np.float32([[1, 1], [1e-7, 1]])
    )


def test_an_unknown_metric_is_refused():
    predictions, y = member_predictions([1.0])
    with pytest.raises(ValueError, match="`metric` must be one of .* Did you mean 'log_loss'"):
        score_of("logloss", predictions, y)

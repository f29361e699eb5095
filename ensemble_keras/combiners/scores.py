"""Scores: what each of many soft votes is worth, larger being better, computed from sums of the picked members."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer, get_scorer_names

from ensemble_keras._validation import check_choice
from ensemble_keras.combiners import base
from ensemble_keras.measures.predictions import row_blocks


def score_of(metric, predictions, y, sample_weight=None):
    """Returns the score of soft votes by a metric.

    A score has `parts`, one array per member, and `start`. The vote of some members is `start` plus the sum of their
    parts; `of_each(total, members, count, times)` says what each vote of `count` picks is worth that has one of
    `members` added to `total`, on rows that were drawn so many `times`.

    Args:
        metric: `"log_loss"`, the name of a scikit-learn scorer, a scorer, or a function of `y` and probabilities.
        predictions: Checked array `(n, members, num_classes)`.
        y: Int array `(n,)`.
        sample_weight: Array `(n,)` or `None`.

    Raises:
        ValueError: If there is no scorer of that name.
    """
    if isinstance(metric, str):
        check_choice("metric", metric, sorted({"log_loss", *get_scorer_names()}))
    if metric in ("log_loss", "neg_log_loss"):
        return LogLoss(predictions, y, sample_weight)
    if metric in ("accuracy", "balanced_accuracy"):
        return Accuracy(predictions, y, sample_weight, balanced=metric == "balanced_accuracy")
    return AnyScore(predictions, y, sample_weight, metric)


class LogLoss:
    """The mean logarithm of the true class's probability, which is all that it needs of the predictions."""

    def __init__(self, predictions, y, sample_weight=None):
        self._weights = 1.0 if sample_weight is None else sample_weight
        self.parts = true_class_probabilities(predictions, y)
        self.start = np.zeros(len(y), "float32")

    def of_each(self, total, members, count, times):
        """Returns the scores, float64 `(len(members),)`."""
        shares = _shares(times, self._weights).astype("float32")
        scores, vote = np.empty(len(members)), np.empty_like(total)
        for i, member in enumerate(members):
            np.add(total, self.parts[member], out=vote)
            np.log(vote, out=vote)
            # `sum` adds pairwise: a product of vectors would lose digits, and start threads of its own.
            scores[i] = np.multiply(vote, shares, out=vote).sum()
        return scores - np.log(count)


class Accuracy:
    """The share of rows (or the mean over classes of their shares) whose most probable class is the true one.

    A part holds how much more probability a member gives to the true class than to each other one; a row is right
    where none of the sums is negative. It is one more copy of the predictions, turned so that rows lie side by side.
    """

    def __init__(self, predictions, y, sample_weight=None, *, balanced=False):
        self._weights = 1.0 if sample_weight is None else sample_weight
        n, members, classes = predictions.shape
        self._y, self._balanced = y, balanced
        others = (np.arange(classes - 1) + (np.arange(classes - 1) >= y[:, None])).astype("intp")
        self.parts = np.empty((members, classes - 1, n), "float32")
        for rows in row_blocks(predictions):
            block = predictions[rows]
            own = block[np.arange(len(block)), :, y[rows]]
            rest = np.take_along_axis(block, others[rows][:, None], axis=2)
            self.parts[:, :, rows] = (own[:, :, None] - rest).transpose(1, 2, 0)
        # Of equally probable classes the first one counts, as with `argmax`.
        self.start = np.where(others < y[:, None], np.float32(-1e-6), np.float32(0)).T.copy()

    def of_each(self, total, members, count, times):
        """Returns the scores, float64 `(len(members),)`."""
        shares = _shares(times, self._weights)
        if self._balanced:
            of_class = np.bincount(self._y, shares)
            # A class whose rows have no weight counts for nothing.
            of_class[of_class == 0] = np.inf
            shares = shares / (of_class * np.isfinite(of_class).sum())[self._y]
        scores, vote = np.empty(len(members)), np.empty_like(total)
        for i, member in enumerate(members):
            np.add(total, self.parts[member], out=vote)
            scores[i] = shares[vote.min(axis=0) >= 0].sum()
        return scores


class AnyScore:
    """Any scorer of scikit-learn, or function of labels and probabilities, called once for each vote."""

    def __init__(self, predictions, y, sample_weight, metric):
        self._weights = sample_weight
        self._y, self.parts = y, predictions.swapaxes(0, 1)
        self._scorer = get_scorer(metric) if isinstance(metric, str) else metric
        self._of_estimator = hasattr(self._scorer, "set_score_request")
        self.start = np.zeros((len(y), predictions.shape[2]), "float32")

    def of_each(self, total, members, count, times):
        """Returns the scores, float64 `(len(members),)`."""
        rows = np.repeat(np.arange(len(times)), times)
        return np.array([self._score(total[rows] + self.parts[member][rows], rows) for member in members])

    def _score(self, vote, rows):
        vote = vote / vote.sum(axis=1, keepdims=True)
        weights = {} if self._weights is None else {"sample_weight": self._weights[rows]}
        if self._of_estimator:
            return float(self._scorer(_Given(vote), vote, self._y[rows], **weights))
        return float(self._scorer(self._y[rows], vote, **weights))


class _Given(ClassifierMixin, BaseEstimator):
    """A fitted classifier, as scorers take it, whose probabilities are known."""

    def __init__(self, probabilities):
        self.probabilities = probabilities
        self.classes_ = np.arange(probabilities.shape[1])

    def predict_proba(self, x):
        return self.probabilities

    def predict(self, x):
        return self.probabilities.argmax(axis=1)


def true_class_probabilities(predictions, y):
    """Returns what each member gives to the true class, float32 `(members, n)`, at least 1e-7."""
    p = np.empty(predictions.shape[1::-1], "float32")
    for rows in row_blocks(predictions):
        p[:, rows] = predictions[rows][np.arange(rows.stop - rows.start), :, y[rows]].T
    return np.maximum(p, np.float32(base.SMALLEST_PROBABILITY), out=p)


def _shares(times, weights):
    """Returns the share of each row, float64 `(n,)` that sums to 1, from how often it was drawn and its weight."""
    shares = times * weights
    return shares / shares.sum()

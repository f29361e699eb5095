"""Weighted metrics: each metric for many weightings of the rows at once, which is what a bootstrap asks for.

A builder takes class indices `y` of shape `(n,)` and probabilities `(n, num_classes)`, and returns a function from
weights `(n, resamples)` to the metric's values `(resamples,)`. A row of weight 2 counts as two equal rows. Where a
resample does not define a metric (no image of the class, say) the value is NaN.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from scipy import sparse

from ensemble_keras.measures.metrics import brier_scores, confidence_bins, log_losses


def calibration_error(y, p):
    """The expected calibration error of 15 bins of equal width; the bins stay the same in every resample."""
    confidence, right, bins = confidence_bins(y, p)
    sums = _indicator(bins, int(bins.max()) + 1, right - confidence)
    return lambda weights: np.abs(sums @ weights).sum(axis=0) / weights.sum(axis=0)


def roc_auc(y, p):
    """That of class 1 for two classes, else the mean over the classes that the resample holds."""
    rankings = _rankings(y, p)
    return lambda weights: _mean_of_known([ranking.area(weights) for ranking in rankings])


def average_precision(y, p):
    """That of class 1 for two classes, else the mean over the classes that the resample holds."""
    rankings = _rankings(y, p)
    return lambda weights: _mean_of_known([ranking.average_precision(weights) for ranking in rankings])


def matthews_corrcoef(y, p):
    """Matthews' correlation coefficient (Gorodkin, 2004, for more classes than two); 0 where one class is said."""
    counts = _counts(y, p)

    def values(weights):
        right, true, said = counts(weights)
        total = true.sum(axis=0)
        covariance = right.sum(axis=0) * total - (true * said).sum(axis=0)
        spread = np.sqrt((total**2 - (said**2).sum(axis=0)) * (total**2 - (true**2).sum(axis=0)))
        return _ratio(covariance, spread, 0.0)

    return values


def balanced_accuracy(y, p):
    """The mean recall of the classes that the resample holds."""
    counts = _counts(y, p)

    def values(weights):
        right, true, _ = counts(weights)
        return _mean_of_known(_ratio(right, true))

    return values


def averaged(y, p, *, part, average):
    """Precision, recall or F1, as a mean over the classes that are there or are said, or by their images."""
    counts = _counts(y, p)

    def values(weights):
        right, true, said = counts(weights)
        of_class = _ratio(*_PARTS[part](right, true, said), 0.0)
        if average == "weighted":
            return (of_class * true).sum(axis=0) / true.sum(axis=0)
        return _mean_of_known(np.where(true + said > 0, of_class, np.nan))

    return values


def of_class(y, p, *, part, k):
    """Precision, recall or F1 of class `k`; NaN where it is not defined."""
    counts = _counts(y, p)
    return lambda weights: _ratio(*(values[k] for values in _PARTS[part](*counts(weights))))


def share_of_class(y, p, *, part, k):
    """Returns which images are right, and which the precision or recall of class `k` is a share of."""
    said = p.argmax(axis=1)
    return said == y, (y if part == "recall" else said) == k


_PARTS = {
    "precision": lambda right, true, said: (right, said),
    "recall": lambda right, true, said: (right, true),
    "f1": lambda right, true, said: (2 * right, true + said),
}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a table of probabilities. Each function takes `y` and the probabilities first.

    Attributes:
        text: How a sentence calls it.
        build: Builder of a function of weights, or `None` where it is a mean of `rows`.
        rows: Function to one score per row, of which the metric is the mean, or `None`.
        share: Function to two bool arrays `(n,)` where the metric is a share of images, or `None`: which images are
            right, and which it is a share of.
        percent: Whether a sentence gives it in points of percent.
        lower_is_better: Whether less is better.
        two_classes: Whether it is of two classes only, of which class 1 is the positive one.
        all_classes: Whether every class must have images.
    """

    text: str
    build: Callable | None = None
    rows: Callable | None = None
    share: Callable | None = None
    percent: bool = False
    lower_is_better: bool = False
    two_classes: bool = False
    all_classes: bool = False

    def weighted(self, y, p):
        """Returns the function from weights `(n, resamples)` to the metric's values `(resamples,)`."""
        if self.rows is None:
            return self.build(y, p)
        score = self.rows(y, p)
        return lambda weights: score @ weights / weights.sum(axis=0)

    def value(self, y, p):
        """Returns the metric of the rows as they are."""
        return float(self.weighted(y, p)(np.ones((len(y), 1)))[0])


def _right(y, p):
    return (p.argmax(axis=1) == y).astype("float64")


def _of_class(text, part, k):
    build, share = (functools.partial(function, part=part, k=k) for function in (of_class, share_of_class))
    return Metric(text, build, share=share, percent=True, two_classes=True)


_AVERAGED = {
    f"{part}_{average}": Metric(
        f"{'F1' if part == 'f1' else part}, {average}", functools.partial(averaged, part=part, average=average)
    )
    for average in ("macro", "weighted")
    for part in ("precision", "recall", "f1")
}

METRICS = {
    "accuracy": Metric("accuracy", rows=_right, share=lambda y, p: (p.argmax(axis=1) == y, y >= 0), percent=True),
    "balanced_accuracy": Metric("balanced accuracy", balanced_accuracy, percent=True),
    "roc_auc": Metric("ROC AUC", roc_auc, all_classes=True),
    "average_precision": Metric("average precision", average_precision, all_classes=True),
    "log_loss": Metric("log loss", rows=log_losses, lower_is_better=True),
    "brier_score": Metric("Brier score", rows=brier_scores, lower_is_better=True),
    "calibration_error": Metric("calibration error", calibration_error, lower_is_better=True),
    "mcc": Metric("Matthews' correlation coefficient", matthews_corrcoef),
    **_AVERAGED,
    "f1": Metric("F1", functools.partial(of_class, part="f1", k=1), two_classes=True),
    "sensitivity": _of_class("sensitivity", "recall", 1),
    "specificity": _of_class("specificity", "recall", 0),
    "positive_predictive_value": _of_class("positive predictive value", "precision", 1),
    "negative_predictive_value": _of_class("negative predictive value", "precision", 0),
}


def _rankings(y, p):
    return [_Ranking(y == k, p[:, k]) for k in ([1] if p.shape[1] == 2 else range(p.shape[1]))]


def _indicator(rows, height, values=None):
    """Returns a sparse matrix `(height, n)` that sums weights, or weighted values, by what each of them is in."""
    values = np.ones(len(rows)) if values is None else values
    return sparse.csr_matrix((values, (rows, np.arange(len(rows)))), (height, len(rows)))


def _counts(y, p):
    """Returns the function from weights to each class' images that are right, true and said, `(num_classes, …)`."""
    num_classes, predicted = p.shape[1], p.argmax(axis=1)
    right, true, said = (
        _indicator(rows, num_classes, values)
        for rows, values in ((y, (predicted == y).astype("float64")), (y, None), (predicted, None))
    )
    return lambda weights: (right @ weights, true @ weights, said @ weights)


def _ratio(part, whole, otherwise=np.nan):
    return np.divide(part, whole, out=np.full(np.shape(whole), otherwise), where=whole > 0)


def _mean_of_known(values):
    values = np.stack(values)
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))


class _Ranking:
    """The positives and negatives of a class by their score: for each positive the weight of the negatives below it.

    Between two neighbouring cuts lie the same negatives in every resample, so one sparse product sums their weights
    for all resamples at once.
    """

    def __init__(self, positive, score):
        positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
        self._positives = positives[np.argsort(-score[positives], kind="stable")]
        negatives = negatives[np.argsort(score[negatives], kind="stable")]
        levels = score[self._positives]
        below = np.searchsorted(score[negatives], levels, side="left")
        not_above = np.searchsorted(score[negatives], levels, side="right")
        cuts = np.unique(np.concatenate([[0], below, not_above]))
        used = negatives[: cuts[-1]]
        self._segments = sparse.csr_matrix((np.ones(len(used)), used, cuts), shape=(len(cuts) - 1, len(score)))
        self._below, self._not_above = np.searchsorted(cuts, below), np.searchsorted(cuts, not_above)
        # Equal scores are one step of the curve of precision.
        self._ends = np.flatnonzero(np.append(np.diff(levels) != 0, True)) if len(levels) else levels.astype(int)

    def area(self, weights):
        """Returns the areas under the ROC curve: negatives level with a positive count half."""
        of_positives, of_negatives, cumulated = self._sums(weights)
        beaten = (cumulated[self._below] + cumulated[self._not_above]) / 2
        won = np.einsum("pb,pb->b", weights[self._positives], beaten)
        return _ratio(won, of_positives * of_negatives)

    def average_precision(self, weights):
        """Returns the means over the positives of the precision down to their score."""
        of_positives, of_negatives, cumulated = self._sums(weights)
        found = np.cumsum(weights[self._positives], axis=0)[self._ends]
        alarmed = of_negatives - cumulated[self._below[self._ends]]
        gained = np.diff(found, axis=0, prepend=0)
        return _ratio((gained * _ratio(found, found + alarmed, 0.0)).sum(axis=0), of_positives)

    def _sums(self, weights):
        of_positives = weights[self._positives].sum(axis=0)
        cumulated = np.zeros((self._segments.shape[0] + 1, weights.shape[1]))
        np.cumsum(self._segments @ weights, axis=0, out=cumulated[1:])
        return of_positives, weights.sum(axis=0) - of_positives, cumulated

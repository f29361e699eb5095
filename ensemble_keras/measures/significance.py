"""Significance: is one table of predictions better than another beyond chance, and by how much."""

import dataclasses

import numpy as np
from scipy import stats

from ensemble_keras._validation import check_choice
from ensemble_keras.measures import bootstrap, metrics

METRICS = ("accuracy", "roc_auc", "log_loss")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How much better the first of two tables of predictions is; `str()` reads as a sentence.

    Attributes:
        difference: Gain of the first over the second; positive means that the first is better, for log loss too.
        low: Lower end of the interval of the difference.
        high: Upper end of the interval.
        p_value: Probability of a difference at least as large, either way, between equally good classifiers.
        metric: `"accuracy"`, `"roc_auc"` or `"log_loss"`.
        confidence: Coverage of the interval, such as 0.95.
    """

    difference: float
    low: float
    high: float
    p_value: float
    metric: str
    confidence: float

    def __str__(self):
        scale, unit = {
            "accuracy": (100, "points of accuracy"),
            "roc_auc": (1, "of ROC AUC"),
            "log_loss": (1, "of log loss (positive: the first one's is lower)"),
        }[self.metric]
        # Two digits of the interval's width are what the data support.
        width = scale * (self.high - self.low)
        digits = int(np.clip(1 - np.floor(np.log10(width)), 1, 4)) if width > 0 else 1
        # Adding 0 turns -0.0 into 0.0.
        values = [round(scale * v, digits) + 0.0 for v in (self.difference, self.low, self.high)]
        difference, low, high = (f"{v:+.{digits}f}" for v in values)
        return f"{difference} {unit}, {self.confidence * 100:g} % interval {low} to {high}, {p_text(self.p_value)}"


def compare(
    probabilities_a,
    probabilities_b,
    y,
    *,
    metric="accuracy",
    groups=None,
    confidence=0.95,
    resamples=2000,
    seed=0,
):
    """Compares two classifiers on the same images.

    The interval is the percentile interval of a paired bootstrap (Efron and Tibshirani, 1993): images, or whole
    groups of them, are drawn with replacement, the same ones for both. The p-value of accuracy is McNemar's exact
    one, from the images that just one of the two gets right. For other metrics, and for accuracy with groups
    (McNemar's test takes images as independent), it is twice the smaller share of resamples on one side of zero.

    The predictions must be of images that neither classifier trained on: out-of-fold, or a test set.

    Args:
        probabilities_a: Array of shape `(n, num_classes)`, rows summing to 1; or p of class 1, shape `(n,)`.
        probabilities_b: The other classifier's predictions of the same images, in the same order.
        y: Class indices of shape `(n,)`.
        metric: `"accuracy"`, `"roc_auc"` (of class 1 for two classes, else the macro mean of one against the
            rest; a class that a resample lacks is left out of that resample's mean, for both alike) or
            `"log_loss"` (the sign is turned, so that positive means that `a` is better). Defaults to `"accuracy"`.
        groups: Group of each image (its patient, say), shape `(n,)`: groups are drawn whole. Defaults to `None`.
        confidence: Coverage of the interval, in (0, 1). Defaults to 0.95.
        resamples: Number of bootstrap resamples. Defaults to 2000.
        seed: Int. The same seed gives the same interval. Defaults to 0.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: If a table, a label or an option is wrong, or `metric="roc_auc"` and a class has no image.

    Example:
    >>> print(compare([0.9] * 9 + [0.2], [0.9] * 6 + [0.2] * 4, [1] * 10))
    +30.0 points of accuracy, 95 % interval +0.0 to +60.0, p = 0.25
    """
    tables, y, units = _checked((probabilities_a, probabilities_b), y, metric, groups, confidence, resamples)
    rng = np.random.default_rng(seed)
    difference, resampled = _bootstrap(tables, y, units, metric, resamples, rng)
    low, high = _percentiles(resampled, confidence)
    if metric == "accuracy" and groups is None:
        right_a, right_b = ((p.argmax(axis=1) == y) for p in tables)
        p_value = _mcnemar(int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum()))
    else:
        p_value = _sign_p_value(resampled)
    return Comparison(difference, low, high, p_value, metric, confidence)


def metric_interval(probabilities, y, *, metric="accuracy", groups=None, confidence=0.95, resamples=2000, seed=0):
    """Returns a metric's value and its interval, `(value, low, high)`.

    The interval is Wilson's for accuracy without groups, which stays honest at 0 and 100 %; else the percentile
    interval of a bootstrap over images or groups. Arguments and errors are those of `compare`; log loss keeps its
    sign here: lower is better.

    Example:
    >>> [round(value, 3) for value in metric_interval([0.9] * 10, [1] * 10)]
    [1.0, 0.722, 1.0]
    """
    (p,), y, units = _checked((probabilities,), y, metric, groups, confidence, resamples)
    if metric == "accuracy" and groups is None:
        right = int((p.argmax(axis=1) == y).sum())
        interval = stats.binomtest(right, len(y)).proportion_ci(confidence, method="wilson")
        return right / len(y), float(interval.low), float(interval.high)
    value, resampled = _bootstrap((p,), y, units, metric, resamples, np.random.default_rng(seed))
    low, high = _percentiles(resampled, confidence)
    # `_bootstrap` counts what is better as larger.
    return (-value, -high, -low) if metric == "log_loss" else (value, low, high)


def drop_p_value(right, n, accuracy_before, n_before=None):
    """Returns the chance of so low an accuracy if it were still what it was before; one-sided.

    Args:
        right: Number of images predicted right now.
        n: Number of images now.
        accuracy_before: Accuracy on earlier images (out-of-fold, say), in [0, 1].
        n_before: Number of those images: Fisher's exact test. Without it `accuracy_before` counts as exact, and
            the test is binomial.

    Returns:
        The p-value. Images count as independent.

    Example:
    >>> drop_p_value(272, 313, 0.968, 3207) < 1e-9
    True
    """
    if n_before is None:
        return float(stats.binomtest(right, n, accuracy_before, alternative="less").pvalue)
    right_before = round(accuracy_before * n_before)
    table = [[right, n - right], [right_before, n_before - right_before]]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def p_text(p_value):
    """Returns `"p = 0.004"`, or `"p < 0.001"`."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.{1 if p_value < 0.01 else 2}g}"


def _checked(tables, y, metric, groups, confidence, resamples):
    check_choice("metric", metric, METRICS)
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1. Received: {confidence!r}.")
    if resamples < 1:
        raise ValueError(f"`resamples` must be at least 1. Received: {resamples!r}.")
    names = ("probabilities_a", "probabilities_b") if len(tables) == 2 else ("probabilities",)
    first = metrics.check_probabilities(tables[0], name=names[0])
    checked = [metrics.check_probabilities(p, first.shape[1], n) for p, n in zip(tables, names, strict=True)]
    if len({len(p) for p in checked}) > 1:
        raise ValueError(
            "Both tables must hold the same images in the same order. "
            f"Received: {len(checked[0])} and {len(checked[1])} rows."
        )
    y = metrics.check_class_indices(y, first.shape[1], len(first))
    absent = metrics.absent_classes(y, first.shape[1])
    if metric == "roc_auc" and len(absent):
        raise ValueError(f"ROC AUC needs images of every class. Received: none of class {absent[0]}.")
    return checked, y, _unit_of_row(groups, len(y))


def _unit_of_row(groups, n):
    """Returns for each row the index of what is drawn with it: the row itself, or its group."""
    if groups is None:
        return np.arange(n)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"`groups` must hold one group per image. Received: shape {groups.shape} for {n} images.")
    units = np.unique(groups, return_inverse=True)[1]
    if units.max() == 0:
        raise ValueError(f"`groups` must hold at least two groups. Received: only {str(groups[0])!r}.")
    return units


def _bootstrap(tables, y, units, metric, resamples, rng):
    """Returns the value of one table or the difference of two, larger being better, and its resampled values."""
    if metric == "roc_auc":
        values = [metrics.roc_auc(y, p) for p in tables]
        resampled = list(bootstrap.resampled_aucs(tables, y, units, resamples, rng))
        return _difference(values), _difference(resampled)
    score = _difference([_row_scores(y, p, metric) for p in tables])
    return float(score.mean()), bootstrap.resampled_means(score, units, resamples, rng)


def _difference(values):
    return values[0] - values[1] if len(values) == 2 else values[0]


def _row_scores(y, p, metric):
    return (p.argmax(axis=1) == y).astype("float64") if metric == "accuracy" else -metrics.log_losses(y, p)


def _percentiles(resampled, confidence):
    tail = (1 - confidence) / 2
    # A resample of one class only has no ROC AUC.
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def _mcnemar(only_a, only_b):
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _sign_p_value(resampled):
    resampled = resampled[np.isfinite(resampled)]
    smaller = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(resampled) + 1)))

"""Significance: is one table of predictions better than another beyond chance, and by how much."""

import dataclasses

import numpy as np
import pandas as pd
from scipy import stats

from ensemble_keras._validation import check_choice
from ensemble_keras.measures.delong import delong_p_value
from ensemble_keras.measures.intervals import checked_tables, percentiles, resampled_metric, unit_of_row
from ensemble_keras.measures.weighted import METRICS


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How much better the first of two tables of predictions is; `str()` reads as a sentence.

    Attributes:
        difference: Gain of the first over the second; positive means that the first is better, for log loss too.
        low: Lower end of the interval of the difference.
        high: Upper end of the interval.
        p_value: Probability of a difference at least as large, either way, between equally good classifiers.
        metric: Name of the metric, as in `compare`.
        confidence: Coverage of the interval, such as 0.95.
        test: Name of the test that the p-value is of.
    """

    difference: float
    low: float
    high: float
    p_value: float
    metric: str
    confidence: float
    test: str = "paired bootstrap"

    def __str__(self):
        metric = METRICS[self.metric]
        scale, unit = (100, f"points of {metric.text}") if metric.percent else (1, f"of {metric.text}")
        if metric.lower_is_better:
            unit += " (positive: the first one's is lower)"
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
    one, from the images that just one of the two gets right; that of ROC AUC with two classes is DeLong's. For other
    metrics, and with groups (both tests take images as independent), it is twice the smaller share of resamples on
    one side of zero. None is below `2 ** (1 - n)` for `n` images, or groups: were both equally good, all images would
    still speak for the same one of them so often.

    The predictions must be of images that neither classifier trained on: out-of-fold, or a test set.

    Args:
        probabilities_a: Array of shape `(n, num_classes)`, rows summing to 1; or p of class 1, shape `(n,)`.
        probabilities_b: The other classifier's predictions of the same images, in the same order.
        y: Class indices of shape `(n,)`.
        metric: `"accuracy"`, `"balanced_accuracy"`, `"roc_auc"` or `"average_precision"` (of class 1 for two classes,
            else the macro mean of one against the rest; a class that a resample lacks is left out of that resample's
            mean, for both alike), `"log_loss"`, `"brier_score"` or `"calibration_error"` (the sign is turned, so that
            positive means that `a` is better), `"mcc"`, `"precision_macro"`, `"recall_macro"`, `"f1_macro"`, their
            `"…_weighted"` forms; for two classes, of which class 1 is the positive one, `"f1"`, `"sensitivity"`,
            `"specificity"`, `"positive_predictive_value"` and `"negative_predictive_value"`, too. Defaults to
            `"accuracy"`.
        groups: Group of each image (its patient, say), shape `(n,)`: groups are drawn whole. Defaults to `None`.
        confidence: Coverage of the interval, in (0, 1). Defaults to 0.95.
        resamples: Number of bootstrap resamples. Defaults to 2000.
        seed: Int. The same seed gives the same interval. Defaults to 0.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: If a table, a label or an option is wrong, or the metric is not defined for these images.

    Example:
    >>> print(compare([0.9] * 9 + [0.2], [0.9] * 6 + [0.2] * 4, [1] * 10))
    +30.0 points of accuracy, 95 % interval +0.0 to +60.0, p = 0.25
    """
    tables, y, units = checked_tables((probabilities_a, probabilities_b), y, metric, groups, confidence, resamples)
    difference, resampled = resampled_metric(tables, y, units, metric, resamples, seed)
    low, high = percentiles(resampled, confidence)
    test, p_value = _test(tables, y, metric, groups) or ("paired bootstrap", _sign_p_value(resampled))
    least = 2.0 ** -int(units.max())
    return Comparison(difference, low, high, max(p_value, least), metric, confidence, test)


def compare_all(
    tables, y, *, reference=None, metric="accuracy", groups=None, confidence=0.95, resamples=2000, seed=0
):
    """Compares several classifiers on the same images, with p-values that hold for all of the comparisons together.

    Args:
        tables: Dict from a name to probabilities, as in `compare`; two or more.
        y: As in `compare`.
        reference: Name of the classifier that the others are compared with. Defaults to `None`: each with each.
        metric: As in `compare`.
        groups: As in `compare`.
        confidence: As in `compare`; each interval is of its own comparison.
        resamples: As in `compare`.
        seed: As in `compare`.

    Returns:
        A `pandas.DataFrame` with one row per comparison: `first`, `second`, `difference` (positive: the first is
        better) with its interval `low` to `high`, `p_value`, `p_holm` (after
        Holm's correction) and `test`, its name.

    Raises:
        ValueError: As `compare`, and if there is one table only or `reference` is none of the names.

    Example:

    >>> y = np.arange(60) % 2
    >>> tables = {"good": 0.2 + 0.6 * y, "bad": np.full(60, 0.6), "worse": np.full(60, 0.4)}
    >>> ek.compare_all(tables, y, reference="good")[["second", "difference"]].values.tolist()
    [['bad', 0.5], ['worse', 0.5]]
    """
    names = list(tables)
    if len(names) < 2:
        raise ValueError(f"`tables` must hold two classifiers or more. Received: {len(names)}.")
    if reference is not None:
        check_choice("reference", reference, names)
    options = {
        "metric": metric,
        "groups": groups,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
    }
    pairs = [
        (first, second)
        for i, first in enumerate(names)
        for second in (names[i + 1 :] if reference is None else names)
        if first != second and reference in (None, first)
    ]
    rows = []
    for first, second in pairs:
        found = compare(tables[first], tables[second], y, **options)
        row = {"first": first, "second": second, "difference": found.difference, "low": found.low, "high": found.high}
        rows.append({**row, "p_value": found.p_value, "test": found.test})
    frame = pd.DataFrame(rows)
    frame.insert(6, "p_holm", holm(frame["p_value"]))
    return frame


def holm(p_values):
    """Returns p-values after Holm's correction for their number (Holm, 1979): valid whatever their dependence.

    Args:
        p_values: Array `(tests,)` of numbers in [0, 1]; NaN, a test that was not made, stays NaN and is not counted.

    Returns:
        Float array `(tests,)`, none smaller than before.

    Example:
    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.array(p_values, "float64")
    made = np.flatnonzero(np.isfinite(p))
    order = made[np.argsort(p[made], kind="stable")]
    p[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return p


def mcnemar_p_value(only_a, only_b):
    """Returns the two-sided p-value of McNemar's exact test.

    Args:
        only_a: Int, the number of images that only the first classifier gets right.
        only_b: Int, that of the second.

    Example:
    >>> round(mcnemar_p_value(14, 4), 4)
    0.0309
    """
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def drop_p_value(right, n, accuracy_before, n_before=None):
    """Returns the chance of so low an accuracy if it were still what it was before; one-sided.

    Args:
        right: Number of images predicted right now.
        n: Number of images now.
        accuracy_before: Accuracy on earlier images (out-of-fold, say), in [0, 1].
        n_before: Number of those images: Fisher's exact test. Without it `accuracy_before` counts as exact, and
            the test is binomial.

    Returns:
        The p-value. Images count as independent: where they come in groups, give numbers divided by the
        `design_effect`.

    Example:
    >>> drop_p_value(272, 313, 0.968, 3207) < 1e-9
    True
    """
    if n_before is None:
        return float(stats.binomtest(right, n, accuracy_before, alternative="less").pvalue)
    right_before = round(accuracy_before * n_before)
    table = [[right, n - right], [right_before, n_before - right_before]]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def design_effect(right, groups=None):
    """Returns how many images of groups tell as much of the accuracy as one independent image; at least 1.

    It is the variance of the accuracy between groups, as a ratio of sums, over that of independent images. Counts
    divided by it can be tested as if they were independent (Rao and Scott, 1992, "A simple method for the analysis of
    clustered binary data").

    Args:
        right: Bool array `(n,)`, whether each image is predicted right.
        groups: Group of each image, `(n,)`. Defaults to `None`: the images are independent, and the effect is 1.

    Example:
    >>> round(design_effect([True, True, False, False] * 10, np.arange(40) // 2), 2)  # two images are as one
    2.11
    """
    right = np.asarray(right, "float64")
    units, accuracy, n = unit_of_row(groups, len(right)), right.mean(), len(right)
    if groups is None or accuracy in (0, 1):
        return 1.0
    excess = np.bincount(units, right - accuracy)
    variance = len(excess) / (len(excess) - 1) * (excess**2).sum() / n**2
    return float(max(1.0, variance / (accuracy * (1 - accuracy) / n)))


def p_text(p_value):
    """Returns `"p = 0.004"`, or `"p < 0.001"`."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.{1 if p_value < 0.01 else 2}g}"


def _test(tables, y, metric, groups):
    """Returns the name and the p-value of the exact or the asymptotic test that there is, or `None`."""
    if groups is not None:
        return None
    if metric == "accuracy":
        right_a, right_b = ((p.argmax(axis=1) == y) for p in tables)
        counts = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        return "McNemar's exact test", mcnemar_p_value(*counts)
    # With a single image of a class DeLong's variance is not defined.
    if metric == "roc_auc" and tables[0].shape[1] == 2 and np.bincount(y).min() > 1:
        return "DeLong's test", delong_p_value(y == 1, *(p[:, 1] for p in tables))
    return None


def _sign_p_value(resampled):
    resampled = resampled[np.isfinite(resampled)]
    smaller = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(resampled) + 1)))

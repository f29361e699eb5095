"""Intervals: how sure a metric of some images is, by drawing the images, or whole groups of them, anew."""

import numpy as np
import pandas as pd
from scipy import stats

from ensemble_keras._validation import check_at_least, check_choice, check_seed, rows_text
from ensemble_keras.measures import bootstrap, metrics
from ensemble_keras.measures.weighted import METRICS


def metric_interval(probabilities, y, *, metric="accuracy", groups=None, confidence=0.95, resamples=2000, seed=0):
    """Returns a metric's value and its interval, `(value, low, high)`.

    The interval is Wilson's for shares of images (accuracy, sensitivity, specificity, predictive values) without
    groups, which stays honest at 0 and 100 %; else the percentile interval of a bootstrap over images or groups.
    That of the calibration error is mirrored at the value (the basic interval): resampling adds noise to an error
    that noise only raises, so that percentiles lie too high. Of an error near 0, which is smaller than what the noise
    of so few images makes of it, even this interval is short. Where all resamples agree, as on a ROC AUC of 1, they
    do not tell how sure a value is: its ends are NaN, and those of a share are Wilson's with each group as one image.
    Arguments and errors are those of `compare`; what is better when it is lower keeps its sign here.

    Example:
    >>> [round(value, 3) for value in metric_interval([0.9] * 10, [1] * 10)]
    [1.0, 0.722, 1.0]
    """
    (p,), y, units = checked_tables((probabilities,), y, metric, groups, confidence, resamples)
    if METRICS[metric].share and groups is None:
        return _share_interval(metric, y, p, units, confidence)
    value, resampled = resampled_metric((p,), y, units, metric, resamples, seed)
    if METRICS[metric].lower_is_better:
        # `resampled_metric` counts what is better as larger.
        value, resampled = -value, -resampled
    return value, *_interval(metric, y, p, units, value, resampled, confidence)


def metric_intervals(probabilities, y, *, metrics=None, groups=None, confidence=0.95, resamples=2000, seed=0):
    """Returns metrics with their intervals, all of them from the same resamples.

    Args:
        probabilities: Array of shape `(n, num_classes)`, rows summing to 1; or p of class 1, shape `(n,)`.
        y: Class indices of shape `(n,)`.
        metrics: List of names, as in `compare`. Defaults to `None`: all that there are for so many classes.
        groups: Group of each image, shape `(n,)`: groups are drawn whole. Defaults to `None`.
        confidence: Coverage of the intervals, in (0, 1). Defaults to 0.95.
        resamples: Number of bootstrap resamples. Defaults to 2000.
        seed: Int. Defaults to 0.

    Returns:
        A `pandas.DataFrame` with a row for each metric: `value`, `low` and `high`, as `metric_interval` describes
        them; NaN where these images do not define the metric, such as ROC AUC where a class has none, or its ends.

    Raises:
        ValueError: If a table, a label or an option is wrong.

    Example:

    >>> table = ek.metric_intervals([0.9, 0.8, 0.7, 0.4, 0.6, 0.1], [1, 1, 1, 1, 0, 0], metrics=["sensitivity", "f1"])
    >>> table.loc["sensitivity"].round(2).tolist()
    [0.75, 0.3, 0.95]
    """
    (p,), y, units = checked_tables((probabilities,), y, "accuracy", groups, confidence, resamples)
    check_seed(seed)
    names = list(metrics or _metrics_of(p.shape[1]))
    for name in names:
        check_choice("metrics", name, _metrics_of(p.shape[1]))
    known = [name for name in names if not (METRICS[name].all_classes and len(_absent(y, p)))]
    drawn = [name for name in known if groups is not None or not METRICS[name].share]
    functions = [METRICS[name].weighted(y, p) for name in drawn]
    resampled = bootstrap.resampled(functions, units, resamples, np.random.default_rng(seed)) if drawn else []
    rows = dict.fromkeys(names, (np.nan, np.nan, np.nan))
    rows |= {name: _share_interval(name, y, p, units, confidence) for name in known if name not in drawn}
    for name, values in zip(drawn, resampled, strict=True):
        value = METRICS[name].value(y, p)
        rows[name] = (value, *_interval(name, y, p, units, value, values, confidence))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"]).rename_axis("metric")


def _metrics_of(num_classes):
    return [name for name, metric in METRICS.items() if num_classes == 2 or not metric.two_classes]


def _absent(y, p):
    return metrics.absent_classes(y, p.shape[1])


def checked_tables(tables, y, metric, groups, confidence, resamples):
    """Returns one or two tables and labels, checked, and what each row is drawn with; see `unit_of_row`."""
    check_choice("metric", metric, list(METRICS))
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1. Received: {confidence!r}.")
    check_at_least("resamples", resamples, 1)
    names = ("probabilities_a", "probabilities_b") if len(tables) == 2 else ("probabilities",)
    first = metrics.check_probabilities(tables[0], name=names[0])
    checked = [metrics.check_probabilities(p, first.shape[1], n) for p, n in zip(tables, names, strict=True)]
    if len({len(p) for p in checked}) > 1:
        raise ValueError(
            "Both tables must hold the same images in the same order. "
            f"Received: {len(checked[0])} and {len(checked[1])} rows."
        )
    y = metrics.check_class_indices(y, first.shape[1], len(first))
    for p in checked:
        _check_defined(metric, y, p)
    return checked, y, unit_of_row(groups, len(y))


def _check_defined(metric, y, p):
    if METRICS[metric].two_classes and p.shape[1] != 2:
        raise ValueError(f"`metric={metric!r}` is of two classes. Received: probabilities of {p.shape[1]} classes.")
    absent = _absent(y, p)
    if METRICS[metric].all_classes and len(absent):
        raise ValueError(f"{METRICS[metric].text} needs images of every class. Received: none of class {absent[0]}.")
    if not np.isfinite(METRICS[metric].value(y, p)):
        raise ValueError(f"There is no {METRICS[metric].text} where no image is of the class, or is said to be.")


def unit_of_row(groups, n):
    """Returns for each row the index of what is drawn with it: the row itself, or its group."""
    if groups is None:
        return np.arange(n)
    missing = np.flatnonzero(pd.Series(list(groups), dtype=object).isna())
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"`groups` must hold one group per image. Received: shape {groups.shape} for {n} images.")
    if len(missing):
        raise ValueError(f"`groups` must hold one group per image. Received: none in {rows_text(missing)}.")
    units = np.unique(groups, return_inverse=True)[1]
    if units.max() == 0:
        raise ValueError(f"`groups` must hold at least two groups. Received: only {str(groups[0])!r}.")
    return units


def resampled_metric(tables, y, units, metric, resamples, seed):
    """Returns the value of one table or the difference of two, larger being better, and its resampled values."""
    rng = np.random.default_rng(check_seed(seed))
    sign = -1.0 if METRICS[metric].lower_is_better else 1.0
    if METRICS[metric].rows is not None:
        score = _difference([sign * METRICS[metric].rows(y, p) for p in tables])
        return float(score.mean()), bootstrap.resampled_means(score, units, resamples, rng)
    values = [sign * METRICS[metric].value(y, p) for p in tables]
    resampled = bootstrap.resampled([METRICS[metric].weighted(y, p) for p in tables], units, resamples, rng)
    return _difference(values), sign * _difference(list(resampled))


def _difference(values):
    return values[0] - values[1] if len(values) == 2 else values[0]


def _interval(metric, y, p, units, value, resampled, confidence):
    low, high = percentiles(resampled, confidence)
    if low == high:
        return _share_interval(metric, y, p, units, confidence)[1:] if METRICS[metric].share else (np.nan, np.nan)
    if metric == "calibration_error":
        return max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    return low, high


def percentiles(resampled, confidence):
    """Returns the ends of the percentile interval of resampled values; those that are NaN do not count."""
    tail = (1 - confidence) / 2
    # A resample of one class only has no ROC AUC.
    known = resampled[np.isfinite(resampled)]
    low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def _share_interval(metric, y, p, units, confidence):
    """Returns a share of images and its interval as if each unit among them were one image."""
    right, whole = METRICS[metric].share(y, p)
    if not whole.any():
        return np.nan, np.nan, np.nan
    share, n = right[whole].mean(), len(np.unique(units[whole]))
    return float(share), *map(float, wilson(share, n, confidence))


def wilson(share, n, confidence):
    """Returns the ends of Wilson's interval of a share of `n`, or of arrays of shares (Wilson, 1927)."""
    z = stats.norm.isf((1 - confidence) / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(0, centre - half), np.minimum(1, centre + half)

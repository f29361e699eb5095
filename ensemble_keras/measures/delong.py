"""DeLong's test: whether two areas under ROC curves of the same images differ."""

import numpy as np
from scipy import stats


def auc_covariance(y, scores):
    """Returns areas under ROC curves and their covariance (DeLong, DeLong and Clarke-Pearson, 1988).

    The components are found from midranks (Sun and Xu, 2014, "Fast implementation of DeLong's algorithm", equations 3
    to 6), so the time grows as n log n.

    Args:
        y: Array `(n,)`; true or 1 for the positive images, of which there are two or more, as of the others.
        scores: Array `(classifiers, n)`; higher where an image looks more positive.

    Returns:
        Float arrays `(classifiers,)` and `(classifiers, classifiers)`.

    Raises:
        ValueError: If there are fewer than two positive or two negative images.

    Example:

    >>> areas, covariance = auc_covariance([0, 0, 1, 1], [[0.1, 0.4, 0.35, 0.8]])
    >>> areas.tolist(), covariance.tolist()
    ([0.75], [[0.125]])
    """
    y, scores = np.asarray(y, bool), np.asarray(scores, "float64")
    m, n = int(y.sum()), int((~y).sum())
    if min(m, n) < 2:
        raise ValueError(f"DeLong's variance needs two images of either class. Received: {m} positive, {n} negative.")
    all_ranks = stats.rankdata(scores, axis=1)
    # For each positive the share of negatives below it, and for each negative that of the positives above it.
    above = (all_ranks[:, y] - stats.rankdata(scores[:, y], axis=1)) / n
    below = 1 - (all_ranks[:, ~y] - stats.rankdata(scores[:, ~y], axis=1)) / m
    covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return above.mean(axis=1), covariance


def delong_p_value(y, score_a, score_b):
    """Returns the two-sided p-value of DeLong's test that two correlated areas are equal; 1 if they are equal here.

    Arguments and errors are those of `auc_covariance`, of two classifiers.
    """
    areas, covariance = auc_covariance(y, np.stack([score_a, score_b]))
    difference = areas[0] - areas[1]
    if difference == 0:
        return 1.0
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    # Two that separate the classes by different rules may differ without any variance.
    return float(2 * stats.norm.sf(abs(difference) / np.sqrt(variance))) if variance > 0 else 0.0

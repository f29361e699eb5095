"""Bootstrap: a metric's values when rows, or whole groups of them, are drawn anew with replacement."""

import numpy as np
from scipy import sparse

# Rows times resamples held at once: about 16 MB of weights, which keeps the sums near the processor.
_CHUNK = 2_000_000


def resampled_means(score, units, resamples, rng):
    """Returns the mean of `score` in each resample, shape `(resamples,)`.

    Args:
        score: Float array of shape `(n,)`, one value per row.
        units: Index of what each row is drawn with, shape `(n,)`: its own, or that of its group.
        resamples: Number of resamples.
        rng: A `numpy.random.Generator`.
    """
    sums, sizes = np.bincount(units, score), np.bincount(units)
    # Turned so that swapping the two classifiers turns the sign of every resample, and of nothing else.
    nonzero = sums[sums != 0]
    sign = -1.0 if len(nonzero) and nonzero[0] < 0 else 1.0
    kinds, counts = np.unique(np.stack([sign * sums, sizes], axis=1), axis=0, return_counts=True)
    if len(kinds) <= 100:
        # Equal units are interchangeable: draw how many of each kind. Accuracy has three kinds of images.
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=resamples)
        return sign * (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])
    means = [(sums @ w) / (sizes @ w) for w in _weights(np.arange(len(sums)), resamples, rng)]
    return np.concatenate(means)


def resampled_aucs(tables, y, units, resamples, rng):
    """Returns each table's ROC AUC in the same resamples, shape `(tables, resamples)`.

    It is that of class 1 for two classes, and else the mean over the classes that the resample holds; NaN where it
    holds one class only. Arguments are those of `resampled_means`; `tables` are arrays `(n, num_classes)`.
    """
    classes = [1] if tables[0].shape[1] == 2 else range(tables[0].shape[1])
    orders = [[_order(np.flatnonzero(y == k), np.flatnonzero(y != k), p[:, k]) for k in classes] for p in tables]
    resampled = []
    for weights in _weights(units, resamples, rng):
        total = weights.sum(axis=0)
        resampled.append([_macro([_weighted_auc(order, weights, total) for order in table]) for table in orders])
    return np.concatenate(resampled, axis=1)


def _weights(units, resamples, rng):
    """Yields how often each row is drawn, `(n, some resamples)`, until `resamples` columns have come."""
    num_units = int(units.max()) + 1
    step = max(1, _CHUNK // len(units))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(0, num_units, (count, num_units))
        drawn += np.arange(count)[:, None] * num_units
        times = np.bincount(drawn.ravel(), minlength=count * num_units).reshape(count, num_units)
        yield np.ascontiguousarray(times.T, dtype="float64")[units]


def _order(positives, negatives, score):
    """Prepares a class' AUC: for each positive, the weight of the negatives below it (half of those level with it).

    Between two neighbouring cuts lie the same negatives in every resample, so one sparse product sums their weights
    for all resamples at once.
    """
    negatives = negatives[np.argsort(score[negatives], kind="stable")]
    below = np.searchsorted(score[negatives], score[positives], side="left")
    not_above = np.searchsorted(score[negatives], score[positives], side="right")
    cuts = np.unique(np.concatenate([[0], below, not_above]))
    used = negatives[: cuts[-1]]
    segments = sparse.csr_matrix((np.ones(len(used)), used, cuts), shape=(len(cuts) - 1, len(score)))
    return positives, segments, np.searchsorted(cuts, below), np.searchsorted(cuts, not_above)


def _macro(aucs):
    aucs = np.stack(aucs)
    there = np.isfinite(aucs)
    with np.errstate(invalid="ignore"):
        return np.where(there, aucs, 0).sum(axis=0) / there.sum(axis=0)


def _weighted_auc(order, weights, total):
    positives, segments, below, not_above = order
    positive_weights = weights[positives]
    cumulated = np.zeros((segments.shape[0] + 1, weights.shape[1]))
    np.cumsum(segments @ weights, axis=0, out=cumulated[1:])
    beaten = (cumulated[below] + cumulated[not_above]) / 2
    num_positive = positive_weights.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.einsum("pb,pb->b", positive_weights, beaten) / (num_positive * (total - num_positive))

"""Bootstrap: a metric's values when rows, or whole groups of them, are drawn anew with replacement."""

import numpy as np

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


def resampled(functions, units, resamples, rng):
    """Returns the values of several functions in the same resamples, shape `(functions, resamples)`.

    Args:
        functions: List of functions from weights `(n, some resamples)` to values, as in `weighted`.
        units: As in `resampled_means`.
        resamples: As in `resampled_means`.
        rng: As in `resampled_means`.
    """
    values = [[function(weights) for function in functions] for weights in _weights(units, resamples, rng)]
    return np.concatenate(values, axis=1)


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

"""Standardisation: features of mean 0 and deviation 1, and heads on them taken back to features as they are."""

import numpy as np

# A feature that hardly varies is not blown up to the size of the others, and rounding is not blown up at all.
_LEAST_SHARE_OF_MEDIAN = 0.01
_ROUNDING = 1e-6
_BLOCK = 1024


class Standardisation:
    """Means and scales of features, over all rows: they know no label, so held-out rows may count.

    The scale is the standard deviation, but at least a hundredth of the median one (a feature that is nearly constant
    would become noise of full size), and 1 where that is 0.

    Args:
        features: Float array `(n, d)`; it is read in blocks of rows.

    Attributes:
        mean: Float64 array `(d,)`.
        scale: Float64 array `(d,)`, positive.
    """

    def __init__(self, features):
        # Sums of differences from the first row: no digits are lost where a mean is large.
        first, sums, squares = features[0].astype(np.float64), 0.0, 0.0
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK] - first
            sums, squares = sums + block.sum(axis=0), squares + np.einsum("nd,nd->d", block, block)
        offset = sums / len(features)
        deviation = np.sqrt(np.maximum(squares / len(features) - np.square(offset), 0))
        self.mean = first + offset
        least = np.maximum(_LEAST_SHARE_OF_MEDIAN * np.median(deviation), _ROUNDING * np.abs(self.mean))
        self.scale = np.maximum(deviation, least)
        self.scale[self.scale == 0] = 1

    def apply(self, features, order):
        """Returns the standardised rows `features[order]`, float32 `(n, d)`."""
        out = np.empty((len(order), features.shape[1]), np.float32)
        for start in range(0, len(order), _BLOCK):
            rows = slice(start, start + _BLOCK)
            out[rows] = (features[order[rows]] - self.mean) / self.scale
        return out

    def undo(self, head):
        """Returns kernel `(d, k)` and bias `(k,)` for features as they are, of a head `(d + 1, k)`, float64."""
        kernel = head[:-1] / self.scale[:, None]
        return kernel, head[-1] - self.mean @ kernel

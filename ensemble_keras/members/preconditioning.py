"""Preconditioning: coordinates in which features are uncorrelated, and a Hessian there that is cheap to invert."""

import numpy as np
import scipy.linalg

_BLOCK = 1024
# A class that is never in question has no curvature, and its bias no penalty either.
_SMALLEST_CURVATURE = 1e-6
# What the bias keeps of its own curvature beside the coupling; it makes the estimate invertible.
_BIAS_SHARE = 0.1


def rotate(features):
    """Turns features, in place, to the axes along which they are uncorrelated; the penalty does not see it.

    Args:
        features: Float32 array `(n, d)` of columns of mean 0; it is overwritten.

    Returns:
        The variances `(d,)` along the new axes, and the axes `(d, d)`, one a column; float32.
    """
    covariance = features.T @ features / np.float32(len(features))
    variances, axes = scipy.linalg.eigh(covariance, driver="evd", overwrite_a=True, check_finite=False)
    for start in range(0, len(features), _BLOCK):
        features[start : start + _BLOCK] = features[start : start + _BLOCK] @ axes
    return np.maximum(variances, 0), axes


class Hessian:
    """An estimate of the Hessian of softmax regression that can be divided by.

    The block of one class, kernel and bias, is taken as `penalty + c * (diag(variances) + u uᵀ)`: `c` is the sum of
    the curvatures p (1 - p) of the class, and `u` the mean of the rows on which the class is in question, with a 1
    for the bias. Those rows look alike: on CIFAR-100 `u` saves a quarter of the iterations.

    Args:
        variances: Float32 array `(d,)`, those of the features.
        penalties: Float32 array `(problems,)`.
        curvatures: Float32 array `(problems, k)`.
        offsets: The means, float32 array `(d, problems, k)`, or `None` for a bias on its own.
    """

    def __init__(self, variances, penalties, curvatures, offsets=None):
        curvatures = np.maximum(curvatures, _SMALLEST_CURVATURE)
        self._kernel, self._bias = 1 / (variances[:, None, None] * curvatures + penalties[:, None]), 1 / curvatures
        self._coupling = None
        if offsets is not None:
            self._bias = self._bias / _BIAS_SHARE
            coupling = np.concatenate([offsets, np.ones_like(offsets[:1])])
            divided = self.divide(coupling)
            # Sherman and Morrison's formula for the rank-one part.
            norms = 1 / curvatures + np.einsum("dpk,dpk->pk", coupling, divided)
            self._coupling, self._divided = coupling, divided / norms

    def divide(self, gradients):
        """Returns the Newton-like step, without its sign, for gradients `(d + 1, problems, k)`."""
        steps = np.concatenate([gradients[:-1] * self._kernel, gradients[-1:] * self._bias])
        if self._coupling is not None:
            steps -= self._divided * np.einsum("dpk,dpk->pk", self._coupling, steps)
        return steps

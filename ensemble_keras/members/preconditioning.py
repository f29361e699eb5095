"""Preconditioning: an estimate of the Hessian of softmax regression that is cheap to invert."""

import numpy as np

_RANK = 256
# A class that is never in question has no curvature, and its bias no penalty either.
_SMALLEST_CURVATURE = 1e-6
# What the bias keeps of its own curvature beside the coupling; it makes the estimate invertible.
_BIAS_SHARE = 0.1


class Spectrum:
    """The covariance of features: a diagonal, corrected along leading eigenvectors.

    Args:
        variances: Float32 array `(d, 1, 1)`, or one float for all.
        eigenvalues: Float32 array `(rank,)`, the variances along `eigenvectors`; the largest is the last.
        eigenvectors: Float32 array `(d, rank)`, orthonormal; where there are any, `variances` is one float.
    """

    def __init__(self, variances, eigenvalues=(), eigenvectors=None):
        self.variances, self.eigenvalues, self.eigenvectors = variances, np.asarray(eigenvalues), eigenvectors

    @classmethod
    def of(cls, features):
        """Returns the spectrum of standardised features, float32 `(n, d)`."""
        d = features.shape[1]
        covariance = features.T @ features / np.float32(len(features))
        basis = np.random.default_rng(0).standard_normal((d, min(_RANK, d)), dtype=np.float32)
        # Subspace iteration: the directions only have to be good enough to speed the solver up.
        for _ in range(3):
            basis, _ = np.linalg.qr(covariance @ basis)
        eigenvalues, rotation = np.linalg.eigh(basis.T @ covariance @ basis)
        rest = (np.trace(covariance) - eigenvalues.sum()) / max(d - len(eigenvalues), 1)
        return cls(max(float(rest), 1e-6), np.maximum(eigenvalues, 0), basis @ rotation)

    def leading(self, rank):
        """Returns the leading eigenvectors `(d, rank)` and the spectrum of the features' parts along them."""
        return self.eigenvectors[:, -rank:], Spectrum(self.eigenvalues[-rank:, None, None])


class Hessian:
    """An estimate of the Hessian that can be divided by.

    The block of one class, kernel and bias, is taken as `penalty + c * (covariance + u uᵀ)`: `c` is the sum of the
    curvatures p (1 - p) of the class, and `u` the mean of the rows on which the class is in question, with a 1 for
    the bias. Those rows look alike; on CIFAR-100 a quarter of the iterations goes without `u`.

    Args:
        spectrum: `Spectrum` of the features.
        penalties: Float32 array `(problems,)`.
        curvatures: Float32 array `(problems, k)`.
        offsets: The means, float32 array `(d, problems, k)`, or `None` for a bias on its own.
    """

    def __init__(self, spectrum, penalties, curvatures, offsets=None):
        curvatures = np.maximum(curvatures, _SMALLEST_CURVATURE)
        self._vectors, penalties = spectrum.eigenvectors, penalties[:, None]
        self._outside = 1 / (np.float32(spectrum.variances) * curvatures + penalties)
        if self._vectors is not None:
            self._inside = 1 / (spectrum.eigenvalues[:, None, None] * curvatures + penalties) - self._outside
        self._bias, self._coupling = 1 / curvatures, None
        if offsets is not None:
            self._bias = self._bias / _BIAS_SHARE
            coupling = np.concatenate([offsets, np.ones_like(offsets[:1])])
            divided = self.divide(coupling)
            # Sherman and Morrison's formula for the rank-one part.
            norms = 1 / curvatures + np.einsum("dpk,dpk->pk", coupling, divided)
            self._coupling, self._divided = coupling, divided / norms

    def divide(self, gradients):
        """Returns the Newton-like step, without its sign, for gradients `(d + 1, problems, k)`."""
        steps = np.concatenate([gradients[:-1] * self._outside, gradients[-1:] * self._bias])
        if self._vectors is not None:
            parts = (self._vectors.T @ gradients[:-1].reshape(len(gradients) - 1, -1)).reshape(self._inside.shape)
            parts *= self._inside
            steps[:-1] += (self._vectors @ parts.reshape(len(parts), -1)).reshape(steps[:-1].shape)
        if self._coupling is not None:
            steps -= self._divided * np.einsum("dpk,dpk->pk", self._coupling, steps)
        return steps

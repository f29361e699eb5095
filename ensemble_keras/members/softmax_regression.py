"""Softmax regression: logits, losses and gradients of many linear heads that share one matrix of features."""

import itertools

import numpy as np


class Rows:
    """The rows that heads train on: views of one matrix, taken as if they stood one after another.

    Args:
        blocks: List of float32 arrays `(rows, d)`.
    """

    def __init__(self, blocks):
        self.blocks = blocks
        ends = np.cumsum([0] + [len(block) for block in blocks])
        self._slices = [slice(start, stop) for start, stop in itertools.pairwise(ends)]

    def forward(self, heads):
        """Returns the logits `(n, problems, k)` of heads `(d + 1, problems, k)`, whose last row is the bias."""
        columns = heads.reshape(len(heads), -1)
        logits = np.empty((self._slices[-1].stop, columns.shape[1]), np.float32)
        for block, rows in zip(self.blocks, self._slices, strict=True):
            np.matmul(block, columns[:-1], out=logits[rows])
        logits += columns[-1]
        return logits.reshape(-1, *heads.shape[1:])

    def backward(self, residuals):
        """Returns the gradient `(d + 1, problems, k)` that belongs to residuals `(n, problems, k)`."""
        columns = residuals.reshape(len(residuals), -1)
        gradient = np.empty((self.blocks[0].shape[1] + 1, columns.shape[1]), np.float32)
        gradient[:-1] = sum(block.T @ columns[rows] for block, rows in zip(self.blocks, self._slices, strict=True))
        gradient[-1] = columns.sum(axis=0, dtype=np.float64)
        return gradient.reshape(-1, *residuals.shape[1:])


class CrossEntropy:
    """The cross-entropy of each problem: the weighted mean over its rows.

    Args:
        y: Int array `(n,)`. A single logit column (`k == 1`) is that of class 1.
        weights: Float32 array `(n, problems)`. Each column sums to 1; 0 leaves a row out.
    """

    def __init__(self, y, weights):
        self.y = y
        self.weights = weights

    def of(self, problems):
        """Returns the cross-entropy of some of the problems."""
        return CrossEntropy(self.y, self.weights[:, problems])

    def losses(self, logits):
        """Returns losses `(problems,)` and probabilities, like the logits `(n, problems, k)`."""
        losses, probabilities = (_binary if logits.shape[2] == 1 else _multinomial)(logits, self.y)
        return np.einsum("np,np->p", losses, self.weights, dtype=np.float64), probabilities

    def slopes(self, probabilities, moved):
        """Returns the derivatives of the losses `(problems,)` along a change of the logits."""
        along = np.einsum("npk,npk->np", probabilities, moved) - self._own(moved)
        return np.einsum("np,np->p", along, self.weights, dtype=np.float64)

    def residuals(self, probabilities):
        """Returns the derivatives of the losses by the logits `(n, problems, k)`."""
        residuals = probabilities * self.weights[:, :, None]
        if residuals.shape[2] == 1:
            residuals -= (self.weights * self.y[:, None])[:, :, None]
        else:
            residuals[np.arange(len(self.y)), :, self.y] -= self.weights
        return residuals

    def curvatures(self, probabilities):
        """Returns the second derivatives of the losses by the logits, `p (1 - p)`: `(n, problems, k)`."""
        return (probabilities - np.square(probabilities)) * self.weights[:, :, None]

    def _own(self, logits):
        return (
            logits[:, :, 0] * self.y[:, None] if logits.shape[2] == 1 else logits[np.arange(len(self.y)), :, self.y]
        )


def log_softmax(logits):
    """Returns float64 log-probabilities `(n, num_classes)` of logits `(n, num_classes)` or, for two, `(n, 1)`."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[1] == 1:
        logits = np.concatenate([-logits / 2, logits / 2], axis=1)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _binary(logits, y):
    small = np.exp(-np.abs(logits))
    losses = np.maximum(logits, 0) - logits * y[:, None, None].astype(np.float32) + np.log1p(small)
    return losses[:, :, 0], np.where(logits >= 0, 1, small) / (1 + small)


def _multinomial(logits, y):
    shifted = logits - logits.max(axis=2, keepdims=True)
    own = shifted[np.arange(len(y)), :, y]
    np.exp(shifted, out=shifted)
    sums = shifted.sum(axis=2, keepdims=True)
    shifted /= sums
    return np.log(sums[:, :, 0]) - own, shifted

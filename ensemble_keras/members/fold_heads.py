"""Fold heads: softmax regressions without the rows of a fold, and what they say about these rows."""

import itertools

import numpy as np

from ensemble_keras.members.lbfgs import minimise
from ensemble_keras.members.preconditioning import rotate
from ensemble_keras.members.softmax_regression import CrossEntropy, Rows, log_softmax
from ensemble_keras.members.standardisation import Standardisation

# Shares of the objective. On CIFAR-100 the log loss is then .001 from its limit; 1e-5 takes twice as long.
_TOLERANCE, _TOLERANCE_OF_LARGE, _LARGE = 1e-5, 1e-4, 10**8


class FoldHeads:
    """The rows of all folds in one matrix, and the heads that are solved on parts of it.

    Rows are sorted by fold, so those before and after a fold are views. Standardisation and rotation take in all
    rows: they know no label.

    Args:
        features: Float array `(n, d)`; it is copied once.
        y: Int array `(n,)` of classes.
        folds: Int array `(n,)`.
        num_classes: Int.
        class_weight: Float array `(num_classes,)`.
        num_problems: Int, about how many heads will be solved: for many, features are made uncorrelated first.

    Attributes:
        num_folds: Int.
        columns: Int, logits of a head: 1 for two classes.
        places: Int array `(n,)`: where among the sorted rows each row stands.
    """

    def __init__(self, features, y, folds, *, num_classes, class_weight, num_problems):
        names, folds = np.unique(folds, return_inverse=True)
        order = np.argsort(folds, kind="stable")
        self.num_folds, self.places = len(names), np.argsort(order)
        self.num_classes, self.columns = num_classes, 1 if num_classes == 2 else num_classes
        self._y, self._folds = y[order], folds[order]
        self._weights = class_weight[self._y]
        self._ends = np.searchsorted(self._folds, np.arange(len(names) + 1))
        self._standardisation = Standardisation(features)
        self._features = self._standardisation.apply(features, order)
        self._tolerance = _TOLERANCE if features.size * self.columns < _LARGE else _TOLERANCE_OF_LARGE
        n, d = features.shape
        self._variances, self._axes = np.ones(d, np.float32), None
        # Products that the rotation takes, and that its saved iterations (about 20 of each head) would have taken.
        if 3 * n * d**2 + 9 * d**3 < 20 * 4 * n * d * self.columns * num_problems:
            self._variances, self._axes = rotate(self._features)

    def solve(self, held_out, strengths):
        """Solves several heads side by side.

        Args:
            held_out: Int array `(problems,)`, the fold that each leaves out.
            strengths: Float array `(problems,)`.

        Returns:
            Heads `(d + 1, problems, columns)` on standardised, rotated features; the last row is the bias.
        """
        weights = self._weights[:, None] * (self._folds[:, None] != held_out)
        return self._minimise([self._features], self._y, weights, strengths, None, self._tolerance)

    def solve_fold(self, fold, strength, *, start=None, tolerance=None):
        """Solves the head of one fold; returns it as `solve` does.

        Args:
            fold: Int, the fold that it leaves out.
            strength: Float.
            start: A head of the same fold to start from. One that saw the fold's rows would leak: the solver stops
                near the optimum, not at it.
            tolerance: Float, or `None` for the usual one.
        """
        first, last = self._ends[fold : fold + 2]
        parts = [rows for rows in (slice(0, first), slice(last, len(self._y))) if rows.stop > rows.start]
        y, weights = (np.concatenate([a[rows] for rows in parts]) for a in (self._y, self._weights[:, None]))
        blocks = [self._features[rows] for rows in parts]
        return self._minimise(blocks, y, weights, [strength], start, tolerance or self._tolerance)

    def _minimise(self, blocks, y, weights, strengths, start, tolerance):
        totals = weights.sum(axis=0)
        if start is None:
            start = np.zeros((blocks[0].shape[1] + 1, weights.shape[1], self.columns), np.float32)
            start[-1] = self._prior(y, weights, totals)
        return minimise(
            Rows(blocks),
            CrossEntropy(y, (weights / totals).astype(np.float32)),
            1 / (np.asarray(strengths) * totals),
            start,
            variances=self._variances,
            tolerance=tolerance,
        )

    def _prior(self, y, weights, totals):
        """Returns the biases that say how frequent the classes are: half a row more for each, if it has none."""
        sums = np.stack([weights[y == k].sum(axis=0) for k in range(self.num_classes)], axis=1) + 0.5
        logits = np.log(sums / totals[:, None])
        return logits[:, 1:] - logits[:, :1] if self.num_classes == 2 else logits

    def held_out(self, heads):
        """Returns float64 log-probabilities `(rows, num_classes)`, sorted by fold, of heads of the first folds."""
        parts = [self._features[first:last] for first, last in itertools.pairwise(self._ends)]
        logits = [Rows([parts[f]]).forward(heads[:, f : f + 1])[:, 0] for f in range(heads.shape[1])]
        return log_softmax(np.concatenate(logits))

    def log_loss(self, log_probabilities):
        """Returns the log loss of the first rows, sorted by fold, a mean weighted by class."""
        n = len(log_probabilities)
        own = log_probabilities[np.arange(n), self._y[:n]]
        return float(-np.average(own, weights=self._weights[:n]))

    def mean(self, heads):
        """Returns the mean of the folds' heads, each class over the folds whose heads have seen it.

        Args:
            heads: Float32 array `(d + 1, num_folds, columns)`.

        Returns:
            Kernel `(d, num_classes)` and bias `(num_classes,)`, float64, for features as they are.
        """
        seen = self._seen()
        heads = heads.astype(np.float64)
        if self.columns > 1:
            # The loss does not see a shift of all biases, so folds may differ by one.
            heads[-1] -= np.average(heads[-1], axis=1, weights=seen)[:, None]
        head = (heads * seen).sum(axis=1) / seen.sum(axis=0)
        head = np.concatenate([-head / 2, head / 2], axis=1) if self.columns == 1 else head
        head -= head.mean(axis=1, keepdims=True)
        kernel = head[:-1] if self._axes is None else self._axes @ head[:-1]
        return self._standardisation.undo(np.concatenate([kernel, head[-1:]]))

    def _seen(self):
        """Returns which fold's head has seen which class, `(num_folds, columns)`; for two classes, both of them."""
        held_out = np.stack([self._folds == fold for fold in range(self.num_folds)])
        seen = np.stack([(~held_out & (self._y == k)).any(axis=1) for k in range(self.num_classes)], axis=1)
        if self.columns == 1:
            seen = seen.all(axis=1, keepdims=True)
        return np.where(seen.any(axis=0), seen, True)

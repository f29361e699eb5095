"""Heads: linear classifiers on cached features, solved to their optimum, their strength chosen out of fold."""

import dataclasses
import functools
import itertools

import numpy as np

from ensemble_keras._validation import check_labels, rows_text
from ensemble_keras.members.lbfgs import minimise
from ensemble_keras.members.preconditioning import Spectrum
from ensemble_keras.members.softmax_regression import CrossEntropy, Rows, log_softmax
from ensemble_keras.members.standardisation import Standardisation

# Times 1 / d: the logits of standardised features then vary alike, whatever the number of features.
_STRENGTHS_TIMES_FEATURES = 10.0 ** np.arange(-1, 3, 0.5)
# Up to so many logit columns all folds and strengths are solved as one matrix (two classes, 5 folds: 40).
_COLUMNS_AT_ONCE = 300
# Shares of the objective. On CIFAR-100 the log loss is then .0009 from its limit; 1e-5 takes twice as long.
_TOLERANCE, _TOLERANCE_OF_LARGE, _LARGE = 1e-5, 1e-4, 10**8
_TOLERANCE_TO_CHOOSE = 1e-3
# From so many features on, a fold starts from its solution along the leading directions of the features.
_COARSE_FROM, _COARSE_RANK = 512, 128


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """A solved linear head: `softmax(features @ kernel + bias)`.

    Attributes:
        kernel: Float32 array `(d, num_classes)`, for features as they are: the standardisation is folded in.
        bias: Float32 array `(num_classes,)`.
        strength: Float, the chosen C in scikit-learn's meaning: the loss is summed over the rows and
            1 / (2 C) * |w|² added, on standardised features.
        out_of_fold: Float32 array `(n, num_classes)` of probabilities, each row by a head that did not see it.
        log_loss: Float, that of `out_of_fold`, a mean weighted by class where class weights were given.
        strengths: Dict from each C that was tried to its held-out log loss, by which the strength was chosen.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    out_of_fold: np.ndarray
    log_loss: float
    strengths: dict[float, float]


def solve_linear_head(features, y, folds, *, num_classes, strengths=None, class_weight=None, progress=None):
    """Solves an L2-regularised softmax regression for each fold, chooses its strength, and solves it on all rows.

    Features are standardised once, over all rows: means and deviations know no label, so nothing leaks. Folds share
    that matrix. With few classes all folds and strengths are solved side by side. With many, one fold
    chooses the strength, from the middle of `strengths` downhill, and the other folds are solved at that one
    only, from nothing: a start from a head that knows their held-out rows would leak.

    Beside `features` memory holds one more copy of them, d² numbers, and a few times n * num_classes
    (many classes), or n * folds * strengths * num_classes (few).

    Args:
        features: Float array `(n, d)`. Constant and repeated features, and any scale, will do.
        y: Int array `(n,)` of classes in `0 … num_classes - 1`.
        folds: Int array `(n,)`, the fold that holds each row out; at least two.
        num_classes: Int, at least 2. Two classes are one logit, as in scikit-learn; the columns of the kernel
            are then `-w / 2` and `w / 2`.
        strengths: Sequence of positive floats, the values of C to choose from. Defaults to 8, from 0.1 / d to
            316 / d.
        class_weight: Array `(num_classes,)`, the weight of each row's loss by its class. Defaults to 1.
        progress: Function without arguments, called whenever a fold or a strength is solved. Defaults to none.

    Returns:
        A `LinearHead`.

    Raises:
        ValueError: If shapes disagree, a feature is not finite, a class is out of range, there are fewer than two
            folds, or a strength or weight is not positive.

    Example:

    >>> features = np.array([[0.0], [1.0], [2.0], [3.0]], "float32")
    >>> head = solve_linear_head(features, [0, 0, 1, 1], [0, 1, 0, 1], num_classes=2)
    >>> (features @ head.kernel + head.bias).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    features, y, folds, class_weight = check_head_input(features, y, folds, num_classes, class_weight)
    strengths = _check_strengths(strengths, features.shape[1])
    task = _Folds(features, y, folds, num_classes, class_weight, progress or (lambda: None))
    at_once = task.columns * task.num_folds * len(strengths) <= _COLUMNS_AT_ONCE
    strength, losses, heads = (_solve_side_by_side if at_once else _solve_one_by_one)(task, strengths)
    kernel, bias = task.solve_all_rows(strength, start=heads.mean(axis=1, keepdims=True))
    log_probabilities = task.held_out(heads)
    return LinearHead(
        kernel=kernel.astype(np.float32),
        bias=bias.astype(np.float32),
        strength=strength,
        out_of_fold=np.exp(log_probabilities[task.places]).astype(np.float32),
        log_loss=task.log_loss(log_probabilities),
        strengths=losses,
    )


def _solve_side_by_side(task, strengths):
    """Solves all folds at all strengths as one matrix; returns the best strength, all losses, and its heads."""
    heads = task.solve(np.repeat(np.arange(task.num_folds), len(strengths)), np.tile(strengths, task.num_folds))
    heads = heads.reshape(len(heads), task.num_folds, len(strengths), task.columns)
    losses = {c: task.log_loss(task.held_out(heads[:, :, i])) for i, c in enumerate(strengths)}
    best = min(losses, key=losses.get)
    return best, losses, heads[:, :, strengths.index(best)]


def _solve_one_by_one(task, strengths):
    """Chooses the strength on the first fold, solves the others there; returns what `_solve_side_by_side` does."""
    heads, losses = {}, {}

    def loss_of(index, start):
        heads[index] = task.solve_fold(0, strengths[index], start=start, tolerance=_TOLERANCE_TO_CHOOSE)
        losses[strengths[index]] = task.log_loss(task.held_out(heads[index]))
        return losses[strengths[index]]

    best = len(strengths) // 2
    lowest = loss_of(best, None)
    for direction in (-1, 1):
        while 0 <= best + direction < len(strengths) and strengths[best + direction] not in losses:
            loss = loss_of(best + direction, heads[best])
            if loss >= lowest:
                break
            best, lowest = best + direction, loss
    solved = [task.solve_fold(0, strengths[best], start=heads[best])]
    solved += [task.solve_fold(fold, strengths[best]) for fold in range(1, task.num_folds)]
    return strengths[best], dict(sorted(losses.items())), np.concatenate(solved, axis=1)


class _Folds:
    """The standardised rows, sorted by fold so that the rows of a fold, and those before and after, are views."""

    def __init__(self, features, y, folds, num_classes, class_weight, progress):
        names, folds = np.unique(folds, return_inverse=True)
        order = np.argsort(folds, kind="stable")
        self.places = np.argsort(order)
        self.num_folds, self.num_classes = len(names), num_classes
        self.columns = 1 if num_classes == 2 else num_classes
        self.y, self.folds = y[order], folds[order]
        self.weights = class_weight[self.y]
        self.ends = np.searchsorted(self.folds, np.arange(len(names) + 1))
        self.standardisation = Standardisation(features)
        self.features = self.standardisation.apply(features, order)
        self.spectrum = Spectrum.of(self.features)
        self.tolerance = _TOLERANCE if self.features.size * self.columns < _LARGE else _TOLERANCE_OF_LARGE
        self.progress = progress

    @functools.cached_property
    def coarse(self):
        """The features along their leading directions `(n, rank)`, these directions, and their spectrum."""
        directions, spectrum = self.spectrum.leading(_COARSE_RANK)
        return self.features @ directions, directions, spectrum

    def solve(self, held, strengths):
        """Returns heads `(d + 1, problems, columns)`, each without its held-out fold, at its strength."""
        weights = self.weights[:, None] * (self.folds[:, None] != held)
        heads = self._minimise([self.features], self.y, weights, strengths, tolerance=self.tolerance)
        self.progress()
        return heads

    def solve_fold(self, fold, strength, start=None, tolerance=None):
        """Returns the head `(d + 1, 1, columns)` of the rows outside a fold."""
        first, last = self.ends[fold : fold + 2]
        parts = [rows for rows in (slice(0, first), slice(last, len(self.y))) if rows.stop > rows.start]
        y, weights = (np.concatenate([a[rows] for rows in parts]) for a in (self.y, self.weights[:, None]))
        if start is None and self.features.shape[1] >= _COARSE_FROM:
            features, directions, spectrum = self.coarse
            blocks = [features[rows] for rows in parts]
            start = self._minimise(blocks, y, weights, [strength], spectrum=spectrum, tolerance=_TOLERANCE_TO_CHOOSE)
            start = np.concatenate([(directions @ start[:-1, 0])[:, None], start[-1:]])
        blocks = [self.features[rows] for rows in parts]
        head = self._minimise(blocks, y, weights, [strength], start, tolerance=tolerance or self.tolerance)
        self.progress()
        return head

    def solve_all_rows(self, strength, start):
        """Returns kernel and bias, for features as they are, of the head of all rows."""
        weights = self.weights[:, None]
        head = self._minimise([self.features], self.y, weights, [strength], start, tolerance=self.tolerance)
        head = head[:, 0].astype(np.float64)
        head = np.concatenate([-head / 2, head / 2], axis=1) if self.num_classes == 2 else head
        # The loss does not see a shift of all biases, and the penalty none of the kernel: take the one of mean 0.
        return self.standardisation.undo(head - head.mean(axis=1, keepdims=True))

    def _minimise(self, blocks, y, weights, strengths, start=None, spectrum=None, *, tolerance):
        totals = weights.sum(axis=0)
        if start is None:
            start = np.zeros((blocks[0].shape[1] + 1, weights.shape[1], self.columns), np.float32)
            start[-1] = self._prior(y, weights, totals)
        return minimise(
            Rows(blocks),
            CrossEntropy(y, (weights / totals).astype(np.float32)),
            1 / (np.asarray(strengths) * totals),
            start,
            spectrum=spectrum or self.spectrum,
            tolerance=tolerance,
        )

    def _prior(self, y, weights, totals):
        """Returns the biases that say how frequent the classes are; half a row more, for those that are not there."""
        sums = np.stack([weights[y == k].sum(axis=0) for k in range(self.num_classes)], axis=1) + 0.5
        logits = np.log(sums / totals[:, None])
        return logits[:, 1:] - logits[:, :1] if self.num_classes == 2 else logits

    def held_out(self, heads):
        """Returns float64 log-probabilities `(rows, num_classes)`, sorted by fold, of heads of the first folds."""
        parts = [self.features[first:last] for first, last in itertools.pairwise(self.ends)]
        logits = [Rows([parts[f]]).forward(heads[:, f : f + 1])[:, 0] for f in range(heads.shape[1])]
        return log_softmax(np.concatenate(logits))

    def log_loss(self, log_probabilities):
        """Returns the log loss of the first rows, sorted by fold, a mean weighted by class."""
        n = len(log_probabilities)
        own = log_probabilities[np.arange(n), self.y[:n]]
        return float(-np.average(own, weights=self.weights[:n]))


def check_head_input(features, y, folds, num_classes, class_weight):
    """Returns the arguments of a head as arrays, weights as floats `(num_classes,)`, or raises `ValueError`."""
    features = np.asarray(features)
    if features.ndim != 2 or not features.size or features.dtype.kind != "f":
        raise ValueError(
            "`features` must hold floats, shape (n, d), at least one row and one column. "
            f"Received: shape {features.shape}, dtype {features.dtype}."
        )
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"`features` must be finite. Received: NaN or infinity in {rows_text(np.flatnonzero(~finite))}."
        )
    y, folds = check_labels(y, len(features)), check_labels(folds, len(features), "folds")
    if num_classes < 2 or y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"`y` must hold classes in 0 … num_classes - 1, `num_classes` at least 2. "
            f"Received: {y.min()} … {y.max()}, num_classes={num_classes}."
        )
    if len(np.unique(folds)) < 2:
        raise ValueError(f"`folds` must name at least two folds. Received: {folds[0]} for every row.")
    weights = np.ones(num_classes) if class_weight is None else np.asarray(class_weight, np.float64)
    if weights.shape != (num_classes,) or not (weights > 0).all():
        raise ValueError(f"`class_weight` must hold {num_classes} positive numbers. Received: {class_weight}.")
    return features, y, folds, weights


def _check_strengths(strengths, d):
    strengths = _STRENGTHS_TIMES_FEATURES / d if strengths is None else np.asarray(strengths, np.float64)
    if strengths.ndim != 1 or not strengths.size or not (np.isfinite(strengths) & (strengths > 0)).all():
        raise ValueError(f"`strengths` must hold one or more positive numbers. Received: {strengths.tolist()}.")
    return sorted(set(strengths.tolist()))

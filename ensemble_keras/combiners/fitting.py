"""Fitting: learns a combiner from the members' out-of-fold predictions."""

import numpy as np
from keras import ops

from ensemble_keras._validation import check_seed
from ensemble_keras.combiners import base, tables
from ensemble_keras.combiners.estimators import fit_linear_estimator
from ensemble_keras.combiners.gate_fitting import fit_gate
from ensemble_keras.combiners.gating import ArchitectureGate
from ensemble_keras.combiners.training import train_layer
from ensemble_keras.combiners.weighting import find_weights, with_weights
from ensemble_keras.data.splits import make_folds
from ensemble_keras.measures.predictions import check_class_order, check_y
from ensemble_keras.members.heads import solve_linear_head

# A combiner is applied to so many rows at once: features of all images may not fit on a device.
_ROWS = 4096


def fit_combiner(combiner, predictions, y, *, features=None, seed=0, folds=None, class_weight=None):
    """Fits a combiner on what the members say about images that they did not train on.

    The predictions must be out-of-fold, and so must the features of a member whose backbone was trained: or the
    combiner learns the members' memory and trusts the one that overfits most.

    Weights of a vote that are to be found are: `SoftVoting(weights="greedy")` comes back with numbers. A linear
    `ConcatenateDense` or `StackedMetaLearner` is solved to its optimum, its L2 strength chosen out of fold.
    One with hidden units, and a combiner of your own, is trained (AdamW), and an `ArchitectureGate` is fitted
    (L-BFGS), on all folds but one until the loss on that one stops falling; the best weights are kept.

    Args:
        combiner: A combiner layer. It is not changed.
        predictions: Array `(n, members, num_classes)` of out-of-fold probabilities; `None` will do where the
            combiner takes features only. One column of sigmoid outputs counts as two classes.
        y: Array `(n,)` of class indices `0 … num_classes − 1`; every class occurs.
        features: List of arrays `(n, d_i)`, one per member, where the combiner takes features.
        seed: Int. Of folds, first weights and the order of the images. Defaults to 0.
        folds: Int array `(n,)`, the fold that held each image out of the members' training. Defaults to five
            stratified ones (fewer if a class has fewer images), also where only one fold is given.
        class_weight: Array `(num_classes,)`, the weight of each class's images. Defaults to `None`, equal weights.

    Returns:
        A new layer made from the combiner's config, with the fitted weights; a combiner without anything to learn,
        such as `SoftVoting`, itself.

    Raises:
        TypeError: If `combiner` is not a layer.
        ValueError: If the predictions hold NaN or rows that do not sum to 1 (member and rows are named), a
            member's columns are in another order than the labels, shapes do not agree, or a label is out of range.

    Example:

    >>> y = np.arange(60) % 2
    >>> sure = np.where(y[:, None] == [0, 1], 0.9, 0.1)
    >>> predictions = np.stack([sure, np.full((60, 2), 0.5)], axis=1)  # the second member knows nothing
    >>> stacking = ek.fit_combiner(ek.StackedMetaLearner(2), predictions, y)
    >>> bool(combine(stacking, predictions)[y == 1, 1].min() > 0.9)
    True
    """
    task = _Task(combiner, predictions, y, features, seed, folds, class_weight)
    if base.takes_of(combiner) != "features":
        # A meta-learner would learn the slip, and be wrong about the members of the built model.
        check_class_order(np.stack(task.inputs[0], axis=1), task.y)
    if task.learns_nothing:
        return combiner
    return task.solve()[0] if task.is_linear else task.fit(np.arange(len(task.y)))


def out_of_fold_combined(combiner, predictions, y, folds, *, features=None, class_weight=None, seed=0):
    """Predicts every image by the combiner fitted without the image's fold.

    This is what to compare combiners by: a fitted combiner looks too good on the rows that it was fitted on. One
    number is chosen on all rows, the L2 strength of a linear combiner: by what each strength gives out of fold.

    Args:
        combiner: A combiner layer. It is not changed.
        predictions: As in `fit_combiner`.
        y: As in `fit_combiner`.
        folds: Int array `(n,)`, the fold of each image.
        features: As in `fit_combiner`.
        class_weight: As in `fit_combiner`.
        seed: As in `fit_combiner`.

    Returns:
        Float32 array `(n, num_classes)`.

    Raises:
        TypeError, ValueError: As `fit_combiner`.
    """
    task = _Task(combiner, predictions, y, features, seed, folds, class_weight)
    return task.combined() if task.learns_nothing else task.out_of_fold()


def fit_out_of_fold(combiner, predictions, y, folds, *, features=None, class_weight=None, seed=0):
    """Returns what `fit_combiner` and `out_of_fold_combined` do, at the cost of one where the combiner is linear.

    Returns:
        The fitted combiner, and its out-of-fold predictions `(n, num_classes)`.
    """
    task = _Task(combiner, predictions, y, features, seed, folds, class_weight)
    if task.learns_nothing:
        return combiner, task.combined()
    return task.solve() if task.is_linear else (task.fit(np.arange(len(task.y))), task.out_of_fold())


def combine(combiner, predictions, features=None):
    """Applies a fitted combiner to arrays.

    Args:
        combiner: A combiner layer, fitted if it has something to learn.
        predictions: Array `(n, members, num_classes)`; `None` will do where the combiner takes features only.
        features: List of arrays `(n, d_i)`, one per member, where the combiner takes features.

    Returns:
        Float32 array `(n, num_classes)`.

    Raises:
        ValueError: If the combiner has not been fitted, or a table is not as described.
    """
    tables.check_layer(combiner)
    if isinstance(combiner, base.DenseCombiner) and not combiner.built:
        raise ValueError(f"This {type(combiner).__name__} has no weights yet. Call `fit_combiner` first.")
    return _apply(combiner, tables.inputs_of(combiner, predictions, features))


class _Task:
    """A combiner of its own to fit, and the checked arrays to fit it on."""

    def __init__(self, combiner, predictions, y, features, seed, folds, class_weight):
        tables.check_layer(combiner)
        self.combiner, self.seed = combiner, check_seed(seed)
        self.inputs = tables.inputs_of(combiner, predictions, features)
        self.votes = isinstance(getattr(combiner, "member_weights", None), str)
        fresh = self.fresh() if not self.votes else with_weights(combiner, None)
        self.num_classes = _apply(fresh, _rows(self.inputs, slice(1))).shape[1]
        tables.check_classes(combiner, self.inputs, self.num_classes)
        self.y = check_y(y, len(self.inputs[0][0]), self.num_classes)
        self.learns_nothing = not self.votes and not fresh.trainable_weights
        self.estimator = getattr(combiner, "final_estimator", None)
        self.is_linear = isinstance(fresh, base.DenseCombiner) and not fresh.units and self.estimator is None
        self.weights = tables.check_class_weight(class_weight, self.num_classes)
        self.folds = None if self.learns_nothing else self._folds(folds)

    def fresh(self):
        return type(self.combiner).from_config(self.combiner.get_config())

    def combined(self):
        return _apply(self.combiner, self.inputs)

    def solve(self):
        layer = self.fresh()
        joined = self._joined(layer, self.inputs)
        solved = solve_linear_head(
            joined, self.y, self.folds, num_classes=self.num_classes, class_weight=self.weights
        )
        kernel, bias = np.asarray(solved.kernel), np.asarray(solved.bias)
        if layer.num_classes == 1:
            kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
        _apply(layer, _rows(self.inputs, slice(1)))
        layer.head.set_weights([kernel, bias])
        return layer, np.asarray(solved.out_of_fold, "float32")

    def out_of_fold(self):
        if self.is_linear:
            return self.solve()[1]
        combined = np.empty((len(self.y), self.num_classes), "float32")
        for fold in np.unique(self.folds):
            held = self.folds == fold
            layer = self.fit(np.flatnonzero(~held))
            combined[held] = _apply(layer, _rows(self.inputs, held))
        return combined

    def fit(self, rows):
        """Returns a new combiner, fitted on these rows."""
        if self.votes:
            return self.find_weights(rows)
        return self.train(rows) if self.estimator is None else self.fit_estimator(rows)

    def fit_estimator(self, rows):
        """Fits the scikit-learn classifier; the layer with its weights needs it no more."""
        config = self.combiner.get_config() | {"final_estimator": None}
        layer = type(self.combiner).from_config(config)
        weights = None if self.weights is None else self.weights[self.y[rows]]
        joined = self._joined(layer, _rows(self.inputs, rows))
        kernel, bias = fit_linear_estimator(self.estimator, joined, self.y[rows], sample_weight=weights)
        _apply(layer, _rows(self.inputs, slice(1)))
        layer.head.set_weights([kernel, bias])
        return layer

    def find_weights(self, rows):
        predictions, y = np.stack([table[rows] for table in self.inputs[0]], axis=1), self.y[rows]
        weights = None if self.weights is None else self.weights[y]
        found = find_weights(self.combiner.member_weights, predictions, y, sample_weight=weights, seed=self.seed)
        return with_weights(self.combiner, found)

    def train(self, rows):
        """Trains a new combiner on these rows; one of their folds tells when to stop."""
        layer = self.fresh()
        _apply(layer, _rows(self.inputs, slice(1)))
        if hasattr(layer, "draw_weights"):
            # Keras would draw the first weights from the user's global random state.
            layer.draw_weights(self.seed)
        folds = self.folds[rows]
        watched = folds == folds[0] if len(np.unique(folds)) > 1 else _own_folds(self.y[rows], self.seed) == 0
        parts = self._part(rows[~watched]), self._part(rows[watched])
        if isinstance(layer, ArchitectureGate):
            fit_gate(layer, *parts)
        else:
            train_layer(layer, *parts, seed=self.seed)
        return layer

    def _folds(self, folds):
        if folds is None:
            return _own_folds(self.y, self.seed)
        folds = np.asarray(folds)
        if folds.shape != self.y.shape:
            raise ValueError(
                f"`folds` must give one fold number per row. Received: shape {folds.shape} for {len(self.y)} rows."
            )
        return folds if len(np.unique(folds)) > 1 else _own_folds(self.y, self.seed)

    def _joined(self, layer, inputs):
        return np.concatenate([ops.convert_to_numpy(layer.join(*part)) for part in _chunks(inputs)])

    def _part(self, rows):
        weights = np.ones(self.num_classes) if self.weights is None else self.weights
        inputs = [[array[rows] for array in group] for group in self.inputs]
        return inputs, self.y[rows], weights[self.y[rows]].astype("float32")


def _own_folds(y, seed):
    return make_folds(y, cv=max(2, min(5, np.bincount(y).min())), seed=seed)


def _apply(layer, inputs):
    return np.concatenate([ops.convert_to_numpy(layer(*part)) for part in _chunks(inputs)]).astype("float32")


def _chunks(inputs):
    n = len(inputs[0][0])
    for start in range(0, n, _ROWS):
        yield _rows(inputs, slice(start, start + _ROWS))


def _rows(inputs, rows):
    return [[ops.convert_to_tensor(array[rows]) for array in group] for group in inputs]

"""MLP: a head with hidden units on cached features, trained with early stopping."""

import dataclasses

import keras
import numpy as np

from ensemble_keras import memory
from ensemble_keras._progress import progress_bar
from ensemble_keras.members.heads import check_head_input
from ensemble_keras.members.softmax_regression import log_softmax
from ensemble_keras.members.standardisation import Standardisation
from ensemble_keras.members.stepwise import StepwiseModel

_BATCH_SIZE = 64
_EPOCHS = 100
_PATIENCE = 8
_VALIDATION_SHARE = 0.1
_LEARNING_RATE, _WEIGHT_DECAY = 1e-3, 1e-2


@dataclasses.dataclass(frozen=True)
class MLPHead:
    """A trained head: dense layers with ReLU between them, and softmax after the last.

    Attributes:
        layers: List of `(kernel, bias)`, float32, for features as they are: the standardisation is folded into the
            first.
        out_of_fold: Float32 array `(n, num_classes)` of probabilities, each row by a head that did not see it.
        log_loss: Float, that of `out_of_fold`, a mean weighted by class where class weights were given.
        history: Dict from `"loss"`, `"accuracy"`, `"val_loss"`, `"val_accuracy"` to a list of floats, one an epoch:
            the means over the folds, as long as all of them trained.
    """

    layers: list
    out_of_fold: np.ndarray
    log_loss: float
    history: dict


def train_mlp_head(
    features, y, folds, *, num_classes, units=(256,), dropout=0.2, sets=None, seed=0, class_weight=None, verbose=0
):
    """Trains an MLP for each fold, and one on all rows.

    A fold trains by AdamW (Loshchilov and Hutter, 2019) until the loss on a tenth of its training rows, set apart
    by class, stops falling; the weights of its best epoch count. The held-out rows are only predicted. The last
    head trains on all rows, for as many epochs as the folds' best ones on average. One compiled model serves all.

    Args:
        features: Float array `(n, d)`.
        y: Int array `(n,)` of classes in `0 … num_classes - 1`.
        folds: Int array `(n,)`, the fold that holds each row out; at least two.
        num_classes: Int, at least 2.
        units: Sequence of ints, the hidden units of each layer. Defaults to `(256,)`.
        dropout: Float in [0, 1): share of each hidden layer dropped in training. Defaults to 0.2.
        sets: Int array `(n,)`: rows with equal numbers, such as the views of an image or the images of a patient, are
            set apart all together or not at all. Defaults to `None`: each row by itself.
        seed: Int, for weights, dropout, order of the rows and the rows set apart. Defaults to 0.
        class_weight: Array `(num_classes,)`, the weight of each row's loss by its class. Defaults to 1.
        verbose: 0 shows no progress. Defaults to 0.

    Returns:
        An `MLPHead`.

    Raises:
        ValueError: If shapes disagree, a feature is not finite, a class is out of range, there are fewer than two
            folds, a weight is not positive, `units` is empty, or `dropout` is out of range.

    Example:

    >>> features, y = np.eye(4, dtype="float32"), [0, 0, 1, 1]
    >>> head = train_mlp_head(features, y, [0, 1, 0, 1], num_classes=2, units=(8,))
    >>> [kernel.shape for kernel, _ in head.layers], head.out_of_fold.shape
    ([(4, 8), (8, 2)], (4, 2))
    """
    features, y, folds, class_weight = check_head_input(features, y, folds, num_classes, class_weight)
    _check_layers(units, dropout)
    scaling = Standardisation(features)
    trainer = _Trainer(
        _build(features.shape[1], num_classes, units, dropout, seed),
        (scaling.apply(features, np.arange(len(y))), y, class_weight[y].astype(np.float32)),
        np.arange(len(y)) if sets is None else np.asarray(sets),
        seed,
    )
    logits, runs, names = np.zeros((len(y), num_classes)), [], np.unique(folds)
    with progress_bar("Training heads", len(names) + 1, unit="heads", verbose=verbose) as advance:
        for fold in names:
            runs.append(trainer.train_with_early_stopping(np.flatnonzero(folds != fold)))
            logits[folds == fold] = trainer.predict(np.flatnonzero(folds == fold))
            advance()
        trainer.train(np.arange(len(y)), epochs=round(np.mean([epoch for epoch, _ in runs])))
        advance()
    layers = trainer.layers()
    del trainer
    memory.free()
    log_probabilities = log_softmax(logits)
    return MLPHead(
        layers=[tuple(a.astype(np.float32) for a in scaling.undo(np.vstack(layers[0]))), *layers[1:]],
        out_of_fold=np.exp(log_probabilities).astype(np.float32),
        log_loss=float(-np.average(log_probabilities[np.arange(len(y)), y], weights=class_weight[y])),
        history=_mean_history([history for _, history in runs]),
    )


def _check_layers(units, dropout):
    if not len(units) or min(units) < 1:
        raise ValueError(f"`units` must hold one or more positive ints. Received: {units}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: {dropout}.")


def _build(d, num_classes, units, dropout, seed):
    """Returns a compiled model from features `(batch, d)` to logits; no random state but its own is used."""
    x = inputs = keras.Input((d,))
    for i, count in enumerate(units):
        initializer = keras.initializers.HeNormal(seed=seed + i)
        x = keras.layers.Dense(count, activation="relu", kernel_initializer=initializer, dtype="float32")(x)
        x = keras.layers.Dropout(dropout, seed=seed + i, dtype="float32")(x)
    initializer = keras.initializers.GlorotUniform(seed=seed + len(units))
    outputs = keras.layers.Dense(num_classes, kernel_initializer=initializer, dtype="float32")(x)
    model = StepwiseModel(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.AdamW(_LEARNING_RATE, weight_decay=_WEIGHT_DECAY),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
    return model


class _Trainer:
    """One model that is trained again and again from the same start.

    `train_on_batch` instead of `fit`: an epoch is a few small steps, and `fit` takes longer to prepare them. All
    batches have one size, so that nothing is compiled twice; what an epoch leaves over is another part in each.
    """

    def __init__(self, model, arrays, sets, seed):
        self.model, self.arrays, self.sets, self.seed = model, arrays, sets, seed
        variables = [*model.variables, *model.optimizer.variables]
        self.start = [(variable, np.array(keras.ops.convert_to_numpy(variable))) for variable in variables]

    def train_with_early_stopping(self, rows):
        """Trains on most of the rows, keeps the best weights; returns their epoch, from 1, and the history."""
        rest, held = _split(rows, self.arrays[1], self.sets, self.seed)
        history, best, weights = [], 0, None
        for logs in self._epochs(rest, _EPOCHS):
            self.model.start_metrics()
            validation = self.model.test_on_batch(*(array[held] for array in self.arrays), return_dict=True)
            history.append(logs | {f"val_{name}": float(value) for name, value in validation.items()})
            if history[-1]["val_loss"] < history[best]["val_loss"] or weights is None:
                best, weights = len(history) - 1, self.model.get_weights()
            if len(history) - 1 - best >= _PATIENCE:
                break
        self.model.set_weights(weights)
        return best + 1, {name: [logs[name] for logs in history] for name in history[0]}

    def train(self, rows, epochs):
        """Trains on the rows for so many epochs."""
        for _ in self._epochs(rows, epochs):
            pass

    def _epochs(self, rows, epochs):
        """Trains from the start; yields the loss and accuracy of each epoch. Seed and epoch settle the order."""
        for variable, value in self.start:
            variable.assign(value)
        size = _batch_size(len(rows))
        for epoch in range(epochs):
            order = np.random.default_rng([self.seed, epoch]).permutation(rows)
            self.model.start_metrics()
            for first in range(0, len(rows) - size + 1, size):
                batch = (array[order[first : first + size]] for array in self.arrays)
                logs = self.model.train_on_batch(*batch, return_dict=True)
            yield {name: float(value) for name, value in logs.items()}

    def predict(self, rows):
        """Returns logits `(rows, num_classes)`."""
        return self.model.predict(self.arrays[0][rows], batch_size=1024, verbose=0)

    def layers(self):
        """Returns the weights of the dense layers, a list of `(kernel, bias)`."""
        return [tuple(layer.get_weights()) for layer in self.model.layers if layer.get_weights()]


def _batch_size(n):
    """Returns 64, or less where an epoch would have fewer than 16 steps; a power of two, so folds share it."""
    return int(2 ** np.clip(np.floor(np.log2(n / 16)), 0, np.log2(_BATCH_SIZE)))


def _split(rows, y, sets, seed):
    """Splits rows into a training part and a tenth for early stopping: whole sets, and one of each class at least.

    Every class keeps a set to train on, which comes first where a class has too few, or shares them with others.
    """
    numbers, classes = np.unique(np.stack([sets[rows], y[rows]]), axis=1)
    classes_of = {}
    for number, k in zip(numbers.tolist(), classes.tolist(), strict=True):
        classes_of.setdefault(number, []).append(k)
    left = dict(zip(*np.unique(classes, return_counts=True), strict=True))
    wanted = {k: max(1, round(_VALIDATION_SHARE * count)) for k, count in left.items()}
    held = []
    for number in np.random.default_rng(seed).permutation(list(classes_of)).tolist():
        own = classes_of[number]
        if all(left[k] > 1 for k in own) and any(wanted[k] > 0 for k in own):
            held.append(number)
            for k in own:
                left[k] -= 1
                wanted[k] -= 1
    held = rows[np.isin(sets[rows], held)]
    # With one set of each class there is nothing to set apart: then the training loss has to do.
    return np.setdiff1d(rows, held), held if len(held) else rows


def _mean_history(histories):
    epochs = min(len(history["loss"]) for history in histories)
    return {
        name: np.mean([history[name][:epochs] for history in histories], axis=0).tolist() for name in histories[0]
    }

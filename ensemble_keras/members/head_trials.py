"""Head trials: heads trained on features in memory, hundreds of times, each kind of head compiled once."""

import keras
import numpy as np

from ensemble_keras._terminal import without_retracing_warnings
from ensemble_keras.measures.metrics import log_losses, roc_auc
from ensemble_keras.members.curves import best_epoch, mean_curve
from ensemble_keras.members.softmax_regression import log_softmax
from ensemble_keras.members.standardisation import Standardisation
from ensemble_keras.members.stepwise import StepwiseModel

# Epochs without a better value on the held-out part after which a trial ends.
_PATIENCE = 8
# Rows that are predicted at a time.
_ROWS = 4096


class HeadTrials:
    """Trains heads on one set of features.

    Rate, decay and dropout are variables of the compiled step, so trials that differ in them share it: building and
    compiling a model for each would take longer than most trials. A head begins with a last layer of zeros, and with
    hidden weights, an order of the rows and a dropout that depend on the seed alone, equal in all trials.

    Args:
        features: Float array `(n, d)`.
        y: Int array `(n,)` of classes.
        parts: List of pairs of row arrays, what a trial trains on and what it is judged by.
        num_classes: Int.
        class_weight: Sequence of floats `(num_classes,)`, or `None`.
        objective: `"val_loss"`, `"val_accuracy"` or `"val_auc"`.
        seed: Int.
    """

    def __init__(self, features, y, parts, *, num_classes, class_weight, objective, seed):
        self._scaling = Standardisation(features)
        self._x, self._y = self._scaling.apply(features, np.arange(len(y))), np.asarray(y)
        weights = np.ones(num_classes) if class_weight is None else np.asarray(class_weight)
        self._weights = weights[self._y].astype("float32")
        self._parts, self._num_classes, self._objective, self._seed = parts, num_classes, objective, seed
        self._steps = {}

    def run(self, values):
        """Trains with a trial's values on each part.

        Args:
            values: Dict of hyperparameters.

        Returns:
            Dict of floats, the figures at the best epoch and `"best_epoch"` itself (0: before any training, when all
            classes are alike); and a string, what a reader must know, or `""`.
        """
        with without_retracing_warnings():
            curves, notes = zip(*(self._curve(values, train, held) for train, held in self._parts), strict=True)
        curve = mean_curve(curves, [len(held) for _, held in self._parts])
        best = best_epoch(curve, self._objective)
        return {**curve[best], "best_epoch": float(best)}, "; ".join(dict.fromkeys(filter(None, notes)))

    def fit(self, values, epochs):
        """Trains a head on all rows, for so many epochs of a trial's schedule.

        Returns:
            List of `(kernel, bias)`, float32, for features as they are.
        """
        step = self._step(values)
        with without_retracing_warnings():
            for epoch in step.epochs(values, np.arange(len(self._y)), self._seed):
                if epoch == epochs:
                    break
        layers = step.layers()
        layers[0] = self._scaling.undo(np.vstack(layers[0]))
        return [tuple(array.astype("float32") for array in layer) for layer in layers]

    def figures(self, probabilities, rows):
        """Returns the figures of predictions `(rows, num_classes)`."""
        y = self._y[rows]
        figures = {
            "val_loss": float(np.average(log_losses(y, probabilities), weights=self._weights[rows])),
            "val_accuracy": float(np.mean(probabilities.argmax(axis=1) == y)),
        }
        return figures | ({"val_auc": roc_auc(y, probabilities)} if self._objective == "val_auc" else {})

    def _curve(self, values, train, held):
        """Returns the figures on the held-out rows after each epoch, from 0, and a note."""
        step, curve = self._step(values), []
        for epoch in step.epochs(values, train, self._seed):
            logits = step.predict(held)
            if not np.isfinite(logits).all():
                return curve, f"loss became NaN in epoch {epoch}"
            curve.append(self.figures(np.exp(log_softmax(logits)), held))
            if epoch - best_epoch(curve, self._objective) >= _PATIENCE:
                break
        return curve, ""

    def _step(self, values):
        units = (values["units"],) if values["head"] == "mlp" else ()
        if units not in self._steps:
            self._steps[units] = _Step((self._x, self._y, self._weights), self._num_classes, units, self._seed)
        return self._steps[units]


class _Step:
    """A compiled head and the state that it begins with."""

    def __init__(self, arrays, num_classes, units, seed):
        self._arrays, self._dropout, self._optimizer = (
            arrays,
            _Dropout(seed, dtype="float32", name="dropout"),
            _AdamW(1e-3),
        )
        x = inputs = keras.Input((arrays[0].shape[1],))
        x = self._dropout(x)
        for count in units:
            start = keras.initializers.HeNormal(seed=seed)
            x = keras.layers.Dense(count, activation="relu", kernel_initializer=start, dtype="float32")(x)
        outputs = keras.layers.Dense(num_classes, kernel_initializer="zeros", dtype="float32")(x)
        self._model = StepwiseModel(inputs, outputs)
        self._model.compile(self._optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        self._optimizer.build(self._model.trainable_variables)
        variables = [*self._model.variables, *self._optimizer.variables]
        self._start = [(variable, np.array(keras.ops.convert_to_numpy(variable))) for variable in variables]

    def epochs(self, values, rows, seed):
        """Trains on rows from the start; yields the number of each epoch that is done, from 0, before any.

        All batches have one size, so that nothing is compiled twice; what is left over comes in another epoch.
        """
        for variable, value in self._start:
            variable.assign(value)
        self._dropout.rate.assign(values["dropout"])
        self._optimizer.decay.assign(values["weight_decay"])
        yield 0
        size = min(values["batch_size"], len(rows))
        for epoch in range(values["epochs"]):
            self._optimizer.learning_rate = _cosine(values["learning_rate"], epoch / values["epochs"])
            order = np.random.default_rng([seed, epoch]).permutation(rows)
            for first in range(0, len(rows) - size + 1, size):
                self._model.train_on_batch(*(array[order[first : first + size]] for array in self._arrays))
            yield epoch + 1

    def predict(self, rows):
        """Returns logits `(rows, num_classes)`."""
        x = self._arrays[0]
        parts = [self._model.predict_on_batch(x[rows[i : i + _ROWS]]) for i in range(0, len(rows), _ROWS)]
        return np.concatenate([np.asarray(part) for part in parts])

    def layers(self):
        """Returns the weights of the dense layers, a list of `(kernel, bias)`."""
        dense = (layer for layer in self._model.layers if isinstance(layer, keras.layers.Dense))
        return [tuple(layer.get_weights()) for layer in dense]


def _cosine(rate, progress):
    """Half a cosine (Loshchilov & Hutter, 2017, without restarts)."""
    return float(rate * 0.5 * (1 + np.cos(np.pi * progress)))


class _Dropout(keras.layers.Layer):
    """Dropout whose rate is a variable; Keras' own is compiled with a number."""

    def __init__(self, seed, **options):
        super().__init__(**options)
        self._generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        self.rate = self.add_weight(shape=(), initializer="zeros", trainable=False, name="rate")

    def call(self, x, training=False):
        if not training:
            return x
        kept = keras.random.uniform(keras.ops.shape(x), seed=self._generator) >= self.rate
        return x * keras.ops.cast(kept, x.dtype) / (1 - self.rate)


class _AdamW(keras.optimizers.AdamW):
    """AdamW whose decay is a variable, of kernels alone; Keras' own is compiled with a number."""

    def __init__(self, learning_rate):
        super().__init__(learning_rate, name="adamw")
        self.exclude_from_weight_decay(var_names=["bias"])

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        # A variable of the optimizer: JAX would take any other for a constant.
        self.decay = self.add_variable(shape=(), initializer="zeros", name="decay")
        self.weight_decay = self.decay

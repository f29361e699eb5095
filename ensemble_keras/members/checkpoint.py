"""Checkpoint: the state of a training after each epoch, in one file, to go on from after a kill."""

import json
import pathlib

import keras
import numpy as np

from ensemble_keras.runs import atomic_path

# Of the watch, JSON values.
_FIELDS = ("history", "start", "note", "best_epoch", "best", "finished")


class Checkpoint(keras.callbacks.Callback):
    """Writes the state at the end of each epoch: weights, optimizer, random states, the best weights so far.

    Args:
        path: Path of the file (`.npz`), or `None`: nothing is kept.
        trainee: The `Trainee`, compiled.
        watch: The callback that keeps history and best weights.
    """

    def __init__(self, path, trainee, watch):
        super().__init__()
        self._path, self._trainee, self._watch = None if path is None else pathlib.Path(path), trainee, watch

    def restore(self):
        """Puts the kept state back; returns the number of epochs that are done.

        0 where there is no file, or one of another batch size (memory ran out later): its optimizer took other steps.
        """
        if self._path is None or not self._path.exists():
            return 0
        with np.load(self._path, allow_pickle=False) as file:
            arrays = dict(file)
        state = json.loads(str(arrays.pop("state")))
        if state["batch_size"] != self._trainee.settings.batch_size:
            return 0
        for field in _FIELDS:
            setattr(self._watch, field, state[field])
        self._watch.weights = _take(arrays, "best")
        for variable, value in zip(self._variables(), _take(arrays, "variable"), strict=True):
            variable.assign(value)
        return state["epochs"]

    def on_epoch_end(self, epoch, logs=None):
        """Writes the file, in one step under its name."""
        if self._path is None:
            return
        # Reading `self.model` brings the values of a compiled epoch back into the variables (JAX).
        assert self.model is self._trainee
        arrays = {f"variable_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self._variables())}
        arrays |= {f"best_{i}": value for i, value in enumerate(self._watch.weights)}
        state = {field: getattr(self._watch, field) for field in _FIELDS}
        state |= {"epochs": epoch + 1, "batch_size": int(self._trainee.settings.batch_size)}
        with atomic_path(self._path) as temporary:
            np.savez(temporary, state=json.dumps(state), **arrays)

    def _variables(self):
        metrics = {id(variable) for variable in self._trainee.metrics_variables}
        own = [variable for variable in self._trainee.variables if id(variable) not in metrics]
        return own + list(self._trainee.optimizer.variables)


def _take(arrays, prefix):
    count = sum(key.startswith(f"{prefix}_") for key in arrays)
    return [arrays[f"{prefix}_{i}"] for i in range(count)]

"""Evaluation: trains the network of one trial; a unit of work, which runs here or in another process."""

import dataclasses
import functools
import json
import pathlib
import threading
import time
import typing

import keras
import numpy as np

from ensemble_keras import memory
from ensemble_keras.members.initialisation import reinitialised
from ensemble_keras.members.settings import Training
from ensemble_keras.members.trainer import Trainer
from ensemble_keras.search.halving import Judge
from ensemble_keras.search.images import SearchImages
from ensemble_keras.search.source import to_source

# Of this process: TensorFlow registers what a step needs in one place for all threads, and each removes it again.
_TRAINING = threading.RLock()


@dataclasses.dataclass(frozen=True)
class Job:
    """What the evaluation of a trial needs.

    Attributes:
        trial_id: String.
        name: String, what its files are called.
        values: Dict, the genome.
        hypermodel: A `HyperImageClassifier`.
        settings: A `Training`, whose `monitor` is the figure to judge by.
        train: `SearchImages` to train on.
        selection: Those by which epochs and trials are chosen.
        comparison: Those that only the comparison of ensembles sees.
        augmentation: As in `build_augmentation`.
        class_weight: List of floats `(num_classes,)`, or `None`.
        seed: Int, of weights, order and augmentation.
        bounds: Dict as in `Judge`.
        max_seconds: Float, how long it may train, or `None`.
        checkpoint: Path of the file that keeps the state on the way, or `None`.
        callbacks: Tuple of `keras.callbacks.Callback`s.
        stop_after: Int, the epochs after which to stop in any case, or `None`.
    """

    trial_id: str
    name: str
    values: dict
    hypermodel: typing.Any
    settings: Training
    train: SearchImages
    selection: SearchImages
    comparison: SearchImages
    augmentation: typing.Any
    class_weight: list | None
    seed: int
    bounds: dict
    max_seconds: float | None
    checkpoint: pathlib.Path | None
    callbacks: tuple = ()
    stop_after: int | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What the evaluation of a trial gave.

    Attributes:
        history: Dict from `"loss"`, `"val_accuracy"`, … to a list of floats, one an epoch.
        best_epoch: Int, from 1: of the weights and the predictions.
        seconds: Float, what it took.
        note: String, why training stopped early, or `""`.
        predictions: float32 array `(n, num_classes)`, of the images for selection, then of those for comparison.
        source: String, the network as Python code.
        weights: List of arrays, or `None` where they are not kept.
    """

    history: dict
    best_epoch: int
    seconds: float
    note: str
    predictions: np.ndarray
    source: str
    weights: list | None = None

    # Fields that are JSON values.
    _PLAIN = ("history", "best_epoch", "seconds", "note")

    def figures(self):
        """Returns the figures of the best epoch, a dict of floats."""
        return {name: values[self.best_epoch - 1] for name, values in self.history.items()}

    def arrays(self):
        """Returns all but the weights as a dict of arrays, for a file."""
        plain = {name: getattr(self, name) for name in self._PLAIN}
        return {"plain": np.str_(json.dumps(plain)), "source": np.str_(self.source), "predictions": self.predictions}

    @classmethod
    def of_arrays(cls, arrays):
        """Returns the evaluation in such a dict."""
        plain = json.loads(str(arrays["plain"]))
        return cls(**plain, source=str(arrays["source"]), predictions=arrays["predictions"])


class TrialTimeoutError(Exception):
    """A trial took longer than it may."""


def one_at_a_time(function):
    """Decorates an evaluation: in an executor's threads one waits for the other, processes run side by side."""

    @functools.wraps(function)
    def run(*arguments, **options):
        with _TRAINING:
            return function(*arguments, **options)

    return run


@one_at_a_time
def evaluate(job, *, penalty=None):
    """Trains the network of a genome from weights that depend on genome and seed alone.

    Args:
        job: A `Job`.
        penalty: As in `Trainer`, or `None`.

    Returns:
        An `Evaluation`.

    Raises:
        FloatingPointError: If the loss became NaN.
        MemoryError: If not even one image at a time fits.
        TrialTimeoutError: If it took longer than `max_seconds`.
        ValueError: If the network has layers that are not Keras' own.
    """
    start = time.perf_counter()
    try:
        built = job.hypermodel.network(job.values)
        network = reinitialised(built, job.seed)
        network.name = built.name
        # First: a layer that is not Keras' own is refused before time is spent on it.
        source = to_source(built)
        clock = [] if job.max_seconds is None else [Clock(job.max_seconds, start)]
        trainer = Trainer(
            network,
            job.settings,
            augmentation=job.augmentation,
            class_weight=job.class_weight,
            penalty=penalty,
            callbacks=[*job.callbacks, *clock],
            seed=job.seed,
            verbose=0,
        )
        stop = Judge(job.settings.monitor, job.bounds) if job.bounds else None
        result = trainer.run(
            job.train,
            job.selection,
            seed=job.seed,
            epochs=job.stop_after,
            checkpoint=job.checkpoint,
            stop=stop,
        )
        if not np.isfinite(result.history["loss"]).all() or not result.best_epoch:
            raise FloatingPointError(result.note or "no epoch gave a finite figure")
        predictions = [images.predict(network) for images in (job.selection, job.comparison)]
        return Evaluation(
            {name: [float(value) for value in values] for name, values in result.history.items()},
            int(result.best_epoch),
            time.perf_counter() - start,
            result.note,
            np.concatenate(predictions),
            source,
            network.get_weights(),
        )
    finally:
        # What refers to the network goes first, also after an error.
        built = network = trainer = None
        memory.free()


class Clock(keras.callbacks.Callback):
    """Ends a training that takes too long.

    Args:
        seconds: Float, how long a trial may take.
        start: Float, when it began, by `time.perf_counter`.
    """

    def __init__(self, seconds, start):
        super().__init__()
        self._seconds, self._start = seconds, start

    def on_train_batch_end(self, batch, logs=None):
        """Raises `TrialTimeoutError` where the time is over."""
        if time.perf_counter() - self._start > self._seconds:
            raise TrialTimeoutError(f"not ready after {self._seconds:g} seconds, which is all that a trial has")

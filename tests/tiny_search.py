"""A search that takes seconds: networks of a few hundred weights on images of 8 pixels."""

import os
import pathlib
import signal

import keras
import numpy as np

from ensemble_keras.search.evaluation import Evaluation
from ensemble_keras.search.source import to_source
from ensemble_keras.search.space import HyperImageClassifier

FAMILIES = {
    "cnn": {"blocks": [2], "filters": [4, 6, 8], "widening": [1.5], "norm": ["batch", "none"], "dropout": [0.0, 0.1]},
}


def tiny_space(num_classes=2, **options):
    """Returns a space of 24 small convolutional networks, each with three learning rates."""
    training = {"learning_rate": [1e-3, 3e-3, 1e-2], "weight_decay": [1e-4], "dropout": [0.0]}
    return HyperImageClassifier(num_classes, (8, 8, 1), families=FAMILIES, training=training, **options)


def tiny_images(n=120, seed=0):
    """Returns noisy images, bright at the left or at the right, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.integers(0, 120, (n, 8, 8, 1))
    x[y == 0, :, :4] += 60
    x[y == 1, :, 4:] += 60
    return x.astype("uint8"), y


def untrained(job):
    """What `evaluate` would return, without training: a function of the genome, as random as a first epoch."""
    network, rng = job.hypermodel.network(job.values), np.random.default_rng(job.seed)
    labels = np.concatenate([job.selection.labels, job.comparison.labels])
    predictions = rng.dirichlet(np.ones(network.output_shape[-1]), len(labels)).astype("float32")
    epochs = job.stop_after or job.settings.epochs
    history = {name: rng.random(epochs).tolist() for name in ("loss", "val_loss", "val_accuracy", "val_auc")}
    best = int(np.argmax(history["val_accuracy"])) + 1
    return Evaluation(history, best, 0.0, "", predictions, to_source(network), network.get_weights())


class KillOnce(keras.callbacks.Callback):
    """Kills the first process that begins so many epochs of one trial; the file `marker` says that it was done."""

    def __init__(self, marker, epochs=1):
        super().__init__()
        self.marker, self.epochs = pathlib.Path(marker), epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs -= 1
        if self.epochs <= 0 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

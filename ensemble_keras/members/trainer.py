"""Trainer: trains one network in place as settings say: what trains, on which images, on which devices."""

import dataclasses
import json

import keras
import numpy as np

from ensemble_keras import memory
from ensemble_keras.data.augmentation import build_augmentation
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.data.sampling import resampled
from ensemble_keras.data.splits import make_folds, together, train_test_indices
from ensemble_keras.devices import data_parallel, resolve_devices
from ensemble_keras.features.keys import augmentation_key
from ensemble_keras.members.initialisation import set_random_state
from ensemble_keras.members.settings import FineTuning
from ensemble_keras.members.training import Trainee, train
from ensemble_keras.members.unfreezing import Activations, split_where_training_starts, unfrozen

# Images are held decoded up to this size, so that a small set is decoded once and a large one needs no memory.
_HELD_BYTES = 512 * 2**20


class Trainer:
    """Trains a network in place, as often as it is asked to: every time from the network's present weights.

    What was compiled is used again, since compiling takes longer than an epoch of a small network.

    Args:
        network: A functional `keras.Model` from images to class probabilities.
        settings: A `Training`: all layers train and the best epoch is kept; or a `FineTuning`: those train that it
            says, and the start is kept where no epoch is better.
        augmentation: As in `build_augmentation`.
        class_weight: List of `num_classes` floats, or `None`.
        sampling: `None`, `"over"` or `"under"`.
        penalty: A `compression.penalties.Penalty`, which is added to the loss: then the last epoch is kept, since it
            works with time. Or `None`.
        devices: As in `fine_tune`.
        callbacks: Sequence of `keras.callbacks.Callback`s.
        seed: Int, of the augmentation.
        name: String, what the progress bar shows. Defaults to the network's name.
        verbose: 0 shows no progress.

    Raises:
        ValueError: If the augmentation, a layer to unfreeze or a device is unknown.
    """

    def __init__(
        self,
        network,
        settings,
        *,
        augmentation=None,
        class_weight=None,
        sampling=None,
        penalty=None,
        devices=None,
        callbacks=(),
        seed=0,
        name=None,
        verbose=1,
    ):
        self.network, self.settings, self.augmentation = network, settings, augmentation
        self.class_weight, self.sampling, self.penalty, self.devices = class_weight, sampling, penalty, devices
        self.callbacks, self.seed, self.name, self.verbose = callbacks, seed, name or network.name, verbose
        self._trainees = {}
        # What is wrong is said before the long work.
        resolve_devices(devices)
        self._augmented = build_augmentation(augmentation) is not None
        with unfrozen(network, settings):
            pass

    def depends_on(self):
        """Returns what the result depends on besides network, images and seed, as JSON values."""
        return {
            "settings": self.settings.config(),
            "augmentation": augmentation_key(self.augmentation),
            "class_weight": self.class_weight,
            "sampling": self.sampling,
            **({} if self.penalty is None else {"penalty": self.penalty.config()}),
        }

    def run(self, images, validation, *, seed, epochs=None, checkpoint=None, stop=None):
        """Trains once.

        Args:
            images: An `ImageDataset` with labels `0 … num_classes − 1`.
            validation: Such a dataset for early stopping, or `None`: the last epoch is kept.
            seed: Int, of the order of the images.
            epochs: Int, to stop after so many epochs of the schedule. Defaults to all.
            checkpoint: Path of the file that keeps the state after each epoch, or `None`.
            stop: As in `train`.

        Returns:
            A `TrainingResult`; its `note` says where the start was kept.

        Raises:
            MemoryError: If not even one image at a time fits; the network is as it was.
        """
        set_random_state(self.network, seed)
        start = [keras.ops.convert_to_numpy(variable) for variable in self.network.variables]
        size = self.network.input_shape[1:3]
        images = hold_decoded(resampled(images, self.sampling, seed), size)
        validation = validation and hold_decoded(validation, size)

        def put_back():
            for variable, value in zip(self.network.variables, start, strict=True):
                variable.assign(value)

        def step(batch_size):
            put_back()
            return self._train(
                images, validation, batch_size, seed=seed, epochs=epochs, checkpoint=checkpoint, stop=stop
            )

        try:
            return memory.with_smaller_batches(step, self.settings.batch_size, name=self.name)[0]
        except MemoryError:
            put_back()
            raise

    def release(self):
        """Frees what was compiled for training; the network stays."""
        self._trainees.clear()
        memory.free()

    def _train(self, images, validation, batch_size, **arguments):
        with data_parallel(self.network, self.devices) as network, unfrozen(network, self.settings) as rates:
            network, images, validation = self.cut(network, images, validation)
            trainee = self._trainees.get(batch_size)
            if trainee is None or trainee.network is not network:
                settings = dataclasses.replace(self.settings, batch_size=batch_size)
                trainee = self._trainees[batch_size] = self.new_trainee(network, settings)
            return train(
                trainee,
                images,
                validation,
                rates=rates,
                keep_start=isinstance(self.settings, FineTuning),
                callbacks=self.callbacks,
                name=self.name,
                verbose=self.verbose,
                **arguments,
            )

    def new_trainee(self, network, settings):
        """Returns the `Trainee` of a network; another kind of lesson has another."""
        return Trainee(
            network,
            settings,
            augmentation=build_augmentation(self.augmentation, seed=self.seed),
            class_weight=self.class_weight,
            penalty=self.penalty,
        )

    def cut(self, network, images, validation):
        """Returns what is trained and its data: the part above the cut and activations, where that is the same."""
        whole = network, images, validation
        parts = None if self._augmented else split_where_training_starts(network)
        if parts is None or not parts[0].weights:  # preprocessing alone costs next to nothing
            return whole
        bottom, top = parts
        below = [part and Activations.of(bottom, part, verbose=self.verbose) for part in (images, validation)]
        return whole if below[0] is None or (validation and below[1] is None) else (top, *below)


def result_arrays(result):
    """Returns a `TrainingResult` as a dict of arrays, for a `Run`'s unit of work."""
    arrays = {"best_epoch": np.int64(result.best_epoch), "note": np.str_(result.note)}
    arrays |= {f"history_{key}": np.asarray(values) for key, values in result.history.items()}
    return arrays | {"start": np.str_(json.dumps(result.start))}


def weight_arrays(model):
    """Returns a model's weights as a dict of arrays."""
    return {f"weight_{i}": value for i, value in enumerate(model.get_weights())}


def weights_of(arrays):
    """Returns the list of weights in such a dict."""
    count = sum(key.startswith("weight_") for key in arrays)
    return [arrays[f"weight_{i}"] for i in range(count)]


def hold_decoded(dataset, image_size):
    """Returns the dataset with its images decoded and in memory where they are small enough, else as it is."""
    if not isinstance(dataset, ImageDataset) or len(dataset) * image_size[0] * image_size[1] * 3 > _HELD_BYTES:
        return dataset
    pixels = dataset.load(image_size=image_size)
    return ImageDataset.from_arrays(pixels, dataset.labels, class_names=dataset.class_names, groups=dataset.groups)


def inner_split(dataset, settings, seed):
    """Returns the rows of the training and of the validation part for early stopping.

    Stratified, groups and duplicates together. The validation rows are empty where there are too few images or groups
    to keep some apart.
    """
    return train_test_indices(
        dataset.labels,
        groups=dataset.groups,
        digests=dataset.digests(),
        test_size=settings.validation_split,
        seed=seed,
        every_class=False,
    )


def separate_sets(dataset):
    """Returns an int array `(n,)`: equal numbers for images of one group and for identical ones."""
    return together(len(dataset), dataset.groups, dataset.digests())


def folds_that_fit(dataset, seed):
    """Returns five folds to choose a head by, or as many as the rarest class has separate images (or groups)."""
    sets = separate_sets(dataset)
    fewest = min(len(np.unique(sets[dataset.labels == label])) for label in np.unique(dataset.labels))
    cv = max(2, min(5, fewest))
    return make_folds(dataset.labels, groups=dataset.groups, digests=dataset.digests(), cv=cv, seed=seed)

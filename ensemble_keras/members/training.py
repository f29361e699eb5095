"""Training: fits a member end to end by gradient descent, stops early, keeps the best weights."""

import dataclasses

import keras
import numpy as np

from ensemble_keras._progress import progress_bar
from ensemble_keras._terminal import without_retracing_warnings
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.data.splits import train_test_indices

# Images are held decoded up to this size, so that a small set is decoded once and a large one needs no memory.
_HELD_BYTES = 512 * 2**20


@dataclasses.dataclass(frozen=True)
class Training:
    """How a member without pretrained weights is trained: AdamW with a cosine schedule, early stopping.

    Attributes:
        epochs: Int, the most passes over the training images; the learning rate falls to 0 over them.
        batch_size: Int, images per step; halved, and said once, where memory runs out.
        learning_rate: Float, of AdamW (Loshchilov & Hutter, 2019), at the start.
        weight_decay: Float, of AdamW.
        patience: Int, epochs without a better validation loss after which training stops.
        validation_split: Float in (0, 1): share of the training images, stratified, that early stopping looks at
            where no validation data are given. Never the images of the held-out fold.
    """

    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    patience: int = 10
    validation_split: float = 0.1

    def __post_init__(self):
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {getattr(self, name)}.")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                "`learning_rate` must be above 0 and `weight_decay` at least 0. "
                f"Received: {self.learning_rate} and {self.weight_decay}."
            )
        if not 0 < self.validation_split < 1:
            raise ValueError(f"`validation_split` must be between 0 and 1. Received: {self.validation_split}.")


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What training gave.

    Attributes:
        history: Dict from `"loss"`, `"accuracy"`, `"val_loss"`, `"val_accuracy"` to a list of floats, one an epoch.
        best_epoch: Int, the epoch (from 1) whose weights the model has now; 0 where there was none to keep.
        note: String, what a reader must know (`"loss became NaN in epoch 3"`), or `""`.
    """

    history: dict
    best_epoch: int
    note: str


def train_member(model, images, validation, settings, *, seed, epochs=None, class_weight=None, name=None, verbose=1):
    """Trains a model in place and leaves it with its best weights.

    A model that was trained before is not compiled again, only its optimizer starts anew: compiling takes longer than
    an epoch of a small network.

    Args:
        model: A `keras.Model` from images to class probabilities.
        images: An `ImageDataset` with labels `0 … num_classes − 1`.
        validation: An `ImageDataset` for early stopping, or `None`: then all epochs are run.
        settings: A `Training`.
        seed: Int. The order of the images is a function of it and the epoch.
        epochs: Int, to stop after so many epochs of the schedule. Defaults to all.
        class_weight: Dict from class index to weight of its images, or `None`.
        name: String, what the progress bar shows. Defaults to the model's name.
        verbose: 0 shows no progress.

    Returns:
        A `TrainingResult`.
    """
    size = model.input_shape[1:3]
    if not model.compiled:
        model.compile(
            optimizer=keras.optimizers.AdamW(weight_decay=settings.weight_decay),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    best = _BestWeights(settings.patience, watched="loss" if validation is None else "val_loss")
    epochs = settings.epochs if epochs is None else epochs
    with (
        progress_bar(f"Training {name or model.name}", epochs, unit="epochs", verbose=verbose) as advance,
        without_retracing_warnings(),
    ):
        history = model.fit(
            images.batches(image_size=size, batch_size=settings.batch_size, shuffle=True, seed=seed),
            validation_data=validation and validation.batches(image_size=size, batch_size=settings.batch_size),
            epochs=epochs,
            class_weight=class_weight,
            callbacks=[
                best,
                keras.callbacks.LearningRateScheduler(lambda epoch: _cosine(settings, epoch)),
                keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: advance()),
            ],
            # The batches shuffle themselves; Keras would use the global random state.
            shuffle=False,
            verbose=0,
        ).history
    curves = {key: [float(value) for value in values] for key, values in history.items() if key != "learning_rate"}
    return TrainingResult(curves, best.epoch, best.note)


def _cosine(settings, epoch):
    """Learning rate of an epoch, from 0: half a cosine (Loshchilov & Hutter, 2017, without restarts)."""
    return settings.learning_rate * 0.5 * (1 + np.cos(np.pi * epoch / settings.epochs))


class _BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, stops when patience is over or the loss is no number.

    Keras' own EarlyStopping and TerminateOnNaN do not work together: the one keeps weights by a validation loss
    that the other never lets it see. Without validation data the last epoch is the best one.
    """

    def __init__(self, patience, watched):
        super().__init__()
        self._patience, self._watched = patience, watched
        self.epoch, self.note, self._lowest, self._weights = 0, "", np.inf, None

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        value = logs[self._watched]
        if not (np.isfinite(value) and np.isfinite(logs["loss"])):
            self.note = f"loss became NaN in epoch {epoch + 1}: weights of epoch {self.epoch} kept"
            self.model.stop_training = True
        elif self._watched == "loss" or value < self._lowest:
            self.epoch, self._lowest, self._weights = epoch + 1, value, self.model.get_weights()
        elif epoch + 1 - self.epoch >= self._patience:
            self.model.stop_training = True

    def on_train_begin(self, logs=None):
        self._weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self._weights)


def hold_decoded(dataset, image_size):
    """Returns the dataset with its images decoded and in memory where they are small enough, else as it is."""
    if len(dataset) * image_size[0] * image_size[1] * 3 > _HELD_BYTES:
        return dataset
    pixels = dataset.load(image_size=image_size)
    return ImageDataset.from_arrays(pixels, dataset.labels, class_names=dataset.class_names, groups=dataset.groups)


def inner_split(dataset, settings, seed):
    """Returns training and validation parts for early stopping: stratified, groups and duplicates together.

    The validation part is `None` where there are too few images or groups to keep some apart.
    """
    rest, held = train_test_indices(
        dataset.labels,
        groups=dataset.groups,
        digests=dataset.digests(),
        test_size=settings.validation_split,
        seed=seed,
        every_class=False,
    )
    return dataset[rest], dataset[held] if len(held) else None


def reinitialised(model, seed):
    """Returns a copy of a model with new random weights that depend on `seed` alone.

    Every initializer and dropout layer gets a seed of its own, so the user's global random state is neither read
    nor changed.
    """
    seeds = np.random.default_rng(seed)

    def clone(layer):
        return layer.__class__.from_config(_seeded(layer.get_config(), seeds))

    return keras.models.clone_model(model, clone_function=clone, recursive=True)


def set_state(model, other):
    """Gives a model all state of an equal one: weights, and the random state of its dropout."""
    for variable, value in zip(model.variables, other.variables, strict=True):
        variable.assign(value)


def _seeded(config, seeds):
    if isinstance(config, dict):
        return {
            key: int(seeds.integers(2**31)) if key == "seed" else _seeded(value, seeds)
            for key, value in config.items()
        }
    return [_seeded(value, seeds) for value in config] if isinstance(config, list) else config

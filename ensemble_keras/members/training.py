"""Training: fits a network by gradient descent, stops early, keeps the best weights, goes on after a kill."""

import contextlib
import dataclasses

import keras
import numpy as np
from sklearn.metrics import roc_auc_score

from ensemble_keras._progress import progress_bar
from ensemble_keras._terminal import without_retracing_warnings
from ensemble_keras.data.batches import ImageBatches
from ensemble_keras.devices import replica_count, supports_bfloat16, with_precision
from ensemble_keras.features.extraction import predict
from ensemble_keras.measures.metrics import check_probabilities
from ensemble_keras.members.checkpoint import Checkpoint
from ensemble_keras.members.optimizers import build_optimizer
from ensemble_keras.members.unfreezing import leaves

# Probabilities below count as this: its logarithm and its gradient are still numbers.
_SMALLEST = 1e-30
# Of the focal loss, as in its paper.
_GAMMA = 2
# Batch normalisations of momentum 0.9, as custom backbones have, need no other.
_LEAST_MOMENTUM = 0.9
# What is smaller in a better model.
_LOWER_IS_BETTER = {"val_loss": True, "val_accuracy": False, "val_auc": False}


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What training gave.

    Attributes:
        history: Dict from `"loss"`, `"accuracy"`, `"val_loss"`, `"val_accuracy"`, `"val_auc"` to a list of floats,
            one an epoch.
        best_epoch: Int, the epoch (from 1) whose weights the model has now; 0 for those it started with.
        start: Dict of the validation figures before the first epoch, or empty.
        note: String, what a reader must know (`"loss became NaN in epoch 3"`), or `""`.
    """

    history: dict
    best_epoch: int
    start: dict
    note: str


class Trainee(keras.Model):
    """A network in training: augments images and labels, predicts, and takes the loss.

    All of it is one graph. The network knows nothing of augmentation and loss, so it stays what it will be saved as.

    Args:
        network: A `keras.Model` from images (or activations) to class probabilities; trained in place.
        settings: A `Training`.
        augmentation: Layer from a dict of `"images"` and one-hot `"labels"` to such a dict, or `None`.
        class_weight: Sequence of `num_classes` floats, or `None`.
        penalty: What is added to the loss, such as a `compression.penalties.Penalty`: its `on(network)` returns a
            function from the epochs trained so far, a float scalar, to a scalar; or `None`.
    """

    def __init__(self, network, settings, *, augmentation=None, class_weight=None, penalty=None):
        super().__init__(name=f"training_{network.name}")
        self.network, self.augmentation, self.settings = network, augmentation, settings
        self.num_classes = max(network.output_shape[-1], 2)
        self.class_weight = None if class_weight is None else np.asarray(class_weight, "float32")
        if augmentation is not None and not augmentation.built:
            augmentation.build({"images": (None, *network.input_shape[1:])})
            augmentation.built = True
        self.penalty = None if penalty is None else penalty.on(network)
        # A variable, since a compiled step takes a plain number as a constant.
        self._step = None if penalty is None else self.add_weight(name="step", initializer="zeros", trainable=False)
        # All its layers are, and callbacks such as BackupAndRestore ask for it.
        self.built = True
        self._steps_per_epoch, self._optimizer_start = None, None
        self._augmentation_start = _values(self._augmentation_variables())

    def call(self, inputs, training=False):
        """Returns the probabilities, and the labels that belong to them (mixed ones after MixUp)."""
        images, labels = self.seen(inputs, training)
        return {"predictions": probabilities(self.network, images, training=training), "labels": labels}

    def seen(self, inputs, training):
        """Returns images as the network sees them, augmented in training, and their one-hot labels."""
        images = keras.ops.cast(inputs["images"], "float32")
        labels = keras.ops.one_hot(inputs["labels"], self.num_classes, dtype="float32")
        if training and self.augmentation is not None:
            mixed = self.augmentation({"images": images, "labels": labels}, training=True)
            images, labels = mixed["images"], mixed["labels"]
        return images, labels

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the mean loss of the batch, and what layers and the penalty add."""
        return self.loss_of_batch(y_pred) + sum(self.losses) + self._penalised(training)

    def loss_of_batch(self, y_pred):
        """Returns the mean loss of what `call` returned, by the weights of the classes."""
        labels = y_pred["labels"]
        losses = self._loss_of_rows(labels, y_pred["predictions"])
        if self.class_weight is not None:
            losses = losses * keras.ops.matmul(labels, self.class_weight[:, None])[:, 0]
        return keras.ops.mean(losses)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Counts the accuracy."""
        return super().compute_metrics(x, y, y_pred["predictions"], sample_weight)

    def _loss_of_rows(self, labels, p):
        # Keras' losses cut probabilities off at 1e-7, where the gradient ends: a head far off would stay there.
        p = keras.ops.maximum(p, _SMALLEST)
        smoothing = self.settings.label_smoothing
        losses = -(labels * (1 - smoothing) + smoothing / self.num_classes) * keras.ops.log(p)
        if self.settings.loss == "focal":
            losses = losses * (1 - p) ** _GAMMA
        return keras.ops.sum(losses, axis=-1)

    def _penalised(self, training):
        """Returns the penalty at this step, and counts the step."""
        if self.penalty is None:
            return 0.0
        value = self.penalty(self._step / self._steps_per_epoch)
        if training:
            self._step.assign_add(1.0)
        return value

    def restart(self, steps_per_epoch, rates=None):
        """Makes optimizer, penalty, augmentation as they were before any step; compiles for a new schedule only."""
        if steps_per_epoch != self._steps_per_epoch:
            variables = self.trainable_variables
            optimizer = build_optimizer(self.settings, variables, steps_per_epoch=steps_per_epoch, rates=rates)
            self.compile(optimizer=optimizer, metrics=["accuracy"], jit_compile=self.settings.jit_compile)
            self._steps_per_epoch, self._optimizer_start = steps_per_epoch, _values(optimizer.variables)
        _assign(self.optimizer.variables, self._optimizer_start)
        _assign(self._augmentation_variables(), self._augmentation_start)
        if self._step is not None:
            self._step.assign(0.0)

    def _augmentation_variables(self):
        return [] if self.augmentation is None else self.augmentation.variables


def probabilities(network, images, *, training):
    """Returns what a network says of images, two columns for one sigmoid unit, too."""
    p = network(images, training=training)
    return keras.ops.concatenate([1 - p, p], axis=-1) if p.shape[-1] == 1 else p


def _values(variables):
    """Returns the values of variables; `None` for zeros, of which an optimizer has twice as many as weights."""
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    return [value.copy() if value.any() else None for value in values]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.zeros(variable.shape, variable.dtype) if value is None else value)


def train(
    trainee,
    images,
    validation,
    *,
    seed,
    epochs=None,
    rates=None,
    keep_start=False,
    checkpoint=None,
    callbacks=(),
    stop=None,
    name=None,
    verbose=1,
):
    """Trains a network in place and leaves it with its best weights, under a penalty with its last ones.

    The order of the images is a function of the seed and the epoch, so training that goes on after a kill sees what
    it would have seen. A trainee may be trained again and again: every time from its network's present weights.

    Args:
        trainee: A `Trainee`.
        images: An `ImageDataset` with labels `0 … num_classes − 1`, or anything with its `load` and `labels`.
        validation: Such data for early stopping, or `None`: then all epochs are run and the last is the best.
        seed: Int.
        epochs: Int, to stop after so many epochs of the schedule. Defaults to all.
        rates: Dict from a variable's path to the factor of its learning rate.
        keep_start: Whether the weights at the start count as epoch 0, to be kept where no epoch is better.
        checkpoint: Path of the file that keeps the state after each epoch, or `None`.
        callbacks: `keras.callbacks.Callback`s of the user's. Their logs hold the validation figures, too.
        stop: Function of an epoch's number (from 1) and its logs that returns why training stops after it, or `None`.
        name: String, what the progress bar shows. Defaults to the network's name.
        verbose: 0 shows no progress.

    Returns:
        A `TrainingResult`.

    Raises:
        ValueError: If `settings.monitor` is `"val_auc"` and the validation images are of one class.
    """
    settings, network = trainee.settings, trainee.network
    epochs = settings.epochs if epochs is None else epochs
    batches = _Labelled(images, network.input_shape[1:3], settings.batch_size, seed)
    trainee.restart(len(batches), rates)
    validate = _validator(network, validation, trainee.class_weight, settings.monitor)
    # What a penalty makes small is smaller in every further epoch, whatever the validation images say.
    watch = _Watch(settings, validate, trainee.optimizer, keep_start, stop, keep_last=trainee.penalty is not None)
    kept = Checkpoint(checkpoint, trainee, watch)
    with (
        progress_bar(f"Training {name or network.name}", epochs, unit="epochs", verbose=verbose) as advance,
        without_retracing_warnings(),
        _precision(network, settings),
        _statistics_of_an_epoch(network, len(batches)),
    ):
        first = kept.restore()
        advance(first)
        if first == epochs == 0:
            return TrainingResult({}, 0, {}, "")  # the start was best in every fold
        if first < epochs and not watch.finished:
            trainee.fit(
                batches,
                epochs=epochs,
                initial_epoch=first,
                callbacks=[
                    keras.callbacks.LambdaCallback(on_epoch_begin=batches.begin, on_epoch_end=lambda *_: advance()),
                    watch,
                    kept,
                    *callbacks,
                ],
                # The batches shuffle themselves; Keras would use the global random state.
                shuffle=False,
                verbose=0,
            )
    network.set_weights(watch.weights)
    return TrainingResult(watch.history, watch.best_epoch, watch.start, watch.note or _kept_start(watch, settings))


@contextlib.contextmanager
def _statistics_of_an_epoch(network, steps):
    """Lets batch normalisations that train forget within an epoch what they had before, while the block runs.

    Pretrained ones have a momentum of up to 0.999, for epochs of thousands of steps: after a few hundred steps on a
    small data set, the averages would still be those of the weights and images before.
    """
    # Of what was before, e^-5 is left.
    momentum = max(_LEAST_MOMENTUM, 1 - 5 / steps)
    norms = [layer for layer in leaves(network) if isinstance(layer, keras.layers.BatchNormalization)]
    before = [(norm, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = min(norm.momentum, momentum)
        yield
    finally:
        for norm, value in before:
            norm.momentum = value


def _kept_start(watch, settings):
    """Says that no epoch was better than the start, where that is so."""
    if watch.best_epoch or not watch.history:
        return ""
    values, best = watch.history[settings.monitor], min if _LOWER_IS_BETTER[settings.monitor] else max
    return (
        f"fine-tuning did not beat its start ({settings.monitor} {watch.best:.4g} at the start, {best(values):.4g} "
        "in its best epoch): the start is kept"
    )


class _Labelled(keras.utils.PyDataset):
    """Batches `({"images", "labels"}, labels)`, all of one size, since every other one would be compiled anew.

    The few images that are left over come in another epoch.
    """

    def __init__(self, images, image_size, batch_size, seed):
        super().__init__()
        steps = -(-len(images.labels) // batch_size)
        size = len(images.labels) // steps
        # Devices take equal parts of a batch.
        size = max(size - size % replica_count(), min(size, replica_count()))
        self._steps = steps
        self._batches = ImageBatches(images, image_size=image_size, batch_size=size, shuffle=True, seed=seed)

    def __len__(self):
        return self._steps

    def __getitem__(self, index):
        images, labels = self._batches[index]
        return {"images": images, "labels": labels}, labels

    def begin(self, epoch, logs=None):
        """Puts the images into the order of an epoch, from 0, whatever Keras looked at before it."""
        self._batches.epoch = epoch


class _Watch(keras.callbacks.Callback):
    """Validates after each epoch, keeps the best weights, stops when patience is over or the loss is no number.

    Keras' own EarlyStopping and TerminateOnNaN do not work together: the one keeps weights by a validation loss
    that the other never lets it see. Without validation data, or with `keep_last`, the last epoch is the best one.
    """

    def __init__(self, settings, validate, optimizer, keep_start, stop, *, keep_last):
        super().__init__()
        self._settings, self._validate, self._keep_start, self._stop = settings, validate, keep_start, stop
        self._keep_last = keep_last or validate is None
        self._average = keras.callbacks.SwapEMAWeights() if getattr(optimizer, "use_ema", False) else None
        self.history, self.start, self.note = {}, {}, ""
        self.best_epoch, self.best, self.weights, self.finished = 0, None, None, False

    def on_train_begin(self, logs=None):
        if self.weights is not None:
            return  # restored
        self.weights = self.model.network.get_weights()
        if self._keep_start and self._validate is not None:
            self.start = self._validate()
            self.best = self.start[self._settings.monitor]

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        with self._averaged(self.model):
            if np.isfinite(logs["loss"]) and self._validate is not None:
                # The user's callbacks, which come after, see them as Keras' own.
                logs.update(self._validate())
            self._judge(epoch + 1, logs)
        for key, value in logs.items():
            self.history.setdefault(key, []).append(float(value))
        reason = None if self.finished or self._stop is None else self._stop(epoch + 1, logs)
        if reason is not None:
            self.note, self.finished = reason, True
        if self.finished:
            self.model.stop_training = True

    def _judge(self, epoch, logs):
        monitor = self._settings.monitor
        value = logs.get(monitor if self._validate is not None else "loss", np.nan)
        if not (np.isfinite(value) and np.isfinite(logs["loss"])):
            self.note = f"loss became NaN in epoch {epoch}: weights of epoch {self.best_epoch} kept"
            self.finished = True
        elif self._keep_last or self.best is None or self._is_better(value):
            self.best_epoch, self.best, self.weights = epoch, value, self.model.network.get_weights()
        elif epoch - self.best_epoch >= self._settings.patience:
            self.finished = True

    def _is_better(self, value):
        return value < self.best if _LOWER_IS_BETTER[self._settings.monitor] else value > self.best

    @contextlib.contextmanager
    def _averaged(self, model):
        """Puts the averaged weights into the model while the block runs, where there are any.

        Reading `self.model`, the caller has brought the values of a compiled epoch back into the variables (JAX).
        """
        if self._average is None:
            yield
            return
        self._average.set_model(model)
        self._average.on_test_begin()
        try:
            yield
        finally:
            self._average.on_test_end()


def _validator(network, data, class_weight, monitor):
    """Returns a function that gives the validation figures, or `None` where there is nothing to validate on."""
    if data is None:
        return None
    labels = np.asarray(data.labels)
    if monitor == "val_auc" and len(np.unique(labels)) < 2:
        raise ValueError(
            "`monitor='val_auc'` needs validation images of two classes at least. "
            f"Received: {len(labels)}, all of class {labels[0]}. Give `validation_data`, or monitor 'val_loss'."
        )
    weights = None if class_weight is None else class_weight[labels]

    def validate():
        p = data.predict(network) if hasattr(data, "predict") else predict(network, data, verbose=0)
        if not np.isfinite(p).all():
            return dict.fromkeys(_LOWER_IS_BETTER, np.nan)
        p = check_probabilities(p)
        chosen = np.clip(p[np.arange(len(labels)), labels], 1e-7, 1)
        return {
            "val_loss": float(np.average(-np.log(chosen), weights=weights)),
            "val_accuracy": float(np.mean(p.argmax(axis=1) == labels)),
            "val_auc": _mean_auc(labels, p),
        }

    return validate


def _mean_auc(labels, p):
    """ROC AUC of each class that is there against the rest, their mean."""
    present = np.unique(labels)
    return float(np.mean([roc_auc_score(labels == k, p[:, k]) for k in present])) if len(present) > 1 else np.nan


def _precision(network, settings):
    mixed = supports_bfloat16() if settings.mixed_precision is None else settings.mixed_precision
    return with_precision(network, "mixed_bfloat16") if mixed else contextlib.nullcontext()

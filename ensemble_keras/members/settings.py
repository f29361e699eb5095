"""Settings: how a network is trained by gradient descent, from random weights or from pretrained ones."""

import dataclasses
import numbers

import keras

from ensemble_keras._validation import check_choice, check_number, suggest

LOSSES = ("crossentropy", "focal")
MONITORS = ("val_loss", "val_accuracy", "val_auc")
_OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop", "nadam", "adamax", "lion", "lamb", "adafactor", "adagrad")


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained from random weights: AdamW, a cosine schedule, early stopping.

    Attributes:
        epochs: Int, the most passes over the training images; the learning rate falls to 0 over them.
            Defaults to 50.
        batch_size: Int, the most images per step. All steps take equally many. Where memory runs out it is halved,
            which the log says, and training starts again, at the same learning rate. Defaults to 32.
        optimizer: A Keras optimizer's name, in lower case (`"adamw"`, Loshchilov & Hutter, 2019), or an optimizer:
            of this a copy is used with its own learning rate, weight decay, clipping and averaging. Defaults to
            `"adamw"`.
        learning_rate: Float, after the warm-up. Defaults to 0.001.
        weight_decay: Float, decoupled from the gradient; not of biases and of normalisation. Defaults to
            0.0001.
        warmup_epochs: Float, epochs over which the learning rate rises from 0, before half a cosine takes it back to
            0 (Loshchilov & Hutter, 2017, without restarts). Defaults to 0.
        loss: `"crossentropy"`, or `"focal"` (Lin et al., 2017, with gamma 2). Defaults to
            `"crossentropy"`.
        label_smoothing: Float in [0, 1) (Szegedy et al., 2016). Defaults to 0.
        global_clipnorm: Float, the largest norm of all gradients together. Defaults to `None`: not clipped.
        ema_momentum: Float in (0, 1): the weights become their exponential moving average (Polyak & Juditsky,
            1992). Defaults to `None`: they are the last ones.
        monitor: What early stopping and the best epoch go by: `"val_loss"` (the plain cross-entropy by the weights of
            the classes, whatever `loss` and `label_smoothing` are), `"val_accuracy"` or `"val_auc"` (ROC AUC, the
            mean over classes). Defaults to `"val_loss"`.
        patience: Int, epochs without a better value after which training stops. Defaults to 10.
        validation_split: Float in (0, 1): share of the training images, stratified and by group, that early stopping
            looks at where no validation data are given. Never the images of the held-out fold.
            Defaults to 0.1.
        mixed_precision: Whether activations are bfloat16. Defaults to `None`: where the accelerator has it.
        jit_compile: `True`, `False` or `"auto"`, as in `keras.Model.compile`. Defaults to `"auto"`.
    """

    epochs: int = 50
    batch_size: int = 32
    optimizer: str | keras.optimizers.Optimizer = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_epochs: float = 0.0
    loss: str = "crossentropy"
    label_smoothing: float = 0.0
    global_clipnorm: float | None = None
    ema_momentum: float | None = None
    monitor: str = "val_loss"
    patience: int = 10
    validation_split: float = 0.1
    mixed_precision: bool | None = None
    jit_compile: bool | str = "auto"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "patience"):
            check_number(name, getattr(self, name), "at least 1, an int", _counts)
        check_number("learning_rate", self.learning_rate, "above 0", lambda rate: rate > 0)
        check_number("weight_decay", self.weight_decay, "at least 0", lambda decay: decay >= 0)
        check_number("validation_split", self.validation_split, "between 0 and 1", lambda share: 0 < share < 1)
        check_number("warmup_epochs", self.warmup_epochs, "from 0 to below `epochs`", lambda n: 0 <= n < self.epochs)
        check_number("label_smoothing", self.label_smoothing, "in [0, 1)", lambda share: 0 <= share < 1)
        if self.global_clipnorm is not None:
            check_number("global_clipnorm", self.global_clipnorm, "above 0, or None", lambda norm: norm > 0)
        if self.ema_momentum is not None:
            check_number("ema_momentum", self.ema_momentum, "between 0 and 1, or None", lambda share: 0 < share < 1)
        check_choice("mixed_precision", self.mixed_precision, (None, True, False))
        check_choice("jit_compile", self.jit_compile, ("auto", True, False))
        check_choice("loss", self.loss, LOSSES)
        check_choice("monitor", self.monitor, MONITORS)
        if isinstance(self.optimizer, str):
            if self.optimizer not in _OPTIMIZERS:
                raise ValueError(
                    f"Unknown optimizer {self.optimizer!r}.{suggest(self.optimizer, _OPTIMIZERS)} "
                    f"Known: {', '.join(_OPTIMIZERS)}; or give a keras.optimizers.Optimizer."
                )
        elif not isinstance(self.optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                f"`optimizer` must be a name or a keras.optimizers.Optimizer. Received: {self.optimizer!r}."
            )

    def config(self):
        """Returns the settings as JSON values, those that say what training gives."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(self.optimizer, keras.optimizers.Optimizer):
            values["optimizer"] = keras.saving.serialize_keras_object(self.optimizer)
            # Keras numbers the optimizers of a process: "sgd_1".
            del values["optimizer"]["config"]["name"]
        return values


@dataclasses.dataclass(frozen=True)
class FineTuning(Training):
    """How a pretrained network is trained on: as `Training`, gently, and with a part of it frozen if asked for.

    It has all attributes of `Training`; those with other defaults stand here once more.

    Attributes:
        epochs: As in `Training`. Defaults to 5.
        learning_rate: As in `Training`. Defaults to 0.0003.
        warmup_epochs: As in `Training`. Defaults to 0.5.
        global_clipnorm: As in `Training`. Defaults to 1.
        patience: As in `Training`. Defaults to 5.
        unfreeze: `"all"`; an int, the last so many blocks of a backbone; or a layer's name: it and all after it. A
            block is what shares a name up to its number (`block_16_expand`, `conv5_block3_1_conv`); where names
            have no such number, a layer with weights and those without a kernel that follow it. The head always
            trains. Defaults to `"all"`.
        train_batch_norm: Whether batch normalisation trains and uses the statistics of its batch. Defaults to
            `False`: it stays as it was trained, since small batches give poor statistics. Where it trains, its
            averages forget within an epoch what they had before: their momentum is at most 1 - 5 / steps of an
            epoch, or 0.9 where that is greater.
        layer_decay: Float in (0, 1]: the learning rate of each block, and so its weight decay, is this times that of
            the block after it (Clark et al., 2020). Defaults to 1.
    """

    epochs: int = 5
    learning_rate: float = 3e-4
    warmup_epochs: float = 0.5
    global_clipnorm: float | None = 1.0
    patience: int = 5
    unfreeze: str | int = "all"
    train_batch_norm: bool = False
    layer_decay: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_number("layer_decay", self.layer_decay, "in (0, 1]", lambda factor: 0 < factor <= 1)
        check_choice("train_batch_norm", self.train_batch_norm, (True, False))
        blocks = self.unfreeze
        if isinstance(blocks, bool) or not isinstance(blocks, int | str) or (isinstance(blocks, int) and blocks < 1):
            raise ValueError(
                f"`unfreeze` must be 'all', a number of blocks from 1, or a layer's name. Received: {blocks!r}."
            )


def as_training(training, argument="training"):
    """Returns `Training` settings as they are, and the defaults for `None`; raises `ValueError` for anything else."""
    if not isinstance(training, Training | None):
        raise ValueError(f"`{argument}` must be None or Training settings. Received: {training!r}.")
    return training or Training()


def as_fine_tuning(fine_tune):
    """Returns `FineTuning` settings or `None`; for `True` the defaults. Raises `ValueError` for anything else."""
    if not isinstance(fine_tune, FineTuning | bool | None):
        raise ValueError(f"`fine_tune` must be True, None or FineTuning settings. Received: {fine_tune!r}.")
    return FineTuning() if fine_tune is True else fine_tune or None


def _counts(number):
    return isinstance(number, numbers.Integral) and number >= 1

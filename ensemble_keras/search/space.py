"""Space: all networks that a search chooses from, as a KerasTuner hypermodel whose genes are declared beforehand."""

import warnings

import keras
import keras_tuner

from ensemble_keras._validation import check_at_least, suggest
from ensemble_keras.measures.macs import count_macs
from ensemble_keras.members.member import build_member
from ensemble_keras.members.optimizers import build_optimizer
from ensemble_keras.members.settings import Training
from ensemble_keras.members.tuning_space import keras_tuner_space, search_space
from ensemble_keras.search.family import Family, get_family, hyperparameter, list_families
from ensemble_keras.search.genome import active_values, genome_id

# Smaller images leave the families nothing to halve.
_SMALLEST_SIDE = 8
_TRAINING = {
    "learning_rate": [3e-4, 1e-3, 3e-3],
    "weight_decay": [1e-4, 1e-2, 0.1],
    "dropout": [0.0, 0.2, 0.4],
}
# Settings of training that are searched where the user gives choices.
_FURTHER = ("batch_size", "optimizer", "warmup_epochs", "loss", "label_smoothing", "global_clipnorm", "ema_momentum")

# More than any warm-up takes.
_MANY_EPOCHS = 1_000_000


class HyperImageClassifier(keras_tuner.HyperModel):
    """Image classifiers of several families, as a search space for any KerasTuner tuner.

    Every gene is declared beforehand: `"family"`; `"<family>/<gene>"`, active with its family; and those of training.
    KerasTuner's own tuners want TensorBoard installed where the backend is TensorFlow.

    Args:
        num_classes: Int, at least 2.
        input_shape: `(height, width, channels)` of the images, at least 8 pixels a side.
        families: Sequence of families, by name or as `Family` objects; or a dict from name to the genes that are to
            have other choices, `{"cnn": {"filters": [16, 32]}, "vgg": {}}`. Defaults to `None`: all of
            `list_families()`.
        training: Dict from a setting of `Training` (`learning_rate`, `weight_decay`, `batch_size`, `optimizer`,
            `warmup_epochs`, `loss`, `label_smoothing`, `global_clipnorm`, `ema_momentum`), or `dropout` (of the
            features, before the head), to a list of choices or a pair `(low, high)`. Defaults to `None`: three
            values each of learning rate, weight decay and dropout that suit AdamW; they are overridden one by one.
        max_parameters: Int. Networks with more are refused. Defaults to `None`: no limit.
        max_macs: Int. Networks with more multiply-accumulates per image are refused. Defaults to `None`: no limit.

    Raises:
        ValueError: If a family, gene or setting is unknown, or a value is out of its range.

    Example:

    >>> space = HyperImageClassifier(10, (32, 32, 3), families=["cnn", "residual"], max_parameters=1_000_000)
    >>> values = space.hyperparameters().values  # the default genome
    >>> values["family"], space.refusal(values)
    ('cnn', None)
    >>> space.network(values).output_shape
    (None, 10)
    """

    def __init__(self, num_classes, input_shape, *, families=None, training=None, max_parameters=None, max_macs=None):
        super().__init__(name="hyper_image_classifier")
        self.num_classes = check_at_least("num_classes", num_classes, 2)
        self.input_shape = _checked_shape(input_shape)
        self.max_parameters = None if max_parameters is None else check_at_least("max_parameters", max_parameters, 1)
        self.max_macs = None if max_macs is None else check_at_least("max_macs", max_macs, 1)
        self.families = {family.name: family for family in _chosen(families)}
        self.training = _checked_training(training or {})
        self._space = self._declared()
        # Genome -> figures; and the network built last, with its genome, until it is handed over.
        self._measured, self._kept = {}, None

    def hyperparameters(self):
        """Returns new `keras_tuner.HyperParameters` with all genes declared; their values are the defaults."""
        return self._space.copy()

    def build(self, hp):
        """Builds the network of a trial, compiled.

        The learning rate stays as it is: a schedule needs to know the number of steps, as `settings` leave it to the
        trainer.

        Args:
            hp: A `keras_tuner.HyperParameters`, in which all genes are declared if they are not.

        Returns:
            A compiled `keras.Model`, a member, that takes int labels and reports the accuracy.
        """
        hp.merge(self._space, overwrite=False)
        model = self.network(hp.values)
        settings = self.settings(hp.values, epochs=_MANY_EPOCHS)
        optimizer = build_optimizer(settings, model.trainable_variables, steps_per_epoch=None)
        model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def network(self, values):
        """Builds the network of a genome, or hands over the one that `measure` has just built.

        Args:
            values: Dict from name to value; inactive ones play no part.

        Returns:
            A `keras.Model` as `build_member` makes it, with new random weights, not compiled; its name and that of
            its backbone tell family and genome, so that members join one graph.

        Raises:
            ValueError: If an active gene has no value, or the combination makes no network.
        """
        values = active_values(self._space, values)
        genome = genome_id(values)
        # Taken first: another thread may keep its own meanwhile.
        kept, self._kept = self._kept, None
        return kept[1] if kept is not None and kept[0] == genome else self._construct(genome, values)

    def settings(self, values, epochs):
        """Returns the `Training` settings of a genome, for so many epochs."""
        values = active_values(self._space, values)
        return Training(epochs=epochs, **{name: values[name] for name in self.training if name != "dropout"})

    def measure(self, values):
        """Returns what a genome's network costs, before it is trained.

        Args:
            values: As in `network`.

        Returns:
            Dict of ints: `"parameters"`, and `"macs"`, the multiply-accumulates per image.

        Raises:
            ValueError: As `network`; or if the cost of a layer is not known.
        """
        values = active_values(self._space, values)
        genome = genome_id(values)
        if genome not in self._measured:
            self._kept = genome, self._construct(genome, values)
        return dict(self._measured[genome])

    def refusal(self, values):
        """Returns why a genome is not to be tried, or `None`.

        Args:
            values: As in `network`.

        Returns:
            String: the figure above its limit, or why the network cannot be built, which is a warning, too, if it
            is another error than a `ValueError`; or `None`.
        """
        try:
            measured = self.measure(values)
        except ValueError as error:
            return f"The network cannot be built: {error}"
        except Exception as error:
            # A fault of a family costs its genomes, not the search; but nobody wants it.
            reason = f"The network cannot be built: {type(error).__name__}: {error}"
            warnings.warn(f"{reason} Family {values['family']!r}; see `build` of the space.", stacklevel=2)
            return reason
        limits = {"parameters": self.max_parameters, "macs": self.max_macs}
        for name, limit in limits.items():
            if limit is not None and measured[name] > limit:
                return f"The network has {measured[name]:,} {name}, above max_{name}={limit:,}."
        return None

    def __reduce__(self):
        # HyperModel holds its own bound methods, and a kept network is not for another process.
        given = {
            "families": list(self.families.values()),
            "training": self.training,
            "max_parameters": self.max_parameters,
            "max_macs": self.max_macs,
        }
        return _rebuilt, (self.num_classes, self.input_shape, given)

    def _declared(self):
        space = keras_tuner.HyperParameters()
        space.merge([hyperparameter("family", tuple(self.families))])
        for family in self.families.values():
            space.merge(family.hyperparameters())
        space.merge(keras_tuner_space(self.training))
        return space

    def _construct(self, genome, values):
        """Builds a network and notes its costs."""
        family = self.families[values["family"]]
        name = f"{family.name}_{genome[:8]}"
        trunk = _trunk(family, family.own_values(values), self.input_shape, name)
        network = build_member(trunk, self.num_classes, dropout=values["dropout"], name=name)
        counted = count_macs(network)
        if counted.unknown:
            raise ValueError(
                f"The multiply-accumulates of these layers of the family {family.name!r} are not known: "
                f"{', '.join(counted.unknown)}."
            )
        self._measured[genome] = {"parameters": counted.parameters, "macs": counted.total}
        return network


def _rebuilt(num_classes, input_shape, given):
    return HyperImageClassifier(num_classes, input_shape, **given)


def _trunk(family, values, input_shape, name):
    """Returns a backbone from images in [0, 255] to vectors."""
    images = keras.Input(input_shape, name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="preprocessing")(images)
    x = family.build(x, values)
    if len(getattr(x, "shape", ())) not in (2, 4):
        raise ValueError(
            f"The family {family.name!r} must give a feature map (batch, height, width, d) or vectors (batch, d). "
            f"Received: {getattr(x, 'shape', x)!r}."
        )
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    # Features are float32 whatever the policy, as of every backbone.
    x = keras.layers.Activation("linear", dtype="float32", name="output")(x)
    return keras.Model(images, x, name=name)


def _chosen(families):
    """Returns the `Family` objects, as given, edited or all."""
    if isinstance(families, dict):
        found = [get_family(name).edited(choices or {}) for name, choices in families.items()]
    elif isinstance(families, str) or not all(isinstance(family, str | Family) for family in families or ()):
        raise ValueError(
            "`families` must be a sequence of names or Family objects, or a dict from name to choices. "
            f"Received: {families!r}."
        )
    else:
        given = list_families() if families is None else families
        found = [get_family(family) if isinstance(family, str) else family for family in given]
    names = [family.name for family in found]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`families` must be at least one, of different names. Received: {names}.")
    return found


def _checked_training(training):
    """Returns the choices for every setting that is searched."""
    known = [*_TRAINING, *_FURTHER]
    for name in training:
        if name not in known:
            raise ValueError(
                f"Unknown setting {name!r} in `training`.{suggest(name, known)} Known: {', '.join(known)}."
            )
    names = _TRAINING | training
    checked = search_space(names, end_to_end=True)
    return {name: checked[name] for name in names}


def _checked_shape(shape):
    sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
    if (
        len(sizes) != 3
        or not all(isinstance(size, int) and size >= 1 for size in sizes)
        or min(sizes[:2]) < _SMALLEST_SIDE
    ):
        raise ValueError(
            f"`input_shape` must be (height, width, channels) of at least {_SMALLEST_SIDE} pixels a side. "
            f"Received: {shape!r}."
        )
    return sizes

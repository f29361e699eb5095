"""Family: a kind of network with its genes, and the registry of all families."""

import dataclasses
import importlib
from collections.abc import Callable

from keras_tuner.engine.hyperparameters import Boolean, Choice, Fixed
from keras_tuner.src.engine.conditions import Parent

from ensemble_keras._validation import suggest
from ensemble_keras.backbones.spec import layer_name
from ensemble_keras.search.genome import plain

# Each is a module of `ensemble_keras.search.families` of the same name, loaded when it is asked for.
_BUILT_IN = ("cnn", "alexnet", "vgg", "residual", "densenet", "mobilenet", "recurrent", "transformer", "hybrid")
_REGISTERED = {}


@dataclasses.dataclass(frozen=True)
class Gene:
    """A choice that a family leaves open.

    Attributes:
        choices: Sequence of strings, of ints, of floats or of the two booleans, from small to large where they have
            an order. The first is the default. Ints among floats become floats.
        when: Dict from the name of an earlier gene of the family to those of its choices with which this gene takes
            effect; all must hold. Defaults to `None`: it always does.

    Example:

    >>> Gene([0, 0.5]).choices
    (0.0, 0.5)
    """

    choices: tuple
    when: dict | None = None

    def __post_init__(self):
        object.__setattr__(self, "choices", _checked_choices(self.choices))
        when = {name: tuple(values) for name, values in (self.when or {}).items()}
        object.__setattr__(self, "when", when)


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of network.

    Attributes:
        name: String of letters, digits and single underscores: it becomes a part of layers' names.
        genes: Dict from name to a `Gene`, or to a list of choices for one that always takes effect. A gene stands
            after those that its `when` names.
        build: Function `build(images, values)` from a tensor of images `(batch, height, width, channels)` in
            [-1, 1], and a dict with the value of every gene that takes effect, to a feature map
            `(batch, height, width, d)` or to vectors `(batch, d)`. Stock Keras layers, with names, so that the saved
            file opens anywhere and equal genomes give equal networks. A combination that makes no network raises
            `ValueError`.

    Raises:
        ValueError: If the name is no such string, or a `when` names no earlier gene or none of its choices.
    """

    name: str
    genes: dict
    build: Callable

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name or layer_name(self.name) != self.name:
            raise ValueError(
                f"A family's name must be letters, digits and single underscores. Received: {self.name!r}."
            )
        if not callable(self.build):
            raise ValueError(f"`build` must be a function of images and values. Received: {self.build!r}.")
        genes = {name: gene if isinstance(gene, Gene) else Gene(gene) for name, gene in self.genes.items()}
        object.__setattr__(self, "genes", genes)
        _check_conditions(genes)

    def edited(self, choices):
        """Returns the family with other choices for some of its genes.

        Genes that can take no effect any more are left out. A gene on which others depend can only be narrowed: the
        family knows no more.

        Args:
            choices: Dict from a gene's name to a list of choices.

        Returns:
            A `Family`.

        Raises:
            ValueError: If there is no such gene, or its choices are of another type or beyond what others depend on.
        """
        genes = dict(self.genes)
        for name, values in choices.items():
            if name not in genes:
                raise ValueError(
                    f"The family {self.name!r} has no gene {name!r}.{suggest(name, genes)} Its genes: "
                    f"{', '.join(genes)}."
                )
            genes[name] = Gene(_of_type(genes[name].choices, values, name), genes[name].when)
            self._check_narrowed(name, genes[name].choices)
        return dataclasses.replace(self, genes=_reachable(genes))

    def _check_narrowed(self, name, choices):
        """Raises `ValueError` if a gene has new choices and others depend on it."""
        known = self.genes[name].choices
        added = [value for value in choices if value not in known]
        if added and any(name in gene.when for gene in self.genes.values()):
            raise ValueError(
                f"Other genes depend on {name!r} of the family {self.name!r}, which can only be narrowed: {known}. "
                f"Received: {added}. For more, register a family of your own."
            )

    def hyperparameters(self):
        """Returns the genes as KerasTuner's, named `"<family>/<gene>"` and active where `"family"` is this one."""
        return [
            hyperparameter(
                f"{self.name}/{name}",
                gene.choices,
                {"family": (self.name,)} | {f"{self.name}/{parent}": values for parent, values in gene.when.items()},
            )
            for name, gene in self.genes.items()
        ]

    def own_values(self, values):
        """Returns the family's part of a genome, by the genes' own names."""
        prefix = f"{self.name}/"
        return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def hyperparameter(name, choices, when=None):
    """Returns one of KerasTuner's hyperparameters with these choices, the first of which is the default.

    `keras_tuner.HyperParameters.merge` takes it. Its own `conditional_scope` refuses a condition on what has
    conditions itself.

    Args:
        name: String.
        choices: Tuple of values of one type.
        when: Dict from the name of another hyperparameter to those of its values with which this one is active, or
            `None`.
    """
    conditions = [Parent(parent, list(values)) for parent, values in (when or {}).items()]
    if len(choices) == 1:
        # A single choice is no dimension of the search.
        return Fixed(name, choices[0], conditions=conditions)
    if isinstance(choices[0], bool):
        # A Choice would make 0 and 1 of them.
        return Boolean(name, default=choices[0], conditions=conditions)
    return Choice(name, list(choices), conditions=conditions)


def list_families():
    """Returns the names of all families, as a list of strings.

    Example:

    >>> "vgg" in list_families()
    True
    """
    return [*_BUILT_IN, *_REGISTERED]


def get_family(name):
    """Returns a `Family` by its name.

    Raises:
        ValueError: If there is none.

    Example:

    >>> get_family("cnn").genes["blocks"].choices
    (2, 3, 4)
    """
    if name in _BUILT_IN:
        return importlib.import_module(f"ensemble_keras.search.families.{name}").FAMILY
    if name not in _REGISTERED:
        raise ValueError(f"Unknown family {name!r}.{suggest(name, list_families())} See list_families().")
    return _REGISTERED[name]


def register_family(name, build, *, genes):
    """Makes a kind of network of one's own known by name, wherever families are asked for.

    Registering again under the same name replaces it. A search space holds the family itself, so worker processes
    need not know it.

    Args:
        name: String, as of a `Family`.
        build: Function from images and values to features, as of a `Family`.
        genes: Dict from name to choices, as of a `Family`.

    Returns:
        The `Family`.

    Raises:
        ValueError: If a built-in family has this name, or an argument is malformed.

    Example:

    >>> def build(images, values):
    ...     return keras.layers.Conv2D(values["filters"], 3, activation="relu", name="conv")(images)
    >>> register_family("shallow", build, genes={"filters": [8, 16]}).name
    'shallow'
    >>> "shallow" in list_families()
    True
    """
    if name in _BUILT_IN:
        raise ValueError(
            f"The name {name!r} is taken by a family of the library. Choose another one, or edit its genes: "
            f"families={{{name!r}: {{...}}}}."
        )
    _REGISTERED[name] = Family(name, genes, build)
    return _REGISTERED[name]


def _checked_choices(choices):
    if not isinstance(choices, list | tuple) or not choices:
        raise ValueError(f"Choices must be a list or tuple of values. Received: {choices!r}.")
    choices = tuple(plain(value) for value in choices)
    kinds = {type(value) for value in choices}
    if kinds == {int, float}:
        choices, kinds = tuple(float(value) for value in choices), {float}
    if len(kinds) > 1 or not kinds <= {str, int, float, bool}:
        raise ValueError(f"Choices must all be strings, all numbers or all booleans. Received: {choices!r}.")
    if len(set(choices)) < len(choices):
        raise ValueError(f"Choices must differ from each other. Received: {choices!r}.")
    return choices


def _check_conditions(genes):
    """Raises `ValueError` unless every `when` names earlier genes and choices of theirs."""
    before = {}
    for name, gene in genes.items():
        for parent, values in gene.when.items():
            if parent not in before:
                raise ValueError(
                    f"`when` of the gene {name!r} must name a gene before it. Received: {parent!r}."
                    f"{suggest(parent, before)}"
                )
            if not values or not set(values) <= set(before[parent].choices):
                raise ValueError(
                    f"`when` of the gene {name!r} must hold choices of {parent!r}: {before[parent].choices}. "
                    f"Received: {values}."
                )
        before[name] = gene


def _of_type(known, values, name):
    """Returns choices as a gene's own type: a 0 among floats is 0.0, or equal networks would have two identities."""
    values, kind = _checked_choices(values), type(known[0])
    if kind is float and type(values[0]) is int:
        values = tuple(float(value) for value in values)
    if type(values[0]) is not kind:
        raise ValueError(f"Choices of the gene {name!r} must be of type {kind.__name__}. Received: {values!r}.")
    return values


def _reachable(genes):
    """Returns the genes that can take effect, with conditions on what is left to choose."""
    left = {}
    for name, gene in genes.items():
        when = {
            parent: tuple(value for value in values if parent in left and value in left[parent].choices)
            for parent, values in gene.when.items()
        }
        if all(when.values()):
            left[name] = Gene(gene.choices, when)
    return left

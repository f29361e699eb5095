"""Genome: the values that make a trial what it is, and the identity that they give it."""

import hashlib
import json

import numpy as np


def genes(space):
    """Returns the hyperparameters of a space in the order of declaration, parents before what depends on them.

    Args:
        space: A `keras_tuner.HyperParameters`.

    Returns:
        List of KerasTuner's hyperparameter objects, with `name`, `values` and `conditions`.

    Example:

    >>> import keras_tuner
    >>> space = keras_tuner.HyperParameters()
    >>> space.Choice("filters", [16, 32])
    16
    >>> [gene.name for gene in genes(space)]
    ['filters']
    """
    return list(space.space)


def active_values(space, values):
    """Returns the genome: the values that take effect, as plain Python values.

    A hyperparameter is active if all its conditions hold, and those of the hyperparameters that they name.

    Args:
        space: A `keras_tuner.HyperParameters` in which every hyperparameter is declared.
        values: Dict from name to value. Names that the space has not, such as KerasTuner's own `"tuner/epochs"`, and
            inactive ones are dropped.

    Returns:
        Dict from name to a string, int, float or boolean, in the order of declaration.

    Raises:
        ValueError: If an active hyperparameter has no value.

    Example:

    >>> import keras_tuner
    >>> space = keras_tuner.HyperParameters()
    >>> _ = space.Choice("family", ["cnn", "vgg"])
    >>> _ = space.Choice("vgg/width", [8, 16], parent_name="family", parent_values=["vgg"])
    >>> active_values(space, {"family": "cnn", "vgg/width": 16})
    {'family': 'cnn'}
    """
    active = {}
    for gene in genes(space):
        # Conditions are asked of what is active, so that what depends on something inactive is inactive, too.
        if not all(condition.is_active(active) for condition in gene.conditions):
            continue
        if values.get(gene.name) is None:
            raise ValueError(
                f"Expected a value for every active hyperparameter. Received: none for {gene.name!r}. "
                f"Its values: {', '.join(map(repr, gene.values))}."
            )
        active[gene.name] = plain(values[gene.name])
    return active


def genome_id(values):
    """Returns the identity of a genome: equal for equal values in any order, another for any other.

    Args:
        values: Dict from name to a string, number or boolean: a result of `active_values`. With inactive values in
            it, equal networks would look different.

    Returns:
        String of 64 hexadecimal digits, the SHA-256 of the genome's canonical JSON, in which `1`, `1.0`, `True` and
        `"1"` differ.

    Raises:
        TypeError: If a value is of another kind.
        ValueError: If a number is not finite.

    Example:

    >>> genome_id({"filters": 16, "kernel": 3}) == genome_id({"kernel": 3, "filters": 16})
    True
    >>> genome_id({"filters": 16}) == genome_id({"filters": "16"})
    False
    """
    genome = {name: plain(value) for name, value in values.items()}
    text = json.dumps(genome, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value):
    """Returns NumPy's scalars as Python's, and anything else as it is: `np.int64(1)` and `1` are one value."""
    return value.item() if isinstance(value, np.generic) else value

"""Initialisation: new random weights that depend on a seed alone, and copies of a network."""

import keras
import numpy as np

from ensemble_keras.data.augmentation import seeded


def reinitialised(model, seed):
    """Returns a copy of a model with new random weights that depend on `seed` alone.

    Every initializer and dropout layer gets a seed of its own, so the user's global random state is neither read
    nor changed.
    """
    seeds = np.random.default_rng(seed)

    def clone(layer):
        return layer.__class__.from_config(seeded(layer.get_config(), seeds, anew=True))

    return keras.models.clone_model(model, clone_function=clone, recursive=True)


def renamed_copy(model, name, weights=None):
    """Returns a model of the same architecture under another name, with its weights or given ones."""
    # Layers without a seed would draw one from Python's global random state.
    copy = reinitialised(model, 0)
    copy.name = name
    copy.set_weights(model.get_weights() if weights is None else weights)
    return copy


def set_state(model, other):
    """Gives a model all state of an equal one: weights, and the random state of its dropout."""
    for variable, value in zip(model.variables, other.variables, strict=True):
        variable.assign(value)


def set_random_state(model, seed):
    """Sets the random state of dropout and the like: layers without a seed have one that no other process has."""
    for number, variable in enumerate(v for v in model.variables if v.name == "seed_generator_state"):
        variable.assign(np.random.SeedSequence([seed, number]).generate_state(2))

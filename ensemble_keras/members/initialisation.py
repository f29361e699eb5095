"""Initialisation: new random weights that depend on a seed alone."""

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


def set_state(model, other):
    """Gives a model all state of an equal one: weights, and the random state of its dropout."""
    for variable, value in zip(model.variables, other.variables, strict=True):
        variable.assign(value)

"""Space: which hyperparameters are tuned and between what values, as given by default and narrowed by the user."""

import keras_tuner
import numpy as np

from ensemble_keras._validation import check_choice, suggest
from ensemble_keras.data.augmentation import augmentation_config, has_strength
from ensemble_keras.members.member import HEADS
from ensemble_keras.members.settings import LOSSES, Training

# A list holds choices, a pair the ends of a range.
HEAD_SPACE = {
    "head": ["linear", "mlp"],
    "units": [64, 128, 256, 512],
    "epochs": (5, 60),
    "batch_size": [32, 64, 128, 256],
    "learning_rate": (1e-4, 3e-2),
    "weight_decay": (1e-4, 10.0),
    "dropout": (0.0, 0.6),
}
TRAINING_SPACE = {
    "learning_rate": (1e-4, 1e-2),
    "weight_decay": (1e-5, 0.3),
    "batch_size": [16, 32, 64, 128],
    "dropout": (0.0, 0.5),
    "augmentation": ["none", "light", "medical", "cifar", "strong"],
    "augmentation_strength": (0.25, 2.0),
}
# Settings of end-to-end training that are tuned where the user gives values.
_FURTHER = ("epochs", "optimizer", "warmup_epochs", "loss", "label_smoothing", "global_clipnorm", "ema_momentum")
_INTS = {"units", "epochs", "batch_size"}
_STRINGS = {"head", "augmentation", "optimizer", "loss"}
# As likely between 1e-4 and 1e-3 as between 1e-3 and 1e-2.
_LOGARITHMIC = {"units", "epochs", "batch_size", "learning_rate", "weight_decay"}


def search_space(hyperparameters, *, end_to_end):
    """Returns the values to search: the defaults, or what the user gave instead.

    Args:
        hyperparameters: Dict from a name to a list of choices or to a pair `(low, high)`, or `None`.
        end_to_end: Boolean. Whether a whole network is tuned, or a head on features.

    Returns:
        Dict from every tuned hyperparameter to a list or a pair.

    Raises:
        ValueError: If a name is unknown, or a value is out of its range or without effect.
    """
    defaults = TRAINING_SPACE if end_to_end else HEAD_SPACE
    known = [*defaults, *(_FURTHER if end_to_end else ())]
    given = {name: _checked(name, values, known) for name, values in (hyperparameters or {}).items()}
    space = {**defaults, **given}
    if "units" in space and "mlp" not in space["head"]:
        if "units" in given:
            raise ValueError(f"`units` belong to head='mlp'. Received: units, and head={space['head']}.")
        del space["units"]
    if "augmentation_strength" in space and not any(map(has_strength, space["augmentation"])):
        if "augmentation_strength" in given:
            raise ValueError(
                "`augmentation_strength` is of policies and operations without one in their text; flips and CutMix "
                f"have none. Received: augmentation={space['augmentation']}."
            )
        del space["augmentation_strength"]
    return space


def keras_tuner_space(space):
    """Returns `keras_tuner.HyperParameters` that declare the space, all of it at once."""
    declared = keras_tuner.HyperParameters()
    for name, values in space.items():
        options = _condition(name, space)
        if isinstance(values, list):
            # A single choice is no dimension of the search.
            if len(values) == 1:
                declared.Fixed(name, values[0], **options)
            else:
                declared.Choice(name, values, **options)
            continue
        kind = declared.Int if name in _INTS else declared.Float
        kind(name, *values, sampling="log" if name in _LOGARITHMIC else "linear", **options)
    return declared


def _condition(name, space):
    """Returns where a hyperparameter plays a part, as KerasTuner's arguments; `{}`: everywhere."""
    if name == "units":
        return {"parent_name": "head", "parent_values": ["mlp"]}
    if name == "augmentation_strength":
        return {"parent_name": "augmentation", "parent_values": list(filter(has_strength, space["augmentation"]))}
    return {}


def _checked(name, values, known):
    if name not in known:
        raise ValueError(
            f"Unknown hyperparameter {name!r}.{suggest(name, known)} What can be tuned here: {', '.join(known)}."
        )
    if not isinstance(values, list | tuple) or not len(values):
        raise ValueError(
            f"`hyperparameters[{name!r}]` must be a list of choices or a pair (low, high). Received: {values!r}."
        )
    is_range = isinstance(values, tuple)
    values = [_converted(name, value) for value in values]
    if not is_range:
        return list(dict.fromkeys(values))
    if len(values) != 2 or name in _STRINGS or not values[0] <= values[1]:
        raise ValueError(
            f"A tuple for {name!r} must be (low, high){', of numbers' * (name not in _STRINGS)}; choices go into a "
            f"list. Received: {tuple(values)!r}."
        )
    if name in _LOGARITHMIC and values[0] == 0:
        raise ValueError(
            f"`{name}` is searched on a logarithmic scale, so its range must begin above 0. Received: "
            f"{tuple(values)}. Give 0 as one of a list of choices."
        )
    return [values[0]] if values[0] == values[1] else tuple(values)


def _converted(name, value):
    """Returns a value in the type of its hyperparameter, or raises `ValueError` if it is out of range."""
    if name in _STRINGS:
        return _checked_string(name, "none" if name == "augmentation" and value is None else value)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"`{name}` must be a number. Received: {value!r}.")
    if name in _INTS and value != int(value):
        raise ValueError(f"`{name}` must be an int. Received: {value!r}.")
    value = int(value) if name in _INTS else float(value)
    if name == "units" and value < 1:
        raise ValueError(f"`units` must be at least 1. Received: {value}.")
    if name == "dropout" and not 0 <= value < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: {value}.")
    if name == "augmentation_strength":
        augmentation_config(f"light(strength={value!r})")
    elif name not in ("units", "dropout"):
        # The settings know their own ranges; the epochs must only be enough for any warm-up.
        Training(**{"epochs": max(1, int(value) + 1), name: value})
    return value


def _checked_string(name, value):
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be given by name. Received: {value!r}.")
    if name == "augmentation":
        augmentation_config(value)
    elif name == "head":
        check_choice("head", value, HEADS)
    elif name == "loss":
        check_choice("loss", value, LOSSES)
    else:
        Training(optimizer=value)
    return value

"""Expressions: the Python that makes a layer or a plain value again."""

import copy
import functools
import inspect
import math
import re

import keras
import numpy as np

from ensemble_keras.search.code.layout import Bracketed, call, flat, text_of

# What Keras takes from its global settings: written wherever it differs from the usual.
_USUAL = {"dtype": "float32", "data_format": "channels_last"}
# One number stands for all sides.
_PER_SIDE = {"kernel_size", "strides", "pool_size", "dilation_rate", "size"}
# Keras knows their kinds by short names, too.
_SHORT = ("keras.initializers", "keras.regularizers", "keras.constraints")
_NETWORKS = {"Functional", "Model", "Sequential"}
# A longer constant is data, not code.
_MOST_NUMBERS = 10_000


def layer_expression(layer):
    """Returns the call that makes a layer again, with the arguments that differ from their defaults.

    Args:
        layer: A stock layer of Keras.

    Returns:
        An expression in which `layers` is `keras.layers`.

    Raises:
        ValueError: If the layer is no stock layer, or holds what is no argument of stock Keras.
    """
    kind, where = type(layer).__name__, f"Layer {layer.name!r} ({type(layer).__name__})"
    if isinstance(layer, keras.layers.Lambda):
        refuse(where, "it holds a Python function, which has no source here. Take a stock layer or `keras.ops`")
    if getattr(keras.layers, kind, None) is not type(layer):
        refuse(where, "it is not a layer of `keras.layers`")
    return _construction(type(layer), f"layers.{kind}", layer.get_config(), where)


def input_expression(layer):
    """Returns the call of `keras.Input` that makes an input again."""
    config = layer.get_config()
    batch_size, *shape = config["batch_shape"]
    usual = {"batch_size": None, "dtype": "float32", "sparse": False, "ragged": False, "optional": False}
    given = {"batch_size": batch_size, **config}
    differing = {key: literal(given[key], layer.name) for key, v in usual.items() if given.get(key, v) != v}
    return call("keras.Input", [literal(tuple(shape), layer.name)], {**differing, "name": text_of(layer.name)})


def literal(value, where, tensors=None):
    """Returns the expression of a plain value, of a serialised Keras object, or of a structure of these.

    Args:
        value: The value; symbolic tensors in it are looked up.
        where: String, whose value it is, for errors.
        tensors: Dict from the id of each symbolic tensor to the expression that stands for it. Defaults to `None`.

    Raises:
        ValueError: If the value is neither.
    """
    if isinstance(value, keras.KerasTensor):
        return (tensors or {})[id(value)]
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if value is None or isinstance(value, bool | int):
        return repr(value)
    if isinstance(value, slice):
        parts = [literal(part, where, tensors) for part in (value.start, value.stop, value.step)]
        return call("slice", parts)
    if isinstance(value, dict):
        return _dictionary(value, where, tensors)
    if isinstance(value, list | tuple):
        items = tuple(("", literal(item, where, tensors)) for item in value)
        return Bracketed("", "[" if isinstance(value, list) else "(", items)
    return _array(value, where)


def _dictionary(value, where, tensors):
    if _is_serialised(value):
        return _serialised(value, where)
    items = [(f"{flat(literal(key, where))}: ", literal(item, where, tensors)) for key, item in value.items()]
    return Bracketed("", "{", tuple(items))


def _array(value, where):
    if not (isinstance(value, np.ndarray | np.generic) or keras.ops.is_tensor(value)):
        refuse(where, f"it holds a {type(value).__name__}, which has no source here")
    kind, array = keras.backend.standardize_dtype(value.dtype), keras.ops.convert_to_numpy(value)
    if array.size > _MOST_NUMBERS:
        refuse(where, f"it holds a constant of {array.size:,} numbers, more than {_MOST_NUMBERS:,}")
    if kind == "bfloat16":
        refuse(where, "it holds a constant in bfloat16, which NumPy does not know")
    if array.ndim == 0 and isinstance(value, np.generic):
        return call(f"np.{value.dtype.type.__name__}", [_numbers(array)])
    return call("np.array", [_numbers(array), text_of(kind)])


def _numbers(array):
    """The numbers of an array, none with more digits than its precision has."""
    if array.ndim:
        return Bracketed("", "[", tuple(("", _numbers(part)) for part in array))
    if array.dtype.kind == "f":
        return str(array[()]) if np.isfinite(array) else f'float("{array}")'
    return repr(array.item())


def _is_serialised(value):
    return isinstance(value, dict) and {"class_name", "config"} <= value.keys()


def _serialised(value, where):
    """The expression of an object as Keras serialises it inside a layer's config."""
    cls, module = _class_of(value, where), value["module"]
    if cls is keras.DTypePolicy:
        return text_of(value["config"]["name"])
    name = f"{module}.{cls.__name__}".removeprefix("keras." if module == "keras.layers" else "")
    made = _construction(cls, name, value["config"], where)
    short = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    if module in _SHORT and not made.items:
        place = public_place(module)
        if plain(place.serialize(place.get(short))) == plain(value):
            return text_of(short)
    return made


def _class_of(value, where):
    """The class of a serialised object, which is one of Keras' own."""
    kind, config = value["class_name"], value["config"]
    if kind in _NETWORKS:
        refuse(where, f"it wraps a network of its own, {config.get('name')!r}")
    module = value.get("module") or ""
    cls = getattr(public_place(module), kind, None) if module.split(".")[0] == "keras" else None
    if not inspect.isclass(cls):
        refuse(where, f"it holds {kind} {config if isinstance(config, str) else ''}".rstrip() + ", not one of Keras'")
    return cls


def public_place(module):
    """Returns the part of Keras of this name, such as `"keras.layers"`, or `None`."""
    return functools.reduce(lambda found, name: getattr(found, name, None), module.split(".")[1:], keras)


def _construction(cls, name, config, where):
    """The call of a class that makes an object with this config."""
    parameters = inspect.signature(cls.__init__).parameters
    required = [key for key, p in parameters.items() if p.default is p.empty and key in config]
    kept = _differing(cls, config, required, where)
    # The name last, as it is usually written; keywords that a class hands on to its bases before it.
    order = [*parameters, *(key for key in kept if key not in parameters)]
    named = sorted((key for key in order if key in kept and key not in required), key=lambda key: key == "name")
    values = {key: literal(_one_for_all(key, value), where) for key, value in kept.items()}
    return call(name, [values[key] for key in required], {key: values[key] for key in named})


def _differing(cls, config, required, where):
    """The part of a config that differs from what the class makes of its required arguments alone."""
    config = {key: value for key, value in config.items() if key != "build_config"}
    usual = {key: value for key, value in _USUAL.items() if key in config}
    given = {key: config[key] for key in (*required, "name") if key in config}
    wanted, default = plain(config), plain(_config_of(cls, {**usual, **given}, where))
    kept = {key: v for key, v in config.items() if key in given or wanted[key] != default.get(key)}
    for candidate in (kept, config):
        if plain(_config_of(cls, {**usual, **candidate}, where)) == wanted:
            return candidate
    refuse(where, "its config does not make the same layer again")


def _config_of(cls, config, where):
    return cls(**{key: _revived(value, where) for key, value in config.items()}).get_config()


def _revived(value, where):
    """A value of a config as the constructor takes it."""
    if isinstance(value, list | tuple):
        return type(value)(_revived(item, where) for item in value)
    if not _is_serialised(value):
        return value
    _class_of(value, where)
    # Keras changes the config that it reads.
    return keras.saving.deserialize_keras_object(copy.deepcopy(value))


def _one_for_all(key, value):
    is_even = key in _PER_SIDE and isinstance(value, list | tuple) and len(set(value)) == 1
    return value[0] if is_even else value


def plain(value):
    """A config to be compared: without what building added, lists as tuples."""
    if isinstance(value, dict):
        return {
            # A built layer has its only axis in a list.
            key: plain(item[0] if key == "axis" and isinstance(item, list) and len(item) == 1 else item)
            for key, item in value.items()
            if key != "build_config"
        }
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def refuse(where, reason):
    """Raises the error that says what cannot be written, and why."""
    raise ValueError(f"{where} cannot be written as source: {reason}.")

"""Keys: what a stored vector depends on besides the image."""

import hashlib
import inspect

import keras
import numpy as np

from ensemble_keras.data.augmentation import augmentation_config, build_augmentation
from ensemble_keras.measures.graph import is_of_keras
from ensemble_keras.runs import fingerprint


def architecture_fingerprint(model, *, ignored=None):
    """Returns a hex digest of a model's architecture; the names of its layers do not count.

    Keras numbers the layers of a process (`conv2d_7`), so the same network has other names the next time. Of layers
    that are not Keras' own the source counts, too, where Python has it: an edited `call` leaves the config as it was.

    Args:
        model: A `keras.Model`.
        ignored: Compiled pattern of names of entries in the layers' configs that do not count, either, or `None`.
    """
    described = _without(_anonymous_layer(keras.saving.serialize_keras_object(model), "model"), ignored)
    sources = _own_sources(model._flatten_layers())
    # Left out where there are none: most networks are made of Keras' layers.
    return fingerprint({"model": described, "sources": sources} if sources else described)


def augmentation_key(policy):
    """Returns JSON values that determine what an augmentation does, but for the seed; `[]` for none.

    Those of `augmentation_config`, and, as in `architecture_fingerprint`, sources of layers that are not Keras' own.

    Args:
        policy: As in `build_augmentation`.
    """
    config, augmentation = augmentation_config(policy), build_augmentation(policy)
    layers = [] if augmentation is None else augmentation.layers
    sources = _own_sources([part for layer in layers for part in layer._flatten_layers()])
    return [*config, {"sources": fingerprint(sources)}] if sources else config


def model_fingerprint(model):
    """Returns a hex digest of a model's architecture and weights."""
    digest = hashlib.blake2b(architecture_fingerprint(model).encode(), digest_size=16)
    # Not `variables`: those hold the random states of dropout, which differ from process to process.
    for variable in model.weights:
        digest.update(array_digest(keras.ops.convert_to_numpy(variable)).encode())
    return digest.hexdigest()


def array_digest(array):
    """Returns a hex digest of an array's values, shape and type."""
    array = np.ascontiguousarray(array)
    digest = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    digest.update(array.data)
    return digest.hexdigest()


def space_key(fingerprint_of_model, *, image_size, image_filter, view=None):
    """Returns the key of a space: the model, the image size and filter, the precision in force, and the view.

    Args:
        fingerprint_of_model: String, from `model_fingerprint`.
        image_size: `(height, width)`.
        image_filter: String, the filter that brings images to that size.
        view: JSON values that determine an augmented view, or `None` for the images as they are.
    """
    described = {
        "model": fingerprint_of_model,
        "image_size": list(image_size),
        "filter": image_filter,
        "precision": keras.config.dtype_policy().name,
    }
    # Left out where there is none: vectors stored before there were views are found again.
    return fingerprint(described if view is None else {**described, "view": view})


def _anonymous_layer(layer, name):
    """Returns a serialized layer under another name."""
    named = {**layer, "config": {**layer["config"], "name": name}}
    return _anonymous({**named, "name": name} if "name" in layer else named)


def _anonymous(config):
    """Replaces the names of layers, where they stand as names, by their places in their model."""
    if isinstance(config, list | tuple):
        return [_anonymous(value) for value in config]
    if not isinstance(config, dict):
        return config
    # When a model was compiled or built changes nothing in what it computes.
    config = {k: v for k, v in config.items() if k not in ("compile_config", "build_config", "shared_object_id")}
    if _is_layers(config.get("layers")):
        # The config that Keras makes of a layer's arguments may be without its name.
        names = [layer.get("name", layer["config"].get("name")) for layer in config["layers"]]
        places = {name: f"#{place}" for place, name in enumerate(names)}
        config["layers"] = [
            _anonymous_layer(_renamed(layer, places), f"#{place}") for place, layer in enumerate(config["layers"])
        ]
        ends = {key: _renamed_ends(config[key], places) for key in ("input_layers", "output_layers") if key in config}
        return {k: v if k == "layers" else _anonymous(v) for k, v in (config | ends).items()}
    return {key: _anonymous_layer(v, "layer") if _is_wrapped(v) else _anonymous(v) for key, v in config.items()}


def _without(config, ignored):
    """Returns a config without the entries whose whole name matches a pattern; `None`: as it is."""
    if isinstance(config, dict) and ignored is not None:
        return {key: _without(value, ignored) for key, value in config.items() if not ignored.fullmatch(key)}
    return [_without(value, ignored) for value in config] if isinstance(config, list) and ignored else config


def _is_layers(value):
    """Whether this is the list of a model's layers."""
    return isinstance(value, list) and all(
        isinstance(layer, dict) and isinstance(layer.get("config"), dict) for layer in value
    )


def _is_wrapped(value):
    """Whether this is a layer inside another one; other objects, such as precisions, mean something by a name."""
    return isinstance(value, dict) and "class_name" in value and "trainable" in (value.get("config") or ())


def _renamed(layer, places):
    """Returns a serialized layer whose calls name the layers before it by their places."""
    if "inbound_nodes" not in layer:
        return layer
    return {**layer, "inbound_nodes": _renamed_history(layer["inbound_nodes"], places)}


def _renamed_history(value, places):
    if isinstance(value, list | tuple):
        return [_renamed_history(part, places) for part in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__keras_tensor__":
        name, *indices = value["config"]["keras_history"]
        return {**value, "config": {**value["config"], "keras_history": [places[name], *indices]}}
    return {key: _renamed_history(part, places) for key, part in value.items()}


def _renamed_ends(value, places):
    """Renames `["conv2d_7", 0, 0]`, alone or in lists and dicts."""
    if isinstance(value, dict):
        return {key: _renamed_ends(part, places) for key, part in value.items()}
    if len(value) == 3 and isinstance(value[0], str):
        return [places[value[0]], *value[1:]]
    return [_renamed_ends(part, places) for part in value]


def _own_sources(layers):
    """Returns the sources of the classes of layers that are not Keras' own, and of functions that layers hold."""
    found = {kind for layer in layers for kind in type(layer).__mro__}
    found |= {value for layer in layers for value in vars(layer).values() if inspect.isfunction(value)}
    # What every Keras model is made of: the backend's classes are among them.
    found -= set(keras.Model.__mro__)
    own = [thing for thing in found if not is_of_keras(thing)]
    return sorted(filter(None, map(_source, own)))


def _source(thing):
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        # Of a class that was typed into a notebook Python finds the methods alone.
        return "".join(_source(part) for part in vars(thing).values() if inspect.isfunction(part))

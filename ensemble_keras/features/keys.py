"""Keys: what a stored vector depends on besides the image."""

import hashlib

import keras
import numpy as np

from ensemble_keras.runs import fingerprint


def architecture_fingerprint(model):
    """Returns a hex digest of a model's architecture; the names of its layers do not count.

    Keras numbers the layers of a process (`conv2d_7`), so the same network has other names the next time.
    """
    return fingerprint(_without_names(keras.saving.serialize_keras_object(model), {}))


def model_fingerprint(model):
    """Returns a hex digest of a model's architecture and weights."""
    digest = hashlib.blake2b(architecture_fingerprint(model).encode(), digest_size=16)
    for variable in model.variables:
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


def _without_names(config, numbers):
    """Replaces the names of layers, where they stand alone, by their numbers in order of appearance."""
    if isinstance(config, dict):
        if isinstance(config.get("name"), str) and "class_name" not in config:
            numbers.setdefault(config["name"], f"#{len(numbers)}")
        return {
            key: _without_names(value, numbers)
            for key, value in config.items()
            # When a model was compiled or built changes nothing in what it computes.
            if key not in ("compile_config", "build_config", "shared_object_id")
        }
    if isinstance(config, list | tuple):
        return [_without_names(value, numbers) for value in config]
    return numbers.get(config, config) if isinstance(config, str) else config

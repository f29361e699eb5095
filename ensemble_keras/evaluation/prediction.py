"""Prediction: what a model, and each member inside it, says about a set of images, in one pass."""

import keras
import numpy as np

from ensemble_keras._validation import check_image_size
from ensemble_keras.combiners.parts import member_tensors
from ensemble_keras.features.extraction import predict


def predict_with_members(model, dataset, *, image_size=None, batch_size=32, verbose=0):
    """Runs the model once over the images and gives its predictions and those of its members.

    Args:
        model: A `keras.Model` from images with values in [0, 255] to class probabilities; one of
            `build_ensemble`, as it is or reloaded from its file, also shows its members.
        dataset: An `ImageDataset`.
        image_size: Int or `(height, width)`. Defaults to `None`: the model's input size.
        batch_size: Images per step, halved where memory runs out. Defaults to 32.
        verbose: 1 shows a progress bar. Defaults to 0.

    Returns:
        The model's output `(n, num_classes)`, and a dict of such arrays by member name; it is empty if no members
        are found.

    Raises:
        BadImagesError: If images cannot be decoded; all of them are listed.
        ValueError: If the model takes images of any size and `image_size` is not given.
    """
    size = input_size(model, image_size)
    tensors = member_tensors(model)
    if not getattr(model, "outputs", None):
        # A model with a `call` of its own has no graph to look into.
        return model.predict(dataset.batches(image_size=size, batch_size=batch_size), verbose=0), {}
    outputs = [*tensors.values(), model.outputs[-1]]
    options = {"image_size": size, "batch_size": batch_size, "verbose": verbose}
    *members, ensemble = _columns(model.inputs, outputs, model.name, dataset, **options)
    return ensemble, dict(zip(tensors, members, strict=True))


def predict_each(members, dataset, *, verbose=0):
    """Runs members side by side over the images, once.

    Args:
        members: List of `keras.Model`s from images of one size to class probabilities; one or more.
        dataset: An `ImageDataset`.
        verbose: 1 shows a progress bar. Defaults to 0.

    Returns:
        List of their predictions, `(n, num_classes)` or `(n, 1)`.
    """
    images = keras.Input(members[0].input_shape[1:])
    outputs = [member(images) for member in members]
    options = {"image_size": input_size(members[0]), "batch_size": 32, "verbose": verbose}
    return _columns(images, outputs, "members", dataset, **options)


def _columns(inputs, outputs, name, dataset, **options):
    """Returns the predictions `(n, d)` of several outputs of one graph as a list of arrays."""
    joined = keras.layers.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]
    predictions = predict(keras.Model(inputs, joined, name=name), dataset, **options)
    return np.split(predictions, np.cumsum([output.shape[-1] for output in outputs])[:-1], axis=1)


def input_size(model, image_size=None):
    """Returns `(height, width)` of the images that a model takes, or what is given for one that takes any."""
    if image_size is not None:
        return check_image_size(image_size)
    shape = getattr(model, "input_shape", None) or ()
    if len(shape) != 4 or None in shape[1:3]:
        raise ValueError(f"Give `image_size`: the model takes images of any size. Received: input shape {shape}.")
    return check_image_size(shape[1:3])

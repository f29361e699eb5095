"""Assembly: put resizing, preprocessing and pooling around a network, all in one graph."""

import warnings

import keras
from keras import layers

from ensemble_keras._validation import check_choice, check_image_size
from ensemble_keras.backbones.preprocessing import preprocess
from ensemble_keras.measures.graph import foreign_classes

# Keras knows "area" too, but on TensorFlow only.
_INTERPOLATIONS = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")


def check_arguments(input_shape, pooling, resize_to, interpolation, *, any_channels=False):
    """Checks what `build_backbone` is given; returns the input shape and the shape after resizing.

    Images have three channels, or any number of them for a model that says itself what it takes.
    """
    shape = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    are_sizes = len(shape) == 3 and all(isinstance(side, int) and side >= 1 for side in shape)
    if not are_sizes or (shape[2] != 3 and not any_channels):
        form = "(height, width, channels)" if any_channels else "(height, width, 3)"
        raise ValueError(f"`input_shape` must be {form}, in pixels. Received: {input_shape!r}.")
    check_choice("pooling", pooling, ("avg", "max", None))
    check_choice("interpolation", interpolation, _INTERPOLATIONS)
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Backbones take images of shape (height, width, 3). Received: the image data format 'channels_first'. "
            "Call keras.config.set_image_data_format('channels_last')."
        )
    if resize_to is None:
        return shape, shape
    try:
        return shape, (*check_image_size(resize_to), shape[2])
    except ValueError as error:
        raise ValueError(
            f"`resize_to` must be one int or (height, width), in pixels, or None. Received: {resize_to!r}."
        ) from error


def check_network(network, input_shape, label):
    """Raises `ValueError` unless `network` is one graph from such images to a feature map or a vector.

    Args:
        network: A `keras.Model`.
        input_shape: `(height, width, channels)` of what it will be given.
        label: String. Names the backbone in an error.
    """
    inputs, outputs = getattr(network, "inputs", None), getattr(network, "outputs", None)
    if not inputs or len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"{label} must be a Functional or Sequential model with one input and one output, and know its input "
            f"shape. Received: {len(inputs or [])} inputs, {len(outputs or [])} outputs. A model with its own `call` "
            "would need its code wherever the saved file is opened."
        )
    taken, given = inputs[0].shape, (None, *input_shape)
    if len(taken) != 4 or any(side not in (None, wanted) for side, wanted in zip(taken, given, strict=True)):
        raise ValueError(
            f"{label} takes images of shape {tuple(taken)}. Received: input_shape={input_shape}. "
            "Images can be of the size that it takes, or be resized to it: by `resize_to=`, or in a model of your "
            "own by a `keras.layers.Resizing` in front of it."
        )
    if not keras.backend.is_float_dtype(inputs[0].dtype):
        raise ValueError(
            f"{label} must take float32 images. Received: an input of dtype {inputs[0].dtype}, which would cut "
            "fractions off in silence."
        )
    if len(outputs[0].shape) not in (2, 4):
        raise ValueError(
            f"{label} must give features of shape (batch, d) or a map (batch, height, width, d). "
            f"Received: {tuple(outputs[0].shape)}."
        )


def warn_of_a_head(network, label):
    """Warns of a network that gives class probabilities for features, which goes wrong without an error.

    Args:
        network: A `keras.Model` that `check_network` has passed.
        label: String. Names the backbone in the warning.
    """
    last = network.layers[-1]
    if isinstance(last, layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax:
        warnings.warn(
            f"{label} ends in class probabilities, not in features: its last layer is a softmax of "
            f"{network.output_shape[-1]} classes. Cut the head off: "
            "`keras.Model(model.input, model.layers[-2].output)`, or `include_top=False`.",
            stacklevel=3,
        )


def warn_of_own_layers(network, label):
    """Warns of layers of own classes, before long work: what is saved needs their code.

    Args:
        network: A `keras.Model`.
        label: String. Names the network in the warning.
    """
    kinds = foreign_classes(network)
    if kinds:
        warnings.warn(
            f"{label} has layers of classes that are not Keras' own: {', '.join(kinds)}. A saved ensemble of it "
            "loads only where they are defined and registered. Take stock layers or `keras.ops` where you can.",
            stacklevel=3,
        )


def assemble(network, *, input_shape, network_shape, preprocessing, pooling, interpolation, name):
    """Builds the backbone: images, resizing, preprocessing, the network, pooling.

    The steps around the network hold no variables and run in float32 under any precision policy.

    Args:
        network: A `keras.Model`, nested as it is: its weights are shared.
        input_shape: `(height, width, channels)` of the images.
        network_shape: `(height, width, channels)` of what the network is given; if it is another, images are
            resized to it.
        preprocessing: A kind or a callable, see `preprocess`.
        pooling: `"avg"`, `"max"` or `None`; for a network that gives a feature map.
        interpolation: String, the filter of the resizing. Where a side shrinks it is widened (antialiasing), as in
            Pillow, so that no pixel is skipped.
        name: String. Name of the model.

    Returns:
        A `keras.Model` from images in `[0, 255]` to features.
    """
    x = images = keras.Input(input_shape, dtype="float32", name="images")
    height, width = network_shape[:2]
    if (height, width) != tuple(input_shape[:2]):
        # TensorFlow's bicubic filter without antialiasing reads a coarse table and is up to 0.14 off JAX's and
        # Pillow's; the others need it where a side shrinks only.
        antialias = input_shape[0] > height or input_shape[1] > width or interpolation == "bicubic"
        x = layers.Resizing(height, width, interpolation, antialias=antialias, dtype="float32", name="resizing")(x)
    # A model of a user's may give its one output in a list.
    [x] = keras.tree.flatten(network(preprocess(x, preprocessing)))
    if len(x.shape) == 4 and pooling is not None:
        layer = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}[pooling]
        x = layer(dtype="float32", name=f"{pooling}_pool")(x)
    if keras.backend.standardize_dtype(x.dtype) != "float32":
        x = keras.ops.cast(x, "float32")
    return keras.Model(images, x, name=name)

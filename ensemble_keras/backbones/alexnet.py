"""AlexNet: the convolutional part of the network that won ImageNet in 2012."""

import keras
from keras import layers

# Kernel and filters of the five convolutions.
_CONVOLUTIONS = ((11, 96), (5, 256), (3, 384), (3, 384), (3, 256))
_POOLED = (1, 2, 5)
_NORMALISED = (1, 2)


def alexnet(input_shape=(227, 227, 3), *, width=1.0, name="alexnet"):
    """Builds the five convolutions of AlexNet (Krizhevsky et al., 2012, section 3.5), without its dense layers.

    It differs from the paper in three points: one tower instead of two half-connected ones; batch normalisation where
    the paper has local response normalisation (found without effect by Simonyan and Zisserman, 2014, section 4.1);
    and padding "same" throughout, so images of 32 pixels work too.

    Args:
        input_shape: `(height, width, 3)`. Defaults to the paper's 227 pixels; smaller than 32 leaves little to see.
        width: Float. Multiplies the number of filters of every layer. Defaults to `1.0`.
        name: String. Name of the model.

    Returns:
        A `keras.Model` from images in `[0, 1]` to a feature map of shape
        `(batch, height / 32, width / 32, 256 * width)`, rounded up.

    Example:
    >>> alexnet((64, 64, 3), width=0.25).output_shape
    (None, 2, 2, 64)
    """
    x = images = keras.Input(input_shape, name="images")
    for number, (kernel, filters) in enumerate(_CONVOLUTIONS, start=1):
        x = layers.Conv2D(
            max(1, round(filters * width)),
            kernel,
            strides=4 if number == 1 else 1,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        if number in _NORMALISED:
            x = layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(x)
        if number in _POOLED:
            x = layers.MaxPooling2D(3, strides=2, padding="same", name=f"pool{number}")(x)
    return keras.Model(images, x, name=name)

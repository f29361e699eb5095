"""Darknet: Darknet19 and Darknet53, the backbones of YOLOv2 and YOLOv3."""

import keras
from keras import layers

# Darknet19, Redmon and Farhadi, "YOLO9000" (2016), table 6: the filters of each stage. The kernels alternate between
# 3 and 1 within a stage, and max pooling stands between two stages.
_DARKNET19 = ((32,), (64,), (128, 64, 128), (256, 128, 256), (512, 256, 512, 256, 512), (1024, 512, 1024, 512, 1024))
# Darknet53, Redmon and Farhadi, "YOLOv3" (2018), table 1: the filters of each stage and its residual blocks.
_DARKNET53 = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))


def darknet19(input_shape=(224, 224, 3), *, width=1.0, name="darknet19"):
    """Builds the 18 convolutions of Darknet19 below its classifier (Redmon and Farhadi, 2016, arXiv:1612.08242).

    Args:
        input_shape: `(height, width, 3)`. Any size works: the pooling pads odd sides, as Darknet's own does.
        width: Float. Multiplies the number of filters of every layer. Defaults to `1.0`, the paper's network with
            19.8 million weights.
        name: String. Name of the model.

    Returns:
        A `keras.Model` from images in `[0, 1]` to a feature map of shape
        `(batch, height / 32, width / 32, 1024 * width)`, rounded up.

    Example:
    >>> darknet19((32, 32, 3), width=0.25).output_shape
    (None, 1, 1, 256)
    """
    x = images = keras.Input(input_shape, name="images")
    for stage, filters in enumerate(_DARKNET19, start=1):
        if stage > 1:
            x = layers.MaxPooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
        for number, count in enumerate(filters, start=1):
            x = _convolution(x, count * width, 3 if number % 2 else 1, f"stage{stage}_conv{number}")
    return keras.Model(images, x, name=name)


def darknet53(input_shape=(256, 256, 3), *, width=1.0, name="darknet53"):
    """Builds the 52 convolutions of Darknet53 below its classifier (Redmon and Farhadi, 2018, arXiv:1804.02767).

    Args:
        input_shape: `(height, width, 3)`. Any size works.
        width: Float. Multiplies the number of filters of every layer. Defaults to `1.0`, the paper's network with
            40.6 million weights.
        name: String. Name of the model.

    Returns:
        A `keras.Model` from images in `[0, 1]` to a feature map of shape
        `(batch, height / 32, width / 32, 1024 * width)`, rounded up.

    Example:
    >>> darknet53((32, 32, 3), width=0.125).output_shape
    (None, 1, 1, 128)
    """
    images = keras.Input(input_shape, name="images")
    x = _convolution(images, 32 * width, 3, "stem")
    for stage, (filters, blocks) in enumerate(_DARKNET53, start=1):
        x = _convolution(x, filters * width, 3, f"stage{stage}_down", strides=2)
        for block in range(1, blocks + 1):
            x = _residual_block(x, filters * width, f"stage{stage}_block{block}")
    return keras.Model(images, x, name=name)


def _residual_block(x, filters, name):
    y = _convolution(x, filters / 2, 1, f"{name}_reduce")
    y = _convolution(y, filters, 3, f"{name}_expand")
    return layers.Add(name=f"{name}_add")([x, y])


def _convolution(x, filters, kernel, name, strides=1):
    if strides > 1:
        # Darknet pads both sides; "same" with a stride of 2 pads the far side only, which shifts the grid.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        max(1, round(filters)),
        kernel,
        strides=strides,
        padding="valid" if strides > 1 else "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    # Keras' default momentum, 0.99, needs hundreds of steps to forget the initial statistics: more than an epoch on
    # a small data set has, so early validation figures would be meaningless.
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.LeakyReLU(negative_slope=0.1, name=f"{name}_leaky")(x)

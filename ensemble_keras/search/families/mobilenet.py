"""MobileNet-like: inverted residual blocks with depthwise convolutions."""

from keras import layers

from ensemble_keras.search.families.blocks import (
    bare_convolution,
    convolution,
    normalised,
    rescaled_channels,
    stride_of,
)
from ensemble_keras.search.family import Family

GENES = {
    "stages": (3, 4),
    "blocks": (1, 2, 3),
    "filters": (16, 24, 32),
    "widening": (1.25, 1.5, 1.75),
    "expansion": (2, 4, 6),
    "kernel_size": (3, 5),
    "rescaling": ("none", "squeeze"),
    "activation": ("relu6", "hard_swish"),
    "top": (128, 256),
}


def build(images, values):
    """Builds stages of inverted residual blocks (Sandler et al., 2018, arXiv:1801.04381).

    Each stage but the first halves the map. `rescaling` and `activation` are those of MobileNetV3 (Howard et al.,
    2019), `top` the channels of the last convolution.
    """
    x = convolution(images, values["filters"], activation=values["activation"], name="stem")
    for stage in range(values["stages"]):
        filters = int(values["filters"] * values["widening"] ** stage)
        for number in range(values["blocks"]):
            halves = stage > 0 and number == 0
            name = f"stage{stage + 1}_block{number + 1}"
            x = _block(x, filters, stride_of(x) if halves else 1, values, name)
    return convolution(x, values["top"], 1, activation=values["activation"], name="top")


def _block(x, filters, strides, values, name):
    activation = values["activation"]
    y = convolution(x, x.shape[-1] * values["expansion"], 1, activation=activation, name=f"{name}_expand")
    y = layers.DepthwiseConv2D(
        values["kernel_size"], strides=strides, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(y)
    y = layers.Activation(activation, name=f"{name}_{activation}")(normalised(y, name=f"{name}_depthwise"))
    if values["rescaling"] == "squeeze":
        y = rescaled_channels(y, name=name)
    # No activation: it would lose what the few channels hold.
    y = normalised(bare_convolution(y, filters, 1, name=f"{name}_project"), name=f"{name}_project")
    if strides > 1 or x.shape[-1] != filters:
        return y
    return layers.Add(name=f"{name}_add")([x, y])


FAMILY = Family("mobilenet", GENES, build)

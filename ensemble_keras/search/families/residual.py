"""Residual: pre-activated residual blocks, basic or with a bottleneck."""

from keras import layers

from ensemble_keras.search.families.blocks import (
    bare_convolution,
    dropped,
    preactivated,
    rescaled_channels,
    stride_of,
)
from ensemble_keras.search.family import Family

# Channels of a bottleneck's block over those between its 1 by 1 convolutions, as in the paper.
_EXPANSION = 4

GENES = {
    "block": ("basic", "bottleneck"),
    "stages": (2, 3),
    "blocks": (1, 2, 3),
    "filters": (16, 24, 32, 48),
    "rescaling": ("none", "squeeze"),
    "dropout": (0.0, 0.1, 0.3),
}


def build(images, values):
    """Builds stages of residual blocks (He et al., 2016, arXiv:1603.05027).

    Each stage but the first halves the map and doubles the filters. `dropout` is between the convolutions of a block
    (Zagoruyko and Komodakis, 2016), `rescaling` weighs its channels at the end.
    """
    x = bare_convolution(images, values["filters"], 3, name="stem")
    for stage in range(values["stages"]):
        for number in range(values["blocks"]):
            halves = stage > 0 and number == 0
            name = f"stage{stage + 1}_block{number + 1}"
            x = _block(x, values["filters"] * 2**stage, stride_of(x) if halves else 1, values, name)
    return preactivated(x, name="top")


def _block(x, filters, strides, values, name):
    bottleneck = values["block"] == "bottleneck"
    outputs = filters * _EXPANSION if bottleneck else filters
    y = preactivated(x, name=f"{name}_1")
    if strides > 1 or x.shape[-1] != outputs:
        x = bare_convolution(y, outputs, 1, strides=strides, name=f"{name}_shortcut")
    steps = (
        ((filters, 1, 1), (filters, 3, strides), (outputs, 1, 1))
        if bottleneck
        else ((filters, 3, strides), (outputs, 3, 1))
    )
    for place, (width, kernel, stride) in enumerate(steps, start=1):
        if place > 1:
            y = preactivated(y, name=f"{name}_{place}")
        if place == len(steps):
            y = dropped(y, values["dropout"], name=name)
        y = bare_convolution(y, width, kernel, strides=stride, name=f"{name}_{place}")
    if values["rescaling"] == "squeeze":
        y = rescaled_channels(y, name=name)
    return layers.Add(name=f"{name}_add")([x, y])


FAMILY = Family("residual", GENES, build)

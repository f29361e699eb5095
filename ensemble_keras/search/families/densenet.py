"""DenseNet: every layer of a block sees the outputs of all layers before it."""

from keras import layers

from ensemble_keras.search.families.blocks import bare_convolution, dropped, pooled, preactivated
from ensemble_keras.search.family import Family

# Channels between the 1 by 1 and the 3 by 3 convolution over the growth rate, as in the paper.
_BOTTLENECK = 4

GENES = {
    "blocks": (2, 3),
    "layers": (3, 4, 6),
    "growth_rate": (8, 12, 20),
    "bottleneck": ("none", "1x1"),
    "compression": (0.5, 1.0),
    "dropout": (0.0, 0.1, 0.2),
}


def build(images, values):
    """Builds dense blocks with transitions between them (Huang et al., 2017, arXiv:1608.06993)."""
    x = bare_convolution(images, 2 * values["growth_rate"], 3, name="stem")
    for block in range(1, values["blocks"] + 1):
        if block > 1:
            x = _transition(x, values["compression"], f"transition{block - 1}")
        for number in range(1, values["layers"] + 1):
            name = f"block{block}_layer{number}"
            x = layers.Concatenate(name=f"{name}_concat")([x, _layer(x, values, name)])
    return preactivated(x, name="top")


def _transition(x, compression, name):
    y = preactivated(x, name=name)
    return pooled(bare_convolution(y, int(x.shape[-1] * compression), 1, name=name), "average", name=name)


def _layer(x, values, name):
    y = preactivated(x, name=f"{name}_1")
    if values["bottleneck"] == "1x1":
        y = bare_convolution(y, _BOTTLENECK * values["growth_rate"], 1, name=f"{name}_1")
        y = preactivated(y, name=f"{name}_2")
    y = bare_convolution(y, values["growth_rate"], 3, name=f"{name}_2")
    return dropped(y, values["dropout"], name=name)


FAMILY = Family("densenet", GENES, build)

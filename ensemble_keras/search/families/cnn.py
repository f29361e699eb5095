"""Plain CNN: blocks of convolution, normalisation, ReLU and pooling."""

from ensemble_keras.search.families.blocks import convolution, dropped, pooled
from ensemble_keras.search.family import Family

GENES = {
    "blocks": (2, 3, 4),
    "filters": (24, 32, 48, 64),
    "widening": (1.5, 2.0),
    "kernel_size": (3, 5),
    "norm": ("batch", "layer", "none"),
    "pooling": ("max", "average"),
    "dropout": (0.0, 0.1, 0.25),
}


def build(images, values):
    """Builds the blocks; each has `widening` times the filters of the one before it."""
    x = images
    for block in range(values["blocks"]):
        name = f"block{block + 1}"
        filters = int(values["filters"] * values["widening"] ** block)
        x = convolution(x, filters, values["kernel_size"], norm=values["norm"], name=name)
        x = pooled(x, values["pooling"], name=name)
        x = dropped(x, values["dropout"], name=name)
    return x


FAMILY = Family("cnn", GENES, build)

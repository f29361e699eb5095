"""VGG-like: blocks of two or three 3 by 3 convolutions, then a dense layer."""

from ensemble_keras.search.families.blocks import convolution, dense, dropped, pooled
from ensemble_keras.search.family import Family, Gene

GENES = {
    "blocks": (2, 3, 4),
    "convolutions": (2, 3),
    "filters": (16, 24, 32, 48),
    "norm": ("batch", "none"),
    "dropout": (0.0, 0.1, 0.25),
    "top": ("average", "dense"),
    "units": Gene((64, 128, 256), when={"top": ("dense",)}),
}


def build(images, values):
    """Builds the blocks, each with twice the filters of the one before it (Simonyan and Zisserman, 2014)."""
    x = images
    for block in range(values["blocks"]):
        name = f"block{block + 1}"
        for number in range(1, values["convolutions"] + 1):
            x = convolution(x, values["filters"] * 2**block, norm=values["norm"], name=f"{name}_{number}")
        x = dropped(pooled(x, name=name), values["dropout"], name=name)
    if values["top"] == "average":
        return x
    # Flattened as in the paper, but from few pixels, or the dense layer outgrows all else.
    while min(x.shape[1:3]) > 4:
        x = pooled(x, name=f"to_{x.shape[1]}")
    return dense(x, values["units"], name="top")


FAMILY = Family("vgg", GENES, build)

"""AlexNet-like: three to five convolutions, each with filters and kernel of its own, and dense layers."""

from ensemble_keras.search.families.blocks import convolution, dense, pooled
from ensemble_keras.search.family import Family, Gene

# The dense layers see a map of at most so many pixels a side, as AlexNet's see 6, or they outgrow all else.
_LARGEST_MAP = 8

GENES = {
    "convolutions": (3, 4, 5),
    "filters_1": (16, 32, 48, 64, 96),
    "kernel_1": (3, 5, 7),
    "filters_2": (32, 64, 96, 128, 192),
    "kernel_2": (3, 5),
    "filters_3": (64, 96, 128, 192),
    "kernel_3": (3, 5),
    "filters_4": Gene((64, 96, 128, 192), when={"convolutions": (4, 5)}),
    "kernel_4": Gene((3, 5), when={"convolutions": (4, 5)}),
    "filters_5": Gene((64, 96, 128), when={"convolutions": (5,)}),
    "kernel_5": Gene((3, 5), when={"convolutions": (5,)}),
    "dense_layers": (1, 2),
    "units_1": (64, 128, 256, 512),
    "units_2": Gene((64, 128, 256, 512), when={"dense_layers": (2,)}),
    "dropout": (0.0, 0.25, 0.5),
}


def build(images, values):
    """Builds the convolutions and dense layers (Krizhevsky et al., 2012).

    It pools after the first two convolutions and the last one. It differs from the paper as
    `ensemble_keras.backbones.alexnet` does, and the first convolution has a stride of 1, for small images.
    """
    x, last = images, values["convolutions"]
    for number in range(1, last + 1):
        name = f"layer{number}"
        norm = "batch" if number <= 2 else "none"
        x = convolution(x, values[f"filters_{number}"], values[f"kernel_{number}"], norm=norm, name=name)
        if number in (1, 2, last):
            x = pooled(x, size=3, name=name)
    while min(x.shape[1:3]) > _LARGEST_MAP:
        x = pooled(x, name=f"to_{x.shape[1]}")
    for number in range(1, values["dense_layers"] + 1):
        x = dense(x, values[f"units_{number}"], values["dropout"], name=f"dense{number}")
    return x


FAMILY = Family("alexnet", GENES, build)

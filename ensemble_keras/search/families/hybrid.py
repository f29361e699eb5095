"""Hybrid: a convolutional stem, then attention or recurrence over the pixels of its map."""

from ensemble_keras.search.families.blocks import convolution, dropped, pooled
from ensemble_keras.search.families.sequences import attended, averaged, embedded, pixels, remembered
from ensemble_keras.search.family import Family, Gene

_ATTENTION, _RECURRENCE = {"mixer": ("attention",)}, {"mixer": ("recurrence",)}

GENES = {
    "stem_blocks": (2, 3),
    "filters": (16, 32, 48),
    "kernel_size": (3, 5),
    "width": (64, 96, 128),
    "dropout": (0.0, 0.1),
    "mixer": ("attention", "recurrence"),
    "heads": Gene((2, 4), when=_ATTENTION),
    "depth": Gene((1, 2, 4), when=_ATTENTION),
    "mlp_ratio": Gene((2, 4), when=_ATTENTION),
    "cell": Gene(("gru", "lstm"), when=_RECURRENCE),
    "direction": Gene(("forward", "both"), when=_RECURRENCE),
    "readout": Gene(("last", "mean"), when=_RECURRENCE),
}


def build(images, values):
    """Builds the stem, each block with twice the filters of the one before it, and the mixer of its pixels.

    A convolutional stem spares a Transformer much of the data that it needs (Xiao et al., 2021, arXiv:2106.14881).
    """
    x = images
    for block in range(values["stem_blocks"]):
        name = f"stem{block + 1}"
        x = pooled(convolution(x, values["filters"] * 2**block, values["kernel_size"], name=name), name=name)
    x = dropped(embedded(pixels(x), values["width"]), values["dropout"], name="embedding")
    if values["mixer"] == "recurrence":
        options = {name: values[name] for name in ("cell", "direction", "readout")}
        return remembered(x, units=values["width"], **options)
    options = {name: values[name] for name in ("heads", "mlp_ratio", "dropout")}
    for number in range(1, values["depth"] + 1):
        x = attended(x, **options, name=f"block{number}")
    return averaged(x)


FAMILY = Family("hybrid", GENES, build)

"""Recurrent: an image read row by row, or patch by patch, through GRU or LSTM."""

from ensemble_keras.search.families.blocks import dropped
from ensemble_keras.search.families.sequences import embedded, patches, remembered, rows
from ensemble_keras.search.family import Family, Gene

GENES = {
    "view": ("rows", "patches"),
    "patch_size": Gene((4, 8), when={"view": ("patches",)}),
    "embedding": (32, 64, 128),
    "cell": ("gru", "lstm"),
    "units": (64, 128, 192),
    "layers": (1, 2),
    "direction": ("forward", "both"),
    "readout": ("last", "mean"),
    "dropout": (0.0, 0.1, 0.25),
}


def build(images, values):
    """Builds the embedding of rows or patches, and the recurrent layers on it (as Le et al., 2015, read pixels)."""
    x = rows(images) if values["view"] == "rows" else patches(images, values["patch_size"])
    x = dropped(embedded(x, values["embedding"]), values["dropout"], name="embedding")
    return remembered(
        x,
        cell=values["cell"],
        units=values["units"],
        direction=values["direction"],
        readout=values["readout"],
        number=values["layers"],
    )


FAMILY = Family("recurrent", GENES, build)

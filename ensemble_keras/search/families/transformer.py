"""Transformer: an image cut into patches, each of which attends to all."""

from ensemble_keras.search.families.blocks import dropped
from ensemble_keras.search.families.sequences import attended, averaged, embedded, patches
from ensemble_keras.search.family import Family

GENES = {
    "patch_size": (4, 8),
    "width": (64, 96, 128, 192),
    "heads": (2, 4),
    "depth": (2, 3, 4, 6),
    "mlp_ratio": (2, 4),
    "dropout": (0.0, 0.1),
}


def build(images, values):
    """Builds a Vision Transformer whose features are the mean over the patches (Dosovitskiy et al., 2021)."""
    x = embedded(patches(images, values["patch_size"]), values["width"])
    x = dropped(x, values["dropout"], name="embedding")
    options = {name: values[name] for name in ("heads", "mlp_ratio", "dropout")}
    for number in range(1, values["depth"] + 1):
        x = attended(x, **options, name=f"block{number}")
    return averaged(x)


FAMILY = Family("transformer", GENES, build)

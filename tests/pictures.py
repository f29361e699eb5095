"""Pictures for tests of the data stage."""

import io

import numpy as np
from PIL import Image


def picture(seed, size=(24, 20)):
    """A smooth random RGB picture of (width, height)."""
    rough = np.random.default_rng(seed).integers(20, 231, (5, 6, 3), dtype="uint8")
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind="PNG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()

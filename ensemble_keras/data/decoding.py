"""Decoding: the bytes of an image file to the pixels that a person sees."""

import io
import struct
import zlib

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ensemble_keras._validation import check_image_size

FILTER = "bilinear"
"""The one filter (Pillow's, antialiased) that brings a picture to `image_size`."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR}

# First bytes -> reader. Pillow's own `Image.open` would try every format it knows, also those that call other
# programs, and would warn of ordinary large pictures; no warning filter can be set from a thread.
_READERS = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"II+\0": TiffImagePlugin.TiffImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
}

# What Pillow's readers raise on damaged files; warnings too, where the user's filters make errors of them.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError, Warning,
)  # fmt: skip

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 0x0112, 0x0102, 0x0106, 0
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImageError(ValueError):
    """A file that is no readable image. `name` and `reason` are attributes."""

    def __init__(self, name, reason):
        super().__init__(f"Cannot read the image {name!r}: {reason}.")
        self.name, self.reason = name, reason

    def __reduce__(self):
        return type(self), (self.name, self.reason)


class BadImagesError(ValueError):
    """All files of a data set that are no readable images. `failures` is a dict from name to reason."""

    def __init__(self, failures):
        shown = [f"  {name}: {reason}" for name, reason in list(failures.items())[:10]]
        if len(failures) > len(shown):
            shown.append(f"  … and {len(failures) - len(shown)} more (see `.failures`)")
        count = (
            "1 file is no readable image" if len(failures) == 1 else f"{len(failures)} files are no readable images"
        )
        super().__init__(
            f"{count}:\n" + "\n".join(shown) + "\nReplace or remove them, or leave them out with on_bad_image='skip'."
        )
        self.failures = failures

    def __reduce__(self):
        return type(self), (self.failures,)


def decode(data, name, image_size=None):
    """Decodes an image file to RGB as a person sees it in a viewer.

    The first frame of an animated one; turned as its EXIF orientation says; transparency over white, as on a page;
    grey and palettes as RGB; CMYK by Pillow's formula, without colour profile; 16 bits scaled to 8; 32-bit integers
    and floats, which have no fixed white, stretched from their smallest value (black) to their largest.

    Args:
        data: Bytes of a JPEG, PNG, BMP, GIF, TIFF or WebP file.
        name: String. What an error calls the file.
        image_size: Int or `(height, width)` to resize to (`resize`), or `None` for the picture's own size.

    Returns:
        uint8 array `(height, width, 3)`.

    Raises:
        BadImageError: If the bytes are empty, truncated, damaged, of another kind, or hold over 178 megapixels
            (twice Pillow's `MAX_IMAGE_PIXELS`; a small file of that many is an attack more often than a picture).
    """
    try:
        image = _as_rgb(_upright(_opened(data, name)))
        if image_size is not None:
            height, width = check_image_size(image_size)
            image = image.resize((width, height), _FILTERS[FILTER])
        return np.array(image)
    except BadImageError:
        raise
    except _DAMAGE as error:
        raise BadImageError(name, f"damaged or truncated ({error or type(error).__name__})") from error


def resize(pixels, image_size):
    """Resizes one image with `FILTER`, widened when shrinking so that nothing aliases.

    Args:
        pixels: uint8 or float32 array `(height, width, 3)`.
        image_size: Int or `(height, width)`.

    Returns:
        Array of that size and of the same dtype; `pixels` itself where the size is equal.
    """
    height, width = check_image_size(image_size)
    if pixels.shape[:2] == (height, width):
        return pixels
    # Pillow resizes floats only in one channel.
    parts = [pixels] if pixels.dtype == np.uint8 else [pixels[..., channel] for channel in range(3)]
    sized = [np.array(Image.fromarray(part).resize((width, height), _FILTERS[FILTER])) for part in parts]
    return sized[0] if pixels.dtype == np.uint8 else np.stack(sized, axis=-1)


def _opened(data, name):
    if not data:
        raise BadImageError(name, "the file is empty")
    reader = next((reader for start, reader in _READERS.items() if data.startswith(start)), None)
    if reader is None:
        raise BadImageError(name, "not a JPEG, PNG, BMP, GIF, TIFF or WebP image")
    image = reader(io.BytesIO(data))
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > 2 * limit:
        raise BadImageError(name, f"{image.width} x {image.height} pixels are over the limit of {2 * limit}")
    image.load()
    return image


def _upright(image):
    try:
        turn = _TURNED.get(image.getexif().get(_ORIENTATION))
    except _DAMAGE:  # Damaged EXIF data beside good pixels: viewers show the pixels as they are.
        turn = None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image):
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = _scaled(image, *_fixed_range(image))
    elif image.mode in ("I", "F"):
        image = _scaled(image, *image.getextrema())
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _fixed_range(image):
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    return (white, 0) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, white)


def _scaled(image, black, white):
    values = np.asarray(image).astype("float64")
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite pixels")
    share = (values - black) / ((white - black) or 1)
    return Image.fromarray(np.rint(255 * share).astype("uint8"))

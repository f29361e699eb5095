"""Views: the images of a batch as test-time augmentation shows them to an ensemble, inside its graph."""

import keras

from ensemble_keras._validation import check_choice

# Share of each side that a zoomed view shows.
_ZOOM = 0.875


def views_of(images, names):
    """Returns the images as they are, and one tensor of the same shape for each other view.

    Args:
        images: Symbolic tensor `(batch, height, width, 3)`.
        names: `None`, a name or a sequence of names: `"horizontal_flip"`, `"vertical_flip"`, `"zoom"` (the middle
            7/8 of each side, brought to the full size bilinearly).

    Raises:
        ValueError: If a name is unknown or stands twice, or images of any size are to be zoomed.
    """
    names = view_names(names)
    for name in names:
        check_choice("test_time_augmentation", name, list(_VIEWS))
    if len(set(names)) < len(names):
        raise ValueError(f"`test_time_augmentation` must name each view once. Received: {names}.")
    return [images, *(_VIEWS[name](images) for name in names)]


def view_names(names):
    """Returns the names of views as a tuple, from `None`, a name or a sequence of names."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def _zoomed(images):
    height, width = images.shape[1:3]
    if height is None or width is None:
        raise ValueError('The view "zoom" needs members of a fixed image size. Received: members of any size.')
    middle = keras.layers.CenterCrop(max(round(_ZOOM * height), 1), max(round(_ZOOM * width), 1), dtype="float32")
    return keras.layers.Resizing(height, width, interpolation="bilinear", dtype="float32")(middle(images))


_VIEWS = {
    "horizontal_flip": lambda images: keras.ops.flip(images, axis=2),
    "vertical_flip": lambda images: keras.ops.flip(images, axis=1),
    "zoom": _zoomed,
}

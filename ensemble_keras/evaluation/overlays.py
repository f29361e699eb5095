"""Overlays: explanations drawn over the images that they are of."""

import textwrap

import keras
import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap

from ensemble_keras._validation import check_images
from ensemble_keras.evaluation.drawing import INK, ShownFigure


def overlay(images, maps, *, alpha=0.5, colormap="viridis"):
    """Draws maps over images, each as strongly as it is there: where a map is 0, the image is as it was.

    A map is drawn relative to its own largest value, however small that is; below 0 it counts as 0.

    Args:
        images: Array `(n, height, width, 3)` with values in [0, 255]; grey ones may have one channel.
        maps: Array `(n, h, w)`, such as `grad_cam` and `occlusion` give; of another size than the images, it is
            brought to theirs.
        alpha: Float in [0, 1]: how much of the largest value's pixel is the map's colour. Defaults to 0.5.
        colormap: Name of a matplotlib colormap, or one. Defaults to `"viridis"`.

    Returns:
        uint8 array `(n, height, width, 3)`.

    Raises:
        ValueError: If images or maps are not as described, or `alpha` is out of its range.

    Example:

    >>> ek.overlay(np.zeros((1, 8, 8, 3), "uint8"), np.eye(8)[None], alpha=1.0)[0, 0, 0].tolist()
    [253, 231, 37]
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` must be in [0, 1]. Received: {alpha!r}.")
    images = _check_pictures(images)
    strength = _strengths(images, maps)
    colors = 255 * matplotlib.colormaps.get_cmap(colormap)(strength)[..., :3]
    share = alpha * strength[..., None]
    return np.rint(images * (1 - share) + colors * share).astype("uint8")


def plot_explanations(images, maps, *, titles=None, alpha=0.5, colormap="viridis", axes=None):
    """Draws images, and beside each its maps over it: a row per image, a column per explanation.

    Args:
        images: As in `overlay`; a few.
        maps: Array `(n, h, w)`, or a dict from the names of explanations to such arrays.
        titles: List of strings, one per image, written above it. Defaults to `None`.
        alpha: As in `overlay`.
        colormap: As in `overlay`.
        axes: Array of matplotlib axes, of the shape that is returned. Defaults to `None`: axes of a new figure, which
            has a colour bar.

    Returns:
        Array of axes `(n, 1 + explanations)`, the images as they are in its first column. In a notebook
        `axes[0, 0].figure` shows itself.

    Raises:
        ValueError: If images, maps, titles or axes are not as described.

    Example:

    >>> axes = ek.plot_explanations(np.zeros((2, 8, 8, 3), "uint8"), {"Grad-CAM": np.ones((2, 8, 8))})
    >>> axes.shape
    (2, 2)
    """
    images = _check_pictures(images)
    columns = maps if isinstance(maps, dict) else {"": maps}
    columns = {name: overlay(images, own, alpha=alpha, colormap=colormap) for name, own in columns.items()}
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"`titles` must hold one per image. Received: {len(titles)} for {len(images)} images.")
    axes = (
        _grid(images, len(columns), colormap) if axes is None else _check_axes(axes, (len(images), 1 + len(columns)))
    )
    for row, name in enumerate([""] * len(images) if titles is None else titles):
        for ax, (own, pictures) in zip(axes[row], {None: images, **columns}.items(), strict=True):
            ax.imshow(np.rint(pictures[row]).astype("uint8"))
            ax.set_axis_off()
            text = name if own is None else own if row == 0 else ""
            ax.set_title(textwrap.fill(text, 28), fontsize=9, color=INK, parse_math=False)
    return axes


def _grid(images, explanations, colormap):
    height, width = images.shape[1:3]
    size = (2.2 * (1 + explanations) + 0.8, (2.2 * height / width + 0.45) * len(images))
    figure = ShownFigure(figsize=size, facecolor="white", layout="constrained")
    axes = figure.subplots(len(images), 1 + explanations, squeeze=False)
    # It fades as the overlays do, here into the white of the page.
    strength = np.linspace(0, 1, 256)[:, None]
    colors = 1 - strength * (1 - matplotlib.colormaps.get_cmap(colormap)(strength[:, 0])[:, :3])
    mappable = ScalarMappable(cmap=ListedColormap(colors))
    bar = figure.colorbar(mappable, ax=axes, shrink=min(1, 2 / len(images)), aspect=15, pad=0.02)
    bar.set_ticks([0, 1], labels=["none", "most"])
    bar.set_label("evidence for the class", color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=9, labelcolor=INK, length=0)
    bar.outline.set_visible(False)
    return axes


def _check_axes(axes, shape):
    axes = np.asarray(axes)
    if axes.size != shape[0] * shape[1]:
        raise ValueError(f"`axes` must be an array of shape {shape}. Received: shape {axes.shape}.")
    return axes.reshape(shape)


def _check_pictures(images):
    images = np.asarray(images)
    grey = images.ndim == 4 and images.shape[-1] == 1
    return check_images(np.repeat(images, 3, axis=-1) if grey else images, "images")


def _strengths(images, maps):
    """Returns maps of the images' size between 0 and 1, `(n, height, width)`."""
    maps = np.asarray(maps, "float32")
    if maps.ndim != 3 or len(maps) != len(images) or not np.isfinite(maps).all():
        found = "" if np.isfinite(maps).all() else ", with NaN or infinities"
        raise ValueError(
            f"`maps` must hold finite numbers, shape (n, h, w), for {len(images)} images. "
            f"Received: shape {maps.shape}{found}."
        )
    maps = np.maximum(maps, 0)
    if maps.shape[1:] != images.shape[1:3]:
        resized = keras.ops.image.resize(maps[..., None], images.shape[1:3], data_format="channels_last")
        maps = keras.ops.convert_to_numpy(resized)[..., 0]
    largest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)

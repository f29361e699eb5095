"""Occlusion: what covering each part of an image costs a class; a check on Grad-CAM that takes no gradient."""

import keras
import numpy as np

from ensemble_keras.evaluation.explained_images import check_classes, check_pixels, predicted
from ensemble_keras.measures.graph import has_graph


def occlusion(model, images, *, class_index=None, window=None, stride=None, fill=None, batch_size=32):
    """Computes what covering each part of an image costs a class (Zeiler & Fergus, 2014, section 4.2).

    A square is moved over the image. Each pixel's value is the mean, over the squares that cover it, of the
    probability that the class loses; below 0 where covering adds to it. It takes no gradient, any model, and a
    prediction per square: 169 of them for 224 by 224 pixels unless told otherwise.

    Args:
        model: A `keras.Model` from images with values in [0, 255] to class probabilities, with a graph or a `call` of
            its own.
        images: Array `(n, height, width, channels)` of the size that the model takes.
        class_index: Int, or ints `(n,)`: the class to explain. Defaults to `None`: the one that the model predicts.
        window: Int, or `(height, width)`: size of the square in pixels. Defaults to `None`: 1/7 of each side.
        stride: Int, or `(down, across)`: pixels from one square to the next, at most the window. Defaults to `None`:
            half of the window.
        fill: Number in [0, 255], or one per channel, that covers. Defaults to `None`: each image's mean colour.
        batch_size: Images per step, halved where memory runs out. Defaults to 32.

    Returns:
        Float32 array `(n, height, width)`, in units of probability.

    Raises:
        ValueError: If images, classes, window, stride or fill are not as described.

    Example:

    >>> member = ek.build_member("CNN", 10, image_size=32, weights=None)
    >>> ek.occlusion(member, np.zeros((1, 32, 32, 3), "uint8"), window=8).shape
    (1, 32, 32)
    """
    images = check_pixels(model, images)
    squares = _squares(images.shape[1:3], window, stride)
    colors = _colors(images, fill)
    network = keras.Model(model.inputs[0], model.outputs[-1], name=model.name) if has_graph(model) else model
    whole = predicted(network, lambda rows: images[rows], len(images), batch_size)
    classes = check_classes(class_index, len(images), whole.shape[1])
    classes = np.where(classes < 0, whole.argmax(axis=1), classes)

    def covered(places):
        rows, numbers = np.divmod(places, len(squares))
        batch = images[rows].astype("float32")
        for image, color, number in zip(batch, colors[rows], numbers, strict=True):
            image[squares[number]] = color
        return batch

    parts = predicted(network, covered, len(images) * len(squares), batch_size)
    lost = whole[:, None] - parts.reshape(len(images), len(squares), -1)
    return _spread(lost[np.arange(len(images)), :, classes], squares, images.shape[1:3])


def _squares(size, window, stride):
    """Returns the squares, pairs of slices; the last ones end where the image does."""
    window = tuple(max(side // 7, 1) for side in size) if window is None else _pair("window", window, size)
    stride = tuple(max(side // 2, 1) for side in window) if stride is None else _pair("stride", stride, window)
    tops, lefts = (
        sorted({*range(0, side - length, step), side - length})
        for side, length, step in zip(size, window, stride, strict=True)
    )
    return [np.s_[top : top + window[0], left : left + window[1]] for top in tops for left in lefts]


def _spread(values, squares, size):
    """Returns the mean, over the squares that cover it, of each pixel's values: `(n, height, width)`."""
    maps, times = np.zeros((len(values), *size), "float32"), np.zeros(size, "float32")
    for column, square in enumerate(squares):
        times[square] += 1
        maps[(slice(None), *square)] += values[:, column, None, None]
    return maps / times


def _pair(argument, value, largest):
    pair = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(pair) != 2 or not all(1 <= own <= most for own, most in zip(pair, largest, strict=True)):
        raise ValueError(
            f"`{argument}` must be one int or a pair of ints, from 1 to {tuple(largest)}. Received: {value!r}."
        )
    return pair


def _colors(images, fill):
    """Returns the colour that covers, `(n, channels)`."""
    shape = (len(images), images.shape[-1])
    if fill is None:
        return images.mean(axis=(1, 2), dtype="float64").astype("float32")
    color = np.asarray(fill, "float32")
    if color.shape not in ((), shape[1:]) or not ((color >= 0) & (color <= 255)).all():
        raise ValueError(
            f"`fill` must be a number in [0, 255], or {shape[1]} of them, one per channel. Received: {fill!r}."
        )
    return np.broadcast_to(color, shape)

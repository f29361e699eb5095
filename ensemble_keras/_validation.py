"""Validation: argument checks with one form of message: the rule, what came, the next step."""

import difflib
import math
import numbers

import numpy as np


def suggest(name, known):
    """Returns `" Did you mean 'X'?"` for the known name nearest to `name`, or `""`; ignores case."""
    by_lower = {str(k).lower(): str(k) for k in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def model_hint(given):
    """Returns where the `keras.Model` of a fitted classifier is, if that was given in its place, or `""`."""
    return " A fitted classifier's model is its `model_`." if hasattr(given, "model_") else ""


def check_choice(argument, value, choices):
    """Raises `ValueError` unless `value` is one of `choices`; returns it."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{argument}` must be one of {listed}. Received: {value!r}.{suggest(value, choices)}")
    return value


def check_number(argument, value, rule, holds):
    """Raises `ValueError` unless `value` is a finite number of which `holds(value)` is true; returns it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not (math.isfinite(value) and holds(value)):
        raise ValueError(f"`{argument}` must be {rule}. Received: {value!r}.")
    return value


def check_at_least(argument, value, least):
    """Raises `ValueError` unless `value` is an int of at least `least`; returns it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"`{argument}` must be an int of at least {least}. Received: {value!r}.")
    return value


def check_image_size(image_size):
    """Returns `(height, width)` from one int or a pair of ints, each at least 1."""
    pair = (image_size, image_size) if isinstance(image_size, int | np.integer) else image_size
    try:
        height, width = (int(side) for side in pair)
        exact = all(int(side) == side for side in pair)
    except (TypeError, ValueError):
        exact, height, width = False, 0, 0
    if not exact or height < 1 or width < 1:
        raise ValueError(f"`image_size` must be one int or (height, width), in pixels. Received: {image_size!r}.")
    return height, width


def check_seed(seed):
    """Raises `ValueError` unless `seed` is an int of at least 0; returns it."""
    return check_at_least("seed", seed, 0)


def check_images(x, argument="x", channels=3):
    """Returns `x` as an array of images `(n, height, width, channels)` in [0, 255], or raises `ValueError`.

    uint8 arrays pass unchanged, other integers and floats become float32. An empty array, another shape, NaN,
    values outside [0, 255] and float images that look scaled to [0, 1] are refused.
    """
    taken = f"images of shape (n, height, width, {channels}) with values in [0, 255]"
    if not isinstance(x, list | tuple) and not hasattr(x, "__array__"):
        hint = (
            f"Give its pixels: `{argument}.load(image_size=...)`."
            if hasattr(x, "digests")  # an `ImageDataset`; others have a `load`, too
            else "Take `ImageDataset.from_directory`, which reads folders, or arrays."
        )
        raise ValueError(f"`{argument}` must hold {taken}. Received: an object of class {type(x).__name__}. {hint}")
    shapes = {np.shape(image) for image in x} if isinstance(x, list | tuple) else ()
    if len(shapes) > 1:
        raise ValueError(
            f"`{argument}` must hold {taken}. Received: images of different shapes, such as "
            f"{' and '.join(map(str, sorted(shapes)[:2]))}. Resize them to one, or let "
            "`ImageDataset.from_directory` or `from_dataframe` read the files, which do so."
        )
    x = np.asarray(x)
    if x.dtype.kind not in "uif":
        hint = " Image files are read by `ImageDataset.from_files`." if x.dtype.kind in "US" else ""
        raise ValueError(f"`{argument}` must hold {taken}. Received: an array of dtype {x.dtype}.{hint}")
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(
            f"`{argument}` must hold {taken}. Received: shape {x.shape}.{_shape_hint(x.shape, channels, argument)}"
        )
    if not len(x):
        raise ValueError(f"`{argument}` must hold {taken}. Received: no image (shape {x.shape}).")
    if x.dtype == np.uint8:
        return x
    low, high = float(x.min()), float(x.max())
    if np.isnan(low) or np.isnan(high):
        rows = np.flatnonzero(np.isnan(x).any(axis=(1, 2, 3)))
        raise ValueError(f"`{argument}` must hold {taken}. Received: NaN pixels in {rows_text(rows)}.")
    if low < 0 or high > 255:
        scaled = " Undo the scaling, such as by `(x + 1) * 127.5`: preprocessing happens inside the model."
        hint = scaled if low >= -1 and high <= 1 else ""
        raise ValueError(f"`{argument}` must hold {taken}. Received: values from {low:g} to {high:g}.{hint}")
    if x.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"`{argument}` must hold {taken}. Received: floats from {low:g} to {high:g}, which look scaled to "
            "[0, 1]. Multiply them by 255: preprocessing happens inside the model."
        )
    return x.astype("float32", copy=False)


def _shape_hint(shape, channels, argument):
    """Returns what may be done about images of another shape, or `""`."""
    if len(shape) == 3 and shape[-1] == channels:
        return f" One image is a batch of one: `{argument}[None]`."
    if len(shape) == 4 and shape[1] == channels:
        return f" Channels come last: `np.moveaxis({argument}, 1, -1)`."
    if channels != 3:
        return ""
    if len(shape) == 4 and shape[-1] == 4:
        return f" Leave the fourth channel out: `{argument}[..., :3]`."
    if len(shape) == 3 or (len(shape) == 4 and shape[-1] == 1):
        return " Repeat grey images over three channels: `np.repeat(x.reshape(*x.shape[:3], 1), 3, -1)`."
    return ""


def check_labels(y, n, argument="y"):
    """Returns `y` as a 1-D array of `n` labels (ints or strings), or raises `ValueError`.

    `(n, 1)` columns, as `keras.datasets` gives them, are flattened; whole floats become ints.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        raise ValueError(
            f"`{argument}` must hold one label per image, shape (n,). Received: shape {y.shape}. "
            f"For one-hot rows give `{argument}.argmax(axis=1)`."
        )
    if y.shape != (n,):
        raise ValueError(f"`{argument}` must hold one label per image. Received: shape {y.shape} for {n} images.")
    if y.dtype.kind in "OUST":
        # Only here: the command line checks its options before it loads pandas.
        import pandas as pd

        missing = pd.isna(y.astype(object))
        if missing.any():
            _refuse_missing(argument, missing)
        return y.astype(str) if not all(isinstance(v, int | np.integer) for v in y.tolist()) else y.astype("int64")
    if y.dtype.kind == "f":
        missing = np.isnan(y)
        if missing.any():
            _refuse_missing(argument, missing)
        if (y != np.rint(y)).any():
            raise ValueError(
                f"`{argument}` must hold class labels (ints or strings). Received: fractions such as "
                f"{y[y != np.rint(y)][0]:g}."
            )
    elif y.dtype.kind not in "iub":
        raise ValueError(f"`{argument}` must hold class labels (ints or strings). Received: dtype {y.dtype}.")
    return y.astype("int64")


def rows_text(rows, limit=5):
    """Returns `"2 rows: 3, 8"`, naming the first `limit` of them."""
    rows = [int(row) for row in rows]
    more = ", …" if len(rows) > limit else ""
    return f"{len(rows)} row{'s' * (len(rows) != 1)}: {', '.join(map(str, rows[:limit]))}{more}"


def _refuse_missing(argument, missing):
    raise ValueError(
        f"`{argument}` must hold no missing label. Received: NaN or None in {rows_text(np.flatnonzero(missing))}."
    )

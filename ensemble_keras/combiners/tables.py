"""Tables: checks of the members' predictions and features, as arrays, before a combiner sees them."""

import keras
import numpy as np

from ensemble_keras._validation import check_labels, rows_text

# Rows in float16 sum to 1 within this.
_TOLERANCE = 2e-3


def inputs_of(combiner, predictions, features):
    """Returns what the combiner's `call` takes: one or two lists of checked float32 arrays, one array per member."""
    takes = getattr(combiner, "takes", "predictions")
    inputs = []
    if takes != "features":
        inputs.append(list(np.moveaxis(check_predictions(predictions), 1, 0)))
    if takes != "predictions":
        inputs.append(_check_features(combiner, features))
    if takes == "both" and [len(x) for x in inputs[0]] != [len(x) for x in inputs[1]]:
        raise ValueError(
            "`predictions` and `features` must be of the same members and images. Received: "
            f"{len(inputs[0])} members with {len(inputs[0][0])} rows, and {len(inputs[1])} with {len(inputs[1][0])}."
        )
    return inputs


def check_predictions(predictions):
    """Returns a float32 table of probabilities `(n, members, num_classes)`, or raises `ValueError`.

    One column, sigmoid outputs `p`, becomes `[1 - p, p]`. NaN, values outside [0, 1] and rows that do not sum to 1
    within 0.002 are refused; the message names member and rows.
    """
    table = np.asarray(predictions if predictions is not None else [], dtype="float32")
    if table.ndim != 3 or 0 in table.shape:
        raise ValueError(
            "`predictions` must be a table of shape (n, members, num_classes). "
            f"Received: {'None' if predictions is None else f'shape {table.shape}'}. Join those of the members by "
            "`np.stack(predictions, axis=1)`."
        )
    _refuse_rows(np.isnan(table).any(axis=2), "NaN")
    _refuse_rows(((table < -_TOLERANCE) | (table > 1 + _TOLERANCE)).any(axis=2), "values outside [0, 1]")
    if table.shape[2] == 1:
        return np.concatenate([1 - table, table], axis=2)
    sums = table.sum(axis=2, dtype="float64")
    _refuse_rows(np.abs(sums - 1) > _TOLERANCE, "rows that do not sum to 1", sums)
    return table


def check_y(y, n, num_classes):
    """Returns `y` as an int array of class indices, each class at least once, or raises `ValueError`."""
    y = check_labels(y, n)
    if y.dtype.kind != "i":
        raise ValueError(f"`y` must hold class indices 0 … {num_classes - 1}. Received: names such as {y[0]!r}.")
    outside = np.flatnonzero((y < 0) | (y >= num_classes))
    if len(outside):
        raise ValueError(
            f"`y` must hold class indices 0 … {num_classes - 1}, one per column of the predictions. Received: "
            f"{y[outside[0]]} and the like in {rows_text(outside)}."
        )
    missing = np.setdiff1d(np.arange(num_classes), y)
    if len(missing):
        raise ValueError(
            f"`y` must hold images of all {num_classes} classes. Received: {n} rows, none of class "
            f"{', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''}."
        )
    return y


def check_class_weight(class_weight, num_classes):
    """Returns `None` or a float array `(num_classes,)` of weights above 0, or raises `ValueError`."""
    if class_weight is None:
        return None
    weights = np.asarray(class_weight, dtype="float64")
    if weights.shape != (num_classes,) or not (weights > 0).all() or not np.isfinite(weights).all():
        raise ValueError(
            f"`class_weight` must be {num_classes} numbers above 0, one per class. Received: {class_weight!r}."
        )
    return weights


def check_classes(combiner, inputs, num_classes):
    """Raises `ValueError` unless a combiner of predictions gives the classes that it is given."""
    given = inputs[0][0].shape[1]
    if getattr(combiner, "takes", "predictions") != "features" and given != num_classes:
        raise ValueError(
            f"`{type(combiner).__name__}` gives {num_classes} classes. Received: predictions of {given} classes."
        )


def check_layer(combiner):
    """Raises `TypeError` unless `combiner` is a layer, not a class of layers."""
    if isinstance(combiner, type):
        raise TypeError(
            f"`combiner` must be a layer. Received: the class {combiner.__name__}. Make one of it: "
            f"`{combiner.__name__}(...)`."
        )
    if not isinstance(combiner, keras.layers.Layer):
        raise TypeError(f"`combiner` must be a layer, such as `SoftVoting()`. Received: {combiner!r}.")


def _check_features(combiner, features):
    if features is None:
        raise ValueError(
            f"`{type(combiner).__name__}` takes features. Give `features`, a list of arrays (n, d), one per member."
        )
    features = [np.asarray(array, dtype="float32") for array in features]
    shapes = [array.shape for array in features]
    if not features or any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(
            f"`features` must be a list of arrays (n, d), one per member, with equal n. Received: shapes {shapes}."
        )
    for index, array in enumerate(features):
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise ValueError(
                "`features` must hold finite numbers. "
                f"Received: NaN or infinite values from member {index} in {rows_text(bad)}."
            )
    return features


def _refuse_rows(bad, what, sums=None):
    members = np.flatnonzero(bad.any(axis=0))
    if len(members):
        index = members[0]
        rows = np.flatnonzero(bad[:, index])
        first = "" if sums is None else f" (the first sums to {sums[rows[0], index]:.4g})"
        others = f"; {len(members) - 1} more members have such rows" if len(members) > 1 else ""
        raise ValueError(
            "`predictions` must hold probabilities, every row of which sums to 1. "
            f"Received: {what} from member {index} in {rows_text(rows)}{first}{others}."
        )

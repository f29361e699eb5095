"""Tables: checks of the members' predictions and features, as arrays, before a combiner sees them."""

import keras
import numpy as np

from ensemble_keras._validation import rows_text
from ensemble_keras.combiners.base import takes_of
from ensemble_keras.measures.predictions import check_predictions


def inputs_of(combiner, predictions, features):
    """Returns what the combiner's `call` takes: one or two lists of checked float32 arrays, one array per member."""
    takes = takes_of(combiner)
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


def check_class_weight(class_weight, num_classes):
    """Returns `None` or a float array `(num_classes,)` of weights above 0, or raises `ValueError`."""
    if class_weight is None:
        return None
    named = isinstance(class_weight, dict | str)
    weights = np.asarray([] if named else class_weight, dtype="float64")
    if weights.shape != (num_classes,) or not (weights > 0).all() or not np.isfinite(weights).all():
        raise ValueError(
            f"`class_weight` must be {num_classes} numbers above 0, one per class. Received: {class_weight!r}."
        )
    return weights


def check_classes(combiner, inputs, num_classes):
    """Raises `ValueError` unless a combiner of predictions gives the classes that it is given."""
    given = inputs[0][0].shape[1]
    if takes_of(combiner) != "features" and given != num_classes:
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

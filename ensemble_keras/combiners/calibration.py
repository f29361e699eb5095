"""Calibration: temperatures of members and of the ensemble, so that probabilities say how often they are right."""

import numpy as np
from keras import ops
from scipy import optimize, special

from ensemble_keras.combiners import base
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities
from ensemble_keras.measures.predictions import check_class_order, check_predictions, check_sample_weight, check_y

# Beyond these no finite set of images tells anything: where every row is right, the best temperature is 0.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0


def fit_temperature(probabilities, y, *, sample_weight=None):
    """Returns the temperature at which predictions have the lowest log loss (Guo et al., 2017, arXiv:1706.04599).

    Probabilities `p` become `softmax(log(p) / temperature)`: above 1 they are softened, below 1 sharpened; the most
    probable class stays what it is. The log loss is convex in `1 / temperature`, so there is one best value, found
    exactly, within [0.1, 10]: where every row is right or nearly so, the loss falls as far as the temperature does.

    The predictions must be of images that the classifier did not train on: on training images it looks too sure of
    itself with reason.

    Args:
        probabilities: Array `(n, num_classes)` of probabilities; or p of class 1, `(n,)` or `(n, 1)`. Those below
            1e-7 count as 1e-7.
        y: Array `(n,)` of class indices.
        sample_weight: Array `(n,)` of numbers of at least 0, not all 0, or `None`.

    Returns:
        Float in [0.1, 10].

    Raises:
        ValueError: If a table or a label is not as described; the message names the rows.

    Example:

    >>> p = np.array([[0.9, 0.1]] * 10)  # says 90 %, and is right in 7 of 10
    >>> temperature = ek.fit_temperature(p, [0] * 7 + [1] * 3)
    >>> round(temperature, 3)
    2.593
    >>> round(float(ek.apply_temperature(p, temperature)[0, 0]), 3)
    0.7
    """
    p = check_probabilities(probabilities)
    y = check_class_indices(y, p.shape[1], len(p))
    return _fit(p, y, check_sample_weight(sample_weight, len(y)))


def fit_temperatures(predictions, y, *, sample_weight=None):
    """Returns each member's temperature; see `fit_temperature`.

    Args:
        predictions: Array `(n, members, num_classes)` of out-of-fold probabilities.
        y: Array `(n,)` of class indices `0 … num_classes − 1`; every class occurs.
        sample_weight: Array `(n,)` or `None`.

    Returns:
        Float array `(members,)`. `apply_temperature(predictions, temperatures[:, None])` applies them all.

    Raises:
        ValueError: If a table is not as described (member and row are named), or a member's columns are in another
            order than the labels.

    Example:

    >>> sure, unsure = np.array([[0.9, 0.1]] * 10), np.array([[0.6, 0.4]] * 10)
    >>> temperatures = ek.fit_temperatures(np.stack([sure, unsure], axis=1), [0] * 7 + [1] * 3)
    >>> np.round(temperatures, 2).tolist()
    [2.59, 0.48]
    """
    predictions = check_predictions(predictions)
    y = check_y(y, len(predictions), predictions.shape[2])
    check_class_order(predictions, y)
    weights = check_sample_weight(sample_weight, len(y))
    return np.array([_fit(predictions[:, i], y, weights) for i in range(predictions.shape[1])])


def apply_temperature(probabilities, temperature):
    """Returns `softmax(log(probabilities) / temperature)`, in stock Keras operations.

    Args:
        probabilities: Tensor or array `(…, num_classes)`, symbolic or not; one column, a sigmoid unit, becomes two.
            Those below 1e-7 count as 1e-7.
        temperature: Float above 0, or an array that goes with the probabilities: `(members, 1)` for `(n, members,
            num_classes)`.

    Returns:
        A float32 tensor; rows sum to 1.
    """
    return ops.softmax(base.log_probabilities(probabilities) / temperature, axis=-1)


def calibrated(predictions, temperatures):
    """Returns members' predictions `(n, members, num_classes)`, each at its temperature `(members,)`, as an array."""
    temperatures = np.asarray(temperatures, "float32")[:, None]
    return ops.convert_to_numpy(apply_temperature(predictions, temperatures))


def cross_calibrated(probabilities, y, folds):
    """Returns predictions, those of each fold at the temperature of the others: what calibrated ones are worth.

    Args:
        probabilities: Array `(n, num_classes)`, out-of-fold.
        y: Int array `(n,)`.
        folds: Int array `(n,)`.

    Returns:
        Float32 array `(n, num_classes)`.
    """
    found = np.empty(probabilities.shape, "float32")
    for fold in np.unique(folds):
        held = folds == fold
        temperature = fit_temperature(probabilities[~held], y[~held])
        found[held] = ops.convert_to_numpy(apply_temperature(probabilities[held], temperature))
    return found


def check_temperature(argument, temperature):
    """Returns a temperature as a float, or raises `ValueError`."""
    number = np.asarray(temperature, "float64")
    if number.ndim or not np.isfinite(number) or number <= 0:
        raise ValueError(f"`{argument}` must be a number above 0. Received: {temperature!r}.")
    return float(number)


def _fit(p, y, sample_weight):
    logits = np.log(np.maximum(p, base.SMALLEST_PROBABILITY).astype("float64"))
    of_true = logits[np.arange(len(y)), y]

    def slope(inverse):
        """The derivative of the log loss with respect to the inverse temperature, which only rises."""
        expected = (special.softmax(inverse * logits, axis=1) * logits).sum(axis=1)
        return np.average(expected - of_true, weights=sample_weight)

    softest, sharpest = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    if slope(sharpest) <= 0:
        return LOWEST_TEMPERATURE
    if slope(softest) >= 0:
        return HIGHEST_TEMPERATURE
    return 1 / optimize.brentq(slope, softest, sharpest, xtol=1e-9)

"""Diversity: how differently members err, and what each one adds to the others."""

import numpy as np
import pandas as pd

from ensemble_keras._validation import check_choice
from ensemble_keras.measures.predictions import check_class_order, check_predictions, check_y
from ensemble_keras.measures.significance import compare

MEASURES = ("disagreement", "double_fault", "q_statistic", "error_correlation")


def diversity(predictions, y, *, measure="disagreement", names=None):
    """Returns how differently each two members err (Kuncheva and Whitaker, 2003, "Measures of diversity").

    Args:
        predictions: Array `(n, members, num_classes)` of probabilities of images that no member trained on.
        y: Array `(n,)` of class indices `0 … num_classes − 1`; every class occurs.
        measure: `"disagreement"`: the share of images that just one of the two gets right (0 to 1; more is more
            diverse). `"double_fault"`: the share that both get wrong (0 to 1; less is better). `"q_statistic"`:
            Yule's Q (−1 to 1; 0 if they err independently of one another, 1 if on the same images).
            `"error_correlation"`: the correlation of being right (−1 to 1, smaller than Q in size). Defaults to
            `"disagreement"`.
        names: List of member names. Defaults to their numbers.

    Returns:
        A symmetric `pandas.DataFrame`, members by members. NaN where the measure says nothing: the correlation with a
        member that is always right or always wrong, and Q of such a pair.

    Raises:
        ValueError: If a table is not as described (member and row are named), a member's columns are in another order
            than the labels, the measure is unknown, or there is not one name per member.

    Example:

    >>> right, wrong = [1.0, 0.0], [0.0, 1.0]
    >>> predictions = np.array([[right, right], [right, wrong], [right, wrong], [wrong, right]])
    >>> ek.diversity(predictions, [0, 0, 0, 1], names=["a", "b"])["b"].tolist()
    [0.75, 0.0]
    """
    check_choice("measure", measure, MEASURES)
    predictions, y, names = _checked(predictions, y, names)
    right = np.stack([p.argmax(axis=1) == y for p in predictions.swapaxes(0, 1)]).astype("float32")
    n, of_each = len(y), right.sum(axis=1, dtype="float64")
    # Whole numbers, which float32 holds exactly up to 16 million images.
    both = (right @ right.T).astype("float64")
    first, second = of_each[:, None] - both, of_each - both
    neither = n - both - first - second
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {
            "disagreement": lambda: (first + second) / n,
            "double_fault": lambda: neither / n,
            "q_statistic": lambda: (both * neither - first * second) / (both * neither + first * second),
            "error_correlation": lambda: (both * neither - first * second) / _spread(of_each, n),
        }[measure]()
    return pd.DataFrame(values, names, names)


def marginal_gains(predictions, y, *, weights=None, metric="accuracy", names=None, groups=None, seed=0):
    """Returns what each member adds to a soft vote: the vote with it against the vote without it.

    Args:
        predictions: Array `(n, members, num_classes)`, out-of-fold, of two members or more.
        y: Array `(n,)` of class indices `0 … num_classes − 1`; every class occurs.
        weights: Array `(members,)` of the vote, none negative. Defaults to `None`, equal weights.
        metric: `"accuracy"`, `"log_loss"` or `"roc_auc"`. Defaults to `"accuracy"`.
        names: List of member names. Defaults to their numbers.
        groups: Group of each image, `(n,)`, that the intervals draw whole. Defaults to `None`.
        seed: Int, of the resampling. Defaults to 0.

    Returns:
        A `pandas.DataFrame`, a row per member: `gain` (above 0: the vote is better with the member, for log loss,
        too), the ends `low` and `high` of its paired 95 % bootstrap interval, and `p_value`; see `compare`. A member
        without weight has a gain of 0.

    Raises:
        ValueError: If a table is not as described (member and row are named), a member's columns are in another order
            than the labels, there are fewer than two members, or `weights` leave nothing but zeros when one member is
            out.

    Example:

    >>> y = np.arange(60) % 2
    >>> good = np.where(y[:, None] == [0, 1], 0.9, 0.1)
    >>> unsure = np.full((60, 2), 0.5)
    >>> ek.marginal_gains(np.stack([good, unsure], axis=1), y, names=["good", "unsure"])["gain"].tolist()
    [0.5, 0.0]
    """
    predictions, y, names = _checked(predictions, y, names)
    weights = np.ones(len(names)) if weights is None else np.asarray(weights, "float64")
    if weights.shape != (len(names),) or not (weights >= 0).all() or np.count_nonzero(weights) < 2:
        raise ValueError(
            f"`weights` must be {len(names)} numbers of at least 0, two of them above 0, so that one can be left "
            f"out. Received: {weights.tolist()}."
        )
    vote = np.tensordot(predictions, weights, axes=(1, 0))
    rows = []
    for member, weight in enumerate(weights):
        rest = vote - weight * predictions[:, member].astype("float64")
        tables = (np.maximum(p, 0) / p.sum(axis=1, keepdims=True) for p in (vote, rest))
        found = compare(*tables, y, metric=metric, groups=groups, seed=seed)
        rows.append({"gain": found.difference, "low": found.low, "high": found.high, "p_value": found.p_value})
    return pd.DataFrame(rows, names)


def _checked(predictions, y, names):
    predictions = check_predictions(predictions)
    y = check_y(y, len(predictions), predictions.shape[2])
    check_class_order(predictions, y)
    names = list(range(predictions.shape[1])) if names is None else list(names)
    if len(names) != predictions.shape[1]:
        raise ValueError(
            f"`names` must be one per member. Received: {len(names)} names for {predictions.shape[1]} members."
        )
    return predictions, y, names


def _spread(of_each, n):
    """Returns the product of the standard deviations of each two members' being right, times `n` squared."""
    deviation = np.sqrt(of_each * (n - of_each))
    return deviation[:, None] * deviation

"""Uncertainty: how unsure predictions are, what members disagree on, and what is won by not answering."""

import numpy as np
import pandas as pd
from scipy import special

from ensemble_keras.measures.intervals import wilson
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities
from ensemble_keras.measures.predictions import check_predictions


def predictive_entropy(probabilities):
    """Returns the entropy of each row, in nats: 0 where one class is certain, `log(num_classes)` where all are equal.

    Args:
        probabilities: Array `(n, num_classes)`, rows summing to 1; or p of class 1, `(n,)`.

    Returns:
        Float array `(n,)`.

    Example:
    >>> predictive_entropy([[0.5, 0.5], [1.0, 0.0]]).round(3).tolist()
    [0.693, 0.0]
    """
    return _entropy(check_probabilities(probabilities))


def uncertainty(predictions, *, weights=None):
    """Returns how unsure a vote of members is of each image, and how much of that is their disagreement.

    The entropy of the mean prediction is the mean entropy of the members, what each of them is unsure of (an image
    that shows little), plus their mutual information with the class, what they disagree on (an image unlike those
    that they know): Houlsby et al., 2011, arXiv:1112.5745 ("BALD"); Depeweg et al., 2018, arXiv:1710.07283.

    Args:
        predictions: Array `(n, members, num_classes)` of the members' probabilities.
        weights: Array `(members,)` of the vote, none negative. Defaults to `None`, equal weights.

    Returns:
        A `pandas.DataFrame` with one row per image: `confidence` (the highest probability of the mean), `entropy`,
        `member_entropy` and `mutual_information`, in nats, `entropy = member_entropy + mutual_information`; and
        `disagreement`, the weight of the members that prefer another class than the mean does, in [0, 1].

    Raises:
        ValueError: If the predictions or the weights are not as described; member and rows are named.

    Example:

    >>> agree, differ = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]
    >>> ek.uncertainty([agree, differ])[["entropy", "mutual_information"]].round(3).values.tolist()
    [[0.693, 0.0], [0.693, 0.693]]
    """
    predictions = check_predictions(predictions).astype("float64")
    weights = _vote_weights(weights, predictions.shape[1])
    mean = np.einsum("nmc,m->nc", predictions, weights)
    entropy, of_members = _entropy(mean), _entropy(predictions) @ weights
    differs = predictions.argmax(axis=2) != mean.argmax(axis=1)[:, None]
    return pd.DataFrame(
        {
            "confidence": mean.max(axis=1),
            "entropy": entropy,
            "member_entropy": of_members,
            # Never negative, but for rounding.
            "mutual_information": np.maximum(0, entropy - of_members),
            "disagreement": differs @ weights,
        }
    )


def risk_coverage(probabilities, y, *, certainty=None, confidence=0.95):
    """Returns the accuracy of the images that are answered, for each number of them; the surest are answered first.

    The risk-coverage curve of selective classification (El-Yaniv and Wiener, 2010) with accuracy in place of risk.

    Args:
        probabilities: Array `(n, num_classes)`, rows summing to 1; or p of class 1, `(n,)`.
        y: Class indices of shape `(n,)`.
        certainty: Array `(n,)`, higher where a prediction is surer, `-entropy`, say. Defaults to `None`: the highest
            probability of each row.
        confidence: Coverage of Wilson's intervals of accuracy, point by point; images count as independent. Defaults
            to 0.95.

    Returns:
        A `pandas.DataFrame`, from the few surest images to all: `threshold` (images at least as sure are answered),
        `coverage` (their share), `accuracy`, `low` and `high`. Images equally sure come together, in one row.

    Raises:
        ValueError: If a table or a label is wrong, or `certainty` is not one number per image.

    Example:

    >>> curve = ek.risk_coverage([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]], [0, 1, 0, 0])
    >>> curve[["threshold", "coverage", "accuracy"]].values.tolist()
    [[0.9, 0.25, 1.0], [0.8, 0.5, 1.0], [0.6, 1.0, 0.75]]
    """
    p = check_probabilities(probabilities)
    y = check_class_indices(y, p.shape[1], len(p))
    certainty = p.max(axis=1) if certainty is None else np.asarray(certainty, "float64")
    if certainty.shape != (len(y),) or not np.isfinite(certainty).all():
        raise ValueError(f"`certainty` must be {len(y)} finite numbers. Received: shape {certainty.shape}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1. Received: {confidence!r}.")
    levels, of_row = np.unique(-certainty, return_inverse=True)
    answered = np.cumsum(np.bincount(of_row))
    right = np.cumsum(np.bincount(of_row, p.argmax(axis=1) == y))
    low, high = wilson(right / answered, answered, confidence)
    columns = {"threshold": -levels, "coverage": answered / len(y), "accuracy": right / answered}
    return pd.DataFrame({**columns, "low": low, "high": high})


def area_under_risk_coverage(probabilities, y, *, certainty=None):
    """Returns the mean error over all numbers of answered images, the surest first; 0 is best (Geifman et al., 2019).

    Arguments and errors are those of `risk_coverage`. Images equally sure are answered in a random order: their
    average counts.

    Example:
    >>> round(area_under_risk_coverage([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1]), 3)
    0.111
    """
    curve = risk_coverage(probabilities, y, certainty=certainty)
    n = len(np.asarray(y))
    ends = np.rint(np.append(0, curve["coverage"]) * n)
    wrong = np.append(0, (1 - curve["accuracy"]) * curve["coverage"] * n)
    answered = np.arange(1, n + 1)
    return float(np.mean(np.interp(answered, ends, wrong) / answered))


def abstention_threshold(probabilities, y, *, accuracy=None, coverage=None):
    """Returns the confidence below which not to answer, for an accuracy of what is answered or a share of answers.

    The predictions must be of images that the classifier did not train on. What is reached on them is reached on
    average on others from the same distribution, not for certain.

    Args:
        probabilities: Array `(n, num_classes)`, rows summing to 1; or p of class 1, `(n,)`.
        y: Class indices of shape `(n,)`.
        accuracy: The accuracy wanted of the images that are answered, in (0, 1]: as many as possible are.
        coverage: The share of images to be answered, in (0, 1]: at least so many are. Give one of the two.

    Returns:
        Float. Images whose highest probability is at least this are answered.

    Raises:
        ValueError: If a table, a label or an option is wrong, or no share of the images reaches the accuracy.

    Example:

    >>> p = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]]
    >>> abstention_threshold(p, [0, 1, 0, 0], accuracy=1.0), abstention_threshold(p, [0, 1, 0, 0], coverage=0.5)
    (0.6, 0.8)
    """
    given = {"accuracy": accuracy, "coverage": coverage}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1 or not all(0 < value <= 1 for value in given.values()):
        raise ValueError(f"Give `accuracy` or `coverage`, a share above 0 and of at most 1. Received: {given}.")
    curve = risk_coverage(probabilities, y)
    if coverage is not None:
        return float(curve["threshold"][np.flatnonzero(curve["coverage"] >= coverage - 1e-12)[0]])
    reached = np.flatnonzero(curve["accuracy"] >= accuracy)
    if not len(reached):
        raise ValueError(
            f"No share of these images is answered with an accuracy of {accuracy:g}. The highest is "
            f"{curve['accuracy'].max():.3f}."
        )
    return float(curve["threshold"][reached[-1]])


def _entropy(p):
    # Whole rows of a softmax in float32 sum to 1 but for rounding.
    p = p.astype("float64")
    return special.entr(p / p.sum(axis=-1, keepdims=True)).sum(axis=-1)


def _vote_weights(weights, count):
    weights = np.ones(count) if weights is None else np.asarray(weights, "float64")
    if weights.shape != (count,) or not (weights >= 0).all() or not weights.any():
        raise ValueError(f"`weights` must be {count} numbers of at least 0, not all 0. Received: {weights.tolist()}.")
    return weights / weights.sum()

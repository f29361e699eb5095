"""Operating point: from which probability on an image counts as positive, of two classes."""

import dataclasses
import math

import numpy as np

from ensemble_keras.measures.intervals import metric_intervals
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities

_FIGURES = ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value", "accuracy", "f1")


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """The probability from which on an image counts as positive, and how it was chosen; `str()` reads as a sentence.

    `dataclasses.asdict` gives what a card keeps, `OperatingPoint(**card["operating_point"])` the point again.

    Attributes:
        threshold: Float. An image is positive where the probability of the positive class is at least this.
        positive: Index of the positive class, 0 or 1.
        target: What it was chosen for: `"youden"`, `"sensitivity"` or `"specificity"`.
        at_least: The promised sensitivity or specificity, or `None`.
        sensitivity: That of the images that it was chosen on.
        specificity: That of the images that it was chosen on.
        n: Number of these images.
    """

    threshold: float
    positive: int
    target: str
    at_least: float | None
    sensitivity: float
    specificity: float
    n: int

    def __str__(self):
        target = "Youden's index" if self.target == "youden" else f"a {self.target} of at least {self.at_least:.1%}"
        return (
            f"From a probability of {self.threshold:.3g} on: sensitivity {self.sensitivity:.1%}, specificity "
            f"{self.specificity:.1%} on the {self.n:,} images that it was chosen on, for {target}."
        )

    def predict(self, probabilities):
        """Returns the class index of each image at this point, int array `(n,)`, from probabilities `(n, 2)`."""
        p = check_probabilities(probabilities, 2)
        is_positive = p[:, self.positive].astype("float64") >= self.threshold
        return np.where(is_positive, self.positive, 1 - self.positive)

    def figures(self, probabilities, y, *, groups=None, confidence=0.95, resamples=2000, seed=0):
        """Returns what the point is worth on images that it was not chosen on.

        Args:
            probabilities: Array `(n, 2)`, or p of class 1, `(n,)`.
            y: Class indices of shape `(n,)`.
            groups: As in `metric_intervals`.
            confidence: As in `metric_intervals`.
            resamples: As in `metric_intervals`.
            seed: As in `metric_intervals`.

        Returns:
            A `pandas.DataFrame` with rows `sensitivity`, `specificity`, `positive_predictive_value`,
            `negative_predictive_value`, `accuracy` and `f1`, of the positive class, and columns `value`, `low` and
            `high`, as `metric_intervals` gives them. Predictive values hold for the share of positive images here;
            `predictive_values` gives those of another.
        """
        said = self.predict(probabilities) == self.positive
        y = check_class_indices(y, 2, len(said)) == self.positive
        options = {"groups": groups, "confidence": confidence, "resamples": resamples, "seed": seed}
        return metric_intervals(said.astype("float64"), y.astype("int64"), metrics=_FIGURES, **options)


def choose_operating_point(probabilities, y, *, min_sensitivity=None, min_specificity=None, positive=1):
    """Chooses from which probability on an image counts as positive.

    The predictions must be of images that the classifier did not train on, and other ones than those that the point
    is judged by: out-of-fold predictions choose it, a test set judges it. What is reached on the images that it was
    chosen on is reached on average on others, not for certain.

    Args:
        probabilities: Array `(n, 2)`, rows summing to 1; or p of class 1, `(n,)`.
        y: Class indices of shape `(n,)`; both classes occur.
        min_sensitivity: Share of positive images to be found, in (0, 1]: the highest threshold that finds so many, so
            that specificity is the highest there is. Defaults to `None`.
        min_specificity: Share of negative images to be left alone, in (0, 1]: the lowest threshold that does.
            Defaults to `None`. Without either, Youden's index decides: sensitivity plus specificity is the highest.
        positive: Index of the positive class. Defaults to 1.

    Returns:
        An `OperatingPoint`. Its threshold lies midway between two probabilities that occur.

    Raises:
        ValueError: If a table, a label or an option is wrong, or a class has no image.

    Example:

    >>> p = [0.1, 0.2, 0.6, 0.4, 0.7, 0.8, 0.9]
    >>> point = ek.choose_operating_point(p, [0, 0, 0, 1, 1, 1, 1], min_sensitivity=1.0)
    >>> round(point.threshold, 2), round(point.specificity, 2)
    (0.3, 0.67)
    """
    p = check_probabilities(probabilities, 2)
    y = check_class_indices(y, 2, len(p))
    _check_targets(min_sensitivity, min_specificity, positive)
    if len(np.unique(y)) < 2:
        raise ValueError(f"`y` must hold images of both classes. Received: only class {y[0]}.")
    thresholds, sensitivity, specificity = _curve(y == positive, p[:, positive].astype("float64"))
    if min_sensitivity is not None:
        target, at_least = "sensitivity", float(min_sensitivity)
        chosen = np.flatnonzero(sensitivity >= min_sensitivity)[0]
    elif min_specificity is not None:
        target, at_least = "specificity", float(min_specificity)
        chosen = np.flatnonzero(specificity >= min_specificity)[-1]
    else:
        target, at_least = "youden", None
        chosen = np.argmax(sensitivity + specificity)
    figures = (float(values[chosen]) for values in (sensitivity, specificity))
    return OperatingPoint(float(thresholds[chosen]), int(positive), target, at_least, *figures, len(y))


def predictive_values(sensitivity, specificity, prevalence):
    """Returns positive and negative predictive value where this share of images is positive (Bayes' rule).

    A test set rarely has the share of ill patients that the clinic has.

    Args:
        sensitivity: Float or array in [0, 1].
        specificity: Float or array in [0, 1].
        prevalence: Float or array in [0, 1].

    Returns:
        Two floats or arrays; NaN where no image would be said to be of the class.

    Example:
    >>> [round(float(value), 3) for value in predictive_values(0.95, 0.9, 0.01)]
    [0.088, 0.999]
    """
    ill, healthy = np.asarray(prevalence), 1 - np.asarray(prevalence)
    found, missed = sensitivity * ill, (1 - sensitivity) * ill
    cleared, alarmed = specificity * healthy, (1 - specificity) * healthy
    with np.errstate(invalid="ignore"):
        return found / (found + alarmed), cleared / (cleared + missed)


def _curve(positive, score):
    """Returns thresholds, falling, from none positive to all, with the sensitivity and specificity at each."""
    values, of_row = np.unique(-score, return_inverse=True)
    found = np.append(0, np.cumsum(np.bincount(of_row, positive)))
    alarmed = np.append(0, np.cumsum(np.bincount(of_row, ~positive)))
    levels = -values
    # Midway, so that the last digit of a probability, in which backends differ, decides nothing.
    between = (levels[:-1] + levels[1:]) / 2
    above = (levels[0] + 1) / 2 if levels[0] < 1 else math.nextafter(levels[0], math.inf)
    return np.concatenate([[above], between, [levels[-1] / 2]]), found / found[-1], 1 - alarmed / alarmed[-1]


def _check_targets(min_sensitivity, min_specificity, positive):
    given = {"min_sensitivity": min_sensitivity, "min_specificity": min_specificity}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ValueError("Give `min_sensitivity` or `min_specificity`, not both: one threshold promises one of them.")
    for name, value in given.items():
        if not 0 < value <= 1:
            raise ValueError(f"`{name}` must be a share above 0 and of at most 1. Received: {value!r}.")
    if positive not in (0, 1):
        raise ValueError(f"`positive` must be the index of a class, 0 or 1. Received: {positive!r}.")

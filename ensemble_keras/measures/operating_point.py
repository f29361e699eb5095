"""Operating point: from which probability on an image counts as positive, of two classes."""

import dataclasses
import math

import numpy as np
from scipy import stats

from ensemble_keras.measures import bootstrap
from ensemble_keras.measures.intervals import metric_intervals, percentiles, unit_of_row
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities
from ensemble_keras.measures.weighted import METRICS

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
        confidence: How sure the promise is, or `None`: it is kept on average.
        sensitivity: That of the images that it was chosen on.
        specificity: That of the images that it was chosen on.
        n: Number of these images.
    """

    threshold: float
    positive: int
    target: str
    at_least: float | None
    confidence: float | None
    sensitivity: float
    specificity: float
    n: int

    def __str__(self):
        target = (
            "Youden's index" if self.target == "youden" else f"a {self.target} of at least {_percent(self.at_least)}"
        )
        sure = "" if self.confidence is None else f" with {_percent(self.confidence)} confidence"
        return (
            f"From a probability of {self.threshold:.3g} on: sensitivity {_percent(self.sensitivity)}, specificity "
            f"{_percent(self.specificity)} on the {self.n:,} images that it was chosen on, for {target}{sure}."
        )

    def predict(self, probabilities):
        """Returns the class index of each image at this point, int array `(n,)`, from probabilities `(n, 2)`."""
        p = check_probabilities(probabilities, 2)
        is_positive = p[:, self.positive].astype("float64") >= self.threshold
        return np.where(is_positive, self.positive, 1 - self.positive)

    def figures(self, probabilities, y, *, prevalence=None, groups=None, confidence=0.95, resamples=2000, seed=0):
        """Returns what the point is worth on images that it was not chosen on.

        Args:
            probabilities: Array `(n, 2)`, or p of class 1, `(n,)`.
            y: Class indices of shape `(n,)`.
            prevalence: The share of positive images, in (0, 1), that predictive values are to hold for (Bayes' rule):
                a test set rarely has the share of ill patients that the clinic has. Defaults to `None`: the share
                here.
            groups: As in `metric_intervals`.
            confidence: As in `metric_intervals`.
            resamples: As in `metric_intervals`.
            seed: As in `metric_intervals`.

        Returns:
            A `pandas.DataFrame` with rows `sensitivity`, `specificity`, `positive_predictive_value`,
            `negative_predictive_value`, `accuracy` and `f1`, of the positive class, and columns `value`, `low` and
            `high`, as `metric_intervals` gives them; with `prevalence`, without the last two rows, which are of
            these images, and with bootstrap intervals of the predictive values.

        Raises:
            ValueError: If a table, a label or an option is wrong.
        """
        said = self.predict(probabilities) == self.positive
        y = check_class_indices(y, 2, len(said)) == self.positive
        said, y = said.astype("float64"), y.astype("int64")
        options = {"groups": groups, "confidence": confidence, "resamples": resamples, "seed": seed}
        table = metric_intervals(said, y, metrics=_FIGURES, **options)
        if prevalence is None:
            return table
        _check_share("prevalence", prevalence)
        rates = [METRICS[name].weighted(y, np.stack([1 - said, said], axis=1)) for name in _FIGURES[:2]]
        drawn = bootstrap.resampled(rates, unit_of_row(groups, len(y)), resamples, np.random.default_rng(seed))
        values = predictive_values(*table["value"].iloc[:2], prevalence)
        for name, value, resampled in zip(_FIGURES[2:4], values, predictive_values(*drawn, prevalence), strict=True):
            low, high = percentiles(resampled, confidence)
            # Resamples that all agree do not tell how sure the value is.
            table.loc[name] = [value, low, high] if low < high else [value, np.nan, np.nan]
        return table.loc[list(_FIGURES[:4])]


def choose_operating_point(
    probabilities, y, *, min_sensitivity=None, min_specificity=None, confidence=None, positive=1
):
    """Chooses from which probability on an image counts as positive.

    The predictions must be of images that the classifier did not train on, and other ones than those that the point
    is judged by: out-of-fold predictions choose it, a test set judges it. What is reached on the images that it was
    chosen on is reached on average on others, so in every second case it is missed; `confidence` makes it surer.

    Args:
        probabilities: Array `(n, 2)`, rows summing to 1; or p of class 1, `(n,)`.
        y: Class indices of shape `(n,)`; both classes occur.
        min_sensitivity: Share of positive images to be found, in (0, 1]: the highest threshold that finds so many, so
            that specificity is the highest there is. Defaults to `None`.
        min_specificity: Share of negative images to be left alone, in (0, 1]: the lowest threshold that does.
            Defaults to `None`. Without either, Youden's index decides: sensitivity plus specificity is the highest.
        confidence: How sure the promise is to be, in (0, 1), such as 0.95: the exact lower bound of the sensitivity,
            or specificity, is then at least what is promised (Tong, Feng and Li, 2018, "Neyman–Pearson classification
            algorithms and NP receiver operating characteristics"). Images count as independent. Defaults to `None`:
            the sensitivity itself is.
        positive: Index of the positive class. Defaults to 1.

    Returns:
        An `OperatingPoint`. Its threshold lies midway between two probabilities that occur.

    Raises:
        ValueError: If a table, a label or an option is wrong, a class has no image, or there are too few images for
            the confidence.

    Example:

    >>> p = [0.1, 0.2, 0.6, 0.4, 0.7, 0.8, 0.9]
    >>> point = ek.choose_operating_point(p, [0, 0, 0, 1, 1, 1, 1], min_sensitivity=1.0)
    >>> round(point.threshold, 2), round(point.specificity, 2)
    (0.3, 0.67)
    """
    p = check_probabilities(probabilities, 2)
    y = check_class_indices(y, 2, len(p))
    target, at_least = _check_target(min_sensitivity, min_specificity, confidence, positive)
    if len(np.unique(y)) < 2:
        raise ValueError(f"`y` must hold images of both classes. Received: only class {y[0]}.")
    thresholds, found, cleared = _curve(y == positive, p[:, positive].astype("float64"))
    sensitivity, specificity = found / found[-1], cleared / cleared[0]
    if target == "sensitivity":
        chosen = _reaching(target, found, found[-1], at_least, confidence)[0]
    elif target == "specificity":
        chosen = _reaching(target, cleared, cleared[0], at_least, confidence)[-1]
    else:
        chosen = np.argmax(sensitivity + specificity)
    figures = (float(values[chosen]) for values in (sensitivity, specificity))
    return OperatingPoint(float(thresholds[chosen]), int(positive), target, at_least, confidence, *figures, len(y))


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
    """Returns thresholds, falling, from none positive to all, with the positives found and negatives cleared."""
    values, of_row = np.unique(-score, return_inverse=True)
    found = np.append(0, np.cumsum(np.bincount(of_row, positive)))
    alarmed = np.append(0, np.cumsum(np.bincount(of_row, ~positive)))
    levels = -values
    # Midway, so that the last digit of a probability, in which backends differ, decides nothing.
    between = (levels[:-1] + levels[1:]) / 2
    above = (levels[0] + 1) / 2 if levels[0] < 1 else math.nextafter(levels[0], math.inf)
    return np.concatenate([[above], between, [levels[-1] / 2]]), found, alarmed[-1] - alarmed


def _reaching(target, counts, total, at_least, confidence):
    """Returns where a count is a share of at least so much; with a confidence, where its lower bound is."""
    if confidence is None:
        return np.flatnonzero(counts / total >= at_least)
    # Clopper and Pearson's one-sided bound; that of none is 0.
    lowest = stats.beta.ppf(1 - confidence, np.maximum(counts, 1), total - counts + 1)
    reached = np.flatnonzero((lowest >= at_least) & (counts > 0))
    if not len(reached):
        few = math.ceil(math.log(1 - confidence) / math.log(at_least)) if at_least < 1 else "infinitely many"
        raise ValueError(
            f"To be so sure, a {target} of {at_least:g} needs {few} images of the class. Received: {int(total)}. "
            "Promise less, or be less sure."
        )
    return reached


def _check_target(min_sensitivity, min_specificity, confidence, positive):
    """Returns what is promised, and how much of it."""
    if positive not in (0, 1):
        raise ValueError(f"`positive` must be the index of a class, 0 or 1. Received: {positive!r}.")
    given = {"min_sensitivity": min_sensitivity, "min_specificity": min_specificity}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ValueError("Give `min_sensitivity` or `min_specificity`, not both: one threshold promises one of them.")
    if confidence is not None:
        if not given:
            raise ValueError("`confidence` is of a promise: give `min_sensitivity` or `min_specificity`, too.")
        _check_share("confidence", confidence)
    for name, value in given.items():
        if not 0 < value <= 1:
            raise ValueError(f"`{name}` must be a share above 0 and of at most 1. Received: {value!r}.")
        return name.removeprefix("min_"), float(value)
    return "youden", None


def _check_share(name, value):
    if not 0 < value < 1:
        raise ValueError(f"`{name}` must lie between 0 and 1. Received: {value!r}.")


def _percent(share):
    return f"{100 * share:.1f} %"

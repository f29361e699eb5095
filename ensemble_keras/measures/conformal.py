"""Conformal prediction: sets of classes that hold the true one as often as promised."""

import dataclasses

import numpy as np
import pandas as pd

from ensemble_keras._validation import check_choice
from ensemble_keras.measures.intervals import metric_interval, unit_of_row
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities

METHODS = ("lac", "aps", "raps")


@dataclasses.dataclass(frozen=True)
class ConformalSets:
    """Which classes are in the prediction set of an image; made by `fit_conformal`.

    `dataclasses.asdict` gives what a card keeps, `ConformalSets(**card["conformal"])` the sets again.

    Attributes:
        method: `"lac"`, `"aps"` or `"raps"`.
        coverage: The promised share of images whose set holds the true class.
        thresholds: List of floats, one per class: the highest score with which a class is in the set. `None` stands
            for infinity: with so few images only the set of all classes keeps the promise.
        penalty: Float, of `"raps"`.
        unpenalized: Int, of `"raps"`.
        n: Number of images, or of groups, that it was fitted on.
    """

    method: str
    coverage: float
    thresholds: list
    penalty: float
    unpenalized: int
    n: int

    def predict(self, probabilities):
        """Returns for each image which classes are in its set.

        Args:
            probabilities: Array `(n, num_classes)`, rows summing to 1; or p of class 1, `(n,)`.

        Returns:
            Bool array `(n, num_classes)`. With `"lac"` a set may be empty: no class is as probable as the true ones
            mostly were.
        """
        p = check_probabilities(probabilities, len(self.thresholds))
        highest = np.array([np.inf if threshold is None else threshold for threshold in self.thresholds])
        return _scores(p, self.method, self.penalty, self.unpenalized) <= highest


def fit_conformal(
    probabilities, y, *, coverage=0.9, method="lac", per_class=False, groups=None, penalty=0.01, unpenalized=1
):
    """Finds prediction sets with a promised coverage (split conformal prediction; Vovk et al., 2005).

    An image's set are the classes whose score is at most a threshold: the score that this share of images have for
    their true class, with a correction for their number. Whatever the classifier, the set of a new image from the
    same distribution holds its true class with at least this probability, on average over images, and with at most
    `1 / (n + 1)` more where no scores are equal.

    The promise is exact if the classifier saw nothing of these images: a calibration set. Out-of-fold predictions
    come from other fits than those of the model that is used, so what is left is an approximation, a good one where
    a fit changes little with a fold more or less. (What CV+ guarantees, `1 - 2 * (1 - coverage)`, is of sets made by
    all fits together: Barber et al., 2021, "Predictive inference with the jackknife+".) No promise holds for images
    from another distribution.

    Args:
        probabilities: Array `(n, num_classes)`, rows summing to 1; or p of class 1, `(n,)`. Of images that the
            classifier did not train on.
        y: Class indices of shape `(n,)`.
        coverage: The promised share, in (0, 1). Defaults to 0.9.
        method: The score of a class. `"lac"`: 1 less its probability, which gives the smallest sets (Sadinle et al.,
            2019, "Least ambiguous set-valued classifiers with bounded error levels"). `"aps"`: the probability of all
            classes that are more probable (Romano et al., 2020, arXiv:2006.02544, without their randomisation), which
            is fairer to hard images and gives larger sets, none of them empty; where the most probable class is right
            more often than promised, it is the set, and more is kept. `"raps"`: that with a penalty on the rank,
            which keeps sets small where there are many classes (Angelopoulos et al., 2021, arXiv:2009.14193).
            Defaults to `"lac"`.
        per_class: Whether the promise holds for the images of each class by themselves. Classes then need images
            enough, `coverage / (1 - coverage)` at the least. Defaults to `False`.
        groups: Group of each image (its patient, say), `(n,)`: the promise is then for an image of a new group, and
            every group weighs the same (Lee et al., 2023, arXiv:2306.06342). Defaults to `None`.
        penalty: Of `"raps"`: what each rank beyond `unpenalized` adds to the score. Defaults to 0.01.
        unpenalized: Of `"raps"`: the ranks that go without penalty. Defaults to 1.

    Returns:
        A `ConformalSets`.

    Raises:
        ValueError: If a table, a label or an option is wrong.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> p = rng.dirichlet([1, 1, 1], 1000)
    >>> y = (rng.random((1000, 1)) > p.cumsum(axis=1)).sum(axis=1)
    >>> sets = ek.fit_conformal(p[:500], y[:500], coverage=0.9).predict(p[500:])
    >>> round(float(sets[np.arange(500), y[500:]].mean()), 2)
    0.92
    """
    p = check_probabilities(probabilities)
    y = check_class_indices(y, p.shape[1], len(p))
    check_choice("method", method, METHODS)
    if not 0 < coverage < 1:
        raise ValueError(f"`coverage` must lie between 0 and 1. Received: {coverage!r}.")
    if not penalty >= 0:
        raise ValueError(f"`penalty` must be a number of at least 0. Received: {penalty!r}.")
    units = unit_of_row(groups, len(y))
    own = _scores(p, method, penalty, unpenalized)[np.arange(len(y)), y]
    if per_class:
        thresholds = [_threshold(own[y == k], units[y == k], coverage) for k in range(p.shape[1])]
    else:
        thresholds = [_threshold(own, units, coverage)] * p.shape[1]
    thresholds = [threshold if np.isfinite(threshold) else None for threshold in thresholds]
    return ConformalSets(method, float(coverage), thresholds, float(penalty), int(unpenalized), len(np.unique(units)))


def set_figures(sets, y, *, groups=None, confidence=0.95, seed=0):
    """Returns what prediction sets are worth on images that they were not fitted on.

    Args:
        sets: Bool array `(n, num_classes)`, as `ConformalSets.predict` gives.
        y: Class indices of shape `(n,)`.
        groups: Group of each image, `(n,)`, drawn whole for the intervals. Defaults to `None`.
        confidence: Coverage of the intervals of coverage. Defaults to 0.95.
        seed: Int. Defaults to 0.

    Returns:
        A `pandas.DataFrame` with a row `"all"`, and one for each class that has images, by its index: `coverage`, the
        share of images whose set holds the true class, with its interval `low` to `high`, `size` (classes in a set on
        average), `single` (share of sets of one class), `empty` (share of empty ones) and `images`.

    Example:

    >>> table = set_figures(np.array([[True, False], [True, True], [False, False]]), [0, 1, 1])
    >>> table.loc["all", ["coverage", "size"]].round(2).tolist()
    [0.67, 1.0]
    """
    sets = np.asarray(sets, bool)
    y = check_class_indices(y, sets.shape[1], len(sets))
    groups = None if groups is None else np.asarray(groups)
    rows = {"all": np.ones(len(y), bool)} | {int(k): y == k for k in np.unique(y)}
    return pd.DataFrame.from_dict(
        {name: _figures(sets, y, of, groups, confidence, seed) for name, of in rows.items()}, orient="index"
    )


def _figures(sets, y, of, groups, confidence, seed):
    covered, sizes = sets[np.flatnonzero(of), y[of]], sets[of].sum(axis=1)
    # A class may have images of one group only, which tells nothing of other groups.
    told = groups is None or len(np.unique(groups[of])) > 1
    options = {"groups": None if groups is None else groups[of], "confidence": confidence, "seed": seed}
    right = np.ones(len(covered), "int64")
    _, low, high = metric_interval(covered.astype("float64"), right, **options) if told else (0, np.nan, np.nan)
    shares = {"size": sizes.mean(), "single": (sizes == 1).mean(), "empty": (sizes == 0).mean()}
    return {"coverage": covered.mean(), "low": low, "high": high, **shares, "images": int(of.sum())}


def _scores(p, method, penalty, unpenalized):
    """Returns the score of each class, `(n, num_classes)`: the higher, the less it belongs to the image."""
    p = p.astype("float64")
    if method == "lac":
        return 1 - p
    order = np.argsort(-p, axis=1, kind="stable")
    sorted_p = np.take_along_axis(p, order, axis=1)
    above = np.cumsum(sorted_p, axis=1) - sorted_p
    if method == "raps":
        above += penalty * np.maximum(0, np.arange(1, p.shape[1] + 1) - unpenalized)
    scores = np.empty_like(above)
    np.put_along_axis(scores, order, above, axis=1)
    return scores


def _threshold(scores, units, coverage):
    """Returns the lowest score that a share `coverage` does not exceed; groups weigh alike, a new one among them."""
    if not len(scores):
        return np.inf
    _, of_row, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    weight = np.cumsum(1 / sizes[of_row][order]) / (len(sizes) + 1)
    # Sums of fractions fall short of what they should be by rounding.
    within = np.flatnonzero(weight >= coverage - 1e-12)
    return float(scores[order][within[0]]) if len(within) else np.inf

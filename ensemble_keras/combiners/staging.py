"""Staging: when a cascade stops asking members, chosen on predictions that fitted none of what it is judged by."""

import dataclasses

import numpy as np
from scipy import special
from sklearn.isotonic import IsotonicRegression

from ensemble_keras.combiners import base
from ensemble_keras.combiners.calibration import fit_temperature, fit_temperatures

# What a cascade saves is weighed against its loss at these prices: shares of the full cost per unit of accuracy.
_PRICES = np.geomspace(1e4, 0.1, 100)
# Thresholds are so much below what the last image that leaves has: compiled, members differ in the last digits.
_ROUNDING = 1e-6
# Each round sets every threshold anew, given the others; two or three rounds change nothing more.
_ROUNDS = 20


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How the members asked so far are joined.

    Attributes:
        weights: Float array `(members,)`, in the order in which they are asked.
        member_temperatures: Float array `(members - 1,)`: the last member is not joined here.
        temperatures: Float array `(members - 1,)`, of the vote of the first one, the first two, …
    """

    weights: np.ndarray
    member_temperatures: np.ndarray
    temperatures: np.ndarray

    @classmethod
    def fitted(cls, predictions, y, weights):
        """Fits it to predictions `(n, members, num_classes)` in the order in which members are asked."""
        of_members = fit_temperatures(predictions[:, :-1], y)
        untempered = cls(weights, of_members, np.ones(len(of_members)))
        steps = range(len(of_members))
        return cls(
            weights, of_members, np.array([fit_temperature(untempered.join(predictions, k), y) for k in steps])
        )

    def join(self, predictions, step):
        """Returns the calibrated vote of the members up to number `step`, `(n, num_classes)`."""
        vote = sum(
            weight * at_temperature(predictions[:, i], self.member_temperatures[i])
            for i, weight in enumerate(_shares(self.weights[: step + 1]))
        )
        return at_temperature(vote, self.temperatures[step])


def _shares(weights):
    """Returns weights that sum to 1; equal ones where none of these members has any, as found on some rows."""
    return weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights))


def at_temperature(probabilities, temperature):
    """Returns `softmax(log(probabilities) / temperature)` as a float64 array; see `apply_temperature`."""
    logits = np.log(np.maximum(probabilities, base.SMALLEST_PROBABILITY, dtype="float64"))
    return special.softmax(logits / temperature, axis=-1)


@dataclasses.dataclass(frozen=True)
class Stages:
    """What is known of each image after each member but the last.

    Attributes:
        sure: Float array `(n, members - 1)`, the probability of the most probable class.
        right: Bool array `(n, members)`, whether that class is the true one; at the end, that of the full ensemble.
        costs: Float array `(members,)`, of each member, in shares of the full cost.
    """

    sure: np.ndarray
    right: np.ndarray
    costs: np.ndarray

    def rows(self, rows):
        """Returns those of some images."""
        return Stages(self.sure[rows], self.right[rows], self.costs)

    def steps(self, thresholds):
        """Returns the number of the step after which each image leaves, int array `(n,)`."""
        leaves = np.column_stack([self.sure >= thresholds, np.ones(len(self.sure), bool)])
        return leaves.argmax(axis=1)

    def lost(self, steps):
        """Returns 1 where only the full ensemble is right, -1 where only the cascade is, else 0."""
        return self.right[:, -1].astype(int) - self.right[np.arange(len(steps)), steps]

    def cost(self, steps):
        """Returns the cost of each image in shares of the full ensemble's."""
        return np.cumsum(self.costs)[steps]


def cross_fitted_stages(predictions, combined, y, weights, costs, folds):
    """Returns the `Stages` of images, each judged by weights and temperatures that were fitted to the other folds.

    Args:
        predictions: Array `(n, members, num_classes)`, in the order in which members are asked.
        combined: Array `(n, num_classes)`, what the full ensemble says.
        y: Int array `(n,)`.
        weights: Float array `(n, members)`: those in the vote on each image, the same for all of a fold.
        costs: Float array `(members,)`, in shares of the full cost.
        folds: Int array `(n,)`.
    """
    steps = predictions.shape[1] - 1
    sure, said = np.empty((len(y), steps)), np.empty((len(y), steps + 1), int)
    said[:, -1] = combined.argmax(axis=1)
    for fold in np.unique(folds):
        held = folds == fold
        calibration = Calibration.fitted(predictions[~held], y[~held], weights[held][0])
        for step in range(steps):
            vote = calibration.join(predictions[held], step)
            sure[held, step], said[held, step] = vote.max(axis=1), vote.argmax(axis=1)
    return Stages(sure, said == y[:, None], costs)


class ThresholdPath:
    """Thresholds from the most careful to the cheapest, found on some images.

    At a price of accuracy, each threshold is set to where what is saved beyond it outweighs what is lost, given the
    others, until none changes. What an image loses by leaving is estimated as a falling function of how sure the
    ensemble is (isotonic regression): the search would else pick thresholds just beyond images that were lucky.
    """

    def __init__(self, stages):
        gains = np.column_stack([_falling(s, _gain(stages, k)) for k, s in enumerate(stages.sure.T)])
        search = _Search(stages.sure, gains, stages.costs)
        never = np.full(stages.sure.shape[1], np.inf)
        self.thresholds = np.unique([never, *(search.thresholds(price) for price in _PRICES)], axis=0)
        steps = [stages.steps(t) for t in self.thresholds]
        costs = np.array([stages.cost(s).mean() for s in steps])
        order = np.argsort(-costs, kind="stable")
        self.thresholds, self._losses = (
            self.thresholds[order],
            np.array([stages.lost(s).mean() for s in steps])[order],
        )

    def within(self, max_loss):
        """Returns the cheapest thresholds before the loss of accuracy on these images exceeds `max_loss`."""
        beyond = np.flatnonzero(self._losses > max_loss + 1e-12)
        return self.thresholds[beyond[0] - 1 if len(beyond) else -1]


class _Search:
    """Finds the thresholds that are best at a price.

    Args:
        sure: As in `Stages`.
        losses: Array of the same shape, what an image loses by leaving after each step.
        costs: As in `Stages`.
    """

    def __init__(self, sure, losses, costs):
        self._sure, self._losses, self._costs = sure, losses, costs
        self._orders = np.argsort(-sure, axis=0, kind="stable")

    def thresholds(self, price):
        """Returns a float array `(members - 1,)`; infinity: no image leaves here."""
        thresholds = np.full(self._sure.shape[1], np.inf)
        for _ in range(_ROUNDS):
            before = thresholds.copy()
            for step in reversed(range(len(thresholds))):
                thresholds[step] = self._best(step, thresholds, price)
            if np.array_equal(before, thresholds):
                break
        return thresholds

    def _best(self, step, thresholds, price):
        cost, loss = self._of_going_on(step, thresholds)
        there = (self._sure[:, :step] < thresholds[:step]).all(axis=1)
        gained = np.where(there, cost + price * (loss - self._losses[:, step]), 0)
        order = self._orders[:, step]
        sure, total = self._sure[order, step], np.cumsum(gained[order])
        # Images that are equally sure leave together.
        total[:-1][sure[:-1] == sure[1:]] = -np.inf
        best = total.argmax()
        if total[best] <= 0:
            return np.inf
        gap = sure[best] - sure[best + 1] if best + 1 < len(sure) else np.inf
        return sure[best] - min(_ROUNDING, gap / 2)

    def _of_going_on(self, step, thresholds):
        """Returns what each image costs and loses after a step, if it does not leave there."""
        cost, loss = np.full(len(self._sure), self._costs[-1]), np.zeros(len(self._sure))
        for later in range(len(thresholds) - 1, step, -1):
            leaves = self._sure[:, later] >= thresholds[later]
            cost = self._costs[later] + np.where(leaves, 0, cost)
            loss = np.where(leaves, self._losses[:, later], loss)
        return cost, loss


def _gain(stages, step):
    """How much more often the full ensemble is right than what was asked up to a step: 1, 0 or -1 for each image."""
    return stages.right[:, -1].astype(float) - stages.right[:, step]


def _falling(sure, gains):
    """Returns the gains as a falling function of `sure`, at least 0, which is smooth between the levels it takes.

    Between the middles of the levels of an isotonic regression it is linear (Oron and Flournoy, 2017, "Centered
    isotonic regression"): it would else not tell apart the images of a level.
    """
    fitted = IsotonicRegression(increasing=False, y_min=0.0).fit(sure, gains).predict(sure)
    levels, of_level, counts = np.unique(fitted, return_inverse=True, return_counts=True)
    middles = np.bincount(of_level, sure) / counts
    # The highest level has the lowest `sure`.
    return np.interp(sure, middles[::-1], levels[::-1])

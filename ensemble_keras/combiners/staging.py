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
# No image is certain not to lose: so much, a hundredth of a point, counts as nothing.
_NO_LOSS = 1e-4
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


def margins(vote):
    """Returns by how much the most probable class leads the second one, `(n,)`: how sure a vote is."""
    second, first = np.partition(vote, -2, axis=1)[:, -2:].T
    return first - second


@dataclasses.dataclass(frozen=True)
class Stages:
    """What is known of each image after each member but the last, asked in some order.

    Attributes:
        sure: Float array `(n, members - 1)`, see `margins`.
        right: Bool array `(n, members)`, whether the most probable class is the true one; at the end, that of the
            full ensemble.
        differs: Bool array `(n, members - 1)`, whether that class is another one than the full ensemble's.
        costs: Float array `(members,)`, of each member, in shares of the full cost.
    """

    sure: np.ndarray
    right: np.ndarray
    differs: np.ndarray
    costs: np.ndarray

    def rows(self, rows):
        """Returns those of some images."""
        return Stages(self.sure[rows], self.right[rows], self.differs[rows], self.costs)

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


@dataclasses.dataclass(frozen=True)
class Rule:
    """When an image leaves, and which way it goes on after the first member.

    Attributes:
        up: Float array `(members - 1,)`. An image that goes up leaves after the first step where it is at least as
            sure; infinity: no image leaves there.
        down: Float array `(members - 1,)`, the same for those that go down; the first one is that of `up`.
        below: Float. Images that are less sure than this after the first member go down.
    """

    up: np.ndarray
    down: np.ndarray
    below: float


@dataclasses.dataclass(frozen=True)
class Ways:
    """The two ways to ask all members from the cheapest on: up, by their cost, or down, from the dearest back.

    Attributes:
        up: `Stages`.
        down: `Stages` of the same images, the same after the first member.
    """

    up: Stages
    down: Stages

    def rows(self, rows):
        """Returns those of some images."""
        return Ways(self.up.rows(rows), self.down.rows(rows))

    def outcome(self, rule):
        """Returns the step after which each image leaves, what it loses (see `Stages.lost`) and what it costs."""
        goes_down = self.down.sure[:, 0] < rule.below
        by_way = []
        for stages, thresholds in ((self.up, rule.up), (self.down, rule.down)):
            steps = stages.steps(thresholds)
            by_way.append((steps, stages.lost(steps), stages.cost(steps)))
        return tuple(np.where(goes_down, down, up) for up, down in zip(*by_way, strict=True))


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
            sure[held, step], said[held, step] = margins(vote), vote.argmax(axis=1)
    return Stages(sure, said == y[:, None], said[:, :-1] != said[:, -1:], costs)


class RulePath:
    """Rules from the most careful to the cheapest, found on some images.

    At a price of accuracy, each threshold is set to where what is saved beyond it outweighs what is lost, given the
    others, until none changes. What an image loses by leaving is an estimate: the share of images as sure where the
    full ensemble says something else, times what such an image loses on average. The search would else pick
    thresholds just beyond images that were lucky.

    What a rule loses is the mean of that estimate and the count. Where many images leave with another answer than the
    full ensemble's, as often a better one as a worse, the count alone is mostly luck.
    """

    def __init__(self, ways):
        search = _Search(ways)
        never = np.full(ways.up.sure.shape[1], np.inf)
        rules = [Rule(never, never, -np.inf), *map(search.rule, _PRICES)]
        counted, costs = np.array([[values.mean() for values in ways.outcome(rule)[1:]] for rule in rules]).T
        estimated = np.array([search.loss(rule) for rule in rules])
        order = np.argsort(-costs, kind="stable")
        self._rules, self._losses = [rules[i] for i in order], ((counted + estimated) / 2)[order]

    def within(self, max_loss):
        """Returns the cheapest rule before the loss of accuracy exceeds `max_loss`."""
        beyond = np.flatnonzero(self._losses > max_loss + _NO_LOSS)
        return self._rules[beyond[0] - 1 if len(beyond) else -1]


class _Search:
    """Finds the rule that is best at a price, by turns: both ways' thresholds, and who goes which way."""

    def __init__(self, ways):
        self._up, self._down = _Way(ways.up), _Way(ways.down)

    def rule(self, price):
        # Each way is first set as if it were the only one: where no image goes, nothing can be found.
        up, down = (way.thresholds(price) for way in (self._up, self._down))
        below = -np.inf
        for _ in range(_ROUNDS):
            before = np.array([*up, *down, below])
            up[0], below = self._parted(up, down, price)
            down[0] = up[0]
            goes_down = self._up.sure[:, 0] < below
            for step in reversed(range(1, len(up))):
                up[step] = self._up.best(step, up, price, ~goes_down)
                if goes_down.any():
                    down[step] = self._down.best(step, down, price, goes_down)
            if np.array_equal(before, [*up, *down, below]):
                break
        return Rule(up, down, below)

    def loss(self, rule):
        """Returns the loss of accuracy that is expected of a rule."""
        goes_down = self._up.sure[:, 0] < rule.below
        return np.where(goes_down, self._down.expected(rule.down), self._up.expected(rule.up)).mean()

    def _parted(self, up, down, price):
        """Returns from where on images leave after the first member, and below which they go down."""
        going_up, going_down = self._up.of_going_on(0, up, price), self._down.of_going_on(0, down, price)
        order = self._up.orders[:, 0]
        sure = self._up.sure[order, 0]
        left = _sums(going_up - price * self._up.losses[:, 0], order)
        # What is saved where all images from a place on go down.
        lower = _sums(going_up - going_down, order)
        lower = lower[-1] - lower
        for total in (left, lower):
            # Images that are equally sure go the same way.
            total[1:-1][sure[1:] == sure[:-1]] = -np.inf
        leave = (left + np.maximum.accumulate(lower[::-1])[::-1]).argmax()
        # Of equal ones the last: none goes down without reason.
        stay = len(lower) - 1 - lower[leave:][::-1].argmax()
        return _threshold(sure, leave), _threshold(sure, stay) if stay < len(sure) else -np.inf


class _Way:
    """Thresholds of one way.

    Attributes:
        sure: As in `Stages`.
        losses: Array of the same shape, what an image loses by leaving after each step.
        orders: Array of the same shape, the images after each step from the surest on.
    """

    def __init__(self, stages):
        self.sure, self._costs = stages.sure, stages.costs
        self.losses = np.column_stack([_loss(stages, k) for k in range(stages.sure.shape[1])])
        self.orders = np.argsort(-stages.sure, axis=0, kind="stable")

    def thresholds(self, price):
        """Returns the best ones if all images go this way."""
        thresholds, everyone = np.full(self.sure.shape[1], np.inf), np.ones(len(self.sure), bool)
        for _ in range(_ROUNDS):
            before = thresholds.copy()
            for step in reversed(range(len(thresholds))):
                thresholds[step] = self.best(step, thresholds, price, everyone)
            if np.array_equal(before, thresholds):
                break
        return thresholds

    def expected(self, thresholds):
        """Returns what each image is expected to lose that goes this way."""
        loss = np.zeros(len(self.sure))
        for step in reversed(range(len(thresholds))):
            loss = np.where(self.sure[:, step] >= thresholds[step], self.losses[:, step], loss)
        return loss

    def best(self, step, thresholds, price, goes):
        """Returns the best threshold of a step, given the others and which images go this way."""
        there = goes & (self.sure[:, :step] < thresholds[:step]).all(axis=1)
        gained = np.where(there, self.of_going_on(step, thresholds, price) - price * self.losses[:, step], 0)
        order = self.orders[:, step]
        sure, total = self.sure[order, step], _sums(gained, order)
        # Images that are equally sure leave together.
        total[1:-1][sure[1:] == sure[:-1]] = -np.inf
        return _threshold(sure, total.argmax())

    def of_going_on(self, step, thresholds, price):
        """Returns what each image costs after a step, its loss at this price included, if it does not leave there."""
        total = np.full(len(self.sure), self._costs[-1])
        for later in range(len(thresholds) - 1, step, -1):
            leaves = self.sure[:, later] >= thresholds[later]
            total = self._costs[later] + np.where(leaves, price * self.losses[:, later], total)
        return total


def _sums(values, order):
    """Returns the sums of the first none, one, two, … of the values in this order."""
    return np.concatenate([[0.0], np.cumsum(values[order])])


def _threshold(sure, count):
    """Returns the threshold that so many images reach; `sure` falls."""
    if not count:
        return np.inf
    gap = sure[count - 1] - sure[count] if count < len(sure) else np.inf
    return sure[count - 1] - min(_ROUNDING, gap / 2)


def _loss(stages, step):
    """Returns the accuracy that each image is expected to lose by leaving after a step, at least 0."""
    differs = stages.differs[:, step].astype(float)
    gain = stages.right[:, -1].sum() - stages.right[:, step].sum()
    return max(gain, 0) / max(differs.sum(), 1) * _falling(stages.sure[:, step], differs)


def _falling(sure, values):
    """Returns the values as a falling function of `sure` that is smooth between the levels it takes.

    Between the middles of the levels of an isotonic regression it is linear (Oron and Flournoy, 2017, "Centered
    isotonic regression"): it would else not tell apart the images of a level.
    """
    fitted = IsotonicRegression(increasing=False).fit(sure, values).predict(sure)
    levels, of_level, counts = np.unique(fitted, return_inverse=True, return_counts=True)
    middles = np.bincount(of_level, sure) / counts
    # The highest level has the lowest `sure`.
    return np.interp(sure, middles[::-1], levels[::-1])

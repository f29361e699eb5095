"""L-BFGS: minimises many penalised cross-entropies at once, each with its own step and its own stop."""

import collections

import numpy as np

from ensemble_keras.members.preconditioning import Hessian

_MEMORY = 8
_LINE_SEARCH_STEPS = 20
# A step is taken where the slope has fallen to this share. Logits are linear in the step, so a closer line search
# costs no product with the features, and saves iterations that do.
_SLOPE_LEFT = 0.3
# Below this the float32 sums say nothing more.
_SMALLEST_DECREASE = 1e-8
_ROUNDING = 1e-6
# A look at the rows in question costs a product with the features: when the heads have changed much, and seldom.
_LOOKS_AT_ROWS_IN_QUESTION = frozenset({2, 5, 10, 20, 40, 80})


def minimise(rows, cross_entropy, penalties, start, *, variances, tolerance, max_iterations=200):
    """Minimises `cross_entropy + penalty / 2 * |kernel|²` for each problem.

    Each iteration has two products with the features, over the problems that are not done. A problem is done when
    the decrease that a Newton-like step promises is a small share of its objective.
    (Liu and Nocedal, "On the limited memory BFGS method", 1989.)

    Args:
        rows: `Rows`.
        cross_entropy: `CrossEntropy` on those rows.
        penalties: Float array `(problems,)`.
        start: Float32 array `(d + 1, problems, k)`: kernels and, in the last row, biases, which are not penalised.
        variances: Float32 array `(d,)`, those of the features, which should be nearly uncorrelated.
        tolerance: The share of the objective, such as 1e-4.
        max_iterations: Defaults to 200.

    Returns:
        Heads `(d + 1, problems, k)`.
    """
    heads, active = start.copy(), np.arange(start.shape[1])
    descent = _Descent(rows, cross_entropy, np.asarray(penalties, np.float32), start, variances)
    for iteration in range(max_iterations):
        if iteration in _LOOKS_AT_ROWS_IN_QUESTION:
            descent.couple()
        going = descent.aim(tolerance)
        heads[:, active] = descent.heads
        if not going.any():
            return heads
        if not going.all():
            active = active[going]
            descent.keep(going)
        descent.step()
    heads[:, active] = descent.heads
    return heads


class _Descent:
    """The state of the problems that are not done; axis 1 of every array is the problem."""

    def __init__(self, rows, cross_entropy, penalties, heads, variances):
        self.rows, self.cross_entropy, self.penalties, self.variances = rows, cross_entropy, penalties, variances
        self.heads = heads
        self.pairs = collections.deque(maxlen=_MEMORY)
        self.gradient = self.last_step = self.offsets = None
        self.stuck = np.zeros(heads.shape[1], bool)
        self.logits = rows.forward(heads)
        self.losses, self.probabilities = cross_entropy.losses(self.logits)

    def couple(self):
        """Takes the mean of the rows of each class, weighted by how much the class is in question."""
        curvatures = self.cross_entropy.curvatures(self.probabilities)
        sums = self.rows.backward(curvatures)
        self.offsets = sums[:-1] / np.maximum(sums[-1], 1e-12)

    def aim(self, tolerance):
        """Finds the direction of the next step; returns which problems are not done `(problems,)`."""
        gradient = self.rows.backward(self.cross_entropy.residuals(self.probabilities))
        gradient[:-1] += self.penalties[:, None] * self.heads[:-1]
        if self.last_step is not None:
            self.pairs.append((self.last_step, gradient - self.gradient))
        self.gradient = gradient
        self.direction = self._newton_like(gradient)
        self.slopes = _dots(gradient, self.direction)
        objectives = self.losses + self.penalties / 2 * _dots(self.heads[:-1], self.heads[:-1])
        return ~self.stuck & (-self.slopes / 2 > np.maximum(tolerance * objectives, _SMALLEST_DECREASE))

    def _newton_like(self, gradient):
        curvatures = self.cross_entropy.curvatures(self.probabilities).sum(axis=0)
        hessian = Hessian(self.variances, self.penalties, curvatures, self.offsets)
        direction, shares = -gradient, []
        for step, change in reversed(self.pairs):
            share = _ratio(_dots(step, direction), _dots(step, change))
            direction = direction - _by_problem(share) * change
            shares.append(share)
        direction = hessian.divide(direction)
        if self.pairs:
            step, change = self.pairs[-1]
            scale = _ratio(_dots(step, change), _dots(change, hessian.divide(change)))
            direction *= _by_problem(np.where(scale > 0, scale, 1))
        for (step, change), share in zip(self.pairs, reversed(shares), strict=True):
            direction += _by_problem(share - _ratio(_dots(change, direction), _dots(step, change))) * step
        return direction

    def keep(self, going):
        """Drops the problems that are done."""
        for name in ("heads", "gradient", "direction", "logits"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[:, going]))
        self.pairs = collections.deque([(s[:, going], c[:, going]) for s, c in self.pairs], maxlen=_MEMORY)
        self.offsets = None if self.offsets is None else self.offsets[:, going]
        self.penalties, self.slopes, self.losses = self.penalties[going], self.slopes[going], self.losses[going]
        self.cross_entropy = self.cross_entropy.of(going)

    def step(self):
        """Goes along the direction to where most of the slope has gone, each problem its own length."""
        moved = self.rows.forward(self.direction)
        along = _dots(self.heads[:-1], self.direction[:-1]), _dots(self.direction[:-1], self.direction[:-1])
        search = _LineSearch(self.slopes)
        for _ in range(_LINE_SEARCH_STEPS):
            if search.advance(*self._evaluate(search.lengths, moved, along)):
                break
        else:
            # Rounding hides the minimum: go where the objective is known to have fallen, or stay and be done.
            search.retreat()
            self._evaluate(search.lengths, moved, along)
        self.losses, self.logits, self.probabilities = self.reached
        self.last_step = _by_problem(search.lengths) * self.direction
        self.heads = self.heads + self.last_step
        self.stuck = search.lengths == 0

    def _evaluate(self, lengths, moved, along):
        """Returns the slope of each problem's objective at a length, and how much it has risen."""
        logits = self.logits + _by_problem(lengths) * moved
        losses, probabilities = self.cross_entropy.losses(logits)
        self.reached = losses, logits, probabilities
        slopes = self.cross_entropy.slopes(probabilities, moved) + self.penalties * (along[0] + lengths * along[1])
        rises = losses - self.losses + self.penalties * lengths * (along[0] + lengths / 2 * along[1])
        return slopes, rises - _ROUNDING * self.losses


class _LineSearch:
    """Looks for the zero of each problem's slope, which rises along the line: the objectives are convex.

    Regula falsi with the Illinois rule: the slope at an end that stays is halved, so that both ends move.
    """

    def __init__(self, slopes):
        self.first = self.low_slopes = slopes
        self.lengths = np.ones(len(slopes))
        self.low, self.high = np.zeros(len(slopes)), np.full(len(slopes), np.inf)
        self.high_slopes = np.zeros(len(slopes))

    def advance(self, slopes, rises):
        """Takes the slopes and rises at the present lengths; returns whether all are good, or proposes others."""
        self.unsure = (np.abs(slopes) > _SLOPE_LEFT * np.abs(self.first)) | (rises > 0)
        over = (slopes > 0) | (rises > 0)
        self.high_slopes = np.where(over, slopes, self.high_slopes / 2)
        self.low_slopes = np.where(over, self.low_slopes / 2, slopes)
        self.high, self.low = np.where(over, self.lengths, self.high), np.where(over, self.low, self.lengths)
        if self.unsure.any():
            self.lengths = np.where(self.unsure, self._between(), self.lengths)
        return not self.unsure.any()

    def _between(self):
        share = np.clip(_ratio(-self.low_slopes, self.high_slopes - self.low_slopes), 0.05, 0.95)
        open_ended = np.isinf(self.high)
        return np.where(
            open_ended, 2 * self.lengths, self.low + share * (np.where(open_ended, 0, self.high) - self.low)
        )

    def retreat(self):
        """Goes back to the greatest length at which the objective was still falling."""
        self.lengths = np.where(self.unsure, self.low, self.lengths)


def _dots(a, b):
    """Returns the products of vectors `(d, problems, k)`, problem by problem."""
    if a.shape[1] == 1:
        return np.array([np.vdot(a, b)], np.float64)
    return np.einsum("npk,npk->p", a, b, dtype=np.float64)


def _ratio(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _by_problem(values):
    return np.asarray(values, np.float32)[:, None]

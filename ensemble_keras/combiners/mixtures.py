"""Mixtures: the weights of the soft vote with the lowest log loss, which is a convex problem."""

import numpy as np
import threadpoolctl
from scipy import linalg, optimize

from ensemble_keras.combiners.scores import true_class_probabilities
from ensemble_keras.combiners.selection import checked

# The mean log loss is at most this much above the lowest one.
_GAP = 1e-6
_ROWS = 1024
# Members that come into the problem at a time.
_AT_A_TIME = 20


def convex_weights(predictions, y, *, sample_weight=None):
    """Returns the weights of the soft vote with the lowest log loss, to 1e-6 exactly.

    With `P` the members' probabilities of the true class, `−mean log(P w) + Σ w` is minimised over `w ≥ 0`: at the
    minimum the weights sum to 1, and it is that of the log loss on the simplex (Kim et al., 2020, "A fast algorithm
    for maximum likelihood estimation of mixture proportions using sequential quadratic programming"). Each step
    solves the quadratic model of the loss under `w ≥ 0`, a problem of non-negative least squares. Of many members
    those are brought in that the current mixture lacks most, until no other one could lower the loss by 1e-6.

    The predictions must be out-of-fold: members that memorised their training images would get all the weight.

    Args:
        predictions: Array `(n, members, num_classes)` of out-of-fold probabilities; those below 1e-7 count as 1e-7.
        y: Array `(n,)` of class indices `0 … num_classes − 1`; every class occurs.
        sample_weight: Array `(n,)`, or `None`.

    Returns:
        Float array `(members,)` of weights that sum to 1; members that do not help have 0.

    Raises:
        ValueError: If a table is not as described (member and row are named), a member's columns are in another order
            than the labels, or there are fewer rows than classes.

    Example:

    >>> y = np.arange(60) % 2
    >>> good = np.where(y[:, None] == [0, 1], 0.8, 0.2)
    >>> ek.convex_weights(np.stack([good, np.full((60, 2), 0.5)], axis=1), y).tolist()
    [1.0, 0.0]
    """
    predictions, y, sample_weight = checked(predictions, y, sample_weight)
    p = true_class_probabilities(predictions, y)
    shares = np.ones(len(y)) if sample_weight is None else sample_weight
    shares = shares / shares.sum()
    weights = np.zeros(len(p))
    weights[np.argmax([(np.log(row) * shares).sum() for row in p])] = 1
    # Many small products: threads that wait for one another cost more than they save, on a busy machine most.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        while (slopes := _slopes(p, weights, shares)).max() - 1 > _GAP:
            used = np.union1d(np.flatnonzero(weights), np.argsort(-slopes)[:_AT_A_TIME])
            before, weights = weights, np.zeros(len(p))
            weights[used] = _solve(p[used].T.astype("float64"), before[used], shares)
            if np.abs(weights - before).max() < _GAP / 10:
                break
    return weights


def _slopes(p, weights, shares):
    """Returns how fast the log loss falls as a member gets weight: 1 for all that have some at the minimum.

    The largest slope less 1 bounds how far the log loss is from its minimum (Jensen's inequality).
    """
    used = np.flatnonzero(weights)
    ratio = shares / (weights[used] @ p[used].astype("float64"))
    ratio = (len(ratio) * ratio).astype("float32")
    # Short float32 sums, added up in float64: the rounding stays below the gap, and the table is not copied.
    blocks = (slice(start, start + _ROWS) for start in range(0, len(ratio), _ROWS))
    return sum((p[:, rows] @ ratio[rows]).astype("float64") for rows in blocks) / len(ratio)


def _solve(p, weights, shares):
    """Minimises `−shares @ log(p w) + Σ w` over `w ≥ 0` from `weights`; `p`: float64 `(n, k)`."""
    # Well inside: a mixture of members that all count a little has no infinite loss.
    weights = 0.99 * weights + 0.01 / len(weights)
    loss = _loss(p, weights, shares)
    for _ in range(100):
        scaled = p / (p @ weights)[:, None]
        slopes = shares @ scaled
        hessian = (scaled * shares[:, None]).T @ scaled
        # A member that stands twice in the table makes it singular.
        root = linalg.cholesky(hessian + 1e-10 * np.trace(hessian) * np.eye(len(weights)))
        # The model's minimum: of |root @ w − b|², since the hessian times the weights are the slopes.
        target = optimize.nnls(root, linalg.solve_triangular(root, 2 * slopes - 1, trans=1))[0]
        step, move = 1.0, target - weights
        while (lower := _loss(p, weights + step * move, shares)) > loss - 1e-4 * step * ((slopes - 1) @ move):
            step /= 2
            if step < 1e-10:
                return weights / weights.sum()
        weights, gained, loss = weights + step * move, loss - lower, lower
        if gained < 1e-12:
            break
    return weights / weights.sum()


def _loss(p, weights, shares):
    with np.errstate(divide="ignore"):
        # Nothing but zeros has an infinite loss, which no step goes to.
        return weights.sum() - shares @ np.log(p @ weights)

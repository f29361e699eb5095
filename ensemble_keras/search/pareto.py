"""Pareto: the order of trials by several objectives, by dominance and crowding (Deb et al., 2002, NSGA-II)."""

import numpy as np


def non_dominated_ranks(scores):
    """Returns for each row how many fronts stand before its own: 0 for those that no other row dominates.

    A row dominates another if it is at least as good in every column and better in one.

    Args:
        scores: Array `(n, objectives)`, higher is better in every column.

    Returns:
        Array `(n,)` of ints.

    Example:

    >>> non_dominated_ranks([[0.9, -3.0], [0.8, -1.0], [0.7, -2.0]]).tolist()
    [0, 0, 1]
    """
    scores = np.asarray(scores, "float64")
    at_least = (scores[:, None] >= scores).all(axis=2)
    dominates = at_least & ~at_least.T
    ranks = np.full(len(scores), -1)
    dominators = dominates.sum(axis=0)
    for rank in range(len(scores)):
        front = (ranks < 0) & (dominators == 0)
        if not front.any():
            break
        ranks[front] = rank
        dominators = dominators - dominates[front].sum(axis=0)
    return ranks


def crowding_distances(scores):
    """Returns how far apart each row's neighbours on one front are: the sum over the objectives of their distance.

    Distances are relative to the front's range. The ends of a front have infinity: they are kept first.

    Args:
        scores: Array `(n, objectives)` of one front.

    Returns:
        Array `(n,)` of floats, 0 or above.
    """
    scores = np.asarray(scores, "float64")
    distances = np.zeros(len(scores))
    for column in scores.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        span = ordered[-1] - ordered[0]
        distances[order[[0, -1]]] = np.inf
        if span > 0:
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distances


def best_first(scores):
    """Returns the places of the rows, the best one first: by front, and on a front the less crowded before others.

    With one objective that is its order. Equal rows stay in the order in which they came.

    Args:
        scores: Array `(n, objectives)`, higher is better in every column; `n` may be 0.

    Returns:
        Array `(n,)` of ints.
    """
    scores = np.asarray(scores, "float64")
    if scores.shape[1] == 1:
        return np.argsort(-scores[:, 0], kind="stable")
    ranks = non_dominated_ranks(scores)
    crowding = np.zeros(len(scores))
    for rank in np.unique(ranks):
        front = ranks == rank
        crowding[front] = crowding_distances(scores[front])
    return np.lexsort([-crowding, ranks])

"""Weighting: the weights of a soft vote, found on out-of-fold predictions."""

import numpy as np

from ensemble_keras.combiners.mixtures import convex_weights
from ensemble_keras.combiners.selection import select_members
from ensemble_keras.measures.metrics import log_losses


def with_weights(vote, weights):
    """Returns a voting layer like `vote` with these weights."""
    return type(vote).from_config({**vote.get_config(), "weights": weights})


def find_weights(how, predictions, y, *, sample_weight=None, seed=0):
    """Returns the weights of a soft vote, float array `(members,)` that sums to 1.

    Args:
        how: `"best"`, `"log_loss"` or `"greedy"`, as in `SoftVoting`.
        predictions: Checked array `(n, members, num_classes)`.
        y: Int array `(n,)`.
        sample_weight: Array `(n,)` or `None`.
        seed: Int, of the bags of the greedy selection.
    """
    if how == "greedy":
        return select_members(predictions, y, sample_weight=sample_weight, seed=seed)
    if how == "log_loss":
        return convex_weights(predictions, y, sample_weight=sample_weight)
    return np.eye(predictions.shape[1])[_best(predictions, y, sample_weight)]


def _best(predictions, y, sample_weight):
    """The member with the highest accuracy; of equals, the one with the lower log loss."""

    def rank(member):
        p = predictions[:, member]
        right = np.average(p.argmax(axis=1) == y, weights=sample_weight)
        return right, -np.average(log_losses(y, p), weights=sample_weight)

    return max(range(predictions.shape[1]), key=rank)

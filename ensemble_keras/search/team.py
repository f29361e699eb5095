"""Team: the trials that are best together, chosen greedily on what they predicted."""

import numpy as np

from ensemble_keras.combiners.selection import select_members

# Of so many best trials a team is chosen: those further down are hardly ever picked, and the choice takes as long.
_CANDIDATES = 100


def greedy_team(predictions, labels, *, size):
    """Returns the weights of the trials in the team, those of the others are 0.

    Greedy forward selection with replacement (Caruana et al., 2004), as `select_members` in one bag: `size` picks, so
    that the team has at most so many members.

    Args:
        predictions: List of arrays `(n, num_classes)`, one per trial, the best trial first.
        labels: Int array `(n,)`.
        size: Int, at least 1.

    Returns:
        Float array `(trials,)`; sums to 1.
    """
    weights = np.zeros(len(predictions))
    candidates = np.stack(predictions[:_CANDIDATES], axis=1)
    weights[:_CANDIDATES] = select_members(candidates, labels, size=size, bags=1)
    return weights

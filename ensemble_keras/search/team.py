"""Team: the trials that are best together, chosen greedily on what they predicted."""

import numpy as np

from ensemble_keras.combiners import base

# Of so many best trials a team is chosen: those further down are hardly ever picked, and the choice takes as long.
MOST_CANDIDATES = 100


def greedy_team(chances, *, size):
    """Returns the weights of the trials in the team, those of the others are 0.

    Greedy forward selection with replacement by the log loss of the vote (Caruana et al., 2004), of which `chances`
    is all that counts: `size` picks, of which those up to the best vote make the team, so that it has at most so
    many members. `select_members` gives the same in one bag; but what it refuses, a class without an image or a
    member that takes one class for the other, is in a search no reason to end it.

    Args:
        chances: List of arrays `(n,)`, one per trial, the best trial first: `true_class_probabilities`.
        size: Int, at least 1.

    Returns:
        Float array `(trials,)`; sums to 1.
    """
    candidates = np.stack(chances[:MOST_CANDIDATES]).astype("float64")
    total, picked, losses = np.zeros(candidates.shape[1]), [], []
    for count in range(1, size + 1):
        found = -np.log((total + candidates) / count).mean(axis=1)
        picked.append(int(found.argmin()))
        losses.append(found.min())
        total += candidates[picked[-1]]
    picked = picked[: 1 + int(np.argmin(losses))]
    return np.bincount(picked, minlength=len(chances)) / len(picked)


def true_class_probabilities(probabilities, labels):
    """Returns the probability of each row's own class, float32 `(n,)`, at least 1e-7.

    Args:
        probabilities: Array `(n, num_classes)`.
        labels: Int array `(n,)`.
    """
    own = np.take_along_axis(np.asarray(probabilities), np.asarray(labels)[:, None], axis=1)[:, 0]
    return np.maximum(own, base.SMALLEST_PROBABILITY, dtype="float32")

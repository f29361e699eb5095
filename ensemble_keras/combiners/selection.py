"""Selection: which members a soft vote asks, and how much each counts, found greedily on out-of-fold predictions."""

import concurrent.futures
import os

import numpy as np

from ensemble_keras._validation import check_seed
from ensemble_keras.combiners.scores import LogLoss, score_of
from ensemble_keras.measures.predictions import check_class_order, check_predictions, check_sample_weight, check_y

# A bag holds at least so many members, or all: half of three is no pool to select from.
_SMALLEST_BAG = 10


def select_members(
    predictions,
    y,
    *,
    size=10,
    bags=20,
    seed=0,
    metric="log_loss",
    initial=1,
    costs=None,
    max_cost=None,
    sample_weight=None,
):
    """Selects members greedily, with replacement, for the soft vote (Caruana et al., 2004, "Ensemble selection").

    Starting from the best `initial` members, the one that improves the mean of probabilities most is added again
    and again, `size` picks in all; a member picked twice counts twice. Of the sets on the way the best one counts.
    That is done in `bags` bags, each of half of the members (at least ten, or all) and of rows drawn with replacement
    within the classes; the weights are the mean over the bags, which overfits less than one selection.

    Within a budget there is one bag of all members and rows, since bags together would cost more than each of them.
    The selection is made among the members that cost at most the whole budget, a half, a quarter, … of it, and the
    best result counts: the best member that fits may leave no room for two that are better together.

    The predictions must be out-of-fold: members that memorised their training images would be selected for it.

    Args:
        predictions: Array `(n, members, num_classes)` of out-of-fold probabilities. Not copied if it is float32.
        y: Array `(n,)` of class indices `0 … num_classes − 1`; every class occurs.
        size: Int. Picks per bag. Defaults to 10.
        bags: Int. With 1 all members and rows are in it. Defaults to 20.
        seed: Int, of the bags. Defaults to 0.
        metric: `"log_loss"`; the name of a scikit-learn scorer that takes labels or probabilities, such as
            `"accuracy"`, `"f1_macro"` or `"roc_auc_ovr"`; a scorer; or a function of `y` and probabilities
            `(n, num_classes)` that gives more for better. Log loss takes seconds for 1,000 members and 50,000 rows;
            `"accuracy"` and `"balanced_accuracy"` five times as long, and one more copy of the predictions; any other
            metric is called `members * size * bags / 2` times. Equally good members are told apart by log loss.
            Defaults to `"log_loss"`.
        initial: Int, from 1 to `size`. Number of best members of a bag to start from (sorted start). Defaults to 1.
        costs: Array `(members,)`, the cost of asking each member: multiply-accumulates, parameters, milliseconds; or
            `(members, k)`, its cost by `k` measures.
        max_cost: Float, or `k` of them. What the selected members may cost together. Defaults to `None`, no limit.
        sample_weight: Array `(n,)`, or `None`.

    Returns:
        Float array `(members,)` of weights that sum to 1; 0: not selected.

    Raises:
        ValueError: If a table is not as described (member and row are named), a member's columns are in another order
            than the labels, there are fewer rows than classes, an option is out of range, or no member is within
            `max_cost`.

    Example:

    >>> y = np.arange(60) % 2
    >>> good = np.where(y[:, None] == [0, 1], 0.8, 0.2)
    >>> ek.select_members(np.stack([good, np.full((60, 2), 0.5)], axis=1), y).tolist()
    [1.0, 0.0]
    """
    predictions, y, sample_weight = checked(predictions, y, sample_weight)
    costs, max_cost = _check_costs(costs, max_cost, predictions.shape[1])
    if size < 1 or bags < 1 or not 1 <= initial <= size:
        raise ValueError(
            f"`size` and `bags` must be at least 1, `initial` from 1 to `size`. Received: size={size}, bags={bags}, "
            f"initial={initial}."
        )
    check_seed(seed)
    scores = [score_of(metric, predictions, y, sample_weight)]
    if not isinstance(scores[0], LogLoss):
        scores.append(LogLoss(predictions, y, sample_weight))
    picker = _Picker(scores, size, initial, costs, max_cost)
    every_member, every_row = np.arange(len(costs)), np.ones(len(y), int)
    if not fits(costs.sum(axis=0), max_cost):
        results = [picker.pick(pool, every_row) for pool in _pools(costs, max_cost, size)]
        return _as_weights(max(results, key=lambda result: result[1])[0], len(costs))
    if bags == 1:
        return _as_weights(picker.pick(every_member, every_row)[0], len(costs))
    rng = np.random.default_rng(seed)
    drawn = [(_draw_members(len(costs), rng), _draw_rows(y, sample_weight, rng)) for _ in range(bags)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda bag: picker.pick(*bag), drawn)
        return np.mean([_as_weights(picked, len(costs)) for picked, _ in results], axis=0)


def checked(predictions, y, sample_weight):
    """Returns checked out-of-fold predictions, labels and row weights (`None`: all equal), or raises `ValueError`."""
    predictions = check_predictions(predictions)
    y = check_y(y, len(predictions), predictions.shape[2])
    check_class_order(predictions, y)
    return predictions, y, check_sample_weight(sample_weight, len(y))


class _Picker:
    """Picks members one after another, by the first of some scores; the next one tells apart what it calls equal."""

    def __init__(self, scores, size, initial, costs, max_cost):
        self._scores, self._size, self._initial = scores, size, initial
        self._costs, self._max_cost = costs, max_cost

    def pick(self, members, times):
        """Returns the picks of the best set on the way, and its score, from these members on rows drawn so often."""
        picked, values, totals, ranked = [], [], [score.start for score in self._scores], members
        while len(picked) < self._size:
            candidates = self._candidates(ranked, picked)
            found, best = self._evaluate(totals, candidates, len(picked) + 1, times)
            if not picked:
                ranked = members[np.argsort(-found, kind="stable")]
            picked.append(candidates[best])
            values.append(found[best])
            totals = [total + score.parts[picked[-1]] for total, score in zip(totals, self._scores, strict=True)]
        first = min(self._initial, len(picked)) - 1
        best = first + int(np.argmax(values[first:]))
        return picked[: best + 1], values[best]

    def _evaluate(self, totals, candidates, count, times):
        """Returns the score with each candidate, and the position of the best one."""
        found = self._scores[0].of_each(totals[0], candidates, count, times)
        if not np.isfinite(found).all():
            raise ValueError(f"`metric` must give finite numbers. Received: {found[~np.isfinite(found)][0]}.")
        tied = np.flatnonzero(found >= found.max() - 1e-12)
        if len(tied) > 1 and len(totals) > 1:
            tied = tied[[self._scores[1].of_each(totals[1], candidates[tied], count, times).argmax()]]
        return found, tied[0]

    def _candidates(self, ranked, picked):
        """Returns the members that may come next: those in the budget; of a sorted start, the best of the rest."""
        is_in = np.isin(ranked, picked)
        spent = self._costs[np.unique(picked).astype(int)].sum(axis=0)
        within = fits(spent + self._costs[ranked], self._max_cost)
        rest = ranked[within & ~is_in]
        return rest[:1] if 0 < len(picked) < self._initial and len(rest) else ranked[within | is_in]


def fits(costs, max_cost):
    """Whether costs `(…, k)` are within `k` limits, all of them."""
    # Sums of floats: three times 0.1 fits into 0.3.
    return (costs <= max_cost * (1 + 1e-9)).all(axis=-1)


def _pools(costs, max_cost, size):
    """Yields the members that cost at most the whole budget, a half, a quarter, …; each pool once."""
    last, parts = None, 1
    while parts <= size:
        pool = np.flatnonzero(fits(parts * costs, max_cost))
        if len(pool) and len(pool) != last:
            yield pool
        last, parts = len(pool), 2 * parts


def _draw_members(count, rng):
    half = min(count, max(_SMALLEST_BAG, (count + 1) // 2))
    return np.sort(rng.choice(count, half, replace=False))


def _draw_rows(y, sample_weight, rng):
    """Draws how often each row is in a bag; every class keeps its number of rows, since metrics need them all."""
    # Rows without weight are left out: a bag of nothing else would have no score.
    counts = np.ones(len(y), bool) if sample_weight is None else sample_weight > 0
    times = np.zeros(len(y), int)
    for k in np.unique(y[counts]):
        rows = np.flatnonzero((y == k) & counts)
        times[rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)))
    return times


def _as_weights(picked, count):
    return np.bincount(picked, minlength=count) / len(picked)


def _check_costs(costs, max_cost, count):
    if (costs is None) != (max_cost is None):
        lacking = "costs" if costs is None else "max_cost"
        raise ValueError(
            f"A budget needs `costs`, one per member, and `max_cost`, their highest sum. Received: no `{lacking}`."
        )
    if costs is None:
        return np.zeros((count, 1)), np.array([np.inf])
    limits = np.atleast_1d(np.asarray(max_cost, "float64"))
    columns = np.asarray(costs, "float64").T if np.ndim(costs) == 2 else [costs]
    if len(columns) != len(limits):
        raise ValueError(
            f"`max_cost` must be one number for each column of `costs`. Received: {len(columns)} columns, {max_cost}."
        )
    costs = np.stack([check_costs(column, count) for column in columns], axis=1)
    if not fits(costs, limits).any():
        cheapest = costs[np.argmin((costs / limits).max(axis=1))]
        raise ValueError(
            f"`max_cost` must let one member in: the cheapest costs {', '.join(f'{c:g}' for c in cheapest)}. "
            f"Received: {max_cost}."
        )
    return costs, limits


def check_costs(costs, count):
    """Returns `costs` as a float array `(count,)`, or raises `ValueError`."""
    costs = np.asarray(costs, "float64")
    if costs.shape != (count,) or not np.isfinite(costs).all() or (costs < 0).any():
        raise ValueError(
            f"`costs` must be {count} numbers of at least 0, one per member. Received: {costs.tolist()}."
        )
    return costs

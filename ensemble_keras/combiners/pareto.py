"""Pareto: what accuracy costs, from the cheapest member to the most accurate soft vote."""

import numpy as np
import pandas as pd

from ensemble_keras.combiners.selection import check_costs, checked, select_members
from ensemble_keras.measures.metrics import log_losses

# Of so few members every set is tried: 255 sets.
_ALL_SETS = 8
_BUDGETS = 20


def pareto_front(predictions, y, costs, *, names=None, metric="log_loss", size=10):
    """Tells what accuracy costs: sets of members, each with its cost and the accuracy of its soft vote.

    Of up to eight members every set is tried, with equal weights. Of more: each member alone, and the greedy
    selections within 20 rising budgets (`select_members` with `max_cost`).

    The predictions must be out-of-fold. Where the best of many sets is taken, its accuracy is somewhat too good: tell
    the gain of the one that you take on images that chose nothing.

    Args:
        predictions: Array `(n, members, num_classes)` of out-of-fold probabilities.
        y: Array `(n,)` of class indices `0 … num_classes − 1`; every class occurs.
        costs: Array `(members,)`, what each member costs: multiply-accumulates, parameters, milliseconds.
        names: List of member names. Defaults to their numbers.
        metric: What greedy selections are made by, as in `select_members`. Defaults to `"log_loss"`.
        size: Int. Picks of a greedy selection. Defaults to 10.

    Returns:
        A `pandas.DataFrame`, a row for each set, in the order of cost: `members` (tuple of names), `weights` (tuple
        of floats that sum to 1), `cost` (the sum of the members'), `accuracy`, `log_loss`, and `on_front`: whether
        no set of at most this cost is as accurate.

    Raises:
        ValueError: As `select_members`; if there is not one name per member, or all costs are 0.

    Example:

    >>> y = np.arange(60) % 2
    >>> good = np.where(y[:, None] == [0, 1], 0.8, 0.2)
    >>> predictions = np.stack([good, np.full((60, 2), 0.5)], axis=1)
    >>> front = ek.pareto_front(predictions, y, [3.0, 1.0], names=["large", "small"]).query("on_front")
    >>> front[["members", "cost", "accuracy"]].values.tolist()
    [[('small',), 1.0, 0.5], [('large',), 3.0, 1.0]]
    """
    predictions, y, _ = checked(predictions, y, None)
    count = predictions.shape[1]
    costs = check_costs(costs, count)
    names = list(range(count)) if names is None else list(names)
    if len(names) != count:
        raise ValueError(f"`names` must be one per member. Received: {len(names)} names for {count} members.")
    if not costs.sum() > 0:
        raise ValueError("`costs` must not all be 0.")
    if count <= _ALL_SETS:
        candidates = _every_set(count)
    else:
        budgets = np.geomspace(max(costs.min(), costs.sum() / 1e6), costs.sum(), _BUDGETS)
        greedy = (
            select_members(
                predictions, y, size=size, bags=1, metric=metric, costs=costs, max_cost=max(budget, costs.min())
            )
            for budget in budgets
        )
        candidates = np.unique([*np.eye(count), *greedy], axis=0)
    rows = [_row(predictions, y, weights, costs, names) for weights in candidates]
    order = ["cost", "accuracy", "log_loss"]
    table = pd.DataFrame(rows).sort_values(order, ascending=[True, False, True], ignore_index=True)
    return table.assign(on_front=table["accuracy"] > table["accuracy"].cummax().shift(fill_value=-1.0))


def _every_set(count):
    """Returns the equal weights of every set of members, `(2 ** count - 1, count)`."""
    chosen = (np.arange(1, 2**count)[:, None] >> np.arange(count)) & 1
    return chosen / chosen.sum(axis=1, keepdims=True)


def _row(predictions, y, weights, costs, names):
    used = np.flatnonzero(weights)
    p = sum(np.float32(weights[i]) * predictions[:, i] for i in used)
    return {
        "members": tuple(names[i] for i in used),
        "weights": tuple(weights[used].tolist()),
        "cost": costs[used].sum(),
        "accuracy": np.mean(p.argmax(axis=1) == y),
        "log_loss": log_losses(y, p).mean(),
    }

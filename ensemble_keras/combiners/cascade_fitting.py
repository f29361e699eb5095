"""Cascade fitting: in which order to ask members, and when to stop, for a promised loss of accuracy."""

import numpy as np
import pandas as pd

from ensemble_keras._validation import check_choice, check_seed
from ensemble_keras.combiners.selection import check_costs, checked
from ensemble_keras.combiners.staging import Calibration, RulePath, Ways, cross_fitted_stages
from ensemble_keras.combiners.weighting import find_weights
from ensemble_keras.data.splits import make_folds
from ensemble_keras.measures.bootstrap import resampled_means
from ensemble_keras.measures.metrics import check_probabilities

_LOSSES = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02)


def fit_cascade(
    predictions, y, costs, *, names, max_loss=0.001, weights=None, combined=None, groups=None, cv=5, seed=0
):
    """Finds when a `Cascade` stops asking members (Wang et al., 2022, "Wisdom of committees", arXiv:2012.01988).

    Members are asked in the order of their cost. After each one the ensemble so far is the soft vote of those asked,
    with a temperature for each member and one for the vote; an image whose most probable class leads the second one
    by at least the step's threshold leaves with that vote. Where the first member is very unsure, the next small ones
    would seldom settle it: where that pays, such images go straight to the dearest member, and from there down to
    those that were passed over. Images that all members saw get what the full ensemble says.

    The thresholds are chosen on votes whose temperatures, and weights that are to be found, were fitted to other
    folds. The expected loss and cost come from one more round: each fold is judged by thresholds that were chosen on
    the others.

    Args:
        predictions: Array `(n, members, num_classes)` of out-of-fold probabilities of the members in the ensemble.
        y: Array `(n,)` of class indices `0 … num_classes − 1`; every class occurs.
        costs: Array `(members,)`, what an image costs each member: seconds or multiply-accumulates. A cascade runs
            members with folded batch normalisations: `member_costs([compiled(m).model for m in members])`.
        names: List of the members' names, as in the card or in the model.
        max_loss: Float of at least 0: how much accuracy the cascade may lose against the full ensemble. Defaults to
            0.001, 0.1 points.
        weights: How the weights of the members in the vote are found, `"log_loss"` or `"greedy"`, as in `SoftVoting`;
            or an array `(members,)` of weights that were not fitted to these rows. Defaults to `None`, equal weights.
        combined: Array `(n, num_classes)`, what the full ensemble says, out of fold. Defaults to the soft vote with
            these weights; to be given for other combiners.
        groups: Sequence `(n,)` or `None`: images of a group share a fold, and are drawn together for the interval.
        cv: Int, number of folds. Defaults to 5.
        seed: Int, of folds and interval. Defaults to 0.

    Returns:
        A dict for the card's entry `"cascade"`, made of what JSON has: `"order"` (names), `"costs"` (shares of the
        full cost), `"weights"`, `"member_temperatures"`, `"temperatures"` and `"thresholds"` in that order (`None`:
        no image leaves there), `"score"` (what thresholds are of: `"margin"`), `"max_loss"`, `"down"`, and
        `"expected"`: `"loss"` of accuracy with a 95 % interval (`"low"`, `"high"`), `"cost"` in shares of the full
        cost, `"members"` asked on average, and `"n"` images. `"down"` is `None`, or a dict with the other `"order"`,
        its `"weights"` and so on, and `"below"`: the margin below which images take it (`None`: all that stay).

    Raises:
        ValueError: If a table is not as described (member and row are named), there are fewer than two members, or
            costs, names or weights are not one per member.

    Example:

    >>> y = np.arange(200) % 2
    >>> small = np.where(y[:, None] == [0, 1], 0.9, 0.1)
    >>> small[:40] = 0.5  # unsure of these
    >>> large = np.where(y[:, None] == [0, 1], 0.95, 0.05)
    >>> settings = ek.fit_cascade(np.stack([large, small], axis=1), y, [9, 1], names=["large", "small"])
    >>> settings["order"], round(settings["expected"]["cost"], 2)  # all ask the small one, 40 of 200 the large one
    (['small', 'large'], 0.28)
    """
    study = _Study(predictions, y, costs, names, weights, combined, groups, cv, seed)
    return study.settings(_check_loss(max_loss))


def cascade_curve(
    predictions, y, costs, *, names, losses=_LOSSES, weights=None, combined=None, groups=None, cv=5, seed=0
):
    """Tells what a cascade saves at each promised loss of accuracy; `fit_cascade` takes one of them.

    Args:
        predictions: As in `fit_cascade`.
        y: As in `fit_cascade`.
        costs: As in `fit_cascade`.
        names: As in `fit_cascade`.
        losses: Floats of at least 0, the promised losses. Defaults to ten from 0 to 0.02.
        weights: As in `fit_cascade`.
        combined: As in `fit_cascade`.
        groups: As in `fit_cascade`.
        cv: As in `fit_cascade`.
        seed: As in `fit_cascade`.

    Returns:
        A `pandas.DataFrame` with a row for each promised loss: `max_loss`, `loss` with its 95 % interval `low` to
        `high` and `cost`, each expected on new images, `throughput` (of the full ensemble's, `1 / cost`), `members`
        asked on average, and `thresholds` (tuple, of those that go up).

    Raises:
        ValueError: As `fit_cascade`.
    """
    study = _Study(predictions, y, costs, names, weights, combined, groups, cv, seed)
    rows = []
    for max_loss in map(_check_loss, losses):
        settings = study.settings(max_loss)
        expected = settings["expected"]
        rows.append(
            {
                "max_loss": max_loss,
                **{key: expected[key] for key in ("loss", "low", "high", "cost")},
                "throughput": 1 / expected["cost"],
                "members": expected["members"],
                "thresholds": tuple(settings["thresholds"]),
            }
        )
    return pd.DataFrame(rows)


class _Study:
    """Checked tables in the two orders in which members are asked, and the rules found on them and on their folds."""

    def __init__(self, predictions, y, costs, names, weights, combined, groups, cv, seed):
        predictions, y, _ = checked(predictions, y, None)
        count = predictions.shape[1]
        if count < 2:
            raise ValueError("A cascade needs at least two members. Received: predictions of one.")
        costs = check_costs(costs, count)
        if not costs.sum() > 0:
            raise ValueError("`costs` must not all be 0.")
        self._names = _check_names(names, count)
        self._folds = make_folds(y, groups=groups, cv=cv, seed=seed)
        weights, of_rows = _weights(weights, predictions, y, self._folds, seed)
        if combined is None:
            combined = np.einsum("nmc,nm->nc", predictions, of_rows)
        combined = check_probabilities(combined, name="combined")
        if combined.shape != predictions[:, 0].shape:
            raise ValueError(
                f"`combined` must have the shape {predictions[:, 0].shape} of a member's predictions. "
                f"Received: {combined.shape}."
            )
        up = np.argsort(costs, kind="stable")
        self._orders = [up, np.concatenate([up[:1], up[:0:-1]])]
        self._costs = costs / costs.sum()
        self._units = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        self._seed = check_seed(seed)
        self._calibrations = [Calibration.fitted(predictions[:, order], y, weights[order]) for order in self._orders]
        self._ways = Ways(
            *(
                cross_fitted_stages(
                    predictions[:, order], combined, y, of_rows[:, order], self._costs[order], self._folds
                )
                for order in self._orders
            )
        )
        self._path = RulePath(self._ways)
        self._paths = {fold: RulePath(self._ways.rows(self._folds != fold)) for fold in np.unique(self._folds)}

    def settings(self, max_loss):
        rule = self._path.within(max_loss)
        up, down = (self._way(number, thresholds) for number, thresholds in enumerate((rule.up, rule.down)))
        return {
            **up,
            "costs": self._costs[self._orders[0]].tolist(),
            "score": "margin",
            "max_loss": max_loss,
            "down": None if np.isneginf(rule.below) else {"below": _plain(rule.below), **down},
            "expected": self._expected(max_loss),
        }

    def _way(self, number, thresholds):
        calibration = self._calibrations[number]
        return {
            "order": [self._names[i] for i in self._orders[number]],
            "weights": calibration.weights.tolist(),
            "member_temperatures": calibration.member_temperatures.tolist(),
            "temperatures": calibration.temperatures.tolist(),
            "thresholds": [_plain(t) for t in thresholds],
        }

    def _expected(self, max_loss):
        steps, lost, cost = np.empty((3, len(self._folds)))
        for fold, path in self._paths.items():
            held = self._folds == fold
            steps[held], lost[held], cost[held] = self._ways.rows(held).outcome(path.within(max_loss))
        resampled = resampled_means(lost, self._units, 2000, np.random.default_rng(self._seed))
        low, high = np.quantile(resampled, [0.025, 0.975])
        return {
            "loss": float(lost.mean()),
            "low": float(low),
            "high": float(high),
            "cost": float(cost.mean()),
            "members": float(steps.mean() + 1),
            "n": len(steps),
        }


def _plain(threshold):
    return float(threshold) if np.isfinite(threshold) else None


def _check_loss(max_loss):
    if not 0 <= max_loss < 1:
        raise ValueError(f"`max_loss` must be a share of at least 0 and below 1. Received: {max_loss!r}.")
    return float(max_loss)


def _check_names(names, count):
    names = [str(name) for name in names]
    if len(names) != count or len(set(names)) < count:
        raise ValueError(f"`names` must be {count} different names, one per member. Received: {names}.")
    return names


def _weights(weights, predictions, y, folds, seed):
    """Returns the weights of the vote, `(members,)`, and those found without each row's fold, `(n, members)`."""
    count = predictions.shape[1]
    if not isinstance(weights, str):
        weights = _check_weights(weights, count)
        return weights, np.tile(weights, (len(y), 1))
    check_choice("weights", weights, ["log_loss", "greedy"])
    of_rows = np.empty((len(y), count))
    for fold in np.unique(folds):
        rest = folds != fold
        of_rows[~rest] = find_weights(weights, predictions[rest], y[rest], seed=seed)
    return _check_weights(find_weights(weights, predictions, y, seed=seed), count), of_rows


def _check_weights(weights, count):
    weights = np.ones(count) if weights is None else np.asarray(weights, "float64")
    if weights.shape != (count,) or not np.isfinite(weights).all() or (weights <= 0).any():
        raise ValueError(
            f"`weights` must be {count} finite numbers above 0, one per member: leave the others out of the model. "
            f"Received: {weights.tolist()}."
        )
    return weights / weights.sum()

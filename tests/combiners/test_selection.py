import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score

import ensemble_keras as ek
from ensemble_keras.combiners.mixtures import convex_weights
from ensemble_keras.combiners.pareto import pareto_front
from ensemble_keras.combiners.selection import select_members


def members_of(skills, n=400, num_classes=3, seed=0):
    """Labels, and out-of-fold predictions of members that know the label so well."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % num_classes
    scores = rng.normal(size=(n, len(skills), num_classes))
    scores += np.asarray(skills)[None, :, None] * np.eye(num_classes)[y][:, None]
    return softmax(scores, axis=2).astype("float32"), y


def loss(weights, predictions, y):
    p = np.tensordot(predictions, weights, axes=(1, 0))[np.arange(len(y)), y]
    return -np.log(p).mean()


def greedy_by_hand(predictions, y, size):
    """The algorithm as it is written down: one pick after another, the best set on the way."""
    p, picked, found = predictions[np.arange(len(y)), :, y].astype("float64"), [], []
    for _ in range(size):
        losses = [-np.log(p[:, [*picked, j]].mean(axis=1)).mean() for j in range(p.shape[1])]
        picked.append(int(np.argmin(losses)))
        found.append(min(losses))
    picked = picked[: int(np.argmin(found)) + 1]
    return np.bincount(picked, minlength=p.shape[1]) / len(picked)


def test_one_bag_is_greedy_selection_with_replacement():
    predictions, y = members_of([2.0, 1.5, 0.5, 1.9])
    expected = greedy_by_hand(predictions, y, 7)
    np.testing.assert_allclose(select_members(predictions, y, size=7, bags=1), expected)
    assert (expected > 0).sum() >= 2


def test_bags_give_weights_that_beat_the_best_member_and_depend_on_the_seed_alone():
    predictions, y = members_of([2.0, 1.5, 0.2, 1.9] + [0.1] * 20)
    weights = select_members(predictions, y, seed=3)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    best = min(loss(np.eye(24)[i], predictions, y) for i in range(24))
    assert loss(weights, predictions, y) < best - 0.01
    assert weights[[0, 1, 3]].sum() > 0.9
    np.testing.assert_array_equal(weights, select_members(predictions, y, seed=3))
    assert not np.array_equal(weights, select_members(predictions, y, seed=4))


def test_a_sorted_start_begins_with_the_best():
    predictions, y = members_of([2.0, 1.5, 0.5, 1.9])
    weights = select_members(predictions, y, size=2, initial=2, bags=1)
    np.testing.assert_allclose(weights, [0.5, 0, 0, 0.5])


def test_any_score_of_scikit_learn_will_do():
    predictions, y = members_of([1.0, 0.8, 0.5])
    weights = select_members(predictions, y, size=1, bags=1, metric="f1_macro")
    scores = [f1_score(y, predictions[:, i].argmax(axis=1), average="macro") for i in range(3)]
    assert weights.argmax() == np.argmax(scores)
    by_accuracy = select_members(predictions, y, bags=3, metric="accuracy")
    accuracy = np.mean(np.tensordot(predictions, by_accuracy, axes=(1, 0)).argmax(axis=1) == y)
    assert accuracy >= max(np.mean(predictions[:, i].argmax(axis=1) == y) for i in range(3))


def test_rows_count_by_their_weight():
    predictions, y = members_of([2.0, 0.0])
    predictions[y == 2] = predictions[y == 2][:, ::-1]
    arguments = {"size": 1, "bags": 1}
    assert select_members(predictions, y, **arguments).tolist() == [1, 0]
    assert select_members(predictions, y, sample_weight=np.where(y == 2, 10.0, 1.0), **arguments).tolist() == [0, 1]


def test_a_budget_is_kept_by_all_bags_together():
    predictions, y = members_of([2.0, 1.9, 1.8, 1.0])
    costs = np.array([5.0, 3.0, 2.0, 1.0])
    weights = select_members(predictions, y, costs=costs, max_cost=5.0)
    assert costs[weights > 0].sum() <= 5
    assert weights.sum() == pytest.approx(1)
    only = select_members(predictions, y, costs=costs, max_cost=1.0)
    assert only.tolist() == [0, 0, 0, 1]
    assert (select_members(predictions, y, costs=costs, max_cost=11.0) > 0).sum() >= 3


def test_convex_weights_are_the_minimum_on_the_simplex():
    predictions, y = members_of([2.0, 1.5, -1.0, 1.9])
    weights = convex_weights(predictions, y)
    assert weights.sum() == pytest.approx(1)
    assert weights[2] == 0
    # The conditions of Karush, Kuhn and Tucker: no member's gradient is better, and those used are equally good.
    p = predictions[np.arange(len(y)), :, y].astype("float64")
    slopes = (p / (p @ weights)[:, None]).mean(axis=0)
    np.testing.assert_allclose(slopes[weights > 0], 1, atol=1e-5)
    assert (slopes <= 1 + 1e-5).all()
    sampled = convex_weights(predictions, y, sample_weight=np.where(y == 0, 3.0, 1.0))
    p, share = np.vstack([p, p[y == 0], p[y == 0]]), None
    slopes = (p / (p @ sampled)[:, share]).mean(axis=0)
    np.testing.assert_allclose(slopes[sampled > 0], 1, atol=1e-5)


def test_leaked_predictions_would_mislead_and_out_of_fold_ones_do_not():
    predictions, y = members_of([2.0, 1.9, 0.0])
    leaked = predictions.copy()
    # The third member has memorised its training images, and knows nothing of others.
    leaked[:, 2] = 0.98 * np.eye(3)[y] + 0.02 / 3
    for select in (select_members, convex_weights):
        assert select(leaked, y)[2] > 0.9
        assert select(predictions, y)[2] < 0.05
    fresh, labels = members_of([2.0, 1.9, 0.0], seed=1)
    assert loss(select_members(predictions, y), fresh, labels) < loss(select_members(leaked, y), fresh, labels) - 0.2


@pytest.mark.parametrize("count", [4, 12])
def test_the_front_rises_with_cost(count):
    predictions, y = members_of(np.linspace(0.5, 2.0, count))
    costs = np.linspace(1, 4, count)
    table = pareto_front(predictions, y, costs, names=[f"m{i}" for i in range(count)])
    front = table[table["on_front"]]
    assert front["cost"].is_monotonic_increasing
    assert front["accuracy"].is_monotonic_increasing
    assert front["accuracy"].max() == table["accuracy"].max()
    for row in table.itertuples():
        cheaper = table[table["cost"] < row.cost]
        if row.on_front:
            assert (cheaper["accuracy"] < row.accuracy).all()
        assert row.cost == pytest.approx(sum(costs[int(name[1:])] for name in row.members))
    if count == 4:
        assert len(table) == 15
        pair = table[[set(m) == {"m1", "m3"} for m in table["members"]]].iloc[0]
        mean = predictions[:, [1, 3]].mean(axis=1)
        assert pair["accuracy"] == pytest.approx(np.mean(mean.argmax(axis=1) == y))
        assert pair["log_loss"] == pytest.approx(loss(np.array([0.5, 0.5]), predictions[:, [1, 3]], y), rel=1e-5)
    assert isinstance(table, pd.DataFrame)


def with_nan(predictions):
    predictions[7, 1, 0] = np.nan
    return predictions


def with_a_wrong_sum(predictions):
    predictions[5, 2] = [0.5, 0.1, 0.1]
    return predictions


def with_classes_shuffled(predictions):
    predictions[:, 1] = predictions[:, 1][:, [1, 2, 0]]
    return predictions


@pytest.mark.parametrize("select", [select_members, convex_weights])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_nan, "NaN from member 1 in 1 row: 7"),
        (with_a_wrong_sum, r"rows that do not sum to 1 from member 2 in 1 row: 5 \(the first sums to 0.7\)"),
        (
            with_classes_shuffled,
            "member 1 columns that look shuffled: where `y` is 0, as in row 0, it gives class 2",
        ),
    ],
)
def test_wrong_tables_are_refused_by_member_and_row(select, spoil, message):
    predictions, y = members_of([3.0, 3.0, 3.0])
    with pytest.raises(ValueError, match=message):
        select(spoil(predictions), y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "`size` and `bags` must be at least 1"),
        ({"initial": 11}, "`initial` from 1 to `size`"),
        ({"max_cost": 3}, "`max_cost` needs `costs`"),
        ({"costs": [1, 2]}, "`costs` must be 3 numbers of at least 0"),
        ({"costs": [2, 3, 4], "max_cost": 1}, "`max_cost` must let one member in: the cheapest costs 2"),
        ({"sample_weight": [1, 2]}, "`sample_weight` must be 400 finite numbers"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    predictions, y = members_of([1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=message):
        select_members(predictions, y, **arguments)


def test_fewer_rows_than_classes_are_refused():
    predictions, y = members_of([1.0, 1.0], n=2)
    with pytest.raises(ValueError, match="must hold images of all 3 classes. Received: 2 rows"):
        select_members(predictions, y)


@pytest.mark.parametrize(("how", "find"), [("log_loss", convex_weights), ("greedy", select_members)])
def test_a_vote_finds_its_weights(how, find):
    predictions, y = members_of([2.0, 1.5, 0.0])
    fitted = ek.fit_combiner(ek.SoftVoting(weights=how), predictions, y)
    np.testing.assert_allclose(fitted.member_weights, find(predictions, y), atol=1e-6)
    best = ek.fit_combiner(ek.SoftVoting(weights="best"), predictions, y)
    assert best.member_weights == [1, 0, 0]
    with pytest.raises(ValueError, match="The weights of this SoftVoting are to be found"):
        ek.SoftVoting(weights=how)(list(predictions.swapaxes(0, 1)))
    with pytest.raises(ValueError, match="`weights` must be one of 'best', 'log_loss', 'greedy'"):
        ek.SoftVoting(weights="gready")
    with pytest.raises(ValueError, match="`weights` must be one number per member"):
        ek.GeometricVoting(weights="greedy")

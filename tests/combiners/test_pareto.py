import itertools

import numpy as np
import pytest
from synthetic import log_loss_of, member_predictions

from ensemble_keras.combiners.pareto import pareto_front


def dominated(row, table):
    return ((table["cost"] <= row.cost) & (table["accuracy"] > row.accuracy)).any() or (
        (table["cost"] < row.cost) & (table["accuracy"] >= row.accuracy)
    ).any()


@pytest.mark.parametrize("count", [4, 12])
def test_a_set_is_on_the_front_if_none_is_cheaper_and_as_accurate(count):
    predictions, y = member_predictions(np.linspace(0.5, 2.0, count))
    costs = np.linspace(1, 4, count)
    table = pareto_front(predictions, y, costs, names=[f"m{i}" for i in range(count)])
    assert table["cost"].is_monotonic_increasing
    assert table["on_front"].sum() >= 3
    for row in table.itertuples():
        assert row.on_front != dominated(row, table)
        used = [int(name[1:]) for name in row.members]
        weights = np.zeros(count)
        weights[used] = row.weights
        assert weights.sum() == pytest.approx(1)
        assert row.cost == pytest.approx(costs[used].sum())
        vote = np.average(predictions, axis=1, weights=weights)
        assert row.accuracy == pytest.approx(np.mean(vote.argmax(axis=1) == y))
        assert row.log_loss == pytest.approx(log_loss_of(weights, predictions, y), rel=1e-5)


def test_of_few_members_every_set_is_tried():
    predictions, y = member_predictions([0.5, 1.0, 2.0])
    table = pareto_front(predictions, y, [1, 2, 4])
    sets = [tuple(c) for k in (1, 2, 3) for c in itertools.combinations(range(3), k)]
    assert sorted(table["members"]) == sorted(sets)
    assert table["cost"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_of_many_members_each_alone_and_rising_budgets_are_tried():
    predictions, y = member_predictions(np.linspace(0.2, 1.5, 20), n=600)
    costs = np.linspace(1, 5, 20)
    table = pareto_front(predictions, y, costs)
    assert {members for members in table["members"] if len(members) == 1} == {(i,) for i in range(20)}
    sizes = table.loc[table["on_front"], "members"].map(len)
    assert sizes.iloc[0] == 1
    assert sizes.iloc[-1] >= 4
    # Its last set is about what the selection without a budget finds.
    best = max(table["accuracy"])
    assert best > max(np.mean(predictions[:, i].argmax(axis=1) == y) for i in range(20)) + 0.05
    by_accuracy = pareto_front(predictions, y, costs, metric="accuracy", size=5)
    assert by_accuracy["members"].map(len).max() <= 5
    # A metric that likes votes to be unsure.
    unsure = pareto_front(predictions, y, costs, metric=lambda y, p: -p.max(axis=1).mean(), size=5)
    assert unsure["accuracy"].max() < by_accuracy["accuracy"].max()


def test_equal_sets_are_not_both_on_the_front():
    predictions, y = member_predictions([1.0])
    table = pareto_front(np.concatenate([predictions, predictions], axis=1), y, [2, 2], names=["a", "b"])
    assert table["on_front"].tolist() == [True, False, False]


def test_a_member_that_costs_nothing_may_be_asked():
    predictions, y = member_predictions(np.linspace(0.5, 2, 10))
    table = pareto_front(predictions, y, [0.0, *range(1, 10)])
    assert table["cost"].iloc[0] == 0


def test_wrong_arguments_are_refused():
    predictions, y = member_predictions([1.0, 2.0])
    with pytest.raises(ValueError, match="`names` must be one per member. Received: 3 names for 2 members"):
        pareto_front(predictions, y, [1, 2], names=list("abc"))
    with pytest.raises(ValueError, match="`costs` must be 2 numbers of at least 0"):
        pareto_front(predictions, y, [1, -2])
    many, y = member_predictions(np.ones(9))
    with pytest.raises(ValueError, match="`costs` must not all be 0"):
        pareto_front(many, y, np.zeros(9))

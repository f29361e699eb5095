import keras
import numpy as np
import pytest
from synthetic import member_predictions
from tiny_members import tiny_member

import ensemble_keras as ek
from ensemble_keras.combiners import budget
from ensemble_keras.combiners.budget import Budget, Selection, check_limits, measure, with_own_cost
from ensemble_keras.combiners.choice import named_combiners, own_cost, restricted, try_combiner
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.fitting import combine

LIMITS = {"max_macs": 10.0, "max_latency_ms": 2.0}
COSTS = {"a": [4.0, 1.5], "b": [6.0, 0.5], "c": [1.0, 1.0], "d": [11.0, 0.1]}


def test_members_fit_where_they_are_within_every_limit_together():
    found = Budget(LIMITS, COSTS)
    assert found.fits(["a", "b"])
    assert not found.fits(["a", "c"])  # 2.5 ms
    assert not found.fits(["d"])
    assert found.text(["a", "b"]) == "10 multiply-accumulates, 2.0 ms"
    assert found.column("max_latency_ms") == {"a": 1.5, "b": 0.5, "c": 1.0, "d": 0.1}
    assert found.column("max_parameters") is None
    assert found.sentence(found.text(["a", "b"])) == (
        "It costs 10 multiply-accumulates, 2.0 ms of at most 10 multiply-accumulates and 2 ms. Too costly: d."
    )
    assert found.check() is None


def test_where_none_fits_the_cheapest_is_named():
    message = r"Not one member is within `max_macs` of 0.5. The cheapest is 'c' with 1 multiply-accumulates."
    with pytest.raises(ValueError, match=message):
        Budget({"max_macs": 0.5}, {name: cost[:1] for name, cost in COSTS.items()}).check()
    with pytest.raises(ValueError, match="`max_macs` of 3 and `max_latency_ms` of 0.6. The cheapest is 'c'"):
        Budget({"max_macs": 3, "max_latency_ms": 0.6}, COSTS).check()


def test_costs_are_those_of_the_models_times_copies_and_views():
    members = {"a": tiny_member("a"), "b": tiny_member("b", width=7)}
    limits = {"max_parameters": 1, "max_macs": 1}
    found = measure(members, limits, copies={"b": 3}, views=2)
    macs = {name: ek.count_macs(member).total for name, member in members.items()}
    sizes = {name: member.count_params() for name, member in members.items()}
    assert found.costs == {"a": [sizes["a"], 2 * macs["a"]], "b": [3 * sizes["b"], 6 * macs["b"]]}
    assert list(found.limits) == ["max_parameters", "max_macs"]


@pytest.mark.parametrize("name", ["soft_voting", "hard_voting", "stacking", "concatenate", "gated"])
def test_what_a_combiner_costs_itself_is_what_the_joined_model_costs_more(name):
    members = [tiny_member("a"), tiny_member("b", width=7)]
    [layer] = named_combiners(name, 2).values()
    if name == "gated":
        layer = ek.ArchitectureGate([ek.describe_architecture(member) for member in members])
    macs, parameters, unknown = own_cost(layer, {"a": 4, "b": 7}, 2)
    joined = build_ensemble(members, layer)
    # Heads that a combiner of features leaves out are not deducted: 2 (4 + 7) kernels and 4 biases.
    heads = (22, 26) if name == "concatenate" else (0, 0)
    assert macs - heads[0] == ek.count_macs(joined).total - sum(ek.count_macs(m).total for m in members)
    assert parameters - heads[1] == joined.count_params() - sum(m.count_params() for m in members)
    assert unknown == []
    assert (macs == parameters == 0) == name.endswith("voting")


def test_what_a_combiner_costs_itself_is_taken_from_the_budget():
    limits = {"max_latency_ms": 5.0, "max_macs": 10, "max_parameters": 9}
    plain = Budget(limits, {"a": [1, 4, 4], "b": [1, 5, 4]})
    found = with_own_cost(plain, "stacking", (1, 2, []), views=2)
    assert plain.fits(["a", "b"])
    assert found.fits(["a"])
    assert not found.fits(["a", "b"])
    assert found.text(["a"]) == "1.0 ms, 6 multiply-accumulates, 6 parameters"
    assert not with_own_cost(plain, "stacking", (4, 2, []), views=2).fits_any()
    with pytest.raises(ValueError, match="'mine', with layers of which they are not: strange"):
        with_own_cost(plain, "mine", (0, 0, ["strange"]))
    with_own_cost(Budget({"max_parameters": 3}, {"a": [3]}), "mine", (0, 0, ["strange"]))


def test_time_is_measured_only_where_it_is_limited(monkeypatch):
    measured = []
    monkeypatch.setattr(budget, "measure_latencies", lambda models: measured.append(models) or [1.5])
    member = {"a": tiny_member("a")}
    assert measure(member, {"max_latency_ms": 2}, views=2).costs == {"a": [3.0]}
    assert measure(member, {"max_parameters": 2}).costs == {"a": [member["a"].count_params()]}
    assert measured == [list(member.values())]


def test_layers_of_unknown_cost_are_not_taken_for_free():
    class Strange(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 2))

        def call(self, x):
            return keras.ops.matmul(keras.ops.mean(x, axis=(1, 2)), self.kernel)

    images = keras.Input((8, 8, 3))
    model = keras.Model(images, Strange(name="strange")(images))
    with pytest.raises(ValueError, match="'m', with layers of which they are not: .*strange.* Take `max_parameters`"):
        measure({"m": model}, {"max_macs": 5})


@pytest.mark.parametrize("limit", [0, -1, np.nan, np.inf, "5", True])
def test_limits_are_numbers_above_0(limit):
    with pytest.raises(ValueError, match="`max_macs` must be a number above 0, or None. Received: "):
        check_limits(max_macs=limit, max_parameters=None)


def test_limits_that_are_not_given_are_none():
    assert check_limits(max_macs=None, max_parameters=np.int64(3), max_latency_ms=0.5) == {
        "max_parameters": 3,
        "max_latency_ms": 0.5,
    }


def test_what_is_judged_on_a_fold_is_selected_on_the_others():
    predictions, y = member_predictions([1.0, 1.0, 1.0], n=300)
    folds = np.arange(300) // 100
    # Each member is perfect on one fold alone: whoever looked at it would select that member for it.
    for fold in range(3):
        predictions[folds == fold, fold] = np.eye(3)[y[folds == fold]] * 0.97 + 0.01
    each = Budget({"max_macs": 1}, {name: [1.0] for name in "abc"})
    selection = Selection(each, list("abc"), predictions, y, folds)
    for fold in range(3):
        rest = folds != fold
        expected = ek.select_members(predictions[rest], y[rest], costs=[1, 1, 1], max_cost=1)
        assert selection.of([0, 1, 2], without=fold) == np.flatnonzero(expected).tolist() != [fold]
    assert selection.of([1]) == [1]
    assert len(selection.of([0, 2])) == 1
    assert selection.fits([2])
    assert not selection.fits([0, 2])


def test_weights_of_classes_count_in_the_selection():
    y = np.repeat([0, 1], [90, 30])
    knows = [np.where(y == k, 0.9, 0.4) for k in (0, 1)]  # of the true class; each knows one class
    predictions = np.stack([np.where(np.eye(2)[y] > 0, p[:, None], 1 - p[:, None]) for p in knows], axis=1)
    found = Budget({"max_macs": 1}, {name: [1.0] for name in "ab"})
    folds = np.arange(120) % 2
    assert Selection(found, ["a", "b"], predictions, y, folds).of([0, 1]) == [0]
    assert Selection(found, ["a", "b"], predictions, y, folds, class_weight=[1.0, 9.0]).of([0, 1]) == [1]


def budgeted(predictions, y, folds, max_macs, costs=(3.0, 2.0, 2.0, 1.0)):
    names = list("abcd")
    costs = {name: [cost] for name, cost in zip(names, costs, strict=True)}
    return Selection(Budget({"max_macs": max_macs}, costs), names, predictions, y, folds)


@pytest.mark.parametrize(
    "name", ["soft_voting", "greedy", "weighted_voting", "stacking", "concatenate", "hard_voting"]
)
def test_within_a_budget_every_row_is_combined_by_members_selected_without_its_fold(name):
    predictions, y = member_predictions([1.5, 1.8, 1.9, 1.0], n=240)
    folds = np.arange(240) // 6 % 3
    # The first fold the first member knows: whoever looked at it would select that member.
    predictions[folds == 0, 0] = np.eye(3)[y[folds == 0]] * 0.97 + 0.01
    features = [predictions[:, i] for i in range(4)]
    [layer] = named_combiners(name, 3).values()
    selection = budgeted(predictions, y, folds, 4.0)
    assert 0 in selection.of([0, 1, 2, 3])
    assert 0 not in selection.of([0, 1, 2, 3], without=0)
    found = try_combiner(name, layer, predictions, y, folds, features=features, selection=selection)
    cost = np.array([3.0, 2.0, 2.0, 1.0])
    assert cost[found.joined].sum() <= 4
    assert set(found.used) <= set(found.joined) == set(selection.of([0, 1, 2, 3]))
    for fold in range(3):
        held, rest = folds == fold, folds != fold
        members = np.flatnonzero(ek.select_members(predictions[rest], y[rest], costs=cost, max_cost=4.0))
        parts = [features[i] for i in members]
        fitted = ek.fit_combiner(
            layer, predictions[rest][:, members], y[rest], features=[f[rest] for f in parts], folds=folds[rest]
        )
        expected = combine(fitted, predictions[held][:, members], [f[held] for f in parts])
        np.testing.assert_allclose(found.out_of_fold[held], expected, atol=1e-5)
    # It takes the joined members alone.
    combine(found.fitted, predictions[:, found.joined], [features[i] for i in found.joined])


def test_the_best_member_is_looked_for_among_all_that_fit_alone():
    predictions, y = member_predictions([1.6, 1.5, 1.5, 1.5], n=900)
    predictions[:20, 0] = np.eye(3, dtype="float32")[y[:20]]
    folds = np.arange(900) // 6 % 3
    [layer] = named_combiners("best_member", 3).values()
    free = try_combiner("best_member", layer, predictions, y, folds)
    selection = budgeted(predictions, y, folds, 4.0, costs=(4.0, 2.0, 2.0, 2.0))
    within = try_combiner("best_member", layer, predictions, y, folds, selection=selection)
    # Two others are better together than the best one alone.
    assert len(selection.of([0, 1, 2, 3])) == 2
    assert within.used == free.used == [0]
    np.testing.assert_array_equal(within.out_of_fold, free.out_of_fold)


def test_a_budget_for_all_changes_nothing():
    predictions, y = member_predictions([2.0, 1.9, 1.9, 1.0], n=240)
    folds = np.arange(240) // 6 % 3
    selection = budgeted(predictions, y, folds, 8.0)
    found = try_combiner("vote", ek.SoftVoting(), predictions, y, folds, selection=selection)
    assert found.joined == found.used == [0, 1, 2, 3]
    np.testing.assert_allclose(found.out_of_fold, predictions.mean(axis=1), atol=1e-6)


def test_members_of_weight_0_cost_nothing_and_the_others_keep_their_weights():
    predictions, y = member_predictions([2.0, 1.9, 1.9, 1.0], n=240)
    folds = np.arange(240) // 6 % 3
    vote = ek.SoftVoting(weights=[0, 2, 1, 0])
    found = try_combiner("vote", vote, predictions, y, folds, selection=budgeted(predictions, y, folds, 4.0))
    assert found.used == [1, 2]
    tight = try_combiner("vote", vote, predictions, y, folds, selection=budgeted(predictions, y, folds, 3.0))
    assert tight.joined in ([1], [2])
    p = predictions[:, tight.joined[0]]
    assert np.mean(np.abs(tight.out_of_fold - p).max(axis=1) < 1e-6) >= 1 / 3


def test_features_of_each_folds_own_network_are_those_of_the_selected_members():
    predictions, y = member_predictions([2.0, 1.9, 1.9, 1.0], n=240)
    folds = np.arange(240) // 6 % 3
    by_fold = [np.stack([predictions[:, i] * (fold + 1) for fold in range(3)]) for i in range(4)]
    flat = [predictions[:, i] for i in range(4)]
    layer, selection = ek.ConcatenateDense(3), budgeted(predictions, y, folds, 4.0)
    one = try_combiner("c", layer, predictions, y, folds, features=by_fold, selection=selection)
    other = try_combiner("c", layer, predictions, y, folds, features=flat, selection=selection)
    assert one.fitted is None
    assert one.joined == one.used == other.joined
    # Features at another scale, standardised: the same head.
    np.testing.assert_allclose(one.out_of_fold, other.out_of_fold, atol=1e-3)


def test_a_combiner_for_some_members_has_their_weights_and_descriptors():
    assert restricted(ek.SoftVoting(weights=[1, 2, 3]), [0, 2]).member_weights == [1, 3]
    assert restricted(ek.SoftVoting(weights="greedy"), [0, 2]).member_weights == "greedy"
    gate = ek.ArchitectureGate([{"depth": 1.0}, {"depth": 2.0}, {"depth": 3.0}])
    assert restricted(gate, [2, 0]).descriptors == [{"depth": 3.0}, {"depth": 1.0}]
    dense = ek.StackedMetaLearner(2)
    assert restricted(dense, [1]) is dense
    assert isinstance(restricted(gate, [1])([np.array([[0.2, 0.8]])]), type(keras.ops.ones(1)))

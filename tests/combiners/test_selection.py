import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    make_scorer,
    roc_auc_score,
)
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier
from synthetic import log_loss_of, member_predictions, pictures

import ensemble_keras as ek
from ensemble_keras.combiners.mixtures import convex_weights
from ensemble_keras.combiners.selection import select_members
from ensemble_keras.data.splits import make_folds


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
    predictions, y = member_predictions([2.0, 1.5, 0.5, 1.9])
    expected = greedy_by_hand(predictions, y, 7)
    np.testing.assert_allclose(select_members(predictions, y, size=7, bags=1), expected)
    assert (expected > 0).sum() >= 2


def test_bags_give_weights_that_beat_the_best_member_and_depend_on_the_seed_alone():
    predictions, y = member_predictions([2.0, 1.5, 0.2, 1.9] + [0.1] * 20)
    weights = select_members(predictions, y, seed=3)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    best = min(log_loss_of(np.eye(24)[i], predictions, y) for i in range(24))
    assert log_loss_of(weights, predictions, y) < best - 0.01
    assert weights[[0, 1, 3]].sum() > 0.9
    np.testing.assert_array_equal(weights, select_members(predictions, y, seed=3))
    assert not np.array_equal(weights, select_members(predictions, y, seed=4))


def test_a_sorted_start_begins_with_the_best():
    predictions, y = member_predictions([1.6, 0.0, 1.5])
    # The second best is almost the best once more: greedily the third one comes next.
    predictions[:, 1] = 0.9 * predictions[:, 0] + 0.1 / 3
    arguments = {"size": 2, "bags": 1}
    np.testing.assert_allclose(select_members(predictions, y, initial=2, **arguments), [0.5, 0.5, 0])
    np.testing.assert_allclose(select_members(predictions, y, initial=1, **arguments), [0.5, 0, 0.5])


def test_members_of_equal_accuracy_are_told_apart_by_log_loss():
    y = np.arange(60) % 2
    sure = np.where((y[:, None] == [0, 1]) ^ (np.arange(60) < 12)[:, None], 0.99, 0.01)
    predictions = np.stack([sure, 0.3 + 0.4 * sure], axis=1)
    assert select_members(predictions, y, size=1, bags=1, metric="accuracy").tolist() == [0, 1]


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize(
    ("metric", "by_hand"),
    [
        ("accuracy", lambda y, p: accuracy_score(y, p.argmax(axis=1))),
        ("balanced_accuracy", lambda y, p: balanced_accuracy_score(y, p.argmax(axis=1))),
        ("neg_log_loss", lambda y, p: -log_loss(y, p)),
        ("f1_macro", lambda y, p: f1_score(y, p.argmax(axis=1), average="macro")),
        (make_scorer(f1_score, average="macro"), lambda y, p: f1_score(y, p.argmax(axis=1), average="macro")),
        ("roc_auc_ovr", lambda y, p: roc_auc_score(y, p if p.shape[1] > 2 else p[:, 1], multi_class="ovr")),
        (
            lambda y, p: -np.mean((1 - p[np.arange(len(y)), y]) ** 2),
            lambda y, p: -np.mean((1 - p[range(len(y)), y]) ** 2),
        ),
    ],
    ids=["accuracy", "balanced_accuracy", "neg_log_loss", "f1_macro", "scorer", "roc_auc_ovr", "function"],
)
def test_any_metric_is_climbed_as_it_is_written_down(metric, by_hand, num_classes):
    predictions, y = member_predictions([1.0, 0.8, 0.5, 0.9], num_classes=num_classes)
    predictions, y = predictions[30:], y[30:]
    picked, found = [], []
    for _ in range(6):
        votes = [predictions[:, [*picked, j]].mean(axis=1, dtype="float64") for j in range(4)]
        votes = [vote / vote.sum(axis=1, keepdims=True) for vote in votes]
        values = [(by_hand(y, vote), -log_loss(y, vote)) for vote in votes]
        picked.append(max(range(4), key=lambda j: (round(values[j][0], 9), values[j][1])))
        found.append(values[picked[-1]][0])
    picked = picked[: int(np.argmax(np.round(found, 9))) + 1]
    expected = np.bincount(picked, minlength=4) / len(picked)
    np.testing.assert_allclose(select_members(predictions, y, size=6, bags=1, metric=metric), expected)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "balanced_accuracy", "f1_macro"])
def test_a_row_of_weight_two_counts_as_two_rows(metric, rng):
    predictions, y = member_predictions([1.0, 0.8, 0.5], n=100)
    times = rng.integers(0, 3, 100)
    times[:3] = 1
    rows = np.repeat(np.arange(100), times)
    arguments = {"bags": 1, "metric": metric}
    by_weight = select_members(predictions, y, sample_weight=times, **arguments)
    np.testing.assert_allclose(by_weight, select_members(predictions[rows], y[rows], **arguments))


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "balanced_accuracy"])
def test_rows_without_weight_count_for_nothing(metric):
    predictions, y = member_predictions([2.0, 1.0, 0.0])
    # The best member knows nothing of the images that count: a class is left out, and all rows but three.
    predictions[y > 0] = predictions[y > 0][:, ::-1]
    for weighed in (y > 0, np.arange(len(y)) == 1, np.isin(np.arange(len(y)), [1, 4, 5])):
        weights = select_members(predictions, y, metric=metric, sample_weight=weighed.astype(float))
        rows = np.flatnonzero(weighed)
        of_true = predictions[rows, :, y[rows]]
        assert np.isfinite(weights).all()
        assert np.log(of_true @ weights).mean() >= np.log(of_true).mean(axis=0)[0]


def test_rows_count_by_their_weight():
    predictions, y = member_predictions([2.0, 0.0])
    predictions[y == 2] = predictions[y == 2][:, ::-1]
    arguments = {"size": 1, "bags": 1}
    assert select_members(predictions, y, **arguments).tolist() == [1, 0]
    assert select_members(predictions, y, sample_weight=np.where(y == 2, 10.0, 1.0), **arguments).tolist() == [0, 1]


def test_a_budget_is_kept_by_all_bags_together():
    predictions, y = member_predictions([2.0, 1.9, 1.8, 1.0])
    costs = np.array([5.0, 3.0, 2.0, 1.0])
    weights = select_members(predictions, y, costs=costs, max_cost=5.0)
    assert costs[weights > 0].sum() <= 5
    assert weights.sum() == pytest.approx(1)
    only = select_members(predictions, y, costs=costs, max_cost=1.0)
    assert only.tolist() == [0, 0, 0, 1]
    assert (select_members(predictions, y, costs=costs, max_cost=11.0) > 0).sum() >= 3


def test_a_budget_is_not_spent_on_one_member_where_two_are_better():
    predictions, y = member_predictions([1.6, 1.5, 1.5, 1.5], n=900)
    costs = np.array([4.0, 2.0, 2.0, 2.0])
    weights = select_members(predictions, y, costs=costs, max_cost=4.0)
    assert weights[0] == 0
    assert (weights > 0).sum() == 2
    pairs = [np.eye(4)[i] / 2 + np.eye(4)[j] / 2 for i in (1, 2) for j in range(i + 1, 4)]
    best = min(log_loss_of(w, predictions, y) for w in [*np.eye(4), *pairs])
    assert log_loss_of(weights, predictions, y) <= best + 1e-6


def test_a_budget_may_have_several_limits():
    predictions, y = member_predictions([2.0, 1.9, 1.8])
    costs = np.array([[9.0, 1.0], [1.0, 9.0], [1.0, 1.0]])
    arguments = {"costs": costs, "bags": 1}
    # The first two do not come near both limits; by the larger share of a limit they would count 1.8.
    assert (select_members(predictions, y, max_cost=[10, 10], **arguments) > 0).tolist()[:2] == [True, True]
    assert (select_members(predictions, y, max_cost=[10, 2], **arguments) > 0).tolist() == [True, False, True]
    assert (select_members(predictions, y, max_cost=[2, 2], **arguments) > 0).tolist() == [False, False, True]
    one = select_members(predictions, y, costs=costs[:, :1], max_cost=[2.0])
    np.testing.assert_array_equal(one, select_members(predictions, y, costs=costs[:, 0], max_cost=2.0))


def test_a_budget_for_all_is_none():
    predictions, y = member_predictions([2.0, 1.5, 1.9])
    free = select_members(predictions, y)
    np.testing.assert_array_equal(select_members(predictions, y, costs=[0.1, 0.1, 0.1], max_cost=0.3), free)


def test_sums_of_costs_are_not_refused_for_their_rounding():
    predictions, y = member_predictions([2.0, 1.9, 1.9, 0.1])
    weights = select_members(predictions, y, costs=[0.1, 0.1, 0.1, 5.0], max_cost=0.3)
    assert (weights > 0).tolist() == [True, True, True, False]


def test_bags_of_many_members_hold_half_of_them():
    predictions, y = member_predictions([3.0] + [0.0] * 39)
    weights = select_members(predictions, y, bags=200, size=1)
    # The good member has all the weight of the bags that it is in.
    assert weights[0] == pytest.approx(0.5, abs=0.1)
    few, labels = member_predictions([3.0, 0.0, 0.0])
    assert select_members(few, labels, size=1).tolist() == [1, 0, 0]


@pytest.mark.parametrize("select", [select_members, convex_weights])
def test_leaked_predictions_would_mislead_and_out_of_fold_ones_do_not(select):
    """Trees that know their training images by heart, and linear classifiers that learn from them."""
    x, labels = pictures(900, size=8)
    x = x.reshape(900, -1) / 255
    train, test = np.arange(450), np.arange(450, 900)
    # A fifth of the labels are wrong: there is something to know by heart that is no use.
    y = np.where(np.random.default_rng(0).random(900) < 0.2, (labels + 1) % 3, labels)
    members = [
        DecisionTreeClassifier(random_state=0),
        LogisticRegression(C=0.01),
        DecisionTreeClassifier(random_state=1),
    ]
    fitted = [member.fit(x[train], y[train]) for member in members]
    leaked = np.stack([member.predict_proba(x[train]) for member in fitted], axis=1)
    folds = make_folds(y[train], cv=5, seed=0)
    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(5)]
    held_out = np.stack(
        [cross_val_predict(m, x[train], y[train], cv=splits, method="predict_proba") for m in members], axis=1
    )
    tests = np.stack([member.predict_proba(x[test]) for member in fitted], axis=1)

    misled, ours = select(leaked, y[train]), select(held_out, y[train])
    assert misled[[0, 2]].sum() > 0.99
    assert ours[1] > 0.7
    accuracy = [np.mean(np.tensordot(tests, w, axes=(1, 0)).argmax(axis=1) == y[test]) for w in (misled, ours)]
    assert accuracy[1] > accuracy[0] + 0.05


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
    predictions, y = member_predictions([3.0, 3.0, 3.0])
    with pytest.raises(ValueError, match=message):
        select(spoil(predictions), y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "`size` and `bags` must be at least 1"),
        ({"seed": -1}, "`seed` must be an int of at least 0. Received: -1"),
        ({"initial": 11}, "`initial` from 1 to `size`"),
        ({"max_cost": 3}, "A budget needs `costs`, .* Received: no `costs`"),
        ({"costs": [1, 2, 3]}, "A budget needs .* Received: no `max_cost`"),
        ({"metric": lambda y, p: np.nan}, "`metric` must give finite numbers. Received: nan"),
        ({"costs": [1, 2], "max_cost": 3}, "`costs` must be 3 numbers of at least 0"),
        ({"costs": [[1, 2]] * 3, "max_cost": 3}, "one number for each column of `costs`. Received: 2 columns, 3"),
        ({"costs": [[5, 2], [4, 4], [9, 9]], "max_cost": [1, 1]}, "one member in: the cheapest costs 4, 4. Received"),
        ({"costs": [2, 3, 4], "max_cost": 1}, "`max_cost` must let one member in: the cheapest costs 2"),
        ({"sample_weight": [1, 2]}, "`sample_weight` must be 400 finite numbers"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    predictions, y = member_predictions([1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=message):
        select_members(predictions, y, **arguments)


def test_fewer_rows_than_classes_are_refused():
    predictions, y = member_predictions([1.0, 1.0], n=2)
    with pytest.raises(ValueError, match="must hold images of all 3 classes. Received: 2 rows"):
        select_members(predictions, y)


@pytest.mark.parametrize(("how", "find"), [("log_loss", convex_weights), ("greedy", select_members)])
def test_a_vote_finds_its_weights(how, find):
    predictions, y = member_predictions([2.0, 1.5, 0.0])
    fitted = ek.fit_combiner(ek.SoftVoting(weights=how), predictions, y)
    np.testing.assert_allclose(fitted.member_weights, find(predictions, y), atol=1e-6)
    # Rows of class 2, which only the third member knows, count ten times.
    predictions[y == 2] = predictions[y == 2][:, ::-1]
    weighed = ek.fit_combiner(ek.SoftVoting(weights=how), predictions, y, class_weight=[1, 1, 10])
    expected = find(predictions, y, sample_weight=np.where(y == 2, 10.0, 1.0))
    np.testing.assert_allclose(weighed.member_weights, expected, atol=1e-6)
    assert np.abs(expected - find(predictions, y)).max() > 0.05
    with pytest.raises(ValueError, match="The weights of this SoftVoting are to be found"):
        ek.SoftVoting(weights=how)(list(predictions.swapaxes(0, 1)))
    with pytest.raises(ValueError, match="`weights` must be one of 'best', 'log_loss', 'greedy'"):
        ek.SoftVoting(weights="gready")
    with pytest.raises(ValueError, match="`weights` must be one number per member"):
        ek.GeometricVoting(weights="greedy")


def test_the_best_member_is_the_most_accurate_of_equals_the_one_of_lower_log_loss():
    predictions, y = member_predictions([1.0, 2.0, 0.5])
    best = ek.SoftVoting(weights="best")
    assert ek.fit_combiner(best, predictions, y).member_weights == [0, 1, 0]
    # As often right as the second, and more cautious where it is wrong.
    predictions[:, 2] = 0.5 * predictions[:, 1] + 0.5 / 3
    right = predictions[:, 1].argmax(axis=1) == y
    predictions[right, 2] = predictions[right, 1]
    assert ek.fit_combiner(best, predictions, y).member_weights == [0, 0, 1]
    # Where class 2 alone counts, the one that knows it.
    predictions[y == 2, 0] = [0, 0, 1]
    assert ek.fit_combiner(best, predictions, y, class_weight=[1e-3, 1e-3, 1]).member_weights == [1, 0, 0]

import json

import numpy as np
import pytest
from synthetic import member_predictions

from ensemble_keras.combiners.cascade_fitting import cascade_curve, fit_cascade
from ensemble_keras.combiners.staging import RulePath, Ways, cross_fitted_stages
from ensemble_keras.combiners.weighting import find_weights
from ensemble_keras.data.splits import make_folds

NAMES = ["large", "small", "middle"]
COSTS = [7.0, 1.0, 2.0]
SKILLS = [3.0, 1.0, 2.0]


@pytest.fixture(scope="module")
def table():
    return member_predictions(SKILLS, 3000, 4)


def test_the_settings_are_plain_json_in_the_order_of_cost(table):
    settings = fit_cascade(*table, COSTS, names=NAMES, weights=[2, 1, 1])
    assert json.loads(json.dumps(settings, allow_nan=False)) == settings
    assert settings["order"] == ["small", "middle", "large"]
    np.testing.assert_allclose(settings["costs"], [0.1, 0.2, 0.7])
    np.testing.assert_allclose(settings["weights"], [0.25, 0.25, 0.5])
    assert len(settings["thresholds"]) == len(settings["temperatures"]) == len(settings["member_temperatures"]) == 2
    assert settings == fit_cascade(*table, COSTS, names=NAMES, weights=[2, 1, 1])


def test_what_it_expects_comes_true_on_new_images(table):
    curve = cascade_curve(*table, COSTS, names=NAMES, losses=[0.005, 0.02])
    p, y = member_predictions(SKILLS, 20000, 4, seed=1)
    vote = p.mean(axis=1)
    for (_, row), settings in zip(
        curve.iterrows(), (fit_cascade(*table, COSTS, names=NAMES, max_loss=m) for m in curve.max_loss), strict=True
    ):
        expected = settings["expected"]
        assert [row[key] for key in ("loss", "low", "high", "cost")] == [
            expected[key] for key in ("loss", "low", "high", "cost")
        ]
        assert row.thresholds == tuple(settings["thresholds"])
        found = _by_hand(p, settings)
        loss = np.mean(vote.argmax(axis=1) == y) - np.mean(found.argmax(axis=1) == y)
        # The interval is that of 3,000 images; the thresholds vary, too.
        assert expected["low"] - 0.003 < loss < expected["high"] + 0.003
        assert expected["cost"] < 0.9
    assert curve.throughput.is_monotonic_increasing


def _by_hand(p, settings):
    """The cascade image by image, from the settings as they stand in the card."""

    def tempered(p, t):
        q = p ** (1 / t)
        return q / q.sum()

    def votes(image, way):
        for step, threshold in enumerate(way["thresholds"]):
            members = [NAMES.index(name) for name in way["order"][: step + 1]]
            said = [tempered(image[i], t) for i, t in zip(members, way["member_temperatures"], strict=False)]
            vote = np.average(said, axis=0, weights=way["weights"][: step + 1])
            vote = tempered(vote, way["temperatures"][step])
            margin = np.sort(vote)[-1] - np.sort(vote)[-2]
            yield vote, margin, threshold is not None and margin >= threshold

    found = []
    for image in p:
        _, first, leaves = next(votes(image, settings))
        goes_down = settings["down"] and not leaves and first < settings["down"]["below"]
        sure = [vote for vote, _, leaves in votes(image, settings["down"] if goes_down else settings) if leaves]
        found.append(sure[0] if sure else image.mean(axis=0))
    return np.array(found)


def test_the_very_unsure_go_straight_to_the_dearest_member_where_that_pays():
    # The middle member is hardly better than the small one: what that leaves open it seldom settles.
    p, y = member_predictions([3.0, 1.0, 1.2], 2000, 4)
    settings = fit_cascade(p, y, COSTS, names=NAMES, max_loss=0.02)
    assert settings["down"]["order"] == ["small", "large", "middle"]
    assert settings["down"]["below"] < settings["thresholds"][0] == settings["down"]["thresholds"][0]
    folds, costs = make_folds(y, cv=5, seed=0), np.array([0.7, 0.1, 0.2])
    up, down = (
        cross_fitted_stages(p[:, order], p.mean(axis=1), y, np.full((len(y), 3), 1 / 3), costs[order], folds)
        for order in ([1, 2, 0], [1, 0, 2])
    )
    cost = {}
    for name, ways in (("up alone", Ways(up, up)), ("both", Ways(up, down))):
        rule = RulePath(ways).within(0.02)
        cost[name] = ways.outcome(rule)[2].mean()
    assert cost["both"] < 0.99 * cost["up alone"]
    assert rule.below == settings["down"]["below"]


def test_two_members_have_one_way():
    p, y = member_predictions([2.0, 1.0], 500, 4)
    assert fit_cascade(p, y, [2, 1], names=["a", "b"], max_loss=0.02)["down"] is None


def test_members_that_always_agree_leave_all_images_to_the_cheapest():
    p, y = member_predictions(SKILLS, 300, 4)
    same = np.repeat(p[:, :1], 3, axis=1)
    settings = fit_cascade(same, y, COSTS, names=NAMES, max_loss=0)
    assert settings["expected"]["loss"] == 0
    assert settings["expected"]["cost"] == pytest.approx(0.1, abs=0.01)


def test_a_combiner_of_its_own_is_what_the_loss_is_measured_against(table):
    p, y = table
    best = p[:, 0]
    settings = fit_cascade(p, y, COSTS, names=NAMES, combined=best, max_loss=0.0)
    with_vote = fit_cascade(p, y, COSTS, names=NAMES, max_loss=0.0)
    assert settings["thresholds"] != with_vote["thresholds"]


@pytest.mark.parametrize("images", [None, 3])
def test_what_it_expects_of_a_fold_was_chosen_on_the_others(images, table):
    p, y = table
    groups = None if images is None else np.arange(len(y)) // images
    folds, costs = make_folds(y, groups=groups, cv=5, seed=0), np.array([0.7, 0.1, 0.2])
    ways = Ways(
        *(
            cross_fitted_stages(p[:, order], p.mean(axis=1), y, np.ones((len(y), 3)), costs[order], folds)
            for order in ([1, 2, 0], [1, 0, 2])
        )
    )
    steps, lost, cost = np.empty((3, len(y)))
    for fold in range(5):
        held = folds == fold
        rule = RulePath(ways.rows(~held)).within(0.01)
        steps[held], lost[held], cost[held] = ways.rows(held).outcome(rule)
    expected = fit_cascade(p, y, COSTS, names=NAMES, groups=groups, max_loss=0.01)["expected"]
    assert expected["loss"] == pytest.approx(lost.mean())
    assert expected["cost"] == pytest.approx(cost.mean())
    assert expected["members"] == pytest.approx(steps.mean() + 1)
    half = 1.96 * lost.std() / np.sqrt(len(y))
    assert [expected["low"], expected["high"]] == pytest.approx([lost.mean() - half, lost.mean() + half], abs=5e-4)


@pytest.mark.parametrize("how", ["log_loss", "greedy"])
def test_weights_that_are_to_be_found_do_not_know_the_rows_that_choose_thresholds(how):
    p, y = member_predictions([1.2, 1.0, 1.1], 400, 4)
    settings = fit_cascade(p, y, COSTS, names=NAMES, weights=how, max_loss=0.02)
    found = find_weights(how, p, y)
    np.testing.assert_allclose(settings["weights"], found[[1, 2, 0]], atol=1e-6)
    # The votes of each fold as they are with the weights of the others, given as what the full ensemble says.
    folds = make_folds(y, cv=5, seed=0)
    combined = np.empty((len(y), 4))
    for fold in range(5):
        held = folds == fold
        weights = find_weights(how, p[~held], y[~held])
        assert np.abs(weights - found).max() > 1e-3
        combined[held] = np.tensordot(p[held], weights, axes=(1, 0))
    again = fit_cascade(p, y, COSTS, names=NAMES, weights=how, combined=combined, max_loss=0.02)
    assert again == settings
    assert fit_cascade(p, y, COSTS, names=NAMES, weights=found, max_loss=0.02)["expected"] != settings["expected"]


def test_members_that_some_folds_give_no_weight_can_be_asked_first():
    p, y = member_predictions([2.0, 0.05], 200, 3)
    # Rows of one fold alone speak for the second member.
    folds = make_folds(y, cv=5, seed=0)
    p[folds == 0] = p[folds == 0][:, ::-1]
    settings = fit_cascade(p, y, [2.0, 1.0], names=["large", "small"], weights="log_loss")
    assert find_weights("log_loss", p[folds > 0], y[folds > 0])[1] == 0
    assert np.isfinite([*settings["temperatures"], settings["expected"]["cost"]]).all()


def test_an_interval_of_groups_is_that_of_groups():
    p, y = member_predictions(SKILLS, 300, 4)
    p, y, groups = np.repeat(p, 4, axis=0), np.repeat(y, 4), np.repeat(np.arange(300), 4)
    alone, grouped = (
        fit_cascade(p, y, COSTS, names=NAMES, max_loss=0.02, groups=g)["expected"] for g in (None, groups)
    )
    assert grouped["high"] - grouped["low"] > 1.3 * (alone["high"] - alone["low"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": [1, 2]}, "`costs` must be 3 numbers"),
        ({"costs": [0, 0, 0]}, "`costs` must not all be 0"),
        ({"names": ["a", "b"]}, "`names` must be 3 different names, one per member"),
        ({"names": ["a", "b", "a"]}, "`names` must be 3 different names"),
        ({"weights": [1, 0, 1]}, "`weights` must be 3 finite numbers above 0"),
        ({"weights": "best"}, "`weights` must be one of 'log_loss', 'greedy'. Received: 'best'"),
        ({"max_loss": -0.1}, "`max_loss` must be a share of at least 0"),
        ({"combined": np.full((60, 2), 0.5)}, r"`combined` must have the shape \(60, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    p, y = member_predictions(SKILLS, 60, 4)
    arguments = {"costs": COSTS, "names": NAMES, **change}
    with pytest.raises(ValueError, match=message):
        fit_cascade(p, y, **arguments)


def test_one_member_is_no_cascade():
    p, y = member_predictions(SKILLS, 60, 4)
    with pytest.raises(ValueError, match="at least two members"):
        fit_cascade(p[:, :1], y, [1.0], names=["a"])

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss
from synthetic import member_predictions

from ensemble_keras.combiners.calibration import apply_temperature
from ensemble_keras.combiners.staging import (
    Calibration,
    Rule,
    RulePath,
    Stages,
    Ways,
    _falling,
    _Search,
    _Way,
    cross_fitted_stages,
)


def cases(n=2000):
    """Members of rising skill."""
    return member_predictions([1.0, 2.0, 3.0], n, 4)


def stages_of(p, y, costs=(0.1, 0.2, 0.7)):
    weights = np.full(p.shape[:2], 1 / p.shape[1])
    folds = np.arange(len(y)) % 5
    return cross_fitted_stages(p, p.mean(axis=1), y, weights, np.asarray(costs), folds)


def test_the_calibrated_vote_is_the_weighted_mean_at_its_temperatures():
    p, _ = cases(20)
    calibration = Calibration(np.array([0.5, 0.3, 0.2]), np.array([2.0, 0.5]), np.array([1.0, 1.5]))
    tempered = [np.asarray(apply_temperature(p[:, i], t)) for i, t in enumerate((2.0, 0.5))]
    mean = np.average(tempered, axis=0, weights=[5, 3])
    np.testing.assert_allclose(calibration.join(p, 0), tempered[0], atol=1e-6)
    np.testing.assert_allclose(calibration.join(p, 1), np.asarray(apply_temperature(mean, 1.5)), atol=1e-6)


def test_fitted_temperatures_lower_the_log_loss_of_every_vote():
    p, y = cases()
    p = p**2 / (p**2).sum(axis=2, keepdims=True)  # too sure
    weights = np.ones(3)
    fitted, plain = Calibration.fitted(p, y, weights), Calibration(weights, np.ones(2), np.ones(2))
    for step in range(2):
        assert log_loss(y, fitted.join(p, step)) < log_loss(y, plain.join(p, step))


def test_temperatures_that_judge_an_image_were_fitted_without_it():
    p, y = cases(200)
    stages = stages_of(p, y)
    # Other labels in the first fold change nothing of how sure its own votes are.
    changed = y.copy()
    first = np.arange(len(y)) % 5 == 0
    changed[first] = (changed[first] + 1) % 4
    other = stages_of(p, changed)
    np.testing.assert_array_equal(other.sure[first], stages.sure[first])
    assert not np.array_equal(other.sure[~first], stages.sure[~first])


def test_the_vote_on_a_fold_has_the_weights_that_were_found_without_it():
    p, y = cases(400)
    folds = np.arange(len(y)) // 4 % 2
    # The second member has no weight in the votes on the first fold.
    weights = np.where(folds[:, None] == 0, [1.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    sure = cross_fitted_stages(p, p.mean(axis=1), y, weights, np.array([0.1, 0.2, 0.7]), folds).sure
    np.testing.assert_allclose(sure[folds == 0, 1], sure[folds == 0, 0], atol=1e-6)
    assert np.abs(sure[folds == 1, 1] - sure[folds == 1, 0]).mean() > 0.05


def test_images_leave_at_the_first_step_that_is_sure():
    sure = np.array([[0.9, 0.9], [0.5, 0.9], [0.5, 0.5], [0.8, 0.1]])
    right = np.array([[1, 1, 1], [0, 0, 1], [0, 0, 1], [1, 0, 0]], bool)
    stages = Stages(sure, right, right[:, :-1] != right[:, -1:], np.array([0.1, 0.2, 0.7]))
    steps = stages.steps([0.8, 0.7])
    assert steps.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(stages.cost(steps), [0.1, 0.3, 1.0, 0.1])
    assert stages.lost(steps).tolist() == [0, 1, 0, -1]


def way_of(sure, losses, costs):
    """A way whose losses are known instead of estimated."""
    right = np.ones((len(sure), sure.shape[1] + 1), bool)
    way = _Way(Stages(sure, right, np.zeros(sure.shape, bool), np.asarray(costs)))
    way.losses = losses
    return way


def ways_of(p, y, costs=(0.1, 0.2, 0.7)):
    """Up in the order of the costs, and from the first member down from the last."""
    return Ways(stages_of(p, y, costs), stages_of(p[:, [0, 2, 1]], y, np.asarray(costs)[[0, 2, 1]]))


@pytest.mark.parametrize("price", [0.5, 3.0, 30.0])
def test_thresholds_of_a_way_are_near_the_best_of_all_pairs(price):
    stages = stages_of(*cases(400))
    way = _Way(stages)

    def value(thresholds):
        return stages.cost(stages.steps(thresholds)).mean() + price * way.expected(thresholds).mean()

    grid = [*np.quantile(stages.sure, np.linspace(0, 1, 80)), np.inf]
    best = min(value(pair) for pair in itertools.product(grid, repeat=2))
    assert value(way.thresholds(price)) <= best + 0.002


@pytest.mark.parametrize("price", [0.5, 3.0, 30.0])
def test_a_rule_of_two_ways_is_near_the_best_of_many(price):
    ways = ways_of(*cases(400))
    search = _Search(ways)

    def value(rule):
        return ways.outcome(rule)[2].mean() + price * search.loss(rule)

    first, later = (np.quantile(ways.up.sure[:, k], np.linspace(0, 1, 12)) for k in (0, 1))
    rules = (
        Rule(np.array([leave, up]), np.array([leave, down]), below)
        for leave, up, down, below in itertools.product(first, later, later, first)
    )
    assert value(search.rule(price)) <= min(map(value, rules)) + 0.002


def test_equally_sure_images_leave_together():
    sure = np.array([[1.0]] * 5 + [[0.5]] * 5)
    losses = np.array([[0.0], [0.0], [0.9], [0.0], [0.0]] + [[0.9]] * 5)
    way = way_of(sure, losses, [0.1, 0.9])
    # Two of the five would pay for themselves at any price; all five do up to 5.
    assert way.thresholds(4.9) == pytest.approx([1.0], abs=2e-6)
    assert way.thresholds(5.1).tolist() == [np.inf]


def test_an_image_that_decided_on_a_threshold_leaves_there_however_its_last_digits_are_rounded():
    sure = np.array([[0.9], [0.9 - 1e-9], [0.8], [0.8 - 1e-9], [0.5]])
    for losing, least in (([1, 2, 3, 4], 0), ([2, 3, 4], 1), ([4], 3), ([], 4)):
        losses = np.isin(np.arange(5), losing)[:, None].astype(float)
        [threshold] = way_of(sure, losses, [0.1, 0.9]).thresholds(10.0)
        # Below the last that leaves, by what rounding may do; above the first that stays.
        assert sure[least, 0] - 2e-6 < threshold < sure[least, 0]
        assert least == 4 or threshold > sure[least + 1, 0]


def test_the_path_keeps_its_promise_on_its_images_and_costs_less_for_more():
    ways = ways_of(*cases())
    path, search = RulePath(ways), _Search(ways)
    costs = []
    for max_loss in (0.0, 0.002, 0.01, 0.05, 1.0):
        rule = path.within(max_loss)
        _, lost, cost = ways.outcome(rule)
        # The promise is of the mean of what is counted and what is expected; a hundredth of a point is nothing.
        assert (lost.mean() + search.loss(rule)) / 2 <= max_loss + 1.001e-4
        costs.append(cost.mean())
    assert costs == sorted(costs, reverse=True)
    assert costs[0] <= 1
    # Leaving after the first member, all of them: that is the cheapest there is.
    assert costs[-1] == pytest.approx(0.1)


def test_gains_are_a_falling_function_that_tells_images_apart():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0, 1, 500)
    gains = rng.choice([-1.0, 0.0, 1.0], 500, p=[0.05, 0.8, 0.15]) * (sure < 0.9)
    found = _falling(sure, gains)
    order = np.argsort(sure)
    assert (np.diff(found[order]) <= 1e-12).all()
    assert found.min() >= 0
    levels = IsotonicRegression(increasing=False, y_min=0).fit_transform(sure, gains)
    assert stats.pearsonr(found, levels)[0] > 0.9
    assert len(np.unique(found)) > 5 * len(np.unique(levels))

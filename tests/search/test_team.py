import numpy as np
import pytest

from ensemble_keras.combiners.selection import select_members
from ensemble_keras.search.team import greedy_team, true_class_probabilities


def chances_of(tables, y):
    return [true_class_probabilities(table, y) for table in tables]


def test_a_weaker_trial_that_errs_elsewhere_is_preferred_to_a_copy_of_the_best():
    y = np.arange(200) % 2
    right = np.where(y[:, None] == [0, 1], 0.9, 0.1)
    best, other = right.copy(), right.copy()
    best[:20], other[60:100] = best[:20, ::-1], other[60:100, ::-1]
    weights = greedy_team(chances_of([best, best.copy(), other], y), size=4)
    assert weights[2] > 0
    assert np.isclose(weights.sum(), 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_team_is_that_of_greedy_selection_in_one_bag(seed):
    rng, y = np.random.default_rng(seed), np.arange(90) % 3
    tables = 0.5 * rng.dirichlet(np.ones(3), (12, 90)) + 0.5 * np.eye(3)[y] * rng.random((12, 1, 1)) + 0.1
    tables = (tables / tables.sum(axis=2, keepdims=True)).astype("float32")
    expected = select_members(tables.transpose(1, 0, 2), y, size=6, bags=1)
    np.testing.assert_allclose(greedy_team(chances_of(tables, y), size=6), expected)


def test_a_team_has_at_most_so_many_members(rng):
    y = np.arange(120) % 3
    tables = rng.dirichlet(np.ones(3), (150, 120)).astype("float32")
    weights = greedy_team(chances_of(tables, y), size=4)
    assert weights.shape == (150,)
    assert 1 <= np.count_nonzero(weights) <= 4
    # Only the best hundred are asked.
    assert not weights[100:].any()


def test_a_trial_that_takes_one_class_for_the_other_ends_no_search():
    y = np.arange(100) % 2
    wrong = np.where(y[:, None] == [0, 1], 0.1, 0.9)
    # `select_members` takes it for a member whose columns are in another order.
    assert greedy_team(chances_of([wrong, np.full((100, 2), 0.5)], y), size=2).tolist() == [0.0, 1.0]


def test_a_class_may_be_missing_and_a_probability_zero():
    y = np.zeros(10, int)
    assert greedy_team(chances_of([np.eye(3)[np.ones(10, int)]], y), size=5).tolist() == [1.0]


def test_the_probability_of_each_rows_own_class():
    table = np.array([[0.2, 0.8], [0.0, 1.0]])
    assert true_class_probabilities(table, [1, 0]).tolist() == pytest.approx([0.8, 1e-7])

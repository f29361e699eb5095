import numpy as np

from ensemble_keras.search.team import greedy_team


def test_a_weaker_trial_that_errs_elsewhere_is_preferred_to_a_copy_of_the_best(rng):
    y = np.arange(200) % 2
    right = np.where(y[:, None] == [0, 1], 0.9, 0.1)
    best, other = right.copy(), right.copy()
    best[:20], other[60:100] = best[:20, ::-1], other[60:100, ::-1]
    weights = greedy_team([best, best.copy(), other], y, size=4)
    assert weights[2] > 0
    assert np.isclose(weights.sum(), 1)


def test_a_team_has_at_most_so_many_members(rng):
    y = np.arange(120) % 3
    tables = rng.dirichlet(np.ones(3), (150, 120)).astype("float32")
    weights = greedy_team(list(tables), y, size=4)
    assert weights.shape == (150,)
    assert 1 <= np.count_nonzero(weights) <= 4
    # Only the best hundred are asked.
    assert not weights[100:].any()


def test_a_single_trial_is_the_team():
    y = np.arange(10) % 2
    assert greedy_team([np.full((10, 2), 0.5, "float32")], y, size=5).tolist() == [1.0]

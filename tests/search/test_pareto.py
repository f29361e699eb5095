import numpy as np
import pytest

from ensemble_keras.search.pareto import best_first, crowding_distances, non_dominated_ranks


def dominates(a, b):
    return all(x >= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def ranks_by_peeling(scores):
    """The fronts by their definition, one after another."""
    left, ranks, rank = set(range(len(scores))), {}, 0
    while left:
        front = {i for i in left if not any(dominates(scores[j], scores[i]) for j in left)}
        ranks |= dict.fromkeys(front, rank)
        left, rank = left - front, rank + 1
    return [ranks[i] for i in range(len(scores))]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_ranks_are_the_fronts_taken_off_one_by_one(objectives, rng):
    scores = rng.integers(0, 6, (40, objectives))
    assert non_dominated_ranks(scores).tolist() == ranks_by_peeling(scores)


def test_equal_rows_are_on_one_front():
    assert non_dominated_ranks([[1, 2], [1, 2], [0, 2]]).tolist() == [0, 0, 1]


def test_crowding_is_the_span_of_the_neighbours_and_the_ends_are_kept():
    # Neighbours of the second: (0.9 - 0.0) / 1 and (10 - 5) / 10.
    scores = [[0.0, 10], [0.2, 7], [0.9, 5], [1.0, 0]]
    np.testing.assert_allclose(crowding_distances(scores), [np.inf, 0.9 + 0.5, 0.8 + 0.7, np.inf])


def test_a_front_without_a_range_is_not_divided_by_0():
    assert crowding_distances([[1.0, 2.0]] * 3).tolist() == [np.inf, 0, np.inf]
    assert crowding_distances([[1.0, 2.0]]).tolist() == [np.inf]


def test_the_best_come_first_by_front_and_then_by_room():
    scores = np.array([[0.0, 10], [0.1, 9.5], [0.2, 7], [0.9, 5], [1.0, 0], [0.1, 1]])
    order = best_first(scores).tolist()
    assert set(order[:2]) == {0, 4}
    assert order[2:] == [3, 2, 1, 5]


def test_one_objective_is_sorted_and_equal_ones_keep_their_order():
    assert best_first([[1.0], [3.0], [2.0], [3.0]]).tolist() == [1, 3, 2, 0]
    assert best_first(np.empty((0, 1))).tolist() == best_first(np.empty((0, 2))).tolist() == []

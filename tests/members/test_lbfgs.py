import numpy as np
import pytest
import scipy.optimize
import scipy.special

from ensemble_keras.members import lbfgs
from ensemble_keras.members.softmax_regression import CrossEntropy, Rows


def problem(columns, n=80, d=6, problems=4):
    """Problems of very different difficulty: penalties from 1e-5 to 1, each with other rows left out."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(n, d)) @ rng.normal(size=(d, d))).astype("float32")
    y = (x[:, 0] + rng.normal(size=n) > 0).astype(int) + (columns > 2) * rng.integers(0, max(columns - 1, 1), n)
    weights = (np.arange(n)[:, None] % problems != np.arange(problems)).astype("float32")
    return x, y, weights / weights.sum(axis=0), np.geomspace(1e-5, 1, problems).astype("float32")


def objective(head, x, y, weights, penalty, columns):
    head = head.reshape(-1, columns)
    logits = x @ head[:-1] + head[-1]
    logits = np.concatenate([np.zeros_like(logits), logits], axis=1) if columns == 1 else logits
    losses = scipy.special.logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return weights @ losses + penalty / 2 * np.sum(head[:-1] ** 2)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("far", [0, 5])
def test_every_problem_reaches_the_minimum_that_scipy_finds(columns, far, rng):
    x, y, weights, penalties = problem(columns)
    start = far * rng.normal(size=(7, 4, columns)).astype("float32")
    # A shift common to all classes changes the penalty alone, by next to nothing: no start has one.
    start -= start.mean(axis=2, keepdims=True) if columns > 1 else 0
    found = lbfgs.minimise(
        Rows([x]), CrossEntropy(y, weights), penalties, start, variances=x.var(axis=0), tolerance=1e-6
    )
    for p in range(4):
        arguments = (x.astype("float64"), y, weights[:, p].astype("float64"), float(penalties[p]), columns)
        least = scipy.optimize.minimize(objective, np.zeros(7 * columns), arguments, tol=1e-9).fun
        assert objective(found[:, p].ravel(), *arguments) == pytest.approx(least, rel=1e-3)


def test_it_stops_at_the_number_of_iterations_given():
    x, y, weights, penalties = problem(1)
    start = np.zeros((7, 4, 1), "float32")
    arguments = Rows([x]), CrossEntropy(y, weights), penalties, start
    settings = {"variances": np.ones(6, "float32"), "tolerance": 1e-6}
    np.testing.assert_array_equal(lbfgs.minimise(*arguments, **settings, max_iterations=0), start)
    once = lbfgs.minimise(*arguments, **settings, max_iterations=1)
    assert not np.allclose(once, start)
    assert not np.allclose(once, lbfgs.minimise(*arguments, **settings), atol=1e-3)


@pytest.mark.parametrize("looks", [1, 2])
def test_a_line_search_that_is_cut_short_never_goes_up(looks, monkeypatch):
    monkeypatch.setattr(lbfgs, "_LINE_SEARCH_STEPS", looks)
    x, y, weights, penalties = problem(1)
    start = np.full((7, 4, 1), 2, "float32")
    found = lbfgs.minimise(
        Rows([x]), CrossEntropy(y, weights), penalties, start, variances=0.01 * x.var(axis=0), tolerance=1e-6
    )
    for p in range(4):
        before, after = (objective(h[:, p].ravel(), x, y, weights[:, p], penalties[p], 1) for h in (start, found))
        assert after <= before * (1 + 1e-6)


@pytest.mark.parametrize("minimum", [1e-6, 0.3, 1.0, 7.0, 900.0])
def test_the_line_search_finds_where_the_slope_has_mostly_gone(minimum):
    def slope(t):
        return np.tanh(8 * (t / minimum - 1))

    search = lbfgs._LineSearch(slope(np.zeros(1)))
    for _ in range(lbfgs._LINE_SEARCH_STEPS):
        tried = search.lengths
        if search.advance(slope(tried), np.full(1, -1.0) if tried < minimum else np.full(1, -0.1)):
            break
    assert abs(slope(tried)) <= 0.3


def test_a_line_search_without_success_goes_back_to_the_last_fall():
    search = lbfgs._LineSearch(np.array([-1.0, -1.0]))
    assert not search.advance(np.array([-0.9, 5.0]), np.array([-0.5, 1.0]))
    assert not search.advance(np.array([4.0, 5.0]), np.array([1.0, 1.0]))
    search.retreat()
    assert search.lengths.tolist() == [1, 0]

import numpy as np
import pytest

from ensemble_keras.members.softmax_regression import CrossEntropy, Rows, log_softmax


@pytest.fixture
def matrix(rng):
    return rng.normal(size=(9, 4)).astype("float32")


def test_blocks_of_rows_are_taken_as_one_matrix(matrix, rng):
    heads = rng.normal(size=(5, 2, 3)).astype("float32")
    rows = Rows([matrix[:2], matrix[5:]])
    joined = np.concatenate([matrix[:2], matrix[5:]])
    logits = rows.forward(heads)
    np.testing.assert_allclose(logits, np.einsum("nd,dpk->npk", joined, heads[:-1]) + heads[-1], atol=1e-5)
    gradient = rows.backward(logits)
    np.testing.assert_allclose(gradient[:-1], np.einsum("nd,npk->dpk", joined, logits), atol=1e-4)
    np.testing.assert_allclose(gradient[-1], logits.sum(axis=0), atol=1e-4)


def plain_losses(logits, y, weights):
    """The weighted cross-entropies by hand, for logits of either form."""
    if logits.shape[2] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=2)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return -(weights * np.log(probabilities[np.arange(len(y)), :, y])).sum(axis=0)


@pytest.mark.parametrize("columns", [1, 3])
def test_derivatives_are_those_of_the_losses(columns, rng):
    y = rng.integers(0, max(2, columns), 9)
    weights, logits, moved = (
        rng.uniform(size=(9, 2)),
        rng.normal(size=(9, 2, columns)),
        rng.normal(size=(9, 2, columns)),
    )
    cross_entropy = CrossEntropy(y, weights)
    losses, probabilities = cross_entropy.losses(logits)
    np.testing.assert_allclose(losses, plain_losses(logits, y, weights))
    step = 1e-4
    ahead, behind = (plain_losses(logits + sign * step * moved, y, weights) for sign in (1, -1))
    np.testing.assert_allclose(cross_entropy.slopes(probabilities, moved), (ahead - behind) / (2 * step), rtol=1e-5)
    residuals = cross_entropy.residuals(probabilities)
    np.testing.assert_allclose((residuals * moved).sum(axis=(0, 2)), (ahead - behind) / (2 * step), rtol=1e-5)
    one = np.zeros_like(logits)
    one[4, 1, 0] = step
    second = sum(plain_losses(logits + sign * one, y, weights) for sign in (1, -1)) - 2 * plain_losses(
        logits, y, weights
    )
    np.testing.assert_allclose(cross_entropy.curvatures(probabilities)[4, 1, 0], second[1] / step**2, rtol=1e-3)
    np.testing.assert_allclose(cross_entropy.of([1]).losses(logits[:, 1:])[0], losses[1:])


@pytest.mark.parametrize("columns", [1, 3])
def test_extreme_logits_give_finite_losses(columns):
    logits = np.full((2, 1, columns), 1e4, "float32") * np.array([-1, 1])[:, None, None]
    logits[:, :, -1] *= 2
    losses, probabilities = CrossEntropy(np.array([1, 0]), np.ones((2, 1), "float32")).losses(logits)
    assert np.isfinite(losses).all()
    assert np.isfinite(probabilities).all()


def test_one_logit_is_split_between_two_classes():
    np.testing.assert_allclose(np.exp(log_softmax([[0.0], [np.log(3)]])), [[0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_allclose(log_softmax([[1e4, 0, 0]]), [[0, -1e4, -1e4]])

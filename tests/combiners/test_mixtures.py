import numpy as np
import pytest
from scipy import optimize
from synthetic import log_loss_of, member_predictions

from ensemble_keras.combiners import mixtures
from ensemble_keras.combiners.mixtures import convex_weights


def test_convex_weights_are_the_minimum_on_the_simplex():
    predictions, y = member_predictions([2.0, 1.5, -1.0, 1.9])
    weights = convex_weights(predictions, y)
    assert weights.sum() == pytest.approx(1)
    assert weights[2] == 0
    # The conditions of Karush, Kuhn and Tucker: no member's gradient is better, and those used are equally good.
    p = predictions[np.arange(len(y)), :, y].astype("float64")
    slopes = (p / (p @ weights)[:, None]).mean(axis=0)
    np.testing.assert_allclose(slopes[weights > 0], 1, atol=1e-5)
    assert (slopes <= 1 + 1e-5).all()
    sampled = convex_weights(predictions, y, sample_weight=np.where(y == 0, 3.0, 1.0))
    p, share = np.vstack([p, p[y == 0], p[y == 0]]), None
    slopes = (p / (p @ sampled)[:, share]).mean(axis=0)
    np.testing.assert_allclose(slopes[sampled > 0], 1, atol=1e-5)


@pytest.mark.parametrize("members", [3, 60])
def test_convex_weights_are_those_of_a_general_solver(members, monkeypatch):
    monkeypatch.setattr(mixtures, "_AT_A_TIME", 2)
    predictions, y = member_predictions(np.linspace(0, 2, members), n=300)
    weights = convex_weights(predictions, y)
    p = predictions[np.arange(300), :, y].astype("float64")
    # Expectation maximisation: slow, and surely to the minimum.
    slow = np.full(members, 1 / members)
    for _ in range(20000):
        slow *= (p / (p @ slow)[:, None]).mean(axis=0)
    assert log_loss_of(weights, predictions, y) <= log_loss_of(slow, predictions, y) + 1e-6
    assert weights.min() == 0 or members == 3


def test_members_that_are_alike_and_members_that_are_surely_wrong_can_be_weighed():
    predictions, y = member_predictions([2.0, 1.0])
    twice = np.concatenate([predictions, predictions], axis=1)
    weights = convex_weights(twice, y)
    assert log_loss_of(weights, twice, y) == pytest.approx(
        log_loss_of(convex_weights(predictions, y), predictions, y), abs=1e-6
    )
    surely = np.eye(3, dtype="float32")[np.where(np.arange(400) < 350, y, (y + 1) % 3)]
    weights = convex_weights(np.stack([surely, np.full_like(surely, 1 / 3)], axis=1), y)
    # The best share for what is right in 7 of 8 rows, beside what gives a third to each.
    share = optimize.minimize_scalar(lambda w: -7 * np.log((1 + 2 * w) / 3) - np.log((1 - w) / 3), bounds=(0, 1)).x
    np.testing.assert_allclose(weights, [share, 1 - share], atol=1e-4)

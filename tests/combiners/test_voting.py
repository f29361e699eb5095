import numpy as np
import pytest

from ensemble_keras.combiners.fitting import combine
from ensemble_keras.combiners.voting import GeometricVoting, HardVoting, SoftVoting


@pytest.fixture
def predictions(rng):
    """Predictions of 4 members for 50 images and 3 classes."""
    return rng.dirichlet([1, 1, 1], size=(50, 4)).astype("float32")


@pytest.mark.parametrize("weights", [None, [2, 1, 1, 0], [0, 0, 0, 5], np.array([0.1, 0.2, 0.3, 0.4])])
def test_soft_voting_is_the_weighted_mean(predictions, weights):
    combined = combine(SoftVoting(weights), predictions)
    np.testing.assert_allclose(combined, np.average(predictions, axis=1, weights=weights), atol=1e-6)


@pytest.mark.parametrize("weights", [None, [2, 1, 1, 0]])
def test_geometric_voting_is_the_softmax_of_the_mean_logits(rng, weights):
    logits = rng.normal(scale=3, size=(50, 4, 3))
    predictions = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mean = np.average(logits, axis=1, weights=weights)
    expected = np.exp(mean) / np.exp(mean).sum(-1, keepdims=True)
    np.testing.assert_allclose(combine(GeometricVoting(weights), predictions), expected, atol=1e-5)


def test_one_member_that_is_sure_and_wrong_gives_no_infinity():
    combined = combine(GeometricVoting(), [[[1, 0], [0, 1]]])
    np.testing.assert_allclose(combined, [[0.5, 0.5]], atol=1e-6)


def test_hard_voting_is_the_share_of_votes_where_one_class_leads(predictions):
    votes = np.eye(3)[predictions.argmax(axis=2)].mean(axis=1)
    leads = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    assert 10 < leads.sum() < 50
    np.testing.assert_allclose(combine(HardVoting(), predictions)[leads], votes[leads], atol=1e-6)


def test_hard_voting_breaks_ties_by_the_mean_probability():
    a, b, c = [0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.1, 0.2, 0.7]
    # Two against two, the means being .65 and .35; then two, two and one: the tied ones share four fifths.
    np.testing.assert_allclose(combine(HardVoting(), [[a, a, b, b]]), [[0.65, 0.35, 0]], atol=1e-6)
    share = np.array([2.7, 1.6]) / 4.3 * 0.8
    np.testing.assert_allclose(combine(HardVoting(), [[a, b, c, b, a]]), [[*share, 0.2]], atol=1e-6)


@pytest.mark.parametrize("combiner", [SoftVoting(), GeometricVoting(), HardVoting()], ids=lambda c: c.name)
def test_the_order_of_members_does_not_matter(combiner, predictions, rng):
    # Coarse probabilities: many ties.
    for table in (predictions, np.eye(3)[rng.integers(0, 3, (50, 4))] * 0.5 + 0.5 / 3):
        expected = combine(combiner, table)
        for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
            np.testing.assert_allclose(combine(combiner, table[:, order]), expected, atol=1e-6)


@pytest.mark.parametrize("voting", [SoftVoting(), GeometricVoting(), HardVoting()], ids=lambda c: c.name)
def test_one_sigmoid_column_counts_as_two_classes(voting, rng):
    p = rng.random((20, 3, 1)).astype("float32")
    one = voting([p[:, i] for i in range(3)])
    two = voting([np.concatenate([1 - p[:, i], p[:, i]], axis=1) for i in range(3)])
    np.testing.assert_allclose(np.asarray(one), np.asarray(two), atol=1e-6)


def test_weights_survive_the_config():
    layer = SoftVoting([2, 1], name="vote")
    again = SoftVoting.from_config(layer.get_config())
    assert again.member_weights == [2.0, 1.0]
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("voting", [SoftVoting, GeometricVoting])
def test_a_wrong_number_of_weights_is_refused(voting, predictions):
    with pytest.raises(ValueError, match=r"Expected one weight per member\. Received: 2 weights for 4 members\."):
        combine(voting([1, 2]), predictions)


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [np.nan, 1], [[1, 2]], [], [1, "a"], {"a": 1}, 2])
def test_weights_that_are_no_weights_are_refused(weights):
    with pytest.raises(ValueError, match="finite, not negative and not all 0"):
        SoftVoting(weights)

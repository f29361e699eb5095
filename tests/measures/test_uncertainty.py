import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mutual_info_score

from ensemble_keras.measures.uncertainty import (
    abstention_threshold,
    area_under_risk_coverage,
    predictive_entropy,
    risk_coverage,
    uncertainty,
)


@pytest.fixture
def predictions(rng):
    return rng.dirichlet(np.full(4, 0.6), (50, 3)).astype("float32")


def test_entropy_is_scipys(predictions):
    p = predictions[:, 0]
    np.testing.assert_allclose(predictive_entropy(p), stats.entropy(p.astype("float64"), axis=1), atol=1e-12)
    assert predictive_entropy([[0.25] * 4]) == pytest.approx(np.log(4))
    assert predictive_entropy([1.0, 0.0]).tolist() == [0, 0]


@pytest.mark.parametrize("weights", [None, [2, 1, 1], [0, 0, 1]])
def test_the_parts_of_the_entropy_are_those_of_scipy(predictions, weights):
    found = uncertainty(predictions, weights=weights)
    p = predictions.astype("float64")
    p /= p.sum(axis=2, keepdims=True)
    mean = np.average(p, axis=1, weights=weights)
    of_members = np.average(stats.entropy(p, axis=2), axis=1, weights=weights)
    np.testing.assert_allclose(found["confidence"], mean.max(axis=1), atol=1e-7)
    np.testing.assert_allclose(found["entropy"], stats.entropy(mean, axis=1), atol=1e-7)
    np.testing.assert_allclose(found["member_entropy"], of_members, atol=1e-7)
    # The mutual information is the mean divergence of the members from their mean.
    divergence = np.average(stats.entropy(p, mean[:, None], axis=2), axis=1, weights=weights)
    np.testing.assert_allclose(found["mutual_information"], divergence, atol=1e-7)
    differs = p.argmax(axis=2) != mean.argmax(axis=1)[:, None]
    np.testing.assert_allclose(found["disagreement"], np.average(differs, axis=1, weights=weights))


def test_sure_members_have_the_mutual_information_of_member_and_class():
    said = np.array([0, 1, 1, 2])
    found = uncertainty(np.eye(3)[said][None])
    assert found["mutual_information"][0] == pytest.approx(mutual_info_score(range(4), said))
    assert found["member_entropy"][0] == 0
    assert found["disagreement"][0] == 0.5


def test_members_that_agree_have_nothing_between_them(rng):
    p = rng.dirichlet([1, 1, 1], 20)
    found = uncertainty(np.repeat(p[:, None], 5, axis=1))
    np.testing.assert_allclose(found["mutual_information"], 0, atol=1e-6)
    assert (found["disagreement"] == 0).all()


@pytest.mark.parametrize("weights", [[1, 1], [1, -1, 1], [0, 0, 0]])
def test_wrong_weights_are_refused(predictions, weights):
    with pytest.raises(ValueError, match="`weights` must be 3 numbers of at least 0, not all 0"):
        uncertainty(predictions, weights=weights)


@pytest.fixture
def answered(rng):
    """Probabilities with equal confidences among them, and labels."""
    p = np.round(rng.dirichlet([0.6, 0.6, 0.6], 200), 1) + 1e-3
    p /= p.sum(axis=1, keepdims=True)
    return p, (rng.random((200, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=2)


def test_the_curve_is_what_each_threshold_gives(answered):
    p, y = answered
    curve = risk_coverage(p, y, confidence=0.9)
    right = p.argmax(axis=1) == y
    assert len(curve) == len(np.unique(p.max(axis=1))) < 200
    for row in curve.itertuples():
        shown = p.max(axis=1) >= row.threshold
        assert row.coverage == pytest.approx(shown.mean())
        assert row.accuracy == pytest.approx(right[shown].mean())
        wilson = stats.binomtest(int(right[shown].sum()), int(shown.sum())).proportion_ci(0.9, method="wilson")
        assert (row.low, row.high) == pytest.approx((wilson.low, wilson.high), abs=1e-12)
    assert curve["coverage"].iloc[-1] == 1


def test_images_may_be_answered_by_another_certainty(answered):
    p, y = answered
    curve = risk_coverage(p, y, certainty=np.arange(200))
    right = (p.argmax(axis=1) == y)[::-1]
    np.testing.assert_allclose(curve["accuracy"], np.cumsum(right) / np.arange(1, 201))


def test_the_area_is_the_mean_error_over_the_curve(rng):
    p = rng.dirichlet([1, 1, 1], 100)
    y = rng.integers(0, 3, 100)
    curve = risk_coverage(p, y)
    assert len(curve) == 100
    assert area_under_risk_coverage(p, y) == pytest.approx(np.mean(1 - curve["accuracy"]))
    # All equally sure: any order, so the error of all.
    assert area_under_risk_coverage([[0.7, 0.3]] * 10, [0] * 7 + [1] * 3) == pytest.approx(0.3)


def test_a_threshold_reaches_what_is_wanted_with_as_many_answers_as_can_be(answered):
    p, y = answered
    curve = risk_coverage(p, y)
    threshold = abstention_threshold(p, y, accuracy=0.9)
    shown = p.max(axis=1) >= threshold
    assert (p.argmax(axis=1) == y)[shown].mean() >= 0.9
    assert shown.mean() == pytest.approx(curve["coverage"][curve["accuracy"] >= 0.9].max())
    wanted = abstention_threshold(p, y, coverage=0.5)
    assert (p.max(axis=1) >= wanted).mean() >= 0.5 > (p.max(axis=1) > wanted).mean()
    assert abstention_threshold(p, y, coverage=1) == p.max(axis=1).min()


def test_wrong_options_are_refused(answered):
    p, y = answered
    for options in ({}, {"accuracy": 0.9, "coverage": 0.9}, {"coverage": 90}, {"accuracy": 0}):
        with pytest.raises(ValueError, match="Give `accuracy` or `coverage`, a share above 0"):
            abstention_threshold(p, y, **options)
    with pytest.raises(ValueError, match=r"No share of these images .* The highest is 0\.000"):
        abstention_threshold([[0.9, 0.1], [0.9, 0.1]], [1, 1], accuracy=0.5)
    with pytest.raises(ValueError, match=r"`certainty` must be 200 finite numbers. Received: shape \(3,\)"):
        risk_coverage(p, y, certainty=[1, 2, 3])
    with pytest.raises(ValueError, match="`confidence` must lie between 0 and 1"):
        risk_coverage(p, y, confidence=95)

import dataclasses

import numpy as np
import pytest

from ensemble_keras.evaluation.report import EvaluationReport
from ensemble_keras.measures.conformal import fit_conformal, set_figures
from ensemble_keras.measures.intervals import metric_intervals
from ensemble_keras.measures.operating_point import choose_operating_point
from ensemble_keras.measures.uncertainty import predictive_entropy, risk_coverage, uncertainty


def sample(rng, n=200, num_classes=2, strength=1.5):
    y = rng.integers(0, num_classes, n)
    logits = rng.normal(size=(n, num_classes))
    logits[np.arange(n), y] += strength
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), y


@pytest.fixture
def new(rng):
    return sample(rng)


def test_every_metric_has_an_interval(new):
    p, y = new
    for groups in (None, np.arange(200) // 2):
        report = EvaluationReport.from_predictions(y, p, groups=groups)
        np.testing.assert_array_equal(report.intervals, metric_intervals(p, y, groups=groups))
        for name in report.intervals.index.intersection(list(report.summary)):
            assert report.intervals.loc[name, "value"] == pytest.approx(report.summary[name])


def test_an_operating_point_is_judged_here(rng, new):
    p, y = new
    point = choose_operating_point(*sample(rng), min_sensitivity=0.9)
    assert EvaluationReport.from_predictions(y, p).operating_point is None
    groups = np.arange(200) // 2
    for given in (point, dataclasses.asdict(point)):
        report = EvaluationReport.from_predictions(y, p, operating_point=given, groups=groups)
        np.testing.assert_array_equal(report.operating_point, point.figures(p, y, groups=groups))


def test_prediction_sets_are_judged_here(rng, new):
    p, y = new
    conformal = fit_conformal(*sample(rng))
    assert EvaluationReport.from_predictions(y, p).prediction_sets is None
    for given in (conformal, dataclasses.asdict(conformal)):
        report = EvaluationReport.from_predictions(y, p, class_names=["cat", "dog"], conformal=given)
        assert list(report.prediction_sets.index) == ["all", "cat", "dog"]
        np.testing.assert_array_equal(report.prediction_sets, set_figures(conformal.predict(p), y))
        assert not report.notes
    with pytest.raises(ValueError, match="There are no prediction sets"):
        EvaluationReport.from_predictions(y, p).plot_set_sizes()
    assert report.plot_set_sizes().get_xlabel() == "classes in the set"


def test_a_promise_that_does_not_hold_here_is_said(rng):
    conformal = fit_conformal(*sample(rng, strength=3))
    p, y = sample(rng, strength=0.5)
    [note] = EvaluationReport.from_predictions(y, p, conformal=conformal).notes
    assert note.startswith("Prediction sets promised to hold the true class of 90.0 % of the images, and hold it of ")


def test_members_tell_what_they_disagree_on(rng, new):
    p, y = new
    other = sample(rng)[0]
    mean = (p + other) / 2
    alone = EvaluationReport.from_predictions(y, mean).uncertainty
    assert list(alone) == ["confidence", "entropy"]
    np.testing.assert_allclose(alone["entropy"], predictive_entropy(mean))
    joined = EvaluationReport.from_predictions(y, mean, members={"a": p, "b": other}).uncertainty
    expected = uncertainty(np.stack([p, other], axis=1))
    assert list(joined) == list(expected)
    np.testing.assert_allclose(joined, expected, atol=1e-6)


def test_the_curve_of_answers_is_that_of_the_probabilities(new):
    p, y = new
    report = EvaluationReport.from_predictions(y, p)
    np.testing.assert_array_equal(report.risk_coverage, risk_coverage(p, y))
    assert report.plot_risk_coverage().get_ylabel() == "accuracy of the answers in %"

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score
from synthetic import noisy, pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras.measures.uncertainty import abstention_threshold

NAMES = np.array(["ant", "bee"])


def fit(groups=None, **arguments):
    """Fits a classifier to two classes that noise makes hard to tell apart."""
    x, y = noisy(90, seed=0)
    backbones = [random_backbone("a"), random_backbone("b", 6, seed=1)]
    classifier = ek.EnsembleClassifier(backbones, image_size=16, cv=3, verbose=0, **arguments)
    return classifier.fit(x, NAMES[y], groups=groups)


@pytest.fixture(scope="module")
def fitted():
    return fit()


@pytest.fixture(scope="module")
def new():
    return noisy(80, seed=1)


def test_the_ensembles_out_of_fold_predictions_are_kept(fitted):
    _, y = noisy(90, seed=0)
    expected = fitted.out_of_fold_.mean(axis=1)
    np.testing.assert_allclose(fitted.ensemble_out_of_fold_, expected, atol=1e-6)
    out_of_fold = fitted.card_["validation"]["out_of_fold"]
    assert out_of_fold["accuracy"] == np.mean(expected.argmax(axis=1) == y)
    assert out_of_fold["design_effect"] == 1


def test_an_unsure_answer_is_none(fitted, new):
    x, _ = new
    p = fitted.predict_proba(x)
    sure = p.max(axis=1) >= 0.8
    predicted = fitted.predict(x, abstain=0.8)
    assert 0 < sure.sum() < len(x)
    np.testing.assert_array_equal(pd.isna(predicted), ~sure)
    np.testing.assert_array_equal(predicted[sure], fitted.predict(x)[sure])
    assert fitted.predict(x).dtype.kind == "U"


@pytest.mark.parametrize("of", ["accuracy", "coverage"])
def test_a_share_is_what_out_of_fold_predictions_give(fitted, new, of):
    x, _ = new
    _, y = noisy(90, seed=0)
    reached = fitted.card_["validation"]["out_of_fold"]["accuracy"]
    assert reached < 1
    wanted = {of: (1 + reached) / 2 if of == "accuracy" else 0.5}
    threshold = abstention_threshold(fitted.ensemble_out_of_fold_, y, **wanted)
    predicted = fitted.predict(x, abstain=wanted)
    np.testing.assert_array_equal(pd.isna(predicted), fitted.predict_proba(x).max(axis=1) < threshold)
    assert 0 < pd.isna(predicted).sum() < len(x)


def test_out_of_fold_sets_keep_their_promise(fitted, new, tmp_path):
    x, y = new
    _, labels = noisy(90, seed=0)
    with pytest.raises(ValueError, match="There are no prediction sets yet"):
        fit().predict_set(x)
    assert fitted.conformalize(coverage=0.9) is fitted
    sets = fitted.predict_set(x)
    expected = ek.fit_conformal(fitted.ensemble_out_of_fold_, labels, coverage=0.9)
    np.testing.assert_array_equal(sets, expected.predict(fitted.predict_proba(x)))
    assert sets[np.arange(len(y)), y].mean() > 0.8
    np.testing.assert_array_equal(pd.isna(fitted.predict(x, abstain="conformal")), sets.sum(axis=1) != 1)
    fitted.save(tmp_path / "a.keras")
    model, card = ek.load_ensemble(tmp_path / "a.keras")
    again = ek.ConformalSets(**card["conformal"]).predict(model.predict(x, verbose=0))
    np.testing.assert_array_equal(again, sets)
    report = fitted.evaluate(x, NAMES[y])
    assert report.prediction_sets.loc["all", "coverage"] == sets[np.arange(len(y)), y].mean()


def test_calibration_images_may_be_given(new):
    classifier = fit(leaks="error")
    x, y = new
    classifier.conformalize(x[:40], NAMES[y[:40]], coverage=0.8, method="aps")
    expected = ek.fit_conformal(classifier.predict_proba(x[:40]), y[:40], coverage=0.8, method="aps")
    np.testing.assert_array_equal(classifier.predict_set(x), expected.predict(classifier.predict_proba(x)))
    seen, labels = noisy(90, seed=0)
    with pytest.raises(ValueError, match="training and the test data"):
        classifier.conformalize(seen, NAMES[labels])


def test_an_operating_point_is_chosen_out_of_fold_and_travels(fitted, new, tmp_path):
    x, y = new
    _, labels = noisy(90, seed=0)
    with pytest.raises(ValueError, match="There is no operating point yet"):
        fit().predict(x, operating_point=True)
    point = fitted.choose_operating_point(min_sensitivity=0.95, positive="ant")
    said = point.predict(fitted.ensemble_out_of_fold_)
    assert recall_score(labels, said, pos_label=0) == point.sensitivity >= 0.95
    predicted = fitted.predict(x, operating_point=True)
    np.testing.assert_array_equal(predicted == "ant", fitted.predict_proba(x)[:, 0] >= point.threshold)
    fitted.save(tmp_path / "a.keras")
    _, card = ek.load_ensemble(tmp_path / "a.keras")
    assert ek.OperatingPoint(**card["operating_point"]) == point
    report = fitted.evaluate(x, NAMES[y])
    expected = recall_score(NAMES[y], predicted, pos_label="ant")
    assert report.operating_point.loc["sensitivity", "value"] == pytest.approx(expected)


def test_a_new_fit_forgets_what_was_fitted_to_the_last():
    classifier = fit().conformalize()
    x, y = noisy(90, seed=0)
    classifier.fit(x, y)
    with pytest.raises(ValueError, match="There are no prediction sets yet"):
        classifier.predict_set(x)


def test_groups_are_told_apart_in_all_of_it():
    groups = np.arange(90) // 3
    classifier = fit(groups=groups)
    _, y = noisy(90, seed=0)
    classifier.conformalize()
    expected = ek.fit_conformal(classifier.ensemble_out_of_fold_, y, groups=groups)
    assert classifier.card_["conformal"]["thresholds"] == expected.thresholds
    assert classifier.card_["conformal"]["n"] == 30


@pytest.mark.parametrize("abstain", [1.5, -0.1, "sure", [0.9]])
def test_another_answer_is_refused(fitted, new, abstain):
    with pytest.raises(ValueError, match="`abstain` must be a confidence in"):
        fitted.predict(new[0], abstain=abstain)


def test_what_does_not_go_together_is_refused(fitted, new):
    with pytest.raises(ValueError, match="Give `abstain` or `operating_point`, not both"):
        fitted.predict(new[0], abstain=0.9, operating_point=True)
    with pytest.raises(ValueError, match="`positive` must be one of 'ant', 'bee'. Received: 'cat'"):
        fitted.choose_operating_point(positive="cat")
    x, y = pictures(60)
    three = ek.EnsembleClassifier([random_backbone("a")], image_size=16, cv=3, verbose=0).fit(x, y)
    with pytest.raises(ValueError, match="An operating point is of two classes. Received: 3"):
        three.choose_operating_point()

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ensemble_keras.measures.operating_point import OperatingPoint, choose_operating_point, predictive_values


def sample(rng, n=400, share=0.3, float32=True):
    y = (rng.random(n) < share).astype(int)
    p = 1 / (1 + np.exp(-rng.normal(1.5 * (2 * y - 1), 1.5)))
    return (p.astype("float32") if float32 else np.round(p, 2)), y


@pytest.mark.parametrize("float32", [True, False])
def test_youdens_index_is_the_best_of_scikit_learns_curve(rng, float32):
    p, y = sample(rng, float32=float32)
    false, true, _ = sk.roc_curve(y, p, drop_intermediate=False)
    point = choose_operating_point(p, y)
    assert point.sensitivity + point.specificity == pytest.approx((true - false).max() + 1)
    assert point.target == "youden"
    assert point.n == 400


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("float32", [True, False])
def test_a_promised_sensitivity_is_kept_at_the_highest_specificity(rng, target, float32):
    p, y = sample(rng, float32=float32)
    false, true, _ = sk.roc_curve(y, p, drop_intermediate=False)
    point = choose_operating_point(p, y, min_sensitivity=target)
    assert point.sensitivity == pytest.approx(true[true >= target].min())
    assert point.specificity == pytest.approx(1 - false[true >= target].min())
    mirrored = choose_operating_point(p, y, min_specificity=target)
    assert mirrored.sensitivity == pytest.approx(true[1 - false >= target].max())
    assert (mirrored.target, mirrored.at_least) == ("specificity", target)


@pytest.mark.parametrize("options", [{}, {"min_sensitivity": 0.95}, {"min_specificity": 1.0}])
@pytest.mark.parametrize("positive", [0, 1])
def test_the_images_that_it_was_chosen_on_have_its_figures(rng, options, positive):
    p, y = sample(rng)
    point = choose_operating_point(p, y, positive=positive, **options)
    said = point.predict(p)
    assert point.sensitivity == pytest.approx(sk.recall_score(y, said, pos_label=positive))
    assert point.specificity == pytest.approx(sk.recall_score(y, said, pos_label=1 - positive))
    table = point.figures(p, y)
    assert table.loc["sensitivity", "value"] == pytest.approx(point.sensitivity)
    precision = sk.precision_score(y, said, pos_label=positive, zero_division=np.nan)
    assert table.loc["positive_predictive_value", "value"] == pytest.approx(precision)
    assert table.loc["f1", "value"] == pytest.approx(sk.f1_score(y, said, pos_label=positive))
    assert table.loc["accuracy", "value"] == pytest.approx(sk.accuracy_score(y, said))
    assert (table["low"] <= table["value"]).all()


def test_the_last_digit_of_a_probability_decides_nothing(rng):
    p, y = sample(rng)
    point = choose_operating_point(p, y, min_sensitivity=0.9)
    np.testing.assert_array_equal(point.predict(np.nextafter(p, np.float32(0))), point.predict(p))
    np.testing.assert_array_equal(point.predict(np.nextafter(p, np.float32(1))), point.predict(p))


def test_no_image_may_be_positive_though_one_is_certain():
    point = choose_operating_point([1.0, 0.2, 0.9], [0, 0, 1], min_specificity=1.0)
    assert point.specificity == 1
    assert point.predict([1.0, 0.9]).tolist() == [0, 0]


def test_it_travels_as_json(rng):
    p, y = sample(rng)
    point = choose_operating_point(p, y, min_sensitivity=0.95)
    again = OperatingPoint(**json.loads(json.dumps(dataclasses.asdict(point))))
    assert again == point
    assert str(point).startswith("From a probability of 0.")
    assert str(point).endswith("images that it was chosen on, for a sensitivity of at least 95.0 %.")
    assert "for Youden's index" in str(choose_operating_point(p, y))


def test_predictive_values_follow_bayes_rule(rng):
    p, y = sample(rng)
    table = choose_operating_point(p, y).figures(p, y)["value"]
    found = predictive_values(table["sensitivity"], table["specificity"], y.mean())
    assert found == pytest.approx((table["positive_predictive_value"], table["negative_predictive_value"]))
    # Mammography, Eddy (1982): of 1 % ill, 79.2 % found and 9.6 % alarmed, 7.7 % of alarms are right.
    assert predictive_values(0.792, 1 - 0.096, 0.01)[0] == pytest.approx(0.0769, abs=1e-4)
    assert np.isnan(predictive_values(0.0, 1.0, 0.5)[0])


def test_predictive_values_can_be_those_of_another_share_of_ill(rng):
    p, y = sample(rng, 600)
    point = choose_operating_point(p, y)
    here, rare = point.figures(p, y), point.figures(p, y, prevalence=0.01)
    assert list(rare.index) == list(here.index[:4])
    assert rare.iloc[:2].equals(here.iloc[:2])
    expected = predictive_values(*here["value"].iloc[:2], 0.01)
    assert rare["value"].iloc[2:].tolist() == pytest.approx(list(expected))
    assert ((rare["low"] < rare["value"]) & (rare["value"] < rare["high"])).all()
    # At the share that there is they are those of the images, with intervals nearly as wide.
    same = point.figures(p, y, prevalence=y.mean()).iloc[2:]
    assert same["value"].tolist() == pytest.approx(here["value"].iloc[2:4].tolist())
    np.testing.assert_allclose(same, here.iloc[2:4], atol=0.03)


@pytest.mark.parametrize("name", ["min_sensitivity", "min_specificity"])
def test_a_sure_promise_is_kept_as_often_as_it_says(name):
    rng = np.random.default_rng(0)
    many, labels = sample(rng, 200_000, float32=True)
    kept = []
    for _ in range(300):
        p, y = sample(rng, 300)
        point = choose_operating_point(p, y, **{name: 0.9}, confidence=0.8)
        reached = np.mean(point.predict(many)[labels == (name == "min_sensitivity")] == (name == "min_sensitivity"))
        kept.append(reached >= 0.9)
    # At least 80 %, more as numbers are whole; three standard errors are 7 points.
    assert 0.75 < np.mean(kept) < 0.95


def test_a_sure_promise_is_the_exact_lower_bound(rng):
    p, y = sample(rng)
    point = choose_operating_point(p, y, min_sensitivity=0.9, confidence=0.95)
    counts = [round(point.sensitivity * y.sum()), int(y.sum())]
    bounds = [
        stats.binomtest(k, counts[1], alternative="greater").proportion_ci(0.95).low
        for k in (counts[0] - 1, counts[0])
    ]
    assert bounds[0] < 0.9 <= bounds[1]
    assert str(point).endswith("at least 90.0 % with 95.0 % confidence.")
    # 59 of 59 found are the fewest that promise 95 % with a confidence of 95 %.
    assert choose_operating_point([0.1] + [0.9] * 59, [0] + [1] * 59, min_sensitivity=0.95, confidence=0.95)
    with pytest.raises(ValueError, match="a sensitivity of 0.95 needs 59 images of the class. Received: 58"):
        choose_operating_point([0.1] + [0.9] * 58, [0] + [1] * 58, min_sensitivity=0.95, confidence=0.95)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([0, 0, 0], {}, "images of both classes. Received: only class 0"),
        ([0, 1, 0], {"min_sensitivity": 0.9, "min_specificity": 0.9}, "not both"),
        (
            [0, 1, 0],
            {"min_sensitivity": 95},
            "`min_sensitivity` must be a share above 0 and of at most 1. Received: 95",
        ),
        ([0, 1, 0], {"confidence": 0.9}, "`confidence` is of a promise"),
        (
            [0, 1, 0],
            {"min_sensitivity": 0.9, "confidence": 95},
            "`confidence` must lie between 0 and 1. Received: 95",
        ),
        ([0, 1, 0], {"positive": 2}, "`positive` must be the index of a class, 0 or 1. Received: 2"),
    ],
)
def test_wrong_options_are_refused(y, options, message):
    with pytest.raises(ValueError, match=message):
        choose_operating_point([0.1, 0.2, 0.3], y, **options)


def test_a_wrong_prevalence_is_refused(rng):
    p, y = sample(rng)
    with pytest.raises(ValueError, match="`prevalence` must lie between 0 and 1. Received: 30"):
        choose_operating_point(p, y).figures(p, y, prevalence=30)

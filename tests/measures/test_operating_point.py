import dataclasses
import json

import numpy as np
import pytest
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
    assert str(point).endswith("images that it was chosen on, for a sensitivity of at least 95.0%.")
    assert "for Youden's index" in str(choose_operating_point(p, y))


def test_predictive_values_follow_bayes_rule(rng):
    p, y = sample(rng)
    table = choose_operating_point(p, y).figures(p, y)["value"]
    found = predictive_values(table["sensitivity"], table["specificity"], y.mean())
    assert found == pytest.approx((table["positive_predictive_value"], table["negative_predictive_value"]))
    # Mammography, Eddy (1982): of 1 % ill, 79.2 % found and 9.6 % alarmed, 7.7 % of alarms are right.
    assert predictive_values(0.792, 1 - 0.096, 0.01)[0] == pytest.approx(0.0769, abs=1e-4)
    assert np.isnan(predictive_values(0.0, 1.0, 0.5)[0])


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
        ([0, 1, 0], {"positive": 2}, "`positive` must be the index of a class, 0 or 1. Received: 2"),
    ],
)
def test_wrong_options_are_refused(y, options, message):
    with pytest.raises(ValueError, match=message):
        choose_operating_point([0.1, 0.2, 0.3], y, **options)

import importlib.util

import contracts
import keras
import numpy as np
import pytest
from scipy import optimize
from scipy.special import softmax
from sklearn.metrics import log_loss
from synthetic import pictures
from tiny_members import tiny_member

import ensemble_keras as ek
from ensemble_keras.combiners.calibration import (
    apply_temperature,
    cross_calibrated,
    fit_temperature,
    fit_temperatures,
)
from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import SoftVoting
from ensemble_keras.measures.calibration import expected_calibration_error


def calibrated(rng, n=4000, num_classes=4):
    """Probabilities that are right as often as they say, and labels drawn from them."""
    p = softmax(rng.normal(scale=1.5, size=(n, num_classes)), axis=1)
    return p, (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=num_classes - 1)


def at(p, temperature):
    return softmax(np.log(p) / temperature, axis=1)


@pytest.mark.parametrize("said", [0.4, 1.0, 2.5])
def test_the_temperature_is_that_of_the_lowest_log_loss(rng, said):
    p, y = calibrated(rng)
    given = at(p, 1 / said)
    found = fit_temperature(given, y)
    by_search = optimize.minimize_scalar(lambda t: log_loss(y, at(given, t)), bounds=(0.1, 10), method="bounded")
    assert found == pytest.approx(by_search.x, abs=1e-3)
    assert found == pytest.approx(said, rel=0.06)
    assert expected_calibration_error(at(given, found), y) < 0.025
    assert said == 1 or expected_calibration_error(given, y) > 0.05


def test_what_predictions_are_worth_calibrated_is_told_by_temperatures_of_other_folds(rng):
    p, y = calibrated(rng, 300)
    given, folds = at(p, 0.5), np.arange(300) % 3
    found = cross_calibrated(given, y, folds)
    for fold in range(3):
        held = folds == fold
        np.testing.assert_allclose(found[held], at(given[held], fit_temperature(given[~held], y[~held])), atol=1e-5)
    assert found.dtype == np.float32


def test_the_derivative_is_zero_at_the_temperature(rng):
    p, y = calibrated(rng, 500)
    weights = rng.random(500)
    found = fit_temperature(p, y, sample_weight=weights)
    losses = [log_loss(y, at(p, t), sample_weight=weights) for t in (found - 0.01, found, found + 0.01)]
    assert losses[1] == min(losses)
    repeated = fit_temperature(np.repeat(p, 3, axis=0), np.repeat(y, 3))
    assert repeated == pytest.approx(fit_temperature(p, y), abs=1e-6)


def test_bounds_hold_where_no_finite_temperature_is_best():
    right = np.tile([[0.8, 0.2]], (50, 1))
    assert fit_temperature(right, np.zeros(50, int)) == 0.1
    assert fit_temperature(right, np.ones(50, int)) == 10
    # One wrong row of 50 is enough for a finite one.
    y = np.zeros(50, int)
    y[7] = 1
    assert at(right, fit_temperature(right, y))[0, 0] == pytest.approx(0.98, abs=1e-6)


@pytest.mark.parametrize("sure", [0.0, 1e-12])
def test_saturated_probabilities_give_no_infinities(sure):
    p = np.tile([[1 - sure, sure]], (100, 1))
    y = np.zeros(100, int)
    y[:10] = 1
    temperature = fit_temperature(p, y)
    assert temperature == pytest.approx(np.log(1e7) / np.log(9), rel=1e-4)
    tempered = keras.ops.convert_to_numpy(apply_temperature(p, temperature))
    np.testing.assert_allclose(tempered[0], [0.9, 0.1], atol=1e-4)


def test_every_member_has_its_own_temperature(rng):
    p, y = calibrated(rng, 1000)
    predictions = np.stack([at(p, 0.5), p, at(p, 3)], axis=1).astype("float32")
    found = fit_temperatures(predictions, y)
    np.testing.assert_allclose(found, [fit_temperature(predictions[:, i], y) for i in range(3)], rtol=1e-6)
    assert found[0] > found[1] > found[2]
    together = keras.ops.convert_to_numpy(apply_temperature(predictions, found[:, None]))
    for i, temperature in enumerate(found):
        np.testing.assert_allclose(together[:, i], at(predictions[:, i], temperature), atol=1e-5)
    np.testing.assert_allclose(together[:, 0], together[:, 2], atol=1e-3)


def test_one_column_counts_as_two():
    p = np.array([0.9] * 10)
    y = np.array([1] * 7 + [0] * 3)
    temperature = fit_temperature(p, y)
    assert temperature == fit_temperature(np.stack([1 - p, p], axis=1), y)
    assert apply_temperature(p[:, None].astype("float32"), temperature).shape == (10, 2)


def test_bad_tables_are_refused(rng):
    p, y = calibrated(rng, 100)
    with pytest.raises(ValueError, match="a sum other than 1 in 1 row: 3"):
        fit_temperature(np.where(np.arange(100)[:, None] == 3, 0.5, p), y)
    predictions = np.stack([p, p], axis=1)
    for fit, table in ((fit_temperature, p), (fit_temperatures, predictions)):
        with pytest.raises(ValueError, match="`sample_weight` must be 100 finite numbers"):
            fit(table, y, sample_weight=np.zeros(100))
    predictions[3, 1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN from member 1 in 1 row: 3"):
        fit_temperatures(predictions, y)


@pytest.fixture(scope="module")
def members():
    return [tiny_member(name, 3, width=width) for name, width in (("a", 4), ("b", 5), ("c", 6))]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (12, 8, 8, 3), dtype="uint8")


@pytest.mark.parametrize(
    ("member_temperatures", "temperature"), [(None, 2.0), ([0.5, 1.0, 3.0], None), (np.array([0.5, 1, 3]), 0.7)]
)
def test_temperatures_are_in_the_graph(members, images, member_temperatures, temperature, tmp_path):
    arguments = {"member_temperatures": member_temperatures, "temperature": temperature}
    model = build_ensemble(members, SoftVoting([2, 1, 1]), **arguments)
    each = [m.predict(images, verbose=0) for m in members]
    temperatures = [1] * 3 if member_temperatures is None else member_temperatures
    tempered = [at(p, t) for p, t in zip(each, temperatures, strict=True)]
    expected = at(np.average(tempered, axis=0, weights=[2, 1, 1]), temperature or 1)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-6)
    contracts.assert_stock_only(model)

    card = {"class_names": list("xyz"), "filter": "bilinear", "temperature": temperature}
    card["member_temperatures"] = member_temperatures
    ek.save_ensemble(model, tmp_path / "tempered.keras", card=card, verbose=0)
    again, read = ek.load_ensemble(tmp_path / "tempered.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))
    assert read["temperature"] == temperature
    assert read["member_temperatures"] == (None if member_temperatures is None else list(member_temperatures))


def test_a_temperature_of_1_adds_nothing(members):
    plain, tempered = (
        build_ensemble(members, SoftVoting(), **arguments)
        for arguments in ({}, {"member_temperatures": [1, 1, 1], "temperature": 1})
    )
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in tempered.layers]


def test_features_stay_as_they_are_and_views_are_tempered_together(members, images):
    stacking = StackedMetaLearner(3, passthrough=True)
    model = build_ensemble(members, stacking, member_temperatures=[2, 2, 2])
    predictions = [keras.ops.convert_to_numpy(apply_temperature(m.predict(images, verbose=0), 2)) for m in members]
    features = [keras.Model(m.inputs, m.get_layer("features").output).predict(images, verbose=0) for m in members]
    expected = keras.ops.convert_to_numpy(stacking(predictions, features))
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)

    flipped = {"test_time_augmentation": "horizontal_flip"}
    plain = build_ensemble(members, SoftVoting(), **flipped).predict(images, verbose=0)
    tempered = build_ensemble(members, SoftVoting(), temperature=3, **flipped).predict(images, verbose=0)
    np.testing.assert_allclose(tempered, at(plain, 3), atol=1e-6)


def test_a_tempered_ensemble_trains():
    x, y = pictures(24, size=8)
    model = build_ensemble([tiny_member("a", 3), tiny_member("b", 3)], SoftVoting(), member_temperatures=[2, 0.5])
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_weights]
    model.fit(x, y, epochs=1, verbose=0)
    changed = [not np.array_equal(b, v) for b, v in zip(before, model.trainable_weights, strict=True)]
    assert all(changed)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_tempered_file_stands_alone(backend, members, images, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    model = build_ensemble(members, SoftVoting(), member_temperatures=[0.5, 2, 3], temperature=1.7)
    (elsewhere,) = contracts.predict_elsewhere([model], images, tmp_path, backend=backend)
    np.testing.assert_allclose(elsewhere, model.predict(images, verbose=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrong", [0, -1, np.nan, np.inf, [1.0]])
def test_a_temperature_that_is_none_is_refused(members, wrong):
    with pytest.raises(ValueError, match="`temperature` must be a number above 0"):
        build_ensemble(members, SoftVoting(), temperature=wrong)
    with pytest.raises(ValueError, match=r"`member_temperatures\[1\]` must be a number above 0"):
        build_ensemble(members, SoftVoting(), member_temperatures=[1, wrong, 1])


def test_member_temperatures_must_fit_members_and_combiner(members):
    with pytest.raises(
        ValueError, match="Expected one temperature per member. Received: 2 temperatures for 3 members"
    ):
        build_ensemble(members, SoftVoting(), member_temperatures=[1, 2])
    with pytest.raises(ValueError, match="Received: a combiner that takes features only. Give `temperature`"):
        build_ensemble(members, ConcatenateDense(3), member_temperatures=[1, 2, 1])

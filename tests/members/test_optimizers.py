import keras
import numpy as np
import pytest

import ensemble_keras as ek
from ensemble_keras.members.optimizers import build_optimizer

SETTINGS = {"epochs": 2, "learning_rate": 0.1, "global_clipnorm": None, "warmup_epochs": 0.0}


def variables():
    return [keras.Variable(np.full((2, 3), value, "float32"), name=f"kernel_{value}") for value in (1, 2)]


def after_steps(optimizer, trained, gradient=0.5, steps=3):
    for _ in range(steps):
        optimizer.apply([keras.ops.full(v.shape, gradient) for v in trained], trained)
    return [keras.ops.convert_to_numpy(v) for v in trained]


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
@pytest.mark.parametrize("gradient", [0.5, 0.0])
def test_a_rate_of_a_variable_is_that_of_an_optimizer_of_its_own(name, gradient):
    settings = ek.FineTuning(optimizer=name, weight_decay=0.3, **SETTINGS)
    together = variables()
    optimizer = build_optimizer(settings, together, steps_per_epoch=10, rates={id(together[0]): 0.25})
    found = after_steps(optimizer, together, gradient)
    for rate, place in ((0.025, 0), (0.1, 1)):
        alone = [variables()[place]]
        own = ek.FineTuning(optimizer=name, weight_decay=0.3, **{**SETTINGS, "learning_rate": rate})
        [expected] = after_steps(build_optimizer(own, alone, steps_per_epoch=10), alone, gradient)
        np.testing.assert_allclose(found[place], expected, rtol=1e-5)
    assert optimizer.weight_decay == 0.3


def test_without_a_number_of_steps_the_learning_rate_stays():
    trained = variables()
    optimizer = build_optimizer(ek.Training(learning_rate=0.1), trained, steps_per_epoch=None)
    rates = []
    for _ in range(3):
        rates.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
        optimizer.apply([keras.ops.ones(v.shape) for v in trained], trained)
    assert rates == pytest.approx([0.1] * 3)


def test_weights_decay_and_scales_and_shifts_do_not():
    kernel, bias = keras.Variable(np.ones((2, 2), "float32")), keras.Variable(np.ones(2, "float32"))
    settings = ek.FineTuning(weight_decay=0.5, **SETTINGS)
    optimizer = build_optimizer(settings, [kernel, bias], steps_per_epoch=100)
    after = after_steps(optimizer, [kernel, bias], gradient=0.0, steps=1)
    np.testing.assert_allclose(after[0], 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(after[1], 1)


def test_the_rate_rises_linearly_and_falls_by_half_a_cosine_to_zero():
    settings = ek.FineTuning(epochs=4, learning_rate=0.1, warmup_epochs=1.0)
    optimizer = build_optimizer(settings, variables(), steps_per_epoch=5)
    schedule = optimizer._learning_rate
    rates = [float(schedule(step)) for step in range(21)]
    np.testing.assert_allclose(rates[:6], np.linspace(0, 0.1, 6), rtol=1e-5)
    expected = 0.1 * (1 + np.cos(np.pi * np.arange(16) / 15)) / 2
    np.testing.assert_allclose(rates[5:], expected, atol=1e-7)


def test_of_an_optimizer_of_ones_own_a_copy_is_used_with_its_own_arguments():
    mine = keras.optimizers.Adam(0.003, beta_1=0.8, use_ema=True, ema_momentum=0.7)
    built = build_optimizer(ek.FineTuning(optimizer=mine), variables(), steps_per_epoch=5)
    assert built is not mine
    assert not mine.built
    assert float(built.learning_rate) == pytest.approx(0.003)
    assert (built.beta_1, built.use_ema, built.ema_momentum) == (0.8, True, 0.7)

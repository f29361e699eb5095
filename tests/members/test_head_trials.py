import random

import keras
import numpy as np
import pytest

from ensemble_keras.members.head_trials import HeadTrials

VALUES = {"head": "linear", "epochs": 5, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.1, "dropout": 0.0}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    return (3 + np.eye(3)[y] @ rng.normal(size=(3, 12)) + rng.normal(size=(90, 12))).astype("float32"), y


PARTS = [(np.arange(60), np.arange(60, 90))]


def trials(data, parts=PARTS, *, seed=0, class_weight=None, objective="val_loss"):
    options = {"num_classes": 3, "class_weight": class_weight, "objective": objective, "seed": seed}
    return HeadTrials(*data, parts, **options)


def probabilities(layers, x):
    for kernel, bias in layers[:-1]:
        x = np.maximum(x @ kernel + bias, 0)
    logits = x @ layers[-1][0] + layers[-1][1]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_a_linear_head_is_trained_as_plain_adamw_does_it(data):
    x, y = data
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3, kernel_initializer="zeros")])
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for epoch in range(5):
        optimizer.learning_rate = 0.01 * (1 + np.cos(np.pi * epoch / 5)) / 2
        order = np.random.default_rng([0, epoch]).permutation(60)
        for first in range(0, 48, 16):
            rows = order[first : first + 16]
            model.train_on_batch(scaled[rows], y[rows])
    p = probabilities([model.get_weights()], scaled[60:])
    figures, note = trials(data).run(VALUES)
    assert figures["best_epoch"] == 5
    assert figures["val_loss"] == pytest.approx(-np.log(p[np.arange(30), y[60:]]).mean(), rel=1e-4)
    assert figures["val_accuracy"] == pytest.approx((p.argmax(axis=1) == y[60:]).mean())
    assert note == ""


@pytest.mark.parametrize("head", [{"head": "linear"}, {"head": "mlp", "units": 8}])
def test_a_trial_does_not_depend_on_those_before_it(data, head):
    state = random.getstate(), np.random.get_state()[1].copy()
    several, values = trials(data), {**VALUES, **head, "dropout": 0.3}
    first = several.run(values)
    assert random.getstate() == state[0]
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])
    several.run({**values, "learning_rate": 1.0, "weight_decay": 5.0, "batch_size": 32, "dropout": 0.9})
    assert several.run(values) == first == trials(data).run(values)
    assert trials(data, seed=1).run(values) != first


@pytest.mark.parametrize("change", [{"dropout": 0.5}, {"weight_decay": 20.0}, {"learning_rate": 1e-4}, {"epochs": 2}])
def test_every_hyperparameter_counts_though_only_one_step_is_compiled(data, change):
    several = trials(data)
    assert several.run(VALUES)[0]["val_loss"] != pytest.approx(
        several.run({**VALUES, **change})[0]["val_loss"], abs=1e-3
    )
    assert len(several._steps) == 1


@pytest.mark.parametrize("head", [{"head": "linear"}, {"head": "mlp", "units": 8}])
def test_the_head_for_raw_features_is_that_of_the_epoch_asked_for(data, head):
    x, y = data
    # Both parts are all rows, so the last head is the one that the trial judged.
    several = trials(data, [(np.arange(90), np.arange(90))])
    figures, _ = several.run({**VALUES, **head})
    layers = several.fit({**VALUES, **head}, int(figures["best_epoch"]))
    assert [kernel.shape for kernel, _ in layers] == ([(12, 8), (8, 3)] if "units" in head else [(12, 3)])
    p = probabilities(layers, x)
    assert -np.log(p[np.arange(90), y]).mean() == pytest.approx(figures["val_loss"], rel=1e-4)
    np.testing.assert_allclose(probabilities(several.fit({**VALUES, **head}, 0), x), 1 / 3, atol=1e-5)


def test_a_divergence_ends_a_trial_with_its_best_figures(data):
    figures, note = trials(data).run({**VALUES, "learning_rate": 1e38})
    assert figures == {"val_loss": pytest.approx(np.log(3)), "val_accuracy": pytest.approx(1 / 3), "best_epoch": 0}
    assert note.startswith("loss became NaN in epoch")


def test_several_parts_count_by_their_rows(data):
    parts = [(np.arange(30, 90), np.arange(30)), (np.arange(60), np.arange(60, 70))]
    values = {**VALUES, "epochs": 1}
    one, other = (trials(data, [part]).run(values)[0]["val_loss"] for part in parts)
    assert trials(data, parts).run(values)[0]["val_loss"] == pytest.approx((3 * one + other) / 4)


def test_training_stops_when_it_gets_worse(data):
    wrong = data[0], np.where(np.arange(90) < 60, data[1], (data[1] + 1) % 3)
    several, count = trials(wrong), 0
    step = several._step(VALUES)
    epochs = step.epochs

    def counted(*args):
        nonlocal count
        for epoch in epochs(*args):
            count += 1
            yield epoch

    step.epochs = counted
    assert several.run({**VALUES, "epochs": 40})[0]["best_epoch"] == 0
    assert count == 9


def test_weights_of_classes_count_in_training_and_in_the_figure(data):
    x, y = data
    several = trials(data, class_weight=[1.0, 1.0, 10.0])
    p = probabilities(several.fit(VALUES, 5), x[60:])
    assert p[:, 2].mean() > probabilities(trials(data).fit(VALUES, 5), x[60:])[:, 2].mean() + 0.05
    weights = np.array([1.0, 1.0, 10.0])[y[60:]]
    assert several.figures(p, np.arange(60, 90))["val_loss"] == pytest.approx(
        np.average(-np.log(p[np.arange(30), y[60:]]), weights=weights)
    )


def test_the_area_under_the_curve_is_there_where_it_is_asked_for(data):
    figures, _ = trials(data, objective="val_auc").run(VALUES)
    assert set(figures) == {"val_loss", "val_accuracy", "val_auc", "best_epoch"}
    assert 0.5 < figures["val_auc"] <= 1

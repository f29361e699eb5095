import random

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from ensemble_keras.members import mlp
from ensemble_keras.members.mlp import train_mlp_head


def rings(n=240, *, seed=0):
    """Two classes by the distance from the middle, which no linear head can tell apart; unequal scales."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) // 2 % 2
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.where(y, 1.6, 0.5) + rng.uniform(-0.3, 0.3, n)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return (x * [0.1, 2] + [1, 50]).astype("float32"), y


@pytest.fixture(scope="module")
def trained():
    features, y = rings()
    return features, y, train_mlp_head(features, y, np.arange(240) % 2, num_classes=2, units=(64,))


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    """Facts that hold after any number of epochs are shown after a few."""
    monkeypatch.setattr(mlp, "_EPOCHS", 6)


def forward(layers, features):
    """The head by hand."""
    x = features.astype("float64")
    for kernel, bias in layers[:-1]:
        x = np.maximum(x @ kernel + bias, 0)
    logits = x @ layers[-1][0] + layers[-1][1]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_it_learns_what_is_not_linear(trained):
    _, y, head = trained
    assert np.mean(head.out_of_fold.argmax(axis=1) == y) > 0.85
    new_features, new_y = rings(seed=1)
    assert np.mean(forward(head.layers, new_features).argmax(axis=1) == new_y) > 0.85
    assert head.log_loss == pytest.approx(log_loss(y, head.out_of_fold), abs=1e-5)
    np.testing.assert_allclose(head.out_of_fold.sum(axis=1), 1, atol=1e-6)


def test_history_is_one_number_an_epoch(trained):
    history = trained[2].history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert len({len(values) for values in history.values()}) == 1
    assert history["val_loss"][-1] < history["val_loss"][0]


def test_the_loss_and_accuracy_of_an_epoch_are_of_all_its_rows(monkeypatch):
    # Weights that stay what they are say the same of every epoch, whatever row comes last.
    monkeypatch.setattr(mlp, "_LEARNING_RATE", 0.0)
    features, y = rings(60)
    folds, weight = np.arange(60) % 2, [1.0, 9.0]
    head = train_mlp_head(features, y, folds, num_classes=2, units=(8,), dropout=0.0, class_weight=weight)
    for name, values in head.history.items():
        assert len(values) == 6
        np.testing.assert_allclose(values, values[0], rtol=1e-5, err_msg=name)


def test_the_weights_of_the_best_epoch_are_kept(monkeypatch):
    monkeypatch.setattr(mlp, "_LEARNING_RATE", 0.3)
    features, y = rings(60)
    # Labels without meaning can only be memorised: the loss on other rows rises.
    y = np.random.default_rng(0).permutation(y)
    arrays = ((features - features.mean(axis=0)) / features.std(axis=0), y, np.ones(60, "float32"))
    rows = np.arange(60)
    trainer = mlp._Trainer(mlp._build(2, 2, (8,), 0.0, 0), arrays, rows, 0)
    epoch, history = trainer.train_with_early_stopping(rows)
    losses = history["val_loss"]
    assert min(losses) < losses[-1] - 1e-3
    assert epoch == np.argmin(losses) + 1
    _, held = mlp._split(rows, y, rows, 0)
    assert log_loss(y[held], softmax(trainer.predict(held), axis=1)) == pytest.approx(min(losses), rel=1e-4)


def test_layers_take_features_as_they_are():
    features, y = rings(60)
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    heads = [train_mlp_head(x, y, np.arange(60) % 2, num_classes=2, units=(8,)) for x in (features, standardised)]
    expected = forward(heads[1].layers, standardised)
    np.testing.assert_allclose(forward(heads[0].layers, features), expected, atol=1e-3)


def test_the_same_seed_gives_the_same_head_and_another_seed_another():
    features, y = rings(60)
    arguments = {"num_classes": 2, "units": (8, 4)}
    first, same, other = (train_mlp_head(features, y, np.arange(60) % 2, seed=s, **arguments) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.out_of_fold, same.out_of_fold)
    assert [kernel.shape for kernel, _ in first.layers] == [(2, 8), (8, 4), (4, 2)]
    assert np.abs(first.out_of_fold - other.out_of_fold).max() > 1e-3


def test_the_global_random_state_is_not_touched():
    features, y = rings(40)
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    train_mlp_head(features, y, np.arange(40) % 2, num_classes=2, units=(4,))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_held_out_labels_are_not_seen():
    features, y = rings(120)
    folds = np.arange(120) % 3
    changed = np.where(folds == 1, 1 - y, y)
    heads = [train_mlp_head(features, labels, folds, num_classes=2, units=(8,)) for labels in (y, changed)]
    np.testing.assert_array_equal(heads[0].out_of_fold[folds == 1], heads[1].out_of_fold[folds == 1])
    assert np.abs(heads[0].out_of_fold - heads[1].out_of_fold)[folds == 0].max() > 0.01


def test_labels_without_meaning_are_not_predicted():
    rng = np.random.default_rng(0)
    features, y = rng.normal(size=(300, 50)).astype("float32"), rng.permutation(np.arange(300) % 3)
    head = train_mlp_head(features, y, np.arange(300) % 2, num_classes=3, units=(16,))
    assert np.mean(head.out_of_fold.argmax(axis=1) == y) == pytest.approx(1 / 3, abs=0.09)


def test_a_class_weight_raises_the_probabilities_of_its_class():
    features, y = rings(120)
    arguments = {"num_classes": 2, "units": (8,)}
    plain, weighted = (
        train_mlp_head(features, y, np.arange(120) % 2, class_weight=weight, **arguments)
        for weight in (None, [1.0, 9.0])
    )
    assert weighted.out_of_fold[:, 1].mean() > plain.out_of_fold[:, 1].mean() + 0.05
    assert weighted.log_loss == pytest.approx(log_loss(y, weighted.out_of_fold, sample_weight=1 + 8 * y), abs=1e-5)


def test_one_model_is_compiled_for_all_folds(monkeypatch):
    built = []
    monkeypatch.setattr(keras.Model, "compile", _counted(keras.Model.compile, built))
    features, y = rings(60)
    train_mlp_head(features, y, np.arange(60) % 3, num_classes=2, units=(4,))
    assert len(built) == 1


def _counted(function, calls):
    def counted(*args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs)

    return counted


def test_rows_for_early_stopping_are_a_tenth_of_each_class_and_at_least_one():
    y = np.repeat([0, 1, 2, 3], [50, 30, 3, 1])
    rest, held = mlp._split(np.arange(84), y, np.arange(84), seed=0)
    assert np.bincount(y[held], minlength=4).tolist() == [5, 3, 1, 0]
    assert sorted([*rest, *held]) == list(range(84))
    rest, held = mlp._split(np.array([0, 60]), y, np.arange(84), seed=0)
    assert rest.tolist() == held.tolist() == [0, 60]


def test_sets_are_on_one_side_and_every_class_keeps_one_to_train_on():
    rng = np.random.default_rng(0)
    # 30 patients with images of up to three classes; the third class is of two patients alone.
    sets, y = rng.integers(30, size=400), rng.integers(2, size=400)
    y[np.isin(sets, [4, 17])] = 2
    for seed in range(20):
        rest, held = mlp._split(np.arange(400), y, sets, seed)
        assert not set(sets[rest]) & set(sets[held])
        assert sorted([*rest, *held]) == list(range(400))
        assert set(y[rest]) == set(y[held]) == {0, 1, 2}
        assert len(set(sets[held])) <= 6


def test_classes_that_share_all_their_sets_keep_one_together():
    y, sets = np.tile([0, 1], 8), np.repeat([0, 1], 8)
    rest, held = mlp._split(np.arange(16), y, sets, seed=0)
    assert sorted([len(rest), len(held)]) == [8, 8]
    assert len(set(sets[rest])) == len(set(sets[held])) == 1


@pytest.mark.parametrize(("n", "size"), [(1, 1), (31, 1), (32, 2), (500, 16), (1023, 32), (1024, 64), (10**6, 64)])
def test_an_epoch_has_sixteen_steps_or_batches_of_64(n, size):
    assert mlp._batch_size(n) == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": ()}, r"`units` must hold one or more positive ints. Received: \(\)"),
        ({"units": (8, 0)}, "`units`"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\). Received: 1.0"),
        ({"num_classes": 1}, "`y` must hold classes"),
    ],
)
def test_other_arguments_are_refused(change, message):
    features, y = rings(20)
    with pytest.raises(ValueError, match=message):
        train_mlp_head(features, y, np.arange(20) % 2, **{"num_classes": 2, **change})

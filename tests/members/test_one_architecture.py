import dataclasses
import random

import keras
import numpy as np
import pytest
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.members.member import backbone_of
from ensemble_keras.members.trainer import Trainer

QUICK = ek.Training(epochs=2, batch_size=16, learning_rate=0.01)
TUNED = ek.FineTuning(epochs=2, batch_size=16, learning_rate=0.003)


def network(name="net", dropout=0.2):
    x = images = keras.Input((16, 16, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    start = keras.initializers.HeNormal(seed=1)
    x = keras.layers.Conv2D(6, 3, activation="relu", kernel_initializer=start)(x)
    trunk = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="trunk")
    return ek.build_member(trunk, 3, dropout=dropout, name=name)


@pytest.fixture(scope="module")
def data():
    return pictures(60)


@pytest.fixture
def runs(monkeypatch):
    """What every training was given: its seed, the first weights, the images and the validation images."""
    seen, run = [], Trainer.run

    def spy(self, images, validation, *, seed, **options):
        seen.append((seed, self.network.get_weights(), images, validation, self.settings))
        return run(self, images, validation, seed=seed, **options)

    monkeypatch.setattr(Trainer, "run", spy)
    return seen


def deep(member, data, settings=QUICK, **options):
    return ek.deep_ensemble(member, *data, settings=settings, **{"size": 2, "verbose": 0, **options})


def snapshots(member, data, settings=QUICK, **options):
    return ek.snapshot_ensemble(member, *data, settings=settings, **{"cycles": 2, "verbose": 0, **options})


def weights_of(models):
    return [model.get_weights() for model in models]


def assert_equal(a, b):
    for left, right in zip(a, b, strict=True):
        for x, y in zip(left, right, strict=True):
            np.testing.assert_array_equal(x, y)


def differ(a, b):
    return [bool(np.abs(x - y).max() > 1e-6) for x, y in zip(a, b, strict=True)]


def test_members_of_a_deep_ensemble_start_anew_and_hold_out_the_same_images(data, runs):
    member = network()
    before = member.get_weights()
    random_state = np.random.get_state()[1].sum(), random.getstate()
    members = deep(member, data)
    assert (np.random.get_state()[1].sum(), random.getstate()) == random_state
    assert [m.name for m in members] == ["net_1", "net_2"]
    (seed, first, images, validation, _), (other_seed, second, other_images, other_validation, _) = runs
    assert seed != other_seed
    # Kernels; biases start at 0.
    assert differ(first, second) == differ(before, first) == [True, False, True, False]
    assert images.fingerprint() == other_images.fingerprint()
    assert validation.fingerprint() == other_validation.fingerprint()
    assert len(images) + len(validation) == 60
    assert all(differ(*weights_of(members)))
    expected = np.mean([m.predict(data[0], verbose=0) for m in members], axis=0)
    ensemble = ek.build_ensemble(members, ek.SoftVoting())
    np.testing.assert_allclose(ensemble.predict(data[0], verbose=0), expected, atol=1e-6)
    assert_equal([before], [member.get_weights()])


def test_the_same_seed_gives_the_same_members_and_more_of_them_change_none(data):
    expected = weights_of(deep(network(), data, size=1))
    assert_equal(weights_of(deep(network(), data))[:1], expected)


def test_a_pretrained_member_keeps_its_backbone_and_gets_new_heads(data, runs):
    member = network()
    deep(member, data, TUNED)
    given = backbone_of(member).get_weights()
    (_, first, *_), (_, second, *_) = runs
    assert_equal([first[:2], second[:2]], [given, given])
    assert np.abs(first[2] - second[2]).max() > 0.01
    assert np.abs(first[2] - member.get_weights()[2]).max() > 0.01


@pytest.mark.filterwarnings("ignore:.*fine-tuning did not beat its start")
def test_probed_members_start_from_one_solved_head(data, runs):
    member, probed = network(), network()
    deep(member, data, TUNED, probe=True)
    ek.fine_tune(probed, *data, settings=dataclasses.replace(TUNED, learning_rate=1e-12), verbose=0)
    (_, first, *_), (_, second, *_), (_, expected, *_) = runs
    assert_equal([first], [second])
    np.testing.assert_allclose(first[2], expected[2], atol=1e-5)


def test_every_cycle_starts_where_the_one_before_ended(data, runs):
    members = snapshots(network(), data, dataclasses.replace(QUICK, epochs=6), cycles=3)
    assert [m.name for m in members] == ["net_snapshot_1", "net_snapshot_2", "net_snapshot_3"]
    starts = [weights for _, weights, *_ in runs]
    assert_equal(starts[1:], weights_of(members)[:2])
    assert len({seed for seed, *_ in runs}) == 3
    deep(network(), data, size=1)
    # It starts like the first member of a deep ensemble.
    assert_equal([runs[-1][1]], starts[:1])
    assert runs[-1][0] == runs[0][0]
    for _, _, images, validation, settings in runs[:-1]:
        assert (len(images), validation, settings.epochs) == (60, None, 2)


def test_the_learning_rate_falls_to_0_in_every_cycle(data):
    rates = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    snapshots(network(), data, callbacks=[Rates()])
    cosine = 0.01 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    np.testing.assert_allclose(rates, [*cosine, *cosine], rtol=1e-4)


class KilledError(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Ends a process' work in the so-manieth epoch, counted over all trainings."""

    def __init__(self, epoch):
        super().__init__()
        self.left = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.left -= 1
        if self.left < 0:
            raise KilledError


@pytest.mark.parametrize("make", [pytest.param(deep, marks=pytest.mark.slow), snapshots])
def test_killed_in_the_second_member_it_goes_on_there(data, tmp_path, make):
    settings = dataclasses.replace(QUICK, epochs=4 if make is snapshots else 2)
    arguments = {"settings": settings, "augmentation": "light"}
    expected = weights_of(make(network(), data, **arguments))
    with pytest.raises(KilledError):
        make(network(), data, directory=tmp_path, callbacks=[Kill(3)], **arguments)
    begun = []
    counter = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    again = make(network(), data, directory=tmp_path, callbacks=[counter], **arguments)
    assert begun == [1]
    for a, b in zip(weights_of(again), expected, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)
    assert_equal(
        weights_of(make(network(), data, directory=tmp_path, callbacks=[Kill(0)], **arguments)), weights_of(again)
    )


def test_what_matters_is_trained_anew_in_the_same_directory(data, tmp_path):
    deep(network(), data, directory=tmp_path)
    for other in (
        {"settings": dataclasses.replace(QUICK, learning_rate=0.02)},
        {"augmentation": "light"},
        {"seed": 1},
    ):
        with pytest.warns(UserWarning, match="holds a run with other arguments"), pytest.raises(KilledError):
            deep(network(), data, directory=tmp_path, callbacks=[Kill(0)], **other)
    with pytest.raises(KilledError), pytest.warns(UserWarning, match="holds a run with other arguments"):
        deep(network(dropout=0.5), (data[0], data[1]), directory=tmp_path, callbacks=[Kill(0)])


def test_a_loss_that_is_no_number_is_said(data):
    broken = dataclasses.replace(QUICK, optimizer="sgd", learning_rate=1e30)
    with pytest.warns(UserWarning, match="net_1: loss became NaN in epoch 1"):
        deep(network(), data, broken, size=1)


def test_wrong_arguments_are_refused_before_any_training(data, runs):
    plain = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    with pytest.raises(ValueError, match="`size` must be an int of at least 1. Received: 0"):
        deep(network(), data, size=0)
    with pytest.raises(ValueError, match="`cycles` must be an int of at least 1. Received: 2.5"):
        snapshots(network(), data, cycles=2.5)
    with pytest.raises(ValueError, match="`settings` must be None or Training"):
        deep(network(), data, {"epochs": 3})
    with pytest.raises(ValueError, match="`seed` must be an int of at least 0"):
        deep(network(), data, seed=None)
    with pytest.raises(ValueError, match="`sampling` must be one of"):
        snapshots(network(), data, sampling="smote")
    with pytest.raises(ValueError, match="`member` must be made by `build_member`"):
        deep(plain, data, TUNED)
    with pytest.raises(ValueError, match="`probe=True` solves a head on pretrained features"):
        snapshots(network(), data, probe=True)
    with pytest.raises(ValueError, match="must be a multiple of `cycles`. Received: 50 epochs, 4 cycles. Take 48"):
        snapshots(network(), data, ek.Training(), cycles=4)
    with pytest.raises(ValueError, match="`settings.optimizer` must be a name"):
        snapshots(network(), data, dataclasses.replace(QUICK, optimizer=keras.optimizers.Adam()))
    with pytest.raises(ValueError, match="class indices from 0 to 2"):
        deep(network(), (data[0], data[1] + 1))
    with pytest.raises(ValueError, match="Labels are needed"):
        snapshots(network(), (data[0], None))
    assert not runs

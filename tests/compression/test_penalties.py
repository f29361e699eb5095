import keras
import numpy as np
import pytest
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.compression.penalties import Penalty
from ensemble_keras.members.initialisation import reinitialised
from ensemble_keras.members.trainer import Trainer
from ensemble_keras.members.training import Trainee, train


def network(norm=True, name="network"):
    """A member with two convolutions, the first of them normalised if asked for."""
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Conv2D(8, 3, use_bias=not norm, name="first")(x)
    if norm:
        x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(4, 3, name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return reinitialised(ek.build_member(keras.Model(inputs, x, name=name), 3), 0)


def images(n=60, seed=0):
    return ek.ImageDataset.from_arrays(*pictures(n, seed=seed))


def absolutes(variables):
    return sum(np.abs(keras.ops.convert_to_numpy(variable)).sum() for variable in variables)


def value(penalty, model, epoch=100.0):
    return float(penalty.on(model)(epoch))


def test_l1_is_the_sum_of_all_weights_that_train():
    model = network()
    expected = absolutes(model.trainable_variables)
    assert value(Penalty("l1", 0.5), model) == pytest.approx(0.5 * expected, rel=1e-5)
    inner = next(layer for layer in model._flatten_layers() if layer.name == "first")
    inner.trainable = False
    assert value(Penalty("l1", 0.5), model) == pytest.approx(0.5 * (expected - absolutes(inner.variables)), rel=1e-5)


def test_slimming_is_the_sum_of_the_scales_of_batch_normalisations():
    model = network()
    norm = next(layer for layer in model._flatten_layers() if layer.name == "norm")
    norm.gamma.assign(np.linspace(-1, 1, 8))
    assert value(Penalty("slimming", 2.0), model) == pytest.approx(2 * np.abs(np.linspace(-1, 1, 8)).sum(), rel=1e-6)


def test_group_lasso_is_the_sum_of_the_norms_of_all_that_makes_a_channel():
    model = network()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    layers = {layer.name: layer for layer in model._flatten_layers()}
    made = {
        8: [layers["first"].kernel, layers["norm"].gamma, layers["norm"].beta],
        4: [layers["second"].kernel, layers["second"].bias],
    }
    expected = 0.0
    for size, variables in made.items():
        columns = np.concatenate([keras.ops.convert_to_numpy(v).reshape(-1, size) for v in variables])
        expected += np.sqrt(len(columns)) * np.linalg.norm(columns, axis=0).sum()
    assert value(Penalty("group_lasso", 0.1), model) == pytest.approx(0.1 * expected, rel=1e-5)


def test_group_lasso_takes_channels_that_go_together_as_one():
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 1, use_bias=False, name="left")(inputs)
    y = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="right")(inputs)
    x = keras.layers.Concatenate()([keras.layers.Add()([x, y]), keras.layers.Conv2D(2, 1, name="beside")(inputs)])
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.DepthwiseConv2D(3, use_bias=False, name="depth")(x))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    left, right, depth, beside, bias = (
        keras.ops.convert_to_numpy(variable)
        for layer in ("left", "right", "depth", "beside")
        for variable in model.get_layer(layer).weights
    )
    sums = np.concatenate([left.reshape(-1, 4), right.reshape(-1, 4), depth[:, :, :4, 0].reshape(-1, 4)])
    alone = np.concatenate([beside.reshape(-1, 2), bias.reshape(1, 2), depth[:, :, 4:, 0].reshape(-1, 2)])
    expected = sum(np.sqrt(len(w)) * np.linalg.norm(w, axis=0).sum() for w in (sums, alone))
    assert value(Penalty("group_lasso", 1.0), model) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_is_that_of_the_weights_at_the_time():
    model = network()
    penalty = Penalty("l1", 1.0).on(model)
    before = float(penalty(1.0))
    model.set_weights([2 * weight for weight in model.get_weights()])
    assert float(penalty(1.0)) == pytest.approx(2 * before, rel=1e-5)


@pytest.mark.parametrize(("epoch", "share"), [(0.0, 0.0), (0.5, 0.25), (2.0, 1.0), (7.0, 1.0)])
def test_the_strength_rises_along_a_line_and_stays(epoch, share):
    model = network()
    whole = absolutes(model.trainable_variables)
    assert value(Penalty("l1", 1.0, warmup_epochs=2.0), model, epoch) == pytest.approx(share * whole, rel=1e-5)
    assert value(Penalty("l1", 1.0, warmup_epochs=0), model, epoch) == pytest.approx(whole, rel=1e-5)


class Losses(keras.callbacks.Callback):
    """Keeps the mean loss after each step."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs["loss"])


def test_a_compiled_step_adds_the_penalty_of_its_time():
    # The weights hardly move, so that what changes is the schedule's.
    settings = ek.Training(epochs=4, batch_size=20, learning_rate=1e-12, weight_decay=0.0)
    penalised, plain = Losses(), Losses()
    for penalty, losses in ((Penalty("l1", 0.1, warmup_epochs=2.0), penalised), (None, plain)):
        Trainer(network(), settings, penalty=penalty, callbacks=[losses], verbose=0).run(images(), None, seed=0)
    whole = 0.1 * absolutes(network().trainable_variables)
    shares = np.minimum(np.arange(12) / 6, 1).reshape(4, 3)
    # Of each epoch, Keras tells the mean of the steps so far.
    expected = whole * (np.cumsum(shares, axis=1) / np.arange(1, 4)).ravel()
    np.testing.assert_allclose(np.subtract(penalised.values, plain.values), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["l1", "slimming", "group_lasso"])
def test_training_with_a_penalty_leaves_smaller_weights(kind):
    settings = ek.Training(epochs=6, batch_size=10, learning_rate=0.03)
    left = {}
    for strength in (1e-9, 1.0):
        model = network()
        Trainer(model, settings, penalty=Penalty(kind, strength), verbose=0).run(images(), None, seed=0)
        left[strength] = value(Penalty(kind, 1.0), model)
    assert left[1.0] < 0.8 * left[1e-9]


def test_channels_that_are_zero_leave_finite_gradients():
    model = network()
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    Trainer(model, ek.Training(epochs=1), penalty=Penalty("group_lasso", 0.1), verbose=0).run(images(), None, seed=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_the_network_is_saved_as_without_a_penalty(tmp_path):
    model = network()
    config, paths = model.get_config(), [variable.path for variable in model.variables]
    Trainer(model, ek.Training(epochs=1), penalty=Penalty("l1", 1e-3), verbose=0).run(images(), None, seed=0)
    assert model.get_config() == config
    assert [variable.path for variable in model.variables] == paths
    model.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    x = images().load(image_size=16)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_under_a_penalty_the_last_epoch_is_kept():
    settings = ek.Training(epochs=4, batch_size=20, learning_rate=0.05, patience=1)
    wrong = images(30, seed=1).with_labels((images(30, seed=1).labels + 1) % 3)  # it gets worse with every epoch
    result = Trainer(network(), settings, penalty=Penalty("l1", 1e-3), verbose=0).run(images(), wrong, seed=0)
    assert result.best_epoch == len(result.history["val_loss"]) == 4
    assert np.argmin(result.history["val_loss"]) < 3


def test_a_second_training_warms_up_again():
    settings = ek.Training(epochs=2, batch_size=20, learning_rate=0.01)
    trainee = Trainee(network(), settings, penalty=Penalty("l1", 0.01, warmup_epochs=2.0))
    start, losses = trainee.network.get_weights(), []
    for _ in range(2):
        trainee.network.set_weights(start)
        losses.append(train(trainee, images(), None, seed=0, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_training_goes_on_in_the_midst_of_the_warm_up(tmp_path):
    settings = ek.Training(epochs=4, batch_size=20, learning_rate=0.01)
    penalty = Penalty("l1", 0.01, warmup_epochs=4.0)
    once, twice = network(), network()
    Trainer(once, settings, penalty=penalty, verbose=0).run(images(), None, seed=0)
    for epochs in (2, 4):
        trainer = Trainer(twice, settings, penalty=penalty, verbose=0)
        trainer.run(images(), None, seed=0, epochs=epochs, checkpoint=tmp_path / "state.npz")
    for one, other in zip(once.get_weights(), twice.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_training_depends_on_names_the_penalty():
    settings = ek.Training(epochs=1)
    assert "penalty" not in Trainer(network(), settings).depends_on()
    described = Trainer(network(), settings, penalty=Penalty("slimming", 0.1)).depends_on()["penalty"]
    assert described == {"kind": "slimming", "strength": 0.1, "warmup_epochs": 1.0}


def test_a_network_without_what_is_penalised_is_refused():
    with pytest.raises(ValueError, match="in which scales of batch normalisations train. Received: 'network'"):
        Penalty("slimming", 0.1).on(network(norm=False))
    frozen = network()
    frozen.trainable = False
    with pytest.raises(ValueError, match="in which weights train"):
        Penalty("l1", 0.1).on(frozen)
    with pytest.raises(ValueError, match="in which weights of removable channels train"):
        Penalty("group_lasso", 0.1).on(frozen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "l2", "strength": 0.1}, "`kind` must be one of"),
        ({"kind": "l1", "strength": 0.0}, "`strength` must be above 0. Received: 0.0"),
        ({"kind": "l1", "strength": True}, "`strength` must be above 0"),
        ({"kind": "l1", "strength": 0.1, "warmup_epochs": -1}, "`warmup_epochs` must be at least 0"),
        ({"kind": "l1", "strength": float("nan")}, "`strength` must be above 0. Received: nan"),
    ],
)
def test_malformed_penalties_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Penalty(**options)

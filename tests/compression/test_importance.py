import keras
import numpy as np
import pytest
from keras import layers

from ensemble_keras.compression.channels import channel_groups
from ensemble_keras.compression.importance import Widths, channel_importance, channels_below
from ensemble_keras.compression.savings import Savings
from ensemble_keras.compression.slicing import remove_channels
from ensemble_keras.measures.macs import count_macs


def network():
    """A convolution of two channels with a normalisation, one of three without, and their readers."""
    x = images = keras.Input((4, 4, 3))
    x = layers.Conv2D(2, 1, use_bias=False, name="a")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(3, 3, name="b")(layers.ReLU()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(2, name="scores")(x), name="network")


def test_importance_is_the_scale_or_the_weights_times_the_scale(rng):
    model = network()
    kernel, gamma = rng.normal(size=(1, 1, 3, 2)), np.array([0.5, -2.0])
    model.get_layer("a").kernel.assign(kernel)
    model.get_layer("norm").gamma.assign(gamma)
    groups = channel_groups(model)
    slimming = channel_importance(groups, "slimming")
    assert list(slimming) == ["a"]
    np.testing.assert_allclose(slimming["a"], [0.5, 2.0])
    l1, lasso = channel_importance(groups, "l1"), channel_importance(groups, "group_lasso")
    np.testing.assert_allclose(l1["a"], np.abs(kernel).mean(axis=(0, 1, 2)) * [0.5, 2.0], rtol=1e-6)
    np.testing.assert_allclose(lasso["a"], np.sqrt((kernel**2).mean(axis=(0, 1, 2))) * [0.5, 2.0], rtol=1e-6)
    b = keras.ops.convert_to_numpy(model.get_layer("b").kernel)
    np.testing.assert_allclose(l1["b"], np.abs(b).mean(axis=(0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "size", "kept"),
    [
        (30, 64, 32),
        (27, 64, 24),
        (0, 64, 8),
        (64, 64, 64),
        (19, 20, 16),
        (20, 20, 20),
        (28, 64, 32),
        (3, 8, 3),
        (0, 4, 1),
        (1, 12, 8),
    ],
)
def test_widths_are_rounded_where_there_are_enough_channels(wanted, size, kept):
    assert Widths(floor=0.05, round_to=8).kept(wanted, size) == kept


def test_a_floor_keeps_a_share_of_each_group():
    assert Widths(floor=0.5, round_to=1).kept(3, 20) == 10
    gone = channels_below({"a": np.array([0.3, 0.1, 0.2, 0.9])}, 0.5, Widths(floor=0.5, round_to=1))
    assert gone["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"floor": 0}, r"`floor` must be in \(0, 1\]"), ({"round_to": 0}, "`round_to` must be an int of at least 1")],
)
def test_wrong_widths_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Widths(**options)


def attention():
    x = images = keras.Input((8, 8, 3))
    x = layers.Dense(6)(layers.Reshape((48, 4))(x))
    x = layers.Add()([x, layers.MultiHeadAttention(4, 3)(x, x)])
    x = layers.Bidirectional(layers.LSTM(5))(x)
    return keras.Model(images, layers.Dense(2)(x), name="network")


@pytest.mark.parametrize("build", [network, attention])
def test_savings_are_those_of_the_rebuilt_network(build):
    model = build()
    groups = channel_groups(model)
    channels = {group.name: np.arange(group.size // 2) for group in groups}
    narrow = remove_channels(model, channels)
    shares = Savings(model, groups).shares(channels)
    assert shares["parameters"] == pytest.approx(1 - narrow.count_params() / model.count_params())
    before, after = count_macs(model).total, count_macs(narrow).total
    assert shares["macs"] == pytest.approx(1 - after / before, abs=1e-9)

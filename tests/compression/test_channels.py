import keras
import numpy as np
import pytest
from keras import layers

from ensemble_keras.compression.channels import channel_groups


def network(function, shape=(8, 8, 3)):
    """A classifier of two classes on what `function` makes of images."""
    images = keras.Input(shape)
    x = function(images)
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return keras.Model(images, layers.Dense(2, "softmax", name="predictions")(x))


def sizes(model):
    return {group.name: group.size for group in channel_groups(model)}


def places(group, role):
    """Layers, variables and axes of a group's slices of a role."""
    return {(place.path, place.variable.name, place.axis) for place in group.slices if place.role == role}


def conv(filters, name, **options):
    return layers.Conv2D(filters, 3, padding="same", name=name, **options)


def test_a_chain_has_a_group_for_each_layer_but_the_last():
    model = network(lambda x: conv(5, "b")(layers.BatchNormalization(name="norm")(conv(4, "a")(x))))
    first, second = channel_groups(model)
    assert (first.name, first.size, second.name, second.size) == ("a", 4, "b", 5)
    assert places(first, "kernel") == {("a", "kernel", 3)}
    assert places(first, "scale") == {("norm", "gamma", 0)}
    assert places(first, "shift") == {("a", "bias", 0), ("norm", "beta", 0), ("norm", "moving_mean", 0)}
    assert places(first, "statistic") == {("norm", "moving_variance", 0)}
    assert places(first, "reader") == {("b", "kernel", 2)}
    assert places(second, "reader") == {("predictions", "kernel", 0)}
    assert [place.channels.tolist() for place in first.producers] == [[0, 1, 2, 3]]


def test_sums_and_products_tie_layers_together():
    def block(x):
        x = conv(4, "a")(x)
        weights = layers.Dense(4, "sigmoid", name="excite")(layers.GlobalAveragePooling2D(keepdims=True)(x))
        return layers.Add()([x, layers.Multiply()([conv(4, "b")(x), weights])])

    [group] = channel_groups(network(block))
    assert group.size == 4
    assert {place.path for place in group.producers} == {"a", "b", "excite"}
    assert {place.path for place in group.readers} == {"b", "excite", "predictions"}


def test_concatenated_layers_stay_apart_and_readers_know_where_they_lie():
    model = network(lambda x: layers.Concatenate()([conv(2, "a")(x), conv(3, "b")(x)]))
    first, second = channel_groups(model)
    assert (first.size, second.size) == (2, 3)
    assert first.readers[0].channels.tolist() == [0, 1, -1, -1, -1]
    assert second.readers[0].channels.tolist() == [-1, -1, 0, 1, 2]


def test_a_sum_of_concatenations_is_one_group():
    def block(x):
        joined = layers.Concatenate()([conv(2, "a")(x), conv(3, "b")(x)])
        return layers.Add()([joined, conv(5, "c")(x)])

    [group] = channel_groups(network(block))
    assert group.size == 5
    assert {place.path: place.channels.tolist() for place in group.producers} == {
        "a": [0, 1],
        "b": [2, 3, 4],
        "c": [0, 1, 2, 3, 4],
    }


def test_a_flattened_channel_has_a_place_for_every_pixel():
    model = network(lambda x: layers.Flatten()(conv(2, "a")(x)), shape=(2, 2, 3))
    [group] = channel_groups(model)
    assert group.readers[0].channels.tolist() == [0, 1] * 4


def test_depthwise_and_separable_convolutions_pass_channels_on():
    def block(x):
        x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(conv(3, "a")(x))
        return layers.SeparableConv2D(5, 3, name="separable")(x)

    first, second = channel_groups(network(block))
    assert (first.name, first.size, second.name, second.size) == ("a", 3, "separable", 5)
    assert ("depthwise", "kernel", 2) in places(first, "kernel")
    assert [p.channels.tolist() for p in first.readers] == [[0, 0, 1, 1, 2, 2]] * 2


def test_recurrent_units_and_attention_heads_are_channels():
    def block(x):
        x = layers.Reshape((8, 24))(x)
        x = layers.Dense(6, name="embedding")(x)
        x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
        return layers.Bidirectional(layers.GRU(4, name="gru"), name="both")(x)

    groups = {group.name: group for group in channel_groups(network(block))}
    assert {name: group.size for name, group in groups.items()} == {
        "embedding": 6,
        "attention/heads": 2,
        "attention": 6,
        "both/forward_gru": 4,
        "both/backward_gru": 4,
    }
    assert groups["both/forward_gru"].producers[0].channels.tolist() == [0, 1, 2, 3] * 3


def test_shared_layers_and_nested_models_are_followed():
    inner_images = keras.Input((None, None, 4))
    inner = keras.Model(inner_images, conv(6, "b")(conv(5, "a")(inner_images)), name="inner")

    def block(x):
        shared = conv(4, "shared")
        x = layers.Add()([shared(x), shared(layers.Activation("relu")(x))])
        return inner(x)

    assert sizes(network(block)) == {"shared": 4, "inner/a": 5, "inner/b": 6}


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: layers.LayerNormalization()(conv(4, "a")(x)), id="layer norm"),
        pytest.param(lambda x: layers.Softmax()(conv(4, "a")(x)), id="softmax"),
        pytest.param(lambda x: conv(4, "a", activation="softmax")(x), id="softmax as activation"),
        pytest.param(lambda x: conv(4, "b", groups=2)(conv(4, "a")(x)), id="grouped convolution"),
        pytest.param(lambda x: layers.Add()([x, conv(3, "a")(x)]), id="sum with the images"),
        pytest.param(lambda x: layers.Permute((3, 1, 2))(conv(4, "a")(x)), id="channels moved"),
        pytest.param(lambda x: layers.Reshape((8, 16, 2))(conv(4, "a")(x)), id="channels split"),
        pytest.param(lambda x: conv(4, "a")(x)[..., ::-1], id="channels reversed"),
        pytest.param(lambda x: layers.Rescaling(2, offset=1)(conv(4, "a")(x)), id="offset"),
        pytest.param(lambda x: layers.Multiply()([conv(4, "a")(x), conv(1, "b")(x)]), id="one for all"),
        pytest.param(lambda x: layers.LSTM(4, "softmax")(layers.Reshape((8, 24))(x)), id="units in a softmax"),
        pytest.param(
            lambda x: layers.GRU(4, recurrent_activation="softmax")(layers.Reshape((8, 24))(x)),
            id="gates in a softmax",
        ),
        pytest.param(
            lambda x: layers.Bidirectional(layers.SimpleRNN(4, "sigmoid"))(layers.Reshape((8, 24))(x)),
            id="a half without weights",
        ),
    ],
)
def test_channels_that_must_stay_are_not_listed(function):
    assert sizes(network(function)) == {}


def test_what_has_no_graph_is_refused():
    with pytest.raises(ValueError, match="must be a functional or built sequential model"):
        channel_groups(keras.Sequential([layers.Dense(2)]))


def test_numbers_of_a_group_are_those_of_its_first_layer(rng):
    model = network(lambda x: conv(5, "b")(conv(16, "a")(x)))
    np.testing.assert_array_equal(channel_groups(model)[0].producers[0].channels, np.arange(16))

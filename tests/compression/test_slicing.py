import random

import keras
import numpy as np
import pytest
from genomes import random_genome
from keras import layers
from tiny_members import tiny_member

import ensemble_keras as ek
from ensemble_keras.compression.channels import channel_groups
from ensemble_keras.compression.slicing import remove_channels
from ensemble_keras.search.family import get_family, list_families

APPLICATIONS = ["VGG16", "ResNet50V2", "MobileNetV2", "DenseNet121", "Xception", "InceptionV3"]
OTHERS = ["EfficientNetB0", "MobileNetV3Small", "InceptionResNetV2", "ConvNeXtTiny", "NASNetMobile"]


def network(function, shape=(8, 8, 3)):
    """A model from images to five scores, by what `function` makes of the images."""
    images = keras.Input(shape)
    x = function(images)
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return keras.Model(images, layers.Dense(5, name="scores")(x))


def like_trained(model, seed=0):
    """Gives all variables, those of normalisations, too, values as a trained network has them; returns the model."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
        elif "kernel" in variable.name:
            inputs = variable.shape[:2] if "depthwise" in variable.path else variable.shape[:-1]
            variable.assign(rng.normal(0, np.sqrt(2 / np.prod(inputs)), variable.shape))
    return model


def half_of_each(model, seed=0):
    """Half of the channels of each group, at random."""
    rng = np.random.default_rng(seed)
    groups = [group for group in channel_groups(model) if group.size > 1]
    return {group.name: rng.choice(group.size, group.size // 2, replace=False) for group in groups}


def silence(model, channels, roles=("kernel", "scale", "shift")):
    """Makes what channels give zero: their kernels, biases, scales, shifts and means."""
    for group in channel_groups(model):
        for place in group.slices:
            if place.role in roles:
                values = np.array(keras.ops.convert_to_numpy(place.variable))
                where = np.isin(place.channels, channels.get(group.name, ()))
                values[(slice(None),) * place.axis + (where,)] = 0
                place.variable.assign(values)


def check_removal_changes_nothing(model, roles=("kernel", "scale", "shift")):
    """Checks that without silenced channels a model is smaller and says the same; returns the smaller one."""
    channels = half_of_each(like_trained(model))
    assert channels
    silence(model, channels, roles)
    narrow = remove_channels(model, channels)
    assert narrow.count_params() < model.count_params()
    agree(model, narrow)
    return narrow


def agree(model, narrow):
    images = np.random.default_rng(1).integers(0, 256, (4, *model.input_shape[1:])).astype("float32")
    expected, found = (keras.ops.convert_to_numpy(m(images, training=False)) for m in (model, narrow))
    assert np.ptp(expected, axis=0).max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(np.abs(expected).max(), 1))


def quick(names, all_names):
    """All names as parameters, those that are not quick marked as slow."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in all_names]


@pytest.mark.parametrize("family", quick(["mobilenet", "transformer", "recurrent"], list_families()))
@pytest.mark.parametrize("seed", quick([0], range(4)))
def test_a_searched_network_without_its_silent_channels_says_the_same(family, seed):
    family = get_family(family)
    genome = random_genome(family, np.random.default_rng(seed))
    model = network(lambda x: family.build(layers.Rescaling(1 / 127.5, -1)(x), genome), (16, 16, 3))
    if family.name == "cnn" and genome["norm"] == "layer":
        # It looks at all channels of a place together: none can go.
        assert channel_groups(model) == []
    else:
        check_removal_changes_nothing(model)


@pytest.mark.parametrize(
    "name",
    quick(
        ["CNN", "AlexNet(width=0.25)"],
        ["CNN", "AlexNet(width=0.25)", "Darknet19(width=0.25)", "Darknet53(width=0.125)"],
    ),
)
def test_a_custom_backbone_without_its_silent_channels_says_the_same(name):
    model = ek.build_member(name, 5, image_size=32, weights=None)
    narrow = check_removal_changes_nothing(model)
    assert ek.count_macs(narrow).total < 0.5 * ek.count_macs(model).total


@pytest.mark.slow
@pytest.mark.parametrize("name", [*APPLICATIONS, *OTHERS])
def test_an_application_without_its_silent_channels_says_the_same(name):
    backbone = ek.build_backbone(name, input_shape=(75, 75, 3), weights=None)
    model = network(backbone, (75, 75, 3))
    narrow = check_removal_changes_nothing(model)
    if name in APPLICATIONS:
        assert narrow.count_params() < 0.5 * model.count_params()


def chain(*parts):
    def build(x):
        for part in parts:
            x = part(x)
        return x

    return build


def conv(filters, **options):
    return layers.Conv2D(filters, 3, padding="same", **options)


def squeezed(x):
    y = layers.Dense(8, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Multiply()([x, y])


def attended(x):
    x = layers.Dense(6)(layers.Reshape((8, 24))(x))
    x = layers.Add()([x, layers.MultiHeadAttention(4, 3)(x, value=x)])
    return layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 3, output_shape=8)(x, x, x))


def remembered(cell):
    def build(x):
        x = layers.Dense(6)(layers.Reshape((8, 24))(x))
        return cell(4)(layers.Bidirectional(cell(4, return_sequences=True))(x))

    return build


def twice(x):
    shared = conv(8, use_bias=False)
    x = conv(8)(x)
    return layers.Average()([shared(x), shared(layers.Activation("relu")(x))])


def nested(x):
    images = keras.Input((None, None, 8))
    inner = keras.Model(images, [conv(6)(images), conv(8, activation="relu")(images)], name="inner")
    plain = keras.Sequential([conv(8), layers.BatchNormalization(), layers.ReLU()], name="plain")
    one, other = inner(conv(8)(x))
    return layers.Concatenate()([plain(one), other, inner(other)[1]])


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(chain(conv(8), squeezed, conv(4)), id="squeeze and excitation"),
        pytest.param(
            chain(conv(8), layers.DepthwiseConv2D(3, depth_multiplier=2), layers.PReLU(shared_axes=(1, 2)), conv(4)),
            id="depthwise",
        ),
        pytest.param(chain(conv(8), layers.SeparableConv2D(6, 3, depth_multiplier=2), conv(4)), id="separable"),
        pytest.param(chain(conv(8), layers.Flatten(), layers.Dense(6, "relu")), id="flattened"),
        pytest.param(chain(conv(8), layers.Conv2DTranspose(4, 3), layers.UpSampling2D()), id="transposed"),
        pytest.param(
            chain(conv(8), layers.Reshape((1, 64, 8)), layers.Reshape((-1, 8)), layers.Flatten()), id="reshaped"
        ),
        pytest.param(
            chain(
                layers.Reshape((8, 24)),
                layers.Dense(4),
                layers.EinsumDense("bnd,de->bne", (8, 6), bias_axes="ne"),
                layers.GlobalMaxPooling1D(),
            ),
            id="einsum",
        ),
        pytest.param(attended, id="attention"),
        pytest.param(remembered(layers.GRU), id="GRU"),
        pytest.param(remembered(layers.LSTM), id="LSTM"),
        pytest.param(remembered(layers.SimpleRNN), id="SimpleRNN"),
        pytest.param(twice, id="shared layer"),
        pytest.param(nested, id="nested models"),
        pytest.param(lambda x: keras.ops.relu(conv(8)(x) + conv(8)(x)) * 0.5, id="operations"),
    ],
)
def test_each_kind_of_layer_without_its_silent_channels_says_the_same(function, tmp_path):
    model = network(function)
    narrow = check_removal_changes_nothing(model)
    narrow.save(tmp_path / "narrow.keras")
    agree(narrow, keras.saving.load_model(tmp_path / "narrow.keras"))


@pytest.mark.parametrize("norm", quick([True], [True, False]))
@pytest.mark.parametrize(
    "reader",
    [
        pytest.param(chain(layers.Conv2D(4, 3, padding="valid"), layers.Conv2D(4, 1)), id="biases"),
        pytest.param(chain(layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization()), id="norm after it"),
        pytest.param(chain(layers.Conv2D(4, 3, use_bias=False), layers.ReLU()), id="new bias"),
        pytest.param(
            chain(layers.Conv2D(4, 3, use_bias=False, activation="relu"), layers.BatchNormalization()),
            id="activation before the norm",
        ),
        pytest.param(layers.SeparableConv2D(4, 3, use_bias=False, depth_multiplier=2), id="separable"),
        pytest.param(chain(layers.DepthwiseConv2D(3), layers.ReLU(), layers.Conv2D(4, 1)), id="depthwise"),
        pytest.param(chain(layers.MaxPooling2D(), layers.Flatten(), layers.Dense(6)), id="flattened"),
        pytest.param(chain(squeezed, layers.Conv2D(3, 1)), id="squeeze and excitation"),
        pytest.param(chain(layers.PReLU(shared_axes=(1, 2)), layers.Conv2D(3, 1)), id="PReLU"),
        pytest.param(lambda x: layers.Conv2D(3, 1)((layers.Add()([x, x]) + x) * 0.5), id="sums and products"),
        pytest.param(
            chain(layers.Reshape((64, 8)), layers.EinsumDense("bnd,de->bne", (64, 6)), layers.Flatten()), id="einsum"
        ),
    ],
)
def test_constants_of_removed_channels_are_absorbed(norm, reader):
    parts = [conv(8), layers.BatchNormalization()] if norm else [conv(8)]
    model = network(chain(*parts, layers.LeakyReLU(), reader))
    # Biases and shifts stay: the channels give a constant, which is not zero.
    check_removal_changes_nothing(model, roles=("kernel",))


@pytest.mark.parametrize("combiner", quick(["stacking"], ["voting", "stacking", "concatenation"]))
def test_members_and_ensembles_become_narrower_as_a_whole(combiner):
    backbone = ek.build_backbone("CNN(filters=(8, 16))", input_shape=(16, 16, 3), weights=None)
    heads = [ek.build_member(backbone, 2, name=name) for name in ("a", "b")]
    other = ek.build_member("Darknet19(width=0.125)", 2, image_size=16, weights=None)
    combiner = {
        "voting": ek.SoftVoting,
        "stacking": lambda: ek.StackedMetaLearner(2, units=(8,)),
        "concatenation": lambda: ek.ConcatenateDense(2, units=(8,)),
    }[combiner]()
    model = ek.build_ensemble([*heads, other], combiner, test_time_augmentation="horizontal_flip")
    narrow = check_removal_changes_nothing(model)
    assert narrow.count_params() < 0.5 * model.count_params()
    assert [layer.name for layer in narrow.layers] == [layer.name for layer in model.layers]


def test_a_copy_without_removals_is_equal_and_shares_nothing():
    model = like_trained(tiny_member("member"))
    copy = remove_channels(model, {})
    assert copy.name == model.name
    agree(model, copy)
    before = model.get_weights()
    for variable in copy.variables:
        variable.assign(variable + 1)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_adapted_normalisation_keeps_its_statistics(rng):
    normalisation = layers.Normalization()
    normalisation.adapt(rng.uniform(0, 255, (20, 8, 8, 3)))
    check_removal_changes_nothing(network(chain(normalisation, conv(4))))


def test_a_convolution_that_a_norm_and_another_layer_read_takes_the_constant_once():
    def build(x):
        shared = layers.Conv2D(4, 1, use_bias=False)
        x = layers.ReLU()(conv(8)(x))
        return layers.Add()([layers.BatchNormalization()(shared(x)), shared(x)])

    check_removal_changes_nothing(network(build), roles=("kernel",))


def test_frozen_layers_stay_frozen_and_the_random_state_is_the_users():
    model = network(conv(4, name="conv"))
    model.get_layer("conv").trainable = False
    state = random.getstate()
    narrow = remove_channels(model, {"conv": [1]})
    assert random.getstate() == state
    assert not narrow.get_layer("conv").trainable
    assert narrow.get_layer("scores").trainable


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"conf": [0]}, "no channels 'conf'. Did you mean 'conv'"),
        ({"conv": [4]}, r"from 0 to 3. Received: \[4\]"),
        ({"conv": [-1]}, r"from 0 to 3. Received: \[-1\]"),
        ({"conv": [0.5]}, r"from 0 to 3. Received: \[0.5\]"),
        ({"conv": [0, 1, 2, 3]}, "At least one channel of 'conv' must stay. Received: all 4"),
        ({"scores": [0]}, "Channels of 'scores' cannot be removed: they are an output of the model"),
        ({"same": [0]}, "Channels of 'same' go together with those of 'conv'. Name that group"),
    ],
)
def test_wrong_channels_are_refused(channels, message):
    model = network(lambda x: layers.Add()([conv(4, name="conv")(x), conv(4, name="same")(x)]))
    with pytest.raises(ValueError, match=message):
        remove_channels(model, channels)


def test_the_layer_that_holds_channels_is_named():
    model = network(chain(conv(4, name="conv"), layers.LayerNormalization(name="norm")))
    with pytest.raises(
        ValueError, match=r"'conv' cannot be removed: 'norm' \(LayerNormalization\) reads or makes them"
    ):
        remove_channels(model, {"conv": [0]})


class OwnModel(keras.Model):
    def call(self, x):
        return x * 2


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.Lambda(lambda x: x, name="own"), r"'own' \(Lambda\) cannot be rebuilt: a Lambda holds code"),
        (OwnModel(name="own"), r"'own' \(OwnModel\) cannot be rebuilt: a model without a graph"),
    ],
)
def test_what_cannot_be_copied_is_refused_by_name(layer, message):
    with pytest.raises(ValueError, match=message):
        remove_channels(network(layer), {})


def test_quantised_weights_are_refused():
    model = network(conv(4, name="conv"))
    model.get_layer("scores").quantize("int8")
    with pytest.raises(ValueError, match=r"'scores' \(Dense\) cannot be rebuilt: its weights are quantised"):
        remove_channels(model, {})

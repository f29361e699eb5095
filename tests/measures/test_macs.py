import keras
import numpy as np
import pytest
from keras import layers, ops

from ensemble_keras.backbones.registry import build_backbone
from ensemble_keras.measures.macs import count_macs


def model_of(function, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, function(inputs))


# Kind, input shape, layer, multiply-accumulates by hand.
LAYERS = [
    ((9, 3), layers.Conv1D(4, 3, strides=2), 4 * 3 * 3 * 4),
    ((8, 8, 6), layers.Conv2D(4, 3, groups=2), 36 * 9 * 3 * 4),
    ((8, 8, 3), layers.Conv2D(4, 3, padding="same", dilation_rate=2), 64 * 9 * 3 * 4),
    ((4, 4, 4, 2), layers.Conv3D(3, 2), 27 * 8 * 2 * 3),
    ((8, 8, 6), layers.DepthwiseConv2D(3, depth_multiplier=2), 36 * 9 * 12),
    ((8, 8, 6), layers.SeparableConv2D(5, 3), 36 * (9 * 6 + 6 * 5)),
    ((8, 8, 6), layers.Conv2DTranspose(5, 2, strides=2), 64 * 4 * 6 * 5),
    ((7, 6), layers.Dense(5), 7 * 6 * 5),
    ((7, 6), layers.EinsumDense("...x,xy->...y", 5), 7 * 6 * 5),
    ((7, 6), layers.EinsumDense("abc,cde->abde", (7, 2, 5)), 7 * 6 * 2 * 5),
    ((7, 6), layers.LSTM(5), 7 * 4 * (6 * 5 + 5 * 5)),
    ((7, 6), layers.GRU(5, return_sequences=True), 7 * 3 * (6 * 5 + 5 * 5)),
    ((7, 6), layers.Bidirectional(layers.SimpleRNN(5)), 2 * 7 * (6 * 5 + 5 * 5)),
    ((7, 4, 6), layers.TimeDistributed(layers.Dense(5)), 7 * 4 * 6 * 5),
    ((7, 6), layers.BatchNormalization(), 0),
    ((8, 8, 3), layers.MaxPooling2D(), 0),
    ((8, 8, 3), layers.Resizing(4, 4), 0),
    ((7,), layers.Embedding(10, 3), 0),
]


@pytest.mark.parametrize(("shape", "layer", "expected"), LAYERS, ids=lambda value: getattr(value, "name", None))
def test_each_kind_of_layer_counts_as_by_hand(shape, layer, expected):
    found = count_macs(model_of(layer, shape))
    assert found.total == expected
    assert not found.unknown


def test_attention_counts_projections_and_products():
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=4, value_dim=3)
    found = count_macs(model_of(lambda x: layer(x, x), (10, 6))).total
    projections = 10 * 6 * 2 * (4 + 4 + 3) + 10 * 2 * 3 * 6
    assert found == projections + 2 * 10 * 10 * (4 + 3)
    assert count_macs(model_of(lambda x: layers.Attention()([x, x]), (10, 6))).total == 2 * 10 * 10 * 6


def test_operations_count_too():
    assert count_macs(model_of(lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), (7, 5))).total == 7 * 7 * 5
    assert count_macs(model_of(lambda x: ops.einsum("bij,bkj->bik", x, x), (7, 5))).total == 7 * 7 * 5
    weights = np.ones((9, 7), "float32")
    assert count_macs(model_of(lambda x: ops.matmul(weights, x), (7, 5))).total == 9 * 7 * 5
    assert count_macs(model_of(lambda x: ops.einsum("ij,bjk->bik", weights, x), (7, 5))).total == 9 * 7 * 5
    attended = model_of(lambda x: ops.dot_product_attention(x, x, x[..., :3]), (7, 2, 5))
    assert count_macs(attended).total == 7 * 7 * 2 * (5 + 3)
    assert count_macs(model_of(lambda x: ops.relu(x[:, ::-1]) * 2.0 + ops.mean(x), (7, 5))).total == 0


def test_shared_layers_count_each_time_and_nested_models_layer_by_layer():
    dense = layers.Dense(4, name="dense")
    inner = model_of(lambda x: layers.Dense(4, name="inside")(dense(dense(x))), (4,))
    inner.name = "inner"
    found = count_macs(model_of(lambda x: inner(inner(x)), (4,)))
    assert found.total == 6 * 16
    assert found.parameters == 2 * 20
    assert found.by_layer["layer"].tolist()[:3] == ["inner/dense", "inner/dense", "inner/inside"]
    assert found.by_layer["macs"].sum() == found.total


def test_attention_with_a_mask_and_by_keyword():
    def masked(x):
        layer = layers.MultiHeadAttention(num_heads=2, key_dim=4)
        return layer(value=x, query=x[:, :3], attention_mask=ops.ones((1, 3, 10)))

    projections = (3 + 2 * 10) * 6 * 8 + 3 * 8 * 6
    assert count_macs(model_of(masked, (10, 6))).total == projections + 2 * 3 * 10 * 8


def test_a_nested_model_of_any_size_counts_at_the_size_it_is_called_at():
    any_size = model_of(lambda x: layers.Conv2D(4, 3, padding="same")(layers.Conv2D(5, 3)(x)), (None, None, 3))
    model = model_of(lambda x: layers.Add()([any_size(x), any_size(x[..., ::-1])]), (8, 8, 3))
    found = count_macs(model)
    assert found.total == 2 * 36 * 9 * (3 * 5 + 5 * 4)
    assert (6, 6, 5) in found.by_layer["output_shape"].tolist()
    fixed = model_of(any_size, (8, 8, 3))
    assert count_macs(fixed).peak_activation_bytes == 4 * (64 * 3 + 36 * 5)


class Squared(layers.Dense):
    def call(self, inputs):
        return super().call(inputs) @ ops.transpose(super().call(inputs))


@pytest.mark.parametrize(
    "layer",
    [layers.Lambda(lambda x: x @ x, (4,), name="odd"), Squared(4, name="odd"), layers.ConvLSTM1D(2, 1, name="odd")],
)
def test_layers_that_are_not_known_are_listed_never_zero(layer):
    shape = (3, 5, 2) if isinstance(layer, layers.ConvLSTM1D) else (4,)
    found = count_macs(model_of(lambda x: layer(layers.Activation("relu")(x)), shape))
    assert found.unknown == ["odd"]
    assert found.by_layer.set_index("layer").loc["odd", "macs"] is not None
    assert found.by_layer["macs"].isna().tolist() == [False, True]
    assert found.total == 0


def test_it_is_the_same_after_saving(tmp_path):
    model = build_backbone("MobileNet(alpha=0.25)", input_shape=(64, 64, 3), weights=None)
    before = count_macs(model)
    model.save(tmp_path / "model.keras")
    after = count_macs(keras.saving.load_model(tmp_path / "model.keras"))
    assert (after.total, after.unknown, after.parameters) == (before.total, [], model.count_params())
    assert after.peak_activation_bytes == before.peak_activation_bytes


def test_the_peak_is_what_is_alive_at_a_time():
    def branches(x):
        wide = layers.Conv2D(8, 1)(x)
        narrow = layers.Conv2D(1, 1)(wide)
        return layers.Add()([layers.Conv2D(1, 1)(x), narrow])

    # The input, needed twice, beside the wide map and what is made of it.
    assert count_macs(model_of(branches, (10, 10, 3))).peak_activation_bytes == 4 * 100 * (3 + 8 + 1)
    half = model_of(layers.Conv2D(8, 1, dtype="float16"), (10, 10, 3))
    assert count_macs(half).peak_activation_bytes == 100 * (3 * 4 + 8 * 2)


def test_models_without_static_shapes_or_without_a_graph_are_refused():
    with pytest.raises(ValueError, match=r"All sizes but the batch's must be known. Received: layer 'conv'"):
        count_macs(model_of(layers.Conv2D(4, 3, name="conv"), (None, None, 3)))

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="must be a functional or built sequential model.*Received: Own"):
        count_macs(Own())


APPLICATIONS = [
    ("MobileNetV2", 0.3008),
    ("ResNet50", 3.858),
    ("DenseNet121", 2.834),
    ("Xception", 8.357),
    ("VGG16", 15.470),
    ("InceptionV3", 5.713),
    ("EfficientNetB0", 0.3858),
]


@pytest.mark.parametrize(
    ("name", "billions"), [APPLICATIONS[0], *(pytest.param(*a, marks=pytest.mark.slow) for a in APPLICATIONS[1:])]
)
def test_networks_of_keras_at_their_own_size(name, billions, tmp_path):
    model = getattr(keras.applications, name)(weights=None)
    found = count_macs(model)
    np.testing.assert_allclose(found.total, billions * 1e9, rtol=1e-3)
    assert not found.unknown
    model.save(tmp_path / "model.keras")
    after = count_macs(keras.saving.load_model(tmp_path / "model.keras"))
    assert (after.total, after.parameters, after.unknown) == (found.total, found.parameters, [])


def test_vgg19_for_cifar(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = keras.applications.VGG19(weights=None, include_top=False, input_shape=(32, 32, 3))(inputs)
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    found = count_macs(model)
    np.testing.assert_allclose(found.total, 398e6, rtol=1e-3)
    model.save(tmp_path / "model.keras")
    assert count_macs(keras.saving.load_model(tmp_path / "model.keras")).total == found.total

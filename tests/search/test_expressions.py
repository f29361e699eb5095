import keras
import numpy as np
import pytest
from keras import layers, ops

from ensemble_keras.measures.graph import calls
from ensemble_keras.search.expressions import input_expression, layer_expression, literal, operation_expression
from ensemble_keras.search.layout import flat

PLACES = {"keras": keras, "layers": layers, "np": np}

OPERATIONS = [
    (lambda x: x + 1, "keras.ops.add(x, 1)"),
    (lambda x: 2.5 - x, "keras.ops.subtract(2.5, x)"),
    (lambda x: -x, "keras.ops.negative(x)"),
    (lambda x: x**2, "keras.ops.power(x, 2)"),
    (lambda x: x @ np.eye(3, dtype="float32")[:, :2], None),
    (lambda x: x > 0.5, "keras.ops.greater(x, 0.5)"),
    (lambda x: x[:, 0], "x[:, 0]"),
    (lambda x: x[..., None, ::2], "x[..., None, ::2]"),
    (lambda x: x[:, 1:3, -1:], "x[:, 1:3, -1:]"),
    (lambda x: ops.sum(x, axis=(1, 2), keepdims=True), "keras.ops.sum(x, axis=(1, 2), keepdims=True)"),
    (lambda x: ops.mean(x), "keras.ops.mean(x)"),
    (lambda x: ops.softmax(x, axis=1), "keras.ops.softmax(x, axis=1)"),
    (lambda x: ops.leaky_relu(x, 0.1), "keras.ops.leaky_relu(x, negative_slope=0.1)"),
    (lambda x: ops.relu6(x), "keras.ops.relu6(x)"),
    (lambda x: ops.log2(x + 3), None),
    (lambda x: ops.reshape(x, (-1, 6, 8)), "keras.ops.reshape(x, (-1, 6, 8))"),
    (lambda x: ops.expand_dims(x, (1, -1)), "keras.ops.expand_dims(x, (1, -1))"),
    (lambda x: ops.transpose(x, (0, 3, 1, 2)), "keras.ops.transpose(x, axes=(0, 3, 1, 2))"),
    (lambda x: ops.concatenate([x, x], axis=-1), "keras.ops.concatenate([x, x], axis=-1)"),
    (lambda x: ops.stack([x, x], axis=1), "keras.ops.stack([x, x], axis=1)"),
    (lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0))), "keras.ops.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0)))"),
    (lambda x: ops.split(x, 2, axis=1)[1], None),
    (lambda x: ops.top_k(x, 2)[1], None),
    (lambda x: ops.einsum("bhwc,bhwd->bcd", x, x), 'keras.ops.einsum("bhwc,bhwd->bcd", x, x)'),
    (lambda x: ops.where(x, x, 0.0), "keras.ops.where(x, x1=x, x2=0.0)"),
    (lambda x: ops.cast(x, "int32"), 'keras.ops.cast(x, "int32")'),
    (lambda x: ops.one_hot(ops.cast(x, "int32"), 4), None),
    (lambda x: ops.max_pool(x, 2, 1, "same"), 'keras.ops.max_pool(x, 2, strides=1, padding="same")'),
    (lambda x: ops.conv(x, np.ones((2, 2, 3, 2), "float32")), None),
    (lambda x: ops.image.resize(x, (3, 3)), "keras.ops.image.resize(x, (3, 3))"),
    (lambda x: ops.norm(x, axis=-1), "keras.ops.norm(x, axis=-1)"),
    (lambda x: ops.clip(x, 0, 0.5), "keras.ops.clip(x, 0, 0.5)"),
    (lambda x: ops.multiply(x, np.array([1, 0.1, np.inf], "float32")), None),
    (lambda x: x * np.float32(0.1), "keras.ops.multiply(x, np.float32(0.1))"),
    (lambda x: x + np.arange(3), 'keras.ops.add(x, np.array([0, 1, 2], "int64"))'),
]


@pytest.mark.parametrize(("function", "text"), OPERATIONS, ids=range(len(OPERATIONS)))
def test_an_operation_is_written_as_the_function_that_makes_it(function, text, rng):
    inputs = keras.Input((4, 4, 3), name="x")
    model = keras.Model(inputs, function(inputs))
    values, tensors = {"x": rng.normal(size=(2, 4, 4, 3)).astype("float32")}, {id(inputs): "x"}
    for step, (operation, node) in enumerate(calls(model)):
        arguments = node.arguments.args, node.arguments.kwargs
        written = flat(operation_expression(operation, arguments, tensors))
        results = keras.tree.flatten(eval(written, PLACES | values))
        for number, (tensor, result) in enumerate(zip(node.outputs, results, strict=True)):
            tensors[id(tensor)] = name = f"step_{step}_{number}"
            values[name] = result
    assert text in (None, written)
    found = keras.ops.convert_to_numpy(values[tensors[id(model.outputs[0])]])
    np.testing.assert_array_equal(found, keras.ops.convert_to_numpy(model(values["x"])))


LAYERS = [
    'layers.Dense(4, name="a")',
    'layers.Dense(4, activation="relu", trainable=False, name="a")',
    'layers.Dense(4, activation=layers.LeakyReLU(negative_slope=0.1, name="b"), name="a")',
    'layers.Dense(4, dtype="mixed_float16", name="a")',
    'layers.Dense(4, kernel_initializer="he_normal", bias_constraint="non_neg", name="a")',
    'layers.Dense(4, kernel_regularizer=keras.regularizers.L2(l2=0.0001), name="a")',
    'layers.Dense(4, kernel_initializer=keras.initializers.RandomUniform(minval=-1, maxval=1), name="a")',
    'layers.Conv2D(4, (3, 1), strides=2, data_format="channels_first", groups=2, name="a")',
    'layers.SeparableConv2D(4, 3, depth_multiplier=2, name="a")',
    'layers.MaxPooling2D(pool_size=3, strides=3, name="a")',
    'layers.Cropping2D(cropping=((1, 0), (0, 2)), name="a")',
    'layers.Dropout(0.5, seed=3, name="a")',
    'layers.Rescaling(0.5, offset=-1.0, name="a")',
    'layers.Embedding(5, 2, mask_zero=True, name="a")',
    'layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d", name="a")',
    'layers.MultiHeadAttention(2, 8, value_dim=4, name="a")',
    'layers.RandomRotation((-0.1, 0.1), fill_mode="nearest", name="a")',
    'layers.TimeDistributed(layers.Dense(2, name="b"), name="a")',
    'layers.RNN(layers.GRUCell(2, name="b"), return_state=True, name="a")',
    """layers.GaussianNoise(0.1, name='"quoted"')""",
    """layers.GaussianNoise(0.1, name="it's")""",
]


@pytest.mark.parametrize("text", LAYERS)
def test_a_layer_is_written_with_the_arguments_that_differ(text):
    assert flat(layer_expression(eval(text, dict(PLACES)))) == text


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, (3, 3), (1, 1), padding="VALID", kernel_initializer="GlorotUniform", name="a"),
        layers.RNN([layers.GRUCell(2, name="b"), layers.LSTMCell(3, name="c")], name="a"),
        layers.Bidirectional(
            layers.GRU(2, name="b"), backward_layer=layers.LSTM(2, go_backwards=True, name="c"), name="a"
        ),
        layers.SpectralNormalization(layers.Dense(2, name="b"), name="a"),
        layers.Normalization(mean=[1.0, 2.0], variance=[1.0, 4.0], name="a"),
        layers.RandAugment(num_ops=1, name="a"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_made_from_its_source_has_its_config(layer):
    again = eval(flat(layer_expression(layer)), dict(PLACES))
    assert type(again) is type(layer)
    assert str(again.get_config()) == str(layer.get_config())


@pytest.mark.parametrize(
    "text", ['keras.Input((8, 3), name="a")', 'keras.Input((None,), batch_size=4, dtype="int32", name="a")']
)
def test_an_input_is_written_with_what_differs(text):
    layer = eval(text, dict(PLACES))._keras_history.operation
    assert flat(input_expression(layer)) == text


@pytest.mark.parametrize("value", [None, True, -1, 0.1, 1e-7, "it's", 'say "a"', (1,), [], {"a": (1, [2.0])}])
def test_plain_values_are_written_as_they_are(value):
    assert eval(flat(literal(value, "it"))) == value


def test_values_without_a_source_are_refused():
    assert flat(literal(float("-inf"), "it")) == 'float("-inf")'
    with pytest.raises(ValueError, match="it cannot be written as source: it holds a set, which has no source"):
        literal({1, 2}, "it")
    with pytest.raises(ValueError, match="constant in bfloat16"):
        literal(keras.ops.ones((2,), dtype="bfloat16"), "it")


def test_an_operation_of_ones_own_is_refused():
    class Own(keras.Operation):
        def call(self, x):
            return x

    inputs = keras.Input((2,))
    operation = Own(name="own")
    operation(inputs)
    with pytest.raises(ValueError, match="Operation 'own' .Own. cannot be written.*no function of `keras.ops`"):
        operation_expression(operation, ((inputs,), {}), {id(inputs): "x"})

import keras
import numpy as np
import pytest
from keras import layers

from ensemble_keras.search.code.expressions import input_expression, layer_expression, literal
from ensemble_keras.search.code.layout import flat

PLACES = {"keras": keras, "layers": layers, "np": np}

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


def test_a_layer_is_written_alike_before_and_after_it_is_built():
    layer = layers.LayerNormalization(name="a")
    before = flat(layer_expression(layer))
    layer.build((None, 4))
    assert before == flat(layer_expression(layer)) == 'layers.LayerNormalization(name="a")'

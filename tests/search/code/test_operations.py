import keras
import numpy as np
import pytest
from keras import ops

from ensemble_keras.measures.graph import calls
from ensemble_keras.search.code.layout import flat
from ensemble_keras.search.code.operations import operation_expression

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
    (lambda x: ops.logsumexp(x, axis=-1), "keras.ops.logsumexp(x, axis=-1)"),
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
        written = flat(operation_expression(operation, node.arguments.args, node.arguments.kwargs, tensors))
        results = keras.tree.flatten(eval(written, {"keras": keras, "np": np} | values))
        for number, (tensor, result) in enumerate(zip(node.outputs, results, strict=True)):
            tensors[id(tensor)] = name = f"step_{step}_{number}"
            values[name] = result
    assert text in (None, written)
    found = keras.ops.convert_to_numpy(values[tensors[id(model.outputs[0])]])
    np.testing.assert_array_equal(found, keras.ops.convert_to_numpy(model(values["x"])))


def test_an_operation_of_ones_own_is_refused():
    class Own(keras.Operation):
        def call(self, x):
            return x

    inputs = keras.Input((2,))
    operation = Own(name="own")
    operation(inputs)
    with pytest.raises(ValueError, match="Operation 'own' .Own. cannot be written.*no function of `keras.ops`"):
        operation_expression(operation, (inputs,), {}, {id(inputs): "x"})

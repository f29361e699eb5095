"""Multiply-accumulates: what one image costs a model, counted from its graph and its static shapes."""

import dataclasses
import math

import keras
import pandas as pd
from keras import layers

from ensemble_keras.measures.graph import calls

# Layers of Keras, by module, that multiply no inputs with weights or with each other: they add, compare, scale.
_WITHOUT = (
    "keras.src.layers.activations.",
    "keras.src.layers.normalization.",
    "keras.src.layers.pooling.",
    "keras.src.layers.preprocessing.",
    "keras.src.layers.regularization.",
    "keras.src.layers.reshaping.",
    "keras.src.layers.merging.",
    "keras.src.layers.core.embedding",
    "keras.src.layers.core.identity",
    "keras.src.layers.core.input_layer",
    "keras.src.layers.core.masking",
    # LayerScale and StochasticDepth of ConvNeXt.
    "keras.src.applications.",
    # Operations: products of tensors have rules below.
    "keras.src.ops.core",
    "keras.src.ops.image",
    "keras.src.ops.math",
    "keras.src.ops.nn",
    "keras.src.ops.numpy",
)
# Operations of those modules that multiply tensors with each other, and have no rule here.
_WITHOUT_RULE = {
    "AssociativeScan",
    "Cond",
    "Conv",
    "ConvTranspose",
    "Convolve",
    "Correlate",
    "Cross",
    "DepthwiseConv",
    "DotProductAttention",
    "FFT",
    "FFT2",
    "ForiLoop",
    "IFFT2",
    "IRFFT",
    "ISTFT",
    "Kron",
    "Map",
    "Outer",
    "RFFT",
    "STFT",
    "Scan",
    "SeparableConv",
    "Tensordot",
    "VectorizedMap",
    "Vdot",
    "WhileLoop",
}


@dataclasses.dataclass(frozen=True)
class MacCount:
    """What one image costs a model.

    Attributes:
        total: Int, multiply-accumulates of all layers that are known. FLOPs are twice as many.
        by_layer: `pandas.DataFrame`, a row per call of a layer in the order of the graph: `layer` (with the names of
            the models around it), `kind`, `output_shape`, `parameters`, `macs` (`<NA>` where it is not known).
        unknown: List of the names of layers whose cost is not known; `total` is without them.
        parameters: Int, shared weights counted once.
        peak_activation_bytes: Int, an estimate for one image: the most that is alive between two layers when every
            tensor is freed after its last use.
    """

    total: int
    by_layer: pd.DataFrame
    unknown: list
    parameters: int
    peak_activation_bytes: int


def count_macs(model):
    """Counts a model's multiply-accumulates per image, its parameters and its activations.

    Counted are products of inputs with weights, or of inputs with each other: convolutions, dense layers, attention,
    recurrence, `matmul` and `einsum`. Biases, normalisation, activations, pooling and resizing count as nothing, as
    is usual. A layer that is called twice counts twice. Layers of other kinds are listed, never counted as zero.

    Args:
        model: A functional or sequential `keras.Model` with static shapes but for the batch; nested models are
            counted layer by layer.

    Returns:
        A `MacCount`.

    Raises:
        ValueError: If the model has no graph of layers, or a shape is not static.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> model = keras.Model(images, keras.layers.Conv2D(4, 3, name="conv")(images))
    >>> ek.count_macs(model).total  # 6 x 6 positions, 3 x 3 x 3 x 4 weights
    3888
    """
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ValueError(
            "`model` must be a functional or built sequential model, whose layers and shapes are known. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}."
        )
    rows = list(_rows(model))
    table = pd.DataFrame(rows, columns=["layer", "kind", "output_shape", "parameters", "macs"])
    return MacCount(
        total=sum(row["macs"] for row in rows if row["macs"] is not None),
        by_layer=table.astype({"macs": "Int64"}),
        unknown=[row["layer"] for row in rows if row["macs"] is None],
        parameters=model.count_params(),
        peak_activation_bytes=_peak(model),
    )


def _rows(model, around=""):
    for layer, node in calls(model):
        name = around + layer.name
        if isinstance(layer, keras.Model):
            yield from _rows(layer, f"{name}/")
            continue
        shape = node.outputs[0].shape
        yield {
            "layer": name,
            "kind": type(layer).__name__,
            "output_shape": tuple(shape[1:]),
            "parameters": layer.count_params() if isinstance(layer, layers.Layer) else 0,
            "macs": _macs(layer, [tensor.shape for tensor in node.input_tensors], shape, name),
        }


def _macs(layer, inputs, output, name):
    """The multiply-accumulates of one call, or `None`."""
    is_layer = isinstance(layer, layers.Layer)
    # Exactly these kinds: a subclass may do more.
    rule = _RULES.get(type(layer)) if is_layer else _OPERATION_RULES.get(type(layer).__name__)
    if rule is not None:
        sizes = [size for shape in (*inputs, output) for size in shape[1:]]
        if None in sizes:
            raise ValueError(
                f"All shapes but the batch must be static. Received: {name!r} with inputs {inputs} and output "
                f"{tuple(output)}. Build the model for images of one size."
            )
        return rule(layer, inputs, output)
    known = type(layer).__module__.startswith(_WITHOUT) and type(layer).__name__ not in _WITHOUT_RULE
    return 0 if known else None


def _positions(shape, layer):
    return math.prod(shape[2:] if layer.data_format == "channels_first" else shape[1:-1])


def _convolution(layer, inputs, output):
    return _positions(output, layer) * math.prod(layer.kernel.shape)


def _transposed_convolution(layer, inputs, output):
    return _positions(inputs[0], layer) * math.prod(layer.kernel.shape)


def _separable_convolution(layer, inputs, output):
    kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return _positions(output, layer) * kernels


def _dense(layer, inputs, output):
    return math.prod(output[1:-1]) * math.prod(layer.kernel.shape)


def _einsum_dense(layer, inputs, output):
    return _einsum_macs(layer.equation, [inputs[0], layer.kernel.shape])


def _recurrent(layer, inputs, output):
    cell = layer.cell
    if type(cell) not in (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell):
        return None
    return inputs[0][1] * (math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape))


def _bidirectional(layer, inputs, output):
    both = [_macs(part, inputs, output, part.name) for part in (layer.forward_layer, layer.backward_layer)]
    return None if None in both else sum(both)


def _time_distributed(layer, inputs, output):
    inner = [(shape[0], *shape[2:]) for shape in (*inputs, output)]
    once = _macs(layer.layer, inner[:-1], inner[-1], layer.layer.name)
    return None if once is None else inputs[0][1] * once


def _multi_head_attention(layer, inputs, output):
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 else value
    parts = [(layer._query_dense, query), (layer._key_dense, key), (layer._value_dense, value)]
    projections = sum(_einsum_dense(part, [shape], None) for part, shape in parts)
    queries, keys = math.prod(query[1:-1]), math.prod(value[1:-1])
    attended = layer.num_heads * queries * keys * (layer.key_dim + layer.value_dim)
    heads = (query[0], *query[1:-1], layer.num_heads, layer.value_dim)
    return projections + attended + _einsum_dense(layer._output_dense, [heads], None)


def _attention(layer, inputs, output):
    query, value = inputs[0], inputs[1]
    return query[1] * value[1] * (query[2] + value[2])


def _additive_attention(layer, inputs, output):
    query, value = inputs[0], inputs[1]
    return query[1] * value[1] * (query[2] + value[2])


def _dot(layer, inputs, output):
    axes = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return math.prod(output[1:]) * inputs[0][axes]


def _matmul(operation, inputs, output):
    return math.prod(output[1:]) * inputs[0][-1]


def _einsum(operation, inputs, output):
    return _einsum_macs(operation.subscripts, inputs)


def _einsum_macs(equation, shapes):
    """One product for each combination of indices; sizes, also of those behind `...`, are the operands'."""
    sizes = {}
    for term, shape in zip(equation.split("->")[0].split(","), shapes, strict=True):
        before, dots, after = term.strip().partition("...")
        hidden = len(shape) - len(before) - len(after) if dots else 0
        # Numbered from the right, as they are broadcast.
        names = [*before, *range(-hidden, 0), *after]
        for name, size in zip(names, shape, strict=True):
            sizes[name] = max(size or 1, sizes.get(name, 1))
    return math.prod(sizes.values())


_RULES = {
    **dict.fromkeys([layers.SeparableConv1D, layers.SeparableConv2D], _separable_convolution),
    **dict.fromkeys(
        [layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose], _transposed_convolution
    ),
    **dict.fromkeys([layers.Conv1D, layers.Conv2D, layers.Conv3D], _convolution),
    **dict.fromkeys([layers.DepthwiseConv1D, layers.DepthwiseConv2D], _convolution),
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    **dict.fromkeys([layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN], _recurrent),
    layers.Bidirectional: _bidirectional,
    layers.TimeDistributed: _time_distributed,
    layers.MultiHeadAttention: _multi_head_attention,
    layers.Attention: _attention,
    layers.AdditiveAttention: _additive_attention,
    layers.Dot: _dot,
}
_OPERATION_RULES = {"Matmul": _matmul, "Dot": _matmul, "Einsum": _einsum}


def _peak(model):
    """Bytes of the tensors alive at a time, at most; those of a nested model while it runs beside those around it."""
    steps = calls(model)
    last = {id(tensor): len(steps) for tensor in model.outputs}
    for position, (_, node) in reversed(list(enumerate(steps))):
        for tensor in node.input_tensors:
            last.setdefault(id(tensor), position)
    alive = {id(tensor): _bytes(tensor) for tensor in model.inputs}
    peak = sum(alive.values())
    for position, (layer, node) in enumerate(steps):
        inner = _peak(layer) if isinstance(layer, keras.Model) else 0
        made = {id(tensor): _bytes(tensor) for tensor in node.outputs}
        peak = max(peak, sum(alive.values()) + max(inner, sum(made.values())))
        alive = {tensor: size for tensor, size in (alive | made).items() if last.get(tensor, -1) > position}
    return peak


def _bytes(tensor):
    sizes = [1 if size is None else size for size in tensor.shape[1:]]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return math.prod(sizes) * {"bool": 1, "8": 1, "6": 2, "2": 4, "4": 8}[dtype if dtype == "bool" else dtype[-1]]

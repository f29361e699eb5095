"""Rules: the multiply-accumulates of one call of each kind of Keras layer or operation."""

import math

from keras import layers

# Layers and operations, by module, that multiply no inputs with weights or with each other: they add, compare, scale.
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
    "keras.src.ops.core",
    "keras.src.ops.image",
    "keras.src.ops.math",
    "keras.src.ops.nn",
    "keras.src.ops.numpy",
)
# What else stands in those modules: products and transforms without a rule here, and what runs a function.
_NOT_KNOWN = {
    "AssociativeScan",
    "CDist",
    "Cond",
    "Conv",
    "ConvTranspose",
    "Convolve",
    "Corrcoef",
    "Correlate",
    "Cross",
    "DepthwiseConv",
    "ElasticTransform",
    "FFT",
    "FFT2",
    "ForiLoop",
    "GaussianBlur",
    "IFFT2",
    "IRFFT",
    "ISTFT",
    "Inner",
    "Kron",
    "Map",
    "MelSpectrogram",
    "Outer",
    "RFFT",
    "SSIM",
    "STFT",
    "STFTSpectrogram",
    "Scan",
    "SeparableConv",
    "SobelEdges",
    "SpectralNormalization",
    "Switch",
    "Tensordot",
    "VectorizedMap",
    "Vdot",
    "WhileLoop",
}


def macs_of_call(layer, inputs, output):
    """Returns the multiply-accumulates of one image in one call of a layer, or `None` where they are not known.

    Args:
        layer: A Keras layer or operation.
        inputs: List of the operands' shapes in the order of `layer.call`, each known but for the batch.
        output: Shape of the (first) output.
    """
    # Exactly these kinds: a subclass may do more.
    by_kind = _RULES.get(type(layer)) if isinstance(layer, layers.Layer) else _OPERATIONS.get(type(layer).__name__)
    if by_kind is None:
        known = type(layer).__module__.startswith(_WITHOUT) and type(layer).__name__ not in _NOT_KNOWN
        return 0 if known else None
    return by_kind(layer, inputs, output)


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
    both = [macs_of_call(part, inputs, output) for part in (layer.forward_layer, layer.backward_layer)]
    return None if None in both else sum(both)


def _time_distributed(layer, inputs, output):
    *inner, last = [(shape[0], *shape[2:]) for shape in (*inputs, output)]
    once = macs_of_call(layer.layer, inner, last)
    return None if once is None else inputs[0][1] * once


def _multi_head_attention(layer, inputs, output):
    query, value = inputs[0], inputs[1]
    # A third operand may be the key, which is as long as the value, or a mask.
    key = (*value[:-1], layer._key_dense.kernel.shape[0])
    parts = [(layer._query_dense, query), (layer._key_dense, key), (layer._value_dense, value)]
    projections = sum(_einsum_dense(part, [shape], None) for part, shape in parts)
    queries, keys = math.prod(query[1:-1]), math.prod(value[1:-1])
    attended = layer.num_heads * queries * keys * (layer.key_dim + layer.value_dim)
    heads = (query[0], *query[1:-1], layer.num_heads, layer.value_dim)
    return projections + attended + _einsum_dense(layer._output_dense, [heads], None)


def _attention(layer, inputs, output):
    query, value = inputs[0], inputs[1]
    return query[1] * value[1] * (query[2] + value[2])


def _dot_product_attention(operation, inputs, output):
    query, _, value = inputs[:3]
    return query[1] * value[1] * query[2] * (query[3] + value[3])


def _dot(layer, inputs, output):
    axes = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return math.prod(output[1:]) * inputs[0][axes]


def _matmul(operation, inputs, output):
    return math.prod(output[1:]) * inputs[0][-1]


def _einsum(operation, inputs, output):
    return _einsum_macs(operation.subscripts, inputs)


def _einsum_macs(equation, shapes):
    """One product for each combination of indices, but for that of the batch, whose size is not known."""
    sizes = {}
    for term, shape in zip(equation.split("->")[0].split(","), shapes, strict=True):
        before, dots, after = term.strip().partition("...")
        hidden = len(shape) - len(before) - len(after) if dots else 0
        names = [*before, *(f"...{hidden - i}" for i in range(hidden)), *after]
        # An axis of `...` may be 1 in one operand and repeated.
        sizes |= {name: size for name, size in zip(names, shape, strict=True) if size != 1 or name not in sizes}
    return math.prod(size for size in sizes.values() if size is not None)


_RULES = {
    **dict.fromkeys([layers.Conv1D, layers.Conv2D, layers.Conv3D], _convolution),
    **dict.fromkeys([layers.DepthwiseConv1D, layers.DepthwiseConv2D], _convolution),
    **dict.fromkeys([layers.SeparableConv1D, layers.SeparableConv2D], _separable_convolution),
    **dict.fromkeys(
        [layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose], _transposed_convolution
    ),
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    **dict.fromkeys([layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN], _recurrent),
    layers.Bidirectional: _bidirectional,
    layers.TimeDistributed: _time_distributed,
    layers.MultiHeadAttention: _multi_head_attention,
    **dict.fromkeys([layers.Attention, layers.AdditiveAttention], _attention),
    layers.Dot: _dot,
}
_OPERATIONS = {
    "Matmul": _matmul,
    "Dot": _matmul,
    "Einsum": _einsum,
    "DotProductAttention": _dot_product_attention,
}

"""Rules: what each kind of layer does with channels, and what of its config tells their number.

A channel lies along the last axis of a tensor. A rule takes the call of a layer and returns the labels of its
output's channels, or `None` where channels are mixed or moved in a way that it does not know.
"""

import dataclasses
import inspect

import keras
import numpy as np
from keras import layers

from ensemble_keras.compression.tracing import Trace

# These look at one value at a time; softmax and the like look at all channels.
_ELEMENTWISE = [
    *map(keras.activations.get, ("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu")),
    *map(keras.activations.get, ("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6")),
    *map(keras.activations.get, ("selu", "sigmoid", "silu", "soft_shrink", "softplus", "softsign", "squareplus")),
    *map(keras.activations.get, ("tanh", "tanh_shrink", "threshold")),
]
_GATES = {layers.SimpleRNN: 1, layers.GRU: 3, layers.LSTM: 4}


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a layer.

    Attributes:
        trace: The `Trace`.
        layer: The layer or operation.
        path: String, its name with those of the models around it.
        node: Keras' node of the call.
        inputs: List of int arrays, the labels of each input tensor.
    """

    trace: Trace
    layer: object
    path: str
    node: object
    inputs: list

    def mark(self, variable, axis, role, labels=None, *, layer=None, part=""):
        """Lays channels along an axis of a variable of the layer, or of a layer inside it; returns their labels."""
        path = f"{self.path}/{part}" if part else self.path
        return self.trace.mark(layer or self.layer, path, variable, axis, role, labels)

    def made(self, kernel, axis, bias):
        """Returns the labels of the channels that a kernel makes along one of its axes, and a bias shifts."""
        labels = self.mark(kernel, axis, "kernel")
        if bias is not None:
            self.mark(bias, -1, "shift", labels)
        return labels

    def named(self):
        """Returns the labels of the tensors among the arguments of `call`, a dict by name."""
        labels = {id(tensor): given for tensor, given in zip(self.node.input_tensors, self.inputs, strict=True)}
        arguments = self.node.arguments
        bound = inspect.signature(self.layer.call).bind(*arguments.args, **arguments.kwargs).arguments
        return {name: labels[id(value)] for name, value in bound.items() if id(value) in labels}


def output_labels(call):
    """Returns the labels of the channels that a call gives, one array per output.

    Where there is no rule, the channels that it reads and those that it gives are held.
    """
    rule = _RULES.get(type(call.layer)) or _OPERATIONS.get(_operation(call.layer))
    labels = rule(call) if rule and _is_plain(call.layer) and len(call.node.outputs) == 1 else None
    if labels is not None:
        return [labels]
    reason = f"{call.path!r} ({type(call.layer).__name__}) reads or makes them"
    for given in call.inputs:
        call.trace.hold(given, reason)
    return [call.trace.held(width(tensor), reason) for tensor in call.node.outputs]


def narrower_config(layer, node, trace, kept):
    """Returns what changes in a layer's config when channels are removed: a dict.

    Args:
        layer: A Keras layer.
        node: Keras' node of a call of it.
        trace: The `Trace`.
        kept: Function from labels to how many of their channels stay.
    """

    def size(variable, axis):
        labels = trace.along(variable, axis)
        return variable.shape[axis] if labels is None else kept(labels)

    narrowed = _CONFIGS.get(type(layer))
    return {} if narrowed is None else narrowed(layer, node, size, lambda tensor: kept(trace.tensors[id(tensor)]))


def config_with_bias(layer):
    """Returns what gives a layer without a bias one: a part of its config."""
    if isinstance(layer, layers.EinsumDense):
        return {"bias_axes": layer.equation[-1]}
    return {"use_bias": True}


def width(tensor):
    """Returns the number of a tensor's channels, 0 where it is not known."""
    return (tensor.shape[-1] or 0) if tensor.shape else 0


def _is_plain(layer):
    """Whether channels come last and weights are as they were made: not quantised, no low-rank part beside them."""
    changed = getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False)
    return not changed and getattr(layer, "data_format", None) != "channels_first"


def _operation(layer):
    return None if isinstance(layer, layers.Layer) else type(layer).__name__


def _same(call):
    return call.inputs[0]


def _activation(call):
    return call.inputs[0] if _is_elementwise(call.layer) else None


def _is_elementwise(layer):
    return layer.activation in _ELEMENTWISE or type(layer.activation) in (layers.ReLU, layers.LeakyReLU, layers.ELU)


def _prelu(call):
    return call.mark(call.layer.alpha, -1, "shift", call.inputs[0]) if call.layer.alpha.shape[-1] > 1 else None


def _rescaled(call):
    scalars = np.ndim(call.layer.scale) == np.ndim(call.layer.offset) == 0
    return call.inputs[0] if scalars and call.layer.offset == 0 else None


def _normalised(call):
    layer, [labels] = call.layer, call.inputs
    if layer.axis not in (-1, len(call.node.outputs[0].shape) - 1):
        return None
    roles = {"gamma": "scale", "beta": "shift", "moving_mean": "shift", "moving_variance": "statistic"}
    for name, role in roles.items():
        if getattr(layer, name, None) is not None:
            call.mark(getattr(layer, name), 0, role, labels)
    return labels


def _merged(call):
    """Sums, products and the like of tensors of the same channels; one channel for all is another matter."""
    sizes = {len(labels) for labels in call.inputs}
    return call.trace.join(*call.inputs) if len(sizes) == 1 and len(call.inputs) > 1 else None


def _scaled(call):
    """A product or quotient with a number, or a product of two tensors."""
    if len(call.inputs) > 1:
        return _merged(call)
    others = [value for value in call.node.arguments.args if not isinstance(value, keras.KerasTensor)]
    return call.inputs[0] if others and all(np.ndim(value) == 0 for value in others) else None


def _divided(call):
    first = call.node.arguments.args[0]
    return _scaled(call) if len(call.inputs) == 1 and isinstance(first, keras.KerasTensor) else None


def _concatenated(call):
    rank = len(call.node.outputs[0].shape)
    return np.concatenate(call.inputs) if call.layer.axis in (-1, rank - 1) else call.trace.join(*call.inputs)


def _reshaped(call):
    """Channels stay together in memory: several positions are read as one longer vector, or nothing changes."""
    [given], after = call.inputs, call.node.outputs[0].shape[-1]
    if not after or not len(given) or after % len(given):
        return None
    return np.tile(given, after // len(given))


def _permuted(call):
    return call.inputs[0] if call.layer.dims[-1] == len(call.layer.dims) else None


def _convolved(call):
    layer = call.layer
    if layer.groups > 1 or not _is_elementwise(layer):
        return None
    call.mark(layer.kernel, -2, "reader", call.inputs[0])
    return call.made(layer.kernel, -1, layer.bias)


def _convolved_transposed(call):
    layer = call.layer
    if not _is_elementwise(layer):
        return None
    call.mark(layer.kernel, -1, "reader", call.inputs[0])
    return call.made(layer.kernel, -2, layer.bias)


def _convolved_depthwise(call):
    layer, [labels] = call.layer, call.inputs
    if not _is_elementwise(layer):
        return None
    call.mark(layer.kernel, -2, "kernel", labels)
    labels = np.repeat(labels, layer.depth_multiplier)
    if layer.bias is not None:
        call.mark(layer.bias, 0, "shift", labels)
    return labels


def _convolved_separably(call):
    layer, [labels] = call.layer, call.inputs
    if not _is_elementwise(layer):
        return None
    call.mark(layer.depthwise_kernel, -2, "reader", labels)
    call.mark(layer.pointwise_kernel, -2, "reader", np.repeat(labels, layer.depth_multiplier))
    return call.made(layer.pointwise_kernel, -1, layer.bias)


def _dense(call):
    layer = call.layer
    call.mark(layer.kernel, 0, "reader", call.inputs[0])
    labels = call.made(layer.kernel, -1, layer.bias)
    # Its softmax looks at all channels: what it reads may change, what it makes may not.
    return labels if _is_elementwise(layer) else _held_by(call, labels)


def _held_by(call, labels):
    return call.trace.hold(labels, f"{call.path!r} ({type(call.layer).__name__}) normalises them together")


def _einsum_dense(call):
    """Equations that contract the last axis of the input, and make the last one of the output, as `bnd,de->bne`."""
    layer = call.layer
    terms = layer.equation.replace(" ", "").replace("->", ",").split(",")
    if "." in layer.equation or len(terms) != 3 or not _is_elementwise(layer):
        return None
    given, kernel, made = terms
    if given[-1] not in kernel or given[-1] in made or made[-1] not in kernel or made[-1] in given:
        return None
    if layer.bias is not None and (layer.bias_axes or "")[-1:] != made[-1]:
        return None
    call.mark(layer.kernel, kernel.index(given[-1]), "reader", call.inputs[0])
    return call.made(layer.kernel, kernel.index(made[-1]), layer.bias)


def _recurrent(call):
    layer = call.layer
    # An initial state, or states given back, would be tied to the units, too.
    if len(call.inputs) > 1 or not _is_plain_recurrence(layer):
        return None
    return _unit_labels(call, layer)


def _is_plain_recurrence(layer):
    """Whether each unit gives one channel, does not look at the others' gates, and gives 0 without its weights."""
    if type(layer) not in _GATES or layer.return_state:
        return False
    gate = getattr(layer, "recurrent_activation", keras.activations.linear)
    alone = layer.activation in _ELEMENTWISE and gate in _ELEMENTWISE
    return alone and not keras.ops.convert_to_numpy(layer.activation(keras.ops.zeros(1))).any()


def _unit_labels(call, layer, part=""):
    cell, gates = layer.cell, _GATES[type(layer)]
    call.mark(cell.kernel, 0, "reader", call.inputs[0], layer=layer)
    units = call.mark(cell.recurrent_kernel, 0, "reader", layer=layer, part=part)
    for variable, role in ((cell.kernel, "kernel"), (cell.recurrent_kernel, "kernel"), (cell.bias, "shift")):
        if variable is not None:
            call.mark(variable, -1, role, np.tile(units, gates), layer=layer)
    return units


def _bidirectional(call):
    layer, parts = call.layer, [call.layer.forward_layer, call.layer.backward_layer]
    if len(call.inputs) > 1 or not all(map(_is_plain_recurrence, parts)) or layer.merge_mode is None:
        return None
    both = [_unit_labels(call, part, part.name) for part in parts]
    return np.concatenate(both) if layer.merge_mode == "concat" else call.trace.join(*both)


def _attention(call):
    """Heads are channels of their own, inside the layer."""
    layer, given = call.layer, call.named()
    if not {"query", "value"} <= set(given) or set(given) > {"query", "value", "key"} or _has_gate(layer):
        return None
    given = {"key": given["value"], **given}
    heads = call.mark(layer._value_dense.kernel, 1, "kernel", layer=layer._value_dense, part="heads")
    for name, dense in _projections(layer).items():
        call.mark(dense.kernel, 0, "reader", given[name], layer=dense)
        call.mark(dense.kernel, 1, "kernel", heads, layer=dense)
        if dense.bias is not None:
            call.mark(dense.bias, 0, "shift", heads, layer=dense)
    call.mark(layer._output_dense.kernel, 0, "reader", heads, layer=layer._output_dense)
    return call.made(layer._output_dense.kernel, -1, layer._output_dense.bias)


def _has_gate(layer):
    return getattr(layer, "_use_gate", False) or len(layer._output_dense.kernel.shape) != 3


def _projections(layer):
    return {"query": layer._query_dense, "key": layer._key_dense, "value": layer._value_dense}


def _attention_config(layer, node, size, channels):
    outputs = size(layer._output_dense.kernel, -1)
    shape = None if outputs == size(layer._query_dense.kernel, 0) else (outputs,)
    return {"num_heads": size(layer._value_dense.kernel, 1), "output_shape": shape}


def _bidirectional_config(layer, node, size, channels):
    config = layer.get_config()
    for name, part in (("layer", layer.forward_layer), ("backward_layer", layer.backward_layer)):
        config[name]["config"]["units"] = size(part.cell.recurrent_kernel, 0)
        # It would be built for as many channels as it read before.
        config[name].pop("build_config", None)
    return {name: config[name] for name in ("layer", "backward_layer")}


def _einsum_config(layer, node, size, channels):
    *before, _ = node.outputs[0].shape[1:]
    return {"output_shape": (*before, channels(node.outputs[0]))}


def _reshape_config(layer, node, size, channels):
    *before, last = layer.target_shape
    return {"target_shape": (*before, last if last == -1 else channels(node.outputs[0]))}


_DIMENSIONS = ("1D", "2D", "3D")
_KEEPING = (
    *("Identity", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
    *("ReLU", "LeakyReLU", "ELU", "RepeatVector", "CenterCrop"),
    *(
        f"{name}{dimensions}"
        for name in (
            *("MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling", "SpatialDropout"),
            *("ZeroPadding", "Cropping", "UpSampling"),
        )
        for dimensions in _DIMENSIONS
    ),
)
_CONVOLUTIONS = [layers.Conv1D, layers.Conv2D, layers.Conv3D]
_TRANSPOSED = [layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose]
_SEPARABLE = [layers.SeparableConv1D, layers.SeparableConv2D]
_MERGING = [layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum]

# Exactly these kinds: a subclass may do more.
_RULES = {
    **{getattr(layers, name): _same for name in _KEEPING},
    **dict.fromkeys(_CONVOLUTIONS, _convolved),
    **dict.fromkeys(_TRANSPOSED, _convolved_transposed),
    **dict.fromkeys([layers.DepthwiseConv1D, layers.DepthwiseConv2D], _convolved_depthwise),
    **dict.fromkeys(_SEPARABLE, _convolved_separably),
    **dict.fromkeys(_MERGING, _merged),
    **dict.fromkeys(_GATES, _recurrent),
    **dict.fromkeys([layers.Flatten, layers.Reshape], _reshaped),
    layers.Activation: _activation,
    layers.PReLU: _prelu,
    layers.Rescaling: _rescaled,
    layers.BatchNormalization: _normalised,
    layers.Concatenate: _concatenated,
    layers.Permute: _permuted,
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    layers.Bidirectional: _bidirectional,
    layers.MultiHeadAttention: _attention,
}
# Operations of `keras.ops` in a graph.
_OPERATIONS = {
    **dict.fromkeys(["Cast", "Relu", "Relu6", "Silu", "Gelu", "HardSilu", "Tanh", "Sigmoid", "HardSigmoid"], _same),
    **dict.fromkeys(["Add", "Subtract", "Maximum", "Minimum"], _merged),
    "Multiply": _scaled,
    "Divide": _divided,
    "TrueDivide": _divided,
    "Concatenate": _concatenated,
}

_CONFIGS = {
    **dict.fromkeys(_CONVOLUTIONS, lambda layer, node, size, channels: {"filters": size(layer.kernel, -1)}),
    **dict.fromkeys(_TRANSPOSED, lambda layer, node, size, channels: {"filters": size(layer.kernel, -2)}),
    **dict.fromkeys(_SEPARABLE, lambda layer, node, size, channels: {"filters": size(layer.pointwise_kernel, -1)}),
    **dict.fromkeys(_GATES, lambda layer, node, size, channels: {"units": size(layer.cell.recurrent_kernel, 0)}),
    layers.Dense: lambda layer, node, size, channels: {"units": size(layer.kernel, -1)},
    layers.EinsumDense: _einsum_config,
    layers.Reshape: _reshape_config,
    layers.Bidirectional: _bidirectional_config,
    layers.MultiHeadAttention: _attention_config,
}

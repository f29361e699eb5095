"""Constants: what channels that go leave behind in the layers that read them."""

import collections

import keras
import numpy as np
from keras import layers

from ensemble_keras.measures.graph import calls, has_graph

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_MERGING = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
_ELEMENTWISE = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Rescaling)


class Constants:
    """Follows the constants of channels that go through a network, and says what takes their place.

    A channel whose weights are zero still gives a constant: a bias, or the shift β of its batch normalisation, behind
    an activation. What a layer makes of it, `Σ kernel · constant`, is another constant for each of its outputs, and
    belongs into its bias, or is taken off the moving mean of the batch normalisation after it (Ye et al., 2018,
    1802.00124, section 4). A channel that is not constant counts with its mean where a normalisation tells it, β, and
    with 0 elsewhere.

    With a kernel that sees padding the constant is not one at the border, where the absorbed one is off. Constants
    that transposed convolutions, attention or recurrent layers read are lost, and so are those that heads make.

    Args:
        trace: The `Trace` of the model.
        gone: Int array, the labels of the channels that go.

    Attributes:
        shifts: Dict from the `id` of a variable to a list of arrays, one for each call of its layer: what is to be
            added to it.
        biases: Dict from the `id` of a layer without a bias to such a list: the bias that it needs.
    """

    def __init__(self, trace, gone):
        self._trace, self._gone = trace, gone
        self._values = {}
        self.shifts, self.biases = collections.defaultdict(list), collections.defaultdict(list)

    def follow(self, model, given=None):
        """Follows the channels of a model, and of those in it.

        Args:
            model: A functional `keras.Model`.
            given: List of arrays, the constants of its inputs; `None`: no channel of them goes.

        Returns:
            List of arrays, the constants of its outputs: 0 for channels that stay, NaN for what is not known.
        """
        given = [np.zeros(len(self._trace.tensors[id(x)])) for x in model.inputs] if given is None else given
        self._values |= zip(map(id, model.inputs), given, strict=True)
        steps = calls(model)
        norms = _norms_after(model, steps)
        for layer, node in steps:
            inputs = [self._values[id(tensor)] for tensor in node.input_tensors]
            if has_graph(layer):
                made = self.follow(layer, inputs)
            elif not any(self._goes(tensor).any() for tensor in (*node.input_tensors, *node.outputs)):
                made = [np.zeros(len(self._labels(tensor))) for tensor in node.outputs]
            else:
                values = self._made(layer, node, inputs, norms)
                made = [self._of(tensor, values) for tensor in node.outputs]
            self._values |= zip(map(id, node.outputs), made, strict=True)
        return [self._values[id(tensor)] for tensor in model.outputs]

    def _of(self, tensor, values):
        """Returns the constants of a tensor's channels that go, 0 for those that stay, NaN for what is not known."""
        return np.where(self._goes(tensor), values, 0.0)

    def _made(self, layer, node, inputs, norms):
        """Returns the constants that a layer makes of others."""
        if isinstance(layer, (*_CONVOLUTIONS, *_SEPARABLE, layers.Dense)) or _is_matrix(layer):
            return self._multiplied(layer, node, inputs[0], norms)
        if isinstance(layer, _DEPTHWISE):
            values = (inputs[0][:, None] * _over_positions(_array(layer.kernel))).reshape(-1)
            return _activated(layer, values + _bias(layer))
        if isinstance(layer, layers.BatchNormalization):
            return _normalised(layer, inputs[0])
        if isinstance(layer, layers.PReLU):
            return np.where(inputs[0] < 0, inputs[0] * _per_channel(layer.alpha), inputs[0])
        if isinstance(layer, (*_MERGING, *_ELEMENTWISE)) or _is_elementwise(layer):
            rows = {id(x): _tensor(values[None]) for x, values in zip(node.input_tensors, inputs, strict=True)}
            args, kwargs = node.arguments.fill_in(rows)
            return _array(layer(*args, **kwargs))[0]
        return self._moved(node, inputs)

    def _moved(self, node, inputs):
        """Channels that are passed on have the constants that they had."""
        known = {}
        for tensor, values in zip(node.input_tensors, inputs, strict=True):
            known |= zip(self._labels(tensor), values, strict=True)
        return np.array([known.get(label, np.nan) for label in self._labels(node.outputs[0])])

    def _multiplied(self, layer, node, given, norms):
        goes = self._goes(node.input_tensors[0])
        shift = (_summed(layer) * np.nan_to_num(given)[:, None]).sum(axis=0)
        if goes.any():
            self._absorb(layer, shift, norms.get(id(node.outputs[0])))
        varies = _summed(layer, np.abs)[~goes | np.isnan(given)].any(axis=0)
        return _activated(layer, np.where(varies, np.nan, _bias(layer) + shift))

    def _absorb(self, layer, shift, norm):
        if layer.bias is not None:
            self.shifts[id(layer.bias)].append(shift)
        elif norm is not None and layer.activation is keras.activations.linear:
            self.shifts[id(norm.moving_mean)].append(-shift)
        else:
            self.biases[id(layer)].append(shift)

    def _goes(self, tensor):
        return np.isin(self._labels(tensor), self._gone)

    def _labels(self, tensor):
        return self._trace.roots(self._trace.tensors[id(tensor)])


def _norms_after(model, steps):
    """Returns the batch normalisations that alone read a tensor, by its `id`; both its layers are called once."""
    times = collections.Counter(id(layer) for layer, _ in steps)
    readers = collections.Counter(id(tensor) for _, node in steps for tensor in node.input_tensors)
    readers.update(map(id, model.outputs))
    return {
        id(tensor): layer
        for layer, node in steps
        for tensor in node.input_tensors
        if isinstance(layer, layers.BatchNormalization)
        and times[id(layer)] == times[id(tensor._keras_history[0])] == readers[id(tensor)] == 1
    }


def _summed(layer, values=np.asarray):
    """Returns what a kernel multiplies a constant with, in all positions together: `(channels in, channels out)`."""
    if isinstance(layer, _SEPARABLE):
        depthwise, pointwise = values(_array(layer.depthwise_kernel)), values(_array(layer.pointwise_kernel))
        depthwise = _over_positions(depthwise)
        pointwise = _over_positions(pointwise).reshape(*depthwise.shape, -1)
        return (depthwise[..., None] * pointwise).sum(axis=1)
    return _over_positions(values(_array(layer.kernel)))


def _over_positions(kernel):
    return kernel.sum(axis=tuple(range(kernel.ndim - 2)))


def _is_matrix(layer):
    return isinstance(layer, layers.EinsumDense) and len(layer.kernel.shape) == 2


def _is_elementwise(layer):
    """Whether it is an operation of `keras.ops` that works on each channel alone: all with a rule but one."""
    return not isinstance(layer, layers.Layer) and type(layer).__name__ != "Concatenate"


def _bias(layer):
    return 0.0 if layer.bias is None else _per_channel(layer.bias)


def _per_channel(variable):
    """Returns what a variable holds for each channel; NaN where that differs by position."""
    by_position = _array(variable).reshape(-1, variable.shape[-1])
    return np.where(np.ptp(by_position, axis=0) == 0, by_position[0], np.nan)


def _normalised(layer, values):
    zeros, ones = np.zeros(len(values)), np.ones(len(values))
    scale, shift = _array(layer.gamma) if layer.scale else ones, _array(layer.beta) if layer.center else zeros
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    return shift + np.nan_to_num(scale * (values - mean) / np.sqrt(variance + layer.epsilon))


def _activated(layer, values):
    return _array(layer.activation(_tensor(values)))


def _tensor(values):
    return keras.ops.convert_to_tensor(values, "float32")


def _array(variable):
    return keras.ops.convert_to_numpy(variable).astype("float64")

"""Slicing: rebuild a network without some of its channels, with what is left of its weights."""

import random

import keras
import numpy as np
from keras import layers

from ensemble_keras._validation import suggest
from ensemble_keras.compression.channel_rules import config_with_bias, narrower_config
from ensemble_keras.compression.channels import labels_of_groups, trace_channels
from ensemble_keras.compression.constants import Constants
from ensemble_keras.measures.graph import calls, has_graph


def remove_channels(model, channels):
    """Rebuilds a network narrower: without some channels, in every layer and weight where they lie.

    Nothing is masked: layers have fewer filters, units or heads, and their weights are sliced. The constant that a
    channel gives whose weights are zero (its bias, its shift β) is absorbed into the layers that read it; see
    `Constants` for where that is exact. So the outputs change by what was not constant, and where none of it is left,
    not at all.

    Args:
        model: A functional or built sequential `keras.Model`: a network, a member, a built ensemble; channels last.
            It is left as it is.
        channels: Dict from the name of a `ChannelGroup` (`channel_groups`) to the numbers of its channels that go, a
            sequence of ints. At least one channel of each group stays.

    Returns:
        A new `keras.Model` with the same names, nested and shared as `model` is, not compiled. With no channels to
        remove it is a copy.

    Raises:
        ValueError: If there is no such group, its channels must stay (the layer which they depend on is named), a
            number is out of range, none would be left, or a layer cannot be copied: a Lambda, a nested model without
            a graph, quantised weights.

    Example:

    >>> from ensemble_keras.compression.slicing import remove_channels
    >>> x = images = keras.Input((8, 8, 3))
    >>> x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, name="conv")(x))
    >>> model = keras.Model(images, keras.layers.Dense(2, "softmax", name="predictions")(x))
    >>> narrow = remove_channels(model, {"conv": [0, 5]})
    >>> [tuple(weight.shape) for weight in narrow.weights]
    [(3, 3, 3, 14), (14,), (14, 2), (2,)]
    """
    trace = trace_channels(model)
    _check_copyable(model)
    gone = _labels_that_go(trace, channels)
    # The copies draw first weights, which are written over, by Python's random state: that is the user's.
    state = random.getstate()
    try:
        return _Narrower(trace, gone).narrowed(model)
    finally:
        random.setstate(state)


class _Narrower:
    """Copies layers and models, narrower where channels go.

    Args:
        trace: The `Trace` of the model.
        gone: Int array, the labels of the channels that go.
    """

    def __init__(self, trace, gone):
        self._trace, self._gone, self._constants = trace, gone, Constants(trace, gone)
        # By the ids of what they are copies of: a layer that is met again has one copy.
        self._models, self._layers = {}, {}

    def narrowed(self, model):
        """Returns the narrower copy of a model with what is left of its weights."""
        self._constants.follow(model)
        narrow = self._model(model)
        for layer, copy in self._layers.values():
            self._fill_in(layer, copy)
        return narrow

    def _model(self, model):
        if id(model) not in self._models:
            build = self._sequential if isinstance(model, keras.Sequential) else self._functional
            self._models[id(model)] = build(model)
        return self._models[id(model)]

    def _sequential(self, model):
        nodes = {id(layer): node for layer, node in calls(model)}
        copies = [self._copy(layer, nodes[id(layer)]) for layer in model.layers]
        return keras.Sequential([self._input(model.inputs[0]), *copies], name=model.name)

    def _functional(self, model):
        tensors = {id(tensor): self._input(tensor) for tensor in model.inputs}
        for layer, node in calls(model):
            args, kwargs = node.arguments.fill_in(tensors)
            made = self._copy(layer, node)(*args, **kwargs)
            tensors |= zip(map(id, node.outputs), keras.tree.flatten(made), strict=True)
        inputs, outputs = (
            keras.tree.map_structure(lambda tensor: tensors[id(tensor)], structure)
            for structure in (model.input, model.output)
        )
        return keras.Model(inputs, outputs, name=model.name)

    def _input(self, tensor):
        *others, channels = tensor.shape
        labels = self._trace.tensors[id(tensor)]
        narrow = channels if self._stays(labels).all() else self._count(labels)
        return keras.Input(batch_shape=(*others, narrow), dtype=tensor.dtype, name=tensor.name)

    def _copy(self, layer, node):
        if has_graph(layer):
            return self._model(layer)
        if id(layer) not in self._layers:
            config = layer.get_config()
            if not all(self._stays(labels).all() for labels in self._labels_of(layer, node)):
                config |= narrower_config(layer, node, self._trace, self._count)
            if self._new_bias(layer) is not None:
                config |= config_with_bias(layer)
            self._layers[id(layer)] = layer, type(layer).from_config(config)
        return self._layers[id(layer)][1]

    def _labels_of(self, layer, node):
        """Returns the labels of the channels that a layer has to do with: in its outputs, and in its weights."""
        axes = [self._axes(variable) for variable in getattr(layer, "variables", ())]
        return [
            *(self._trace.tensors[id(x)] for x in node.outputs),
            *(labels for own in axes for labels in own.values()),
        ]

    def _axes(self, variable):
        """Returns the labels along the axes of a variable: a dict by axis, without those where no channels lie."""
        found = {axis: self._trace.along(variable, axis) for axis in range(len(variable.shape))}
        return {axis: labels for axis, labels in found.items() if labels is not None}

    def _stays(self, labels):
        return ~np.isin(self._trace.roots(labels), self._gone)

    def _count(self, labels):
        return int(self._stays(labels).sum())

    def _new_bias(self, layer):
        """Returns the bias that a layer without one needs, or `None`."""
        absorbed = self._constants.biases.get(id(layer))
        return None if absorbed is None or not np.any(absorbed) else np.mean(absorbed, axis=0)

    def _fill_in(self, layer, copy):
        if not isinstance(layer, layers.Layer):
            return
        made, bias = copy.variables, self._new_bias(layer)
        if bias is not None:
            made = [variable for variable in made if variable is not copy.bias]
            kernel = layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel
            copy.bias.assign(np.broadcast_to(bias[self._stays(self._trace.along(kernel, -1))], copy.bias.shape))
        for variable, narrow in zip(layer.variables, made, strict=True):
            narrow.assign(self._sliced(variable))
        if isinstance(layer, layers.Normalization):
            copy.finalize_state()

    def _sliced(self, variable):
        # An array of its own: what JAX is given to predict with, it takes for good.
        values = np.array(keras.ops.convert_to_numpy(variable))
        # Of a layer that is called several times, what suits its calls in the mean.
        values += np.mean(self._constants.shifts.get(id(variable), [0]), axis=0).astype(values.dtype)
        for axis, labels in self._axes(variable).items():
            values = np.compress(self._stays(labels), values, axis=axis)
        return values


def _labels_that_go(trace, channels):
    """Returns the labels of channels given by group and number, an int array, or raises `ValueError`."""
    groups = labels_of_groups(trace)
    gone = [np.array([], int)]
    for name, numbers in channels.items():
        if name not in groups:
            raise ValueError(_no_group(trace, name, groups))
        numbers, size = np.asarray(numbers).tolist(), len(groups[name])
        if not set(numbers) <= set(range(size)):
            raise ValueError(f"Channels of {name!r} must be ints from 0 to {size - 1}. Received: {numbers}.")
        if len(set(numbers)) == size:
            raise ValueError(f"At least one channel of {name!r} must stay. Received: all {size} to be removed.")
        gone.append(groups[name][np.array(numbers, int)])
    return np.concatenate(gone)


def _no_group(trace, name, groups):
    for place in trace.axes:
        if place.path == name and place.is_source:
            label = place.channels[0]
            reason = trace.reason(label)
            if reason is not None:
                return f"Channels of {name!r} cannot be removed: {reason}."
            [group] = [known for known, labels in groups.items() if trace.roots([label])[0] in labels]
            return f"Channels of {name!r} go together with those of {group!r}. Name that group."
    return f"The model has no channels {name!r}.{suggest(name, groups)} See channel_groups(model)."


def _check_copyable(model):
    """Raises `ValueError` if a layer cannot be copied with its weights, and names it."""
    for layer, _ in calls(model):
        if has_graph(layer):
            _check_copyable(layer)
            continue
        reason = None
        if isinstance(layer, layers.Lambda):
            reason = "a Lambda holds code, not a config"
        elif isinstance(layer, keras.Model):
            reason = "a model without a graph of layers cannot be looked into"
        elif getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
            reason = "its weights are quantised, or have a low-rank part beside them: prune first"
        if reason is not None:
            raise ValueError(f"The layer {layer.name!r} ({type(layer).__name__}) cannot be rebuilt: {reason}.")

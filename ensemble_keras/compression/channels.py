"""Channels: which channels of a network can only be removed together."""

import collections
import dataclasses

import numpy as np

from ensemble_keras._validation import model_hint
from ensemble_keras.compression.channel_rules import Call, output_labels, width
from ensemble_keras.compression.tracing import Trace
from ensemble_keras.measures.graph import calls, has_graph


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelSlices:
    """Where the channels of a group lie along one axis of a variable.

    Attributes:
        layer: The `keras.layers.Layer` that holds the variable; of attention, the projection inside it.
        path: String, the name of the layer in the model, with those of the models around it.
        variable: A `keras.Variable`.
        axis: Int from 0.
        role: As of a `ChannelAxis`: `"kernel"`, `"scale"`, `"shift"`, `"statistic"` or `"reader"`.
        channels: Int array, one number for each position along the axis: the channel of the group that lies there,
            or -1 for one of another group. A channel has several positions where a map was flattened, and one for
            each gate of a recurrent unit.
    """

    layer: object
    path: str
    variable: object
    axis: int
    role: str
    channels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels of one or several layers, numbered from 0, each of which can only be removed from all of them.

    Sums, products, depthwise convolutions and normalisations tie the channels of layers together: what is added to
    channel 3 has a channel 3, too.

    Attributes:
        name: String, the path of the first layer that makes the channels.
        size: Int, the number of channels.
        slices: List of `ChannelSlices`, all places where they lie.
    """

    name: str
    size: int
    slices: list

    @property
    def producers(self):
        """List of `ChannelSlices`: the kernels that make the channels."""
        return self._of("kernel")

    @property
    def norms(self):
        """List of `ChannelSlices`: the scales (γ) of the batch normalisations that the channels pass."""
        return self._of("scale")

    @property
    def shifts(self):
        """List of `ChannelSlices`: biases, and the shifts (β) and moving means of batch normalisations."""
        return self._of("shift")

    @property
    def readers(self):
        """List of `ChannelSlices`: the kernels that are multiplied with the channels."""
        return self._of("reader")

    def _of(self, role):
        return [place for place in self.slices if place.role == role]


def channel_groups(model):
    """Finds the channels of a network that can be removed, in groups of those that hang together.

    Not listed, since they must stay: channels of the model's inputs and outputs, and those which a layer reads or
    makes that treats channels in a way that is not known here or that depends on all of them, such as layer
    normalisation, softmax in the middle, or a grouped convolution.

    Args:
        model: A functional or built sequential `keras.Model`, channels last. Nested and shared layers are followed.

    Returns:
        A list of `ChannelGroup`s in the order of the graph.

    Raises:
        ValueError: If the model has no graph of layers.

    Example:

    >>> from ensemble_keras.compression.channels import channel_groups
    >>> x = images = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3, name="conv")(x)
    >>> x = keras.layers.BatchNormalization(name="norm")(x)
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> model = keras.Model(images, keras.layers.Dense(2, "softmax", name="predictions")(x))
    >>> [(group.name, group.size) for group in channel_groups(model)]
    [('conv', 4)]
    >>> [group.readers[0].layer.name for group in channel_groups(model)]
    ['predictions']
    """
    return groups_of(trace_channels(model))


def trace_channels(model):
    """Returns the `Trace` of a model: the labels of its channels, in its tensors and in its weights.

    Args:
        model: As in `channel_groups`.
    """
    if not has_graph(model):
        raise ValueError(
            "`model` must be a functional or built sequential model, whose layers and shapes are known. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}.{model_hint(model)}"
        )
    trace = Trace()
    given = [trace.held(width(tensor), "they are an input of the model") for tensor in model.inputs]
    for labels in _follow(trace, model, given):
        trace.hold(labels, "they are an output of the model")
    return trace


def groups_of(trace):
    """Returns the `ChannelGroup`s of a `Trace`."""
    members = labels_of_groups(trace)
    numbers = {label: (name, number) for name, labels in members.items() for number, label in enumerate(labels)}
    slices = collections.defaultdict(list)
    for place in trace.axes:
        found = [numbers.get(label, (None, -1)) for label in trace.roots(place.channels)]
        for group in dict.fromkeys(name for name, _ in found if name is not None):
            channels = np.array([number if name == group else -1 for name, number in found])
            slices[group].append(
                ChannelSlices(place.layer, place.path, place.variable, place.axis, place.role, channels)
            )
    return [ChannelGroup(name, len(labels), slices[name]) for name, labels in members.items()]


def labels_of_groups(trace):
    """Returns the labels of the channels of each group of a `Trace`: a dict from its name to an int array."""
    members = collections.defaultdict(list)
    for label, name in _group_names(trace).items():
        members[name].append(label)
    return {name: np.sort(labels) for name, labels in members.items()}


def _group_names(trace):
    """Returns a dict from the label of each channel that can be removed to the name of its group.

    Two are of one group where one layer makes both, or layers tied together do.
    """
    names = {}
    for place in trace.axes:
        if not place.is_source:
            continue
        free = [label for label in dict.fromkeys(trace.roots(place.channels)) if trace.reason(label) is None]
        joined = {names[label] for label in free if label in names}
        name = next((known for known in names.values() if known in joined), place.path)
        names |= dict.fromkeys(free, name)
        names |= {label: name for label, known in names.items() if known in joined}
    return names


def _follow(trace, model, inputs, around=""):
    """Traces a model that is given channels of these labels; returns the labels of its outputs."""
    for tensor, labels in zip(model.inputs, inputs, strict=True):
        trace.note(tensor, labels)
    for layer, node in calls(model):
        given, path = [trace.tensors[id(tensor)] for tensor in node.input_tensors], around + layer.name
        if has_graph(layer):
            made = _follow(trace, layer, given, f"{path}/")
        else:
            made = output_labels(Call(trace, layer, path, node, given))
        for tensor, labels in zip(node.outputs, made, strict=True):
            trace.note(tensor, labels)
    return [trace.tensors[id(tensor)] for tensor in model.outputs]

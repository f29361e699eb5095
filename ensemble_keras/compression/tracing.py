"""Tracing: channels as labels, equal ones where weights and tensors hold the same channel."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelAxis:
    """An axis of a layer's variable along which channels lie.

    Attributes:
        layer: The `keras.layers.Layer`.
        path: String, its name, with those of the models around it.
        variable: A `keras.Variable` of the layer.
        axis: Int from 0.
        role: `"kernel"`: its values make the channels; `"scale"`: batch normalisation multiplies them with it;
            `"shift"`: biases and what else is added or taken off; `"statistic"`: the moving variance; `"reader"`:
            its values are multiplied with the channels.
        channels: Int array, one label for each position along the axis.
        is_source: Whether the channels begin here: the axis tells how many there are.
    """

    layer: object
    path: str
    variable: object
    axis: int
    role: str
    channels: np.ndarray
    is_source: bool


class Trace:
    """Labels of channels, joined wherever layers tie them together: a union-find.

    Attributes:
        axes: List of the `ChannelAxis` of all variables.
        tensors: Dict from the `id` of a symbolic tensor to the labels of its last axis.
    """

    def __init__(self):
        self.axes, self.tensors = [], {}
        self._parents, self._held, self._places = [], {}, {}

    def new(self, count):
        """Returns labels that no channel has yet, an int array."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def held(self, count, reason):
        """Returns new labels of channels that cannot be removed."""
        return self.hold(self.new(count), reason)

    def hold(self, labels, reason):
        """Says why channels cannot be removed; returns their labels."""
        for label in labels:
            self._held.setdefault(self._root(label), reason)
        return labels

    def join(self, first, *others):
        """Makes channels the same, one by one; returns the labels of the first."""
        for other in others:
            for pair in zip(first, other, strict=True):
                keep, drop = sorted(map(self._root, pair))
                if keep != drop:
                    self._parents[drop] = keep
                    if drop in self._held:
                        self._held.setdefault(keep, self._held[drop])
        return first

    def mark(self, layer, path, variable, axis, role, labels=None):
        """Lays channels along an axis of a variable; returns their labels.

        Args:
            layer: The layer that holds the variable.
            path: String, its name with those of the models around it.
            variable: A `keras.Variable`.
            axis: Int, negative ones from the end.
            role: As of a `ChannelAxis`.
            labels: Int array, or `None`: those that the axis has already, or new ones. A layer that is called again
                has the same channels again.
        """
        axis %= len(variable.shape)
        place = self._places.get((id(variable), axis))
        if place is None:
            channels = self.new(variable.shape[axis]) if labels is None else labels
            place = ChannelAxis(layer, path, variable, axis, role, channels, is_source=labels is None)
            self._places[id(variable), axis] = place
            self.axes.append(place)
        elif labels is not None:
            self.join(place.channels, labels)
        return place.channels

    def along(self, variable, axis):
        """Returns the labels along an axis of a variable, or `None` where no channels lie."""
        place = self._places.get((id(variable), axis % max(len(variable.shape), 1)))
        return None if place is None else self.roots(place.channels)

    def roots(self, labels):
        """Returns labels as one and the same for channels that are."""
        return np.array([self._root(label) for label in labels], int)

    def reason(self, label):
        """Returns why a channel cannot be removed, or `None`: it can."""
        return self._held.get(self._root(label))

    def note(self, tensor, labels):
        """Keeps the labels of a symbolic tensor; of one that is met again, in a second call of its model, joined."""
        known = self.tensors.setdefault(id(tensor), labels)
        if known is not labels:
            self.join(known, labels)

    def _root(self, label):
        parents, label = self._parents, int(label)
        while parents[label] != label:
            # Halves the way for the next one.
            parents[label] = label = parents[parents[label]]
        return label

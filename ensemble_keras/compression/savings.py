"""Savings: what a network costs without some of its channels, before it is rebuilt."""

import collections
import math

import numpy as np

from ensemble_keras.measures.macs import count_macs


class Savings:
    """Counts parameters and multiply-accumulates of a network by the channels that go.

    The multiply-accumulates of a layer fall with the weights that it multiplies; those of attention, where positions
    are multiplied with each other, with the heads. It is exact but for attention between sequences of two lengths.

    Args:
        model: A functional `keras.Model` of known sizes but for the batch's.
        groups: Its `ChannelGroup`s.

    Raises:
        ValueError: If a size is not known.
    """

    def __init__(self, model, groups):
        table = count_macs(model).by_layer.dropna(subset="macs")
        self._macs = table.groupby("layer")["macs"].sum().to_dict()
        positions = table["output_shape"].map(lambda shape: math.prod(shape[:-1])).groupby(table["layer"]).sum()
        self._total_macs, self._parameters = max(sum(self._macs.values()), 1), model.count_params()
        # By the ids of variables: their slices with the group of each; and those that each layer multiplies with.
        self._places, self._kernels = collections.defaultdict(list), collections.defaultdict(dict)
        for group in groups:
            for place in group.slices:
                self._places[id(place.variable)].append((group.name, place))
                if place.role in ("kernel", "reader"):
                    # What lies inside a layer, such as heads, has a longer path.
                    path = next((path for path in _beginnings(place.path) if path in self._macs), place.path)
                    self._kernels[path][id(place.variable)] = math.prod(place.variable.shape)
        # Products of positions, one for each head: by the name of the group of heads.
        self._products_of_heads = {}
        for group in groups:
            path = group.name.removesuffix("/heads")
            if path != group.name and path in self._macs:
                projections = positions[path] * sum(self._kernels[path].values())
                self._products_of_heads[group.name] = (self._macs[path] - projections) / group.size
                self._macs[path] = projections

    def shares(self, channels):
        """Returns which shares go: a dict of floats in [0, 1) with `"parameters"` and `"macs"`.

        Args:
            channels: Dict from a group's name to the numbers of its channels that go.
        """
        stay = {key: self._share_that_stays(places, channels) for key, places in self._places.items()}
        parameters = sum(
            math.prod(places[0][1].variable.shape) * (1 - stay[key]) for key, places in self._places.items()
        )
        macs = 0.0
        for path, sizes in self._kernels.items():
            left = sum(size * stay[key] for key, size in sizes.items()) / sum(sizes.values())
            macs += self._macs.get(path, 0) * (1 - left)
        for name, products in self._products_of_heads.items():
            macs += products * len(channels.get(name, ()))
        return {"parameters": parameters / self._parameters, "macs": macs / self._total_macs}

    @staticmethod
    def _share_that_stays(places, channels):
        gone = collections.Counter()
        for name, place in places:
            gone[place.axis] += int(np.isin(place.channels, channels.get(name, ())).sum())
        shape = places[0][1].variable.shape
        return math.prod(1 - count / shape[axis] for axis, count in gone.items())


def _beginnings(path):
    """Returns `["a/b/c", "a/b", "a"]`."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]

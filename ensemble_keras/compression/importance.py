"""Importance: how much each channel counts by its weights, and which ones go."""

import dataclasses
import math

import keras
import numpy as np

from ensemble_keras._validation import check_at_least, check_choice, check_number

# Kinds, which are those of the penalties.
IMPORTANCES = ("slimming", "l1", "group_lasso")


def channel_importance(groups, kind):
    """Returns how much each channel counts, by what a penalty of that kind makes small.

    - `"slimming"`: the absolute scale γ of its batch normalisation; the mean of those that it passes (network
      slimming, Liu et al., 2017, 1708.06519). Groups without any are left out.
    - `"l1"`: the mean absolute weight of the kernels that make it, times its γ where it has one: batch
      normalisation takes out the size of a kernel, and the scale alone does not tell that a kernel is gone.
    - `"group_lasso"`: so, with the root of the mean square of the weights.

    Args:
        groups: List of `ChannelGroup`s.
        kind: `"slimming"`, `"l1"` or `"group_lasso"`.

    Returns:
        Dict from a group's name to a float array `(size,)`, at least 0.
    """
    scales = {group.name: _mean(group.norms, group.size, np.abs) for group in groups if group.norms}
    if check_choice("kind", kind, IMPORTANCES) == "slimming":
        return scales
    size_of, root = (np.abs, np.asarray) if kind == "l1" else (np.square, np.sqrt)
    return {
        group.name: root(_mean(group.producers, group.size, size_of)) * scales.get(group.name, 1.0)
        for group in groups
    }


def _mean(places, size, function):
    """Returns the mean of a function of the weights of each channel, over all places."""
    sums, counts = np.zeros(size), np.zeros(size)
    for place in places:
        values = np.moveaxis(keras.ops.convert_to_numpy(place.variable).astype("float64"), place.axis, 0)
        values = function(values).reshape(len(values), -1)
        own = place.channels >= 0
        np.add.at(sums, place.channels[own], values[own].sum(axis=1))
        np.add.at(counts, place.channels[own], values.shape[1])
    return sums / np.maximum(counts, 1)


@dataclasses.dataclass(frozen=True)
class Widths:
    """How many channels of a group stay.

    Attributes:
        floor: Float in (0, 1], the share of the channels of each group that stays in any case.
        round_to: Int, at least 1: widths are multiples of it, as fast kernels like them, where a group has more
            channels than that.

    Raises:
        ValueError: If a value is out of its range.
    """

    floor: float = 0.1
    round_to: int = 8

    def __post_init__(self):
        check_number("floor", self.floor, "in (0, 1]", lambda share: 0 < share <= 1)
        check_at_least("round_to", self.round_to, 1)

    def kept(self, wanted, size):
        """Returns the number of channels that stay of a group's `size`, if `wanted` count."""
        wanted = max(wanted, math.ceil(self.floor * size), 1)
        if size <= self.round_to or wanted >= size:
            return min(wanted, size)
        return min(max((2 * wanted + self.round_to) // (2 * self.round_to), 1) * self.round_to, size)


def channels_below(importance, threshold, widths):
    """Returns the channels that go: of each group the least important ones, up to a threshold.

    Args:
        importance: Dict from a group's name to an array, as `channel_importance` gives it.
        threshold: Float. Channels of at most this importance go, as far as `widths` let them.
        widths: `Widths`.

    Returns:
        Dict from a group's name to an int array, for `remove_channels`.
    """
    gone = {}
    for name, values in importance.items():
        stay = widths.kept(int((values > threshold).sum()), len(values))
        gone[name] = np.sort(np.argsort(values, kind="stable")[: len(values) - stay])
    return gone

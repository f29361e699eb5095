"""Penalties: what is added to the loss in training, so that weights or whole channels become zero."""

import dataclasses

import keras
import numpy as np

from ensemble_keras._validation import check_choice, check_number
from ensemble_keras.compression.channels import channel_groups

# Under a root, whose slope at zero is no number.
_SMALLEST_SQUARE = 1e-12


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A sparsity penalty with its strength and schedule: `λ(epoch)` times a sum over a network's weights.

    The `Trainer` takes it as `penalty`. The network knows nothing of it: neither its config nor what is saved of it.

    - `"l1"`: the absolute values of all weights that train, `min L(D, θ) + λ Σ|w|`: equation 1 of the PicturePerfect
      paper (the lasso of Tibshirani, 1996).
    - `"slimming"`: the absolute values of the scales of batch normalisations (network slimming, Liu et al., 2017,
      1708.06519).
    - `"group_lasso"`: the Euclidean norms of channels, each of all weights that make one of those channels which can
      only be removed together: kernels, biases, scales and shifts (Wen et al., 2016, 1608.03665). A norm counts by
      the root of the number of its weights (Yuan & Lin, 2006), so that one λ suits narrow and wide layers.

    Attributes:
        kind: `"l1"`, `"slimming"` or `"group_lasso"`.
        strength: Float above 0, λ.
        warmup_epochs: Float, epochs over which λ rises from 0 along a line, step by step, before it stays as it is:
            what is not yet learned cannot tell what it needs. Defaults to 1.

    Raises:
        ValueError: If an attribute is not as described.

    Example:

    >>> x, y = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), "uint8"), np.arange(40) % 2
    >>> member = ek.build_member("CNN(filters=(4, 8))", 2, image_size=16, weights=None)
    >>> from ensemble_keras.members.trainer import Trainer
    >>> trainer = Trainer(member, ek.Training(epochs=2), penalty=Penalty("l1", 1e-4), verbose=0)
    >>> len(trainer.run(ek.ImageDataset.from_arrays(x, y), None, seed=0).history["loss"])
    2
    """

    kind: str
    strength: float
    warmup_epochs: float = 1.0

    def __post_init__(self):
        check_choice("kind", self.kind, _TERMS)
        check_number("strength", self.strength, "above 0", lambda strength: strength > 0)
        check_number("warmup_epochs", self.warmup_epochs, "at least 0", lambda epochs: epochs >= 0)

    def config(self):
        """Returns the penalty as JSON values."""
        return dataclasses.asdict(self)

    def on(self, network):
        """Returns the penalty of one network.

        Args:
            network: A functional `keras.Model`. What does not train is left out.

        Returns:
            Function from the epochs trained so far, a float scalar, to the penalty, a scalar, of the weights that
            the network has when it is called.

        Raises:
            ValueError: If the network has nothing that trains of what is penalised.
        """
        total = _TERMS[self.kind](network)

        def penalty(epoch):
            return self.strength * self.share(epoch) * total()

        return penalty

    def share(self, epoch):
        """Returns how much of λ holds after so many epochs, from 0 to 1, a scalar."""
        return keras.ops.minimum(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0


def _l1(network):
    """Returns a function that gives the sum of the absolute values of all weights that train."""
    return _sum_of_absolutes(_some(network.trainable_variables, network, "weights"))


def _slimming(network):
    """Returns a function that gives the sum of the absolute scales of batch normalisations."""
    scales = [layer.gamma for layer in _batch_norms(network) if layer.scale and layer.gamma.trainable]
    return _sum_of_absolutes(_some(scales, network, "scales of batch normalisations"))


def _group_lasso(network):
    """Returns a function that gives the sum of the weighted norms of channels."""
    made = [(group.size, _places_that_train(group)) for group in channel_groups(network)]
    made = _some([(size, places) for size, places in made if places], network, "weights of removable channels")

    def total():
        return sum(_sum_of_norms(size, places) for size, places in made)

    return total


_TERMS = {"l1": _l1, "slimming": _slimming, "group_lasso": _group_lasso}


def _sum_of_absolutes(variables):
    def total():
        return sum(keras.ops.sum(keras.ops.abs(variable)) for variable in variables)

    return total


def _places_that_train(group):
    """Returns the `ChannelSlices` of what makes the channels of a group."""
    return [place for place in group.producers + group.norms + group.shifts if place.variable.trainable]


def _sum_of_norms(size, places):
    """Returns the sum of the norms of a group's channels, each by the root of the number of its weights."""
    squares, counts = 0.0, np.zeros(size, "float32")
    for place in places:
        axes = [axis for axis in range(len(place.variable.shape)) if axis != place.axis]
        # Positions of other groups count for one channel more, which is left out.
        channels = np.where(place.channels < 0, size, place.channels)
        of_positions = keras.ops.sum(keras.ops.square(place.variable), axis=axes)
        squares += keras.ops.segment_sum(of_positions, channels, num_segments=size + 1)[:size]
        weights = int(np.prod([place.variable.shape[axis] for axis in axes]))
        counts += weights * np.bincount(channels, minlength=size + 1)[:size].astype("float32")
    return keras.ops.sum(keras.ops.sqrt(counts * (squares + _SMALLEST_SQUARE)))


def _batch_norms(network):
    layers = network._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def _some(found, network, what):
    if not found:
        raise ValueError(
            f"Expected a network in which {what} train. Received: {network.name!r}, in which none do. Take another "
            "penalty, or let them train: `FineTuning` has `unfreeze` and `train_batch_norm`."
        )
    return found

"""Gating: a vote whose weights depend on the image and on what the members are made of."""

import math

import keras
import numpy as np
from keras import ops

from ensemble_keras.combiners import base

# What `describe_architecture` gives, brought to numbers around 0: (middle, scale). The same for every pool, so that a
# member added later means the same to the gate.
_SCALES = {
    "depth": (50.0, 50.0),
    "log_parameters": (7.0, 1.0),
    "log_macs": (9.0, 1.0),
    "input_size": (224.0, 112.0),
    "skill": (0.5, 0.25),
}


@keras.saving.register_keras_serializable("ensemble_keras")
class ArchitectureGate(base.Combiner):
    """A vote of experts (Jacobs et al., 1991) whose gate sees each member's architecture and its prediction.

    One small network, the same for all members, gives each a score per image from the member's description
    (`describe_architecture`), its probabilities, their entropy and margin, how far the others agree with it, and the
    mean of all members. The softmax of the scores over the members gives their weights in a geometric vote: the
    softmax of the weighted mean of the members' log-probabilities, times one further number, the sharpness, which is
    fitted with the rest. Log-probabilities, since a mean of probabilities is too unsure, and weights fitted to the
    log loss would mend that by trusting one member too much.

    The order of the members does not matter, and a gate works with other members than it was fitted with: see
    `with_descriptors`. All scores start at 0, which is `GeometricVoting`. It must be fitted on out-of-fold
    predictions (see `fit_combiner`), or it learns the members' memory.

    Call arguments: a list of tensors of shape `(batch, num_classes)`, one per member; `(batch, 1)`, one sigmoid unit,
    counts as two classes. Output: `(batch, num_classes)`, rows sum to 1.

    Args:
        descriptors: List of dicts from name to number, one per member, all with the same names, such as
            `describe_architecture` gives; numbers of other names are taken as they are, and had better be of about 1
            in size. `None`: `EnsembleClassifier` describes its members.
        units: Widths of the hidden layers (ReLU) of the network. Defaults to `(16,)`.

    Raises:
        ValueError: If the descriptors differ in their names or hold numbers that are not finite; when called, if
            there is not one per member.

    Example:

    >>> gate = ek.ArchitectureGate([{"depth": 16.0, "skill": 0.8}, {"depth": 53.0, "skill": 0.9}])
    >>> p = gate([np.array([[0.9, 0.1]]), np.array([[0.5, 0.5]])])
    >>> np.round(keras.ops.convert_to_numpy(p), 2).tolist()  # not fitted: sqrt(.45) to sqrt(.05), 3 to 1
    [[0.75, 0.25]]
    """

    def __init__(self, descriptors, units=(16,), **kwargs):
        super().__init__(**kwargs)
        self.descriptors = None if descriptors is None else _check_descriptors(descriptors)
        self.units = base.as_widths(units)
        self.hidden = [
            keras.layers.Dense(width, "relu", dtype="float32", name=f"{self.name}_hidden_{i}")
            for i, width in enumerate(self.units)
        ]
        self.score = keras.layers.Dense(
            1, use_bias=False, kernel_initializer="zeros", dtype="float32", name=f"{self.name}_score"
        )
        # One number, in a stock layer: a variable of one's own would not stay one in an ensemble's graph.
        self.sharpness = keras.layers.Dense(
            1, use_bias=False, kernel_initializer="ones", dtype="float32", name=f"{self.name}_sharpness"
        )

    def build(self, input_shape):
        """Builds the network for predictions of these shapes, one per member."""
        self._check_count(len(input_shape))
        num_classes = max(input_shape[0][-1], 2)
        shape = (None, 2 * num_classes + 3 + len(self.descriptors[0]))
        for layer in [*self.hidden, self.score]:
            layer.build(shape)
            shape = (None, layer.units)
        self.sharpness.build((None, num_classes, 1))
        self._num_classes = num_classes

    def call(self, predictions):
        """Returns the weighted geometric vote of a list of probabilities, one tensor per member."""
        weights = self.weigh(predictions)
        parts = [weights[:, i : i + 1] * base.log_probabilities(p) for i, p in enumerate(predictions)]
        mean = sum(parts[1:], start=parts[0])
        return ops.softmax(ops.squeeze(self.sharpness(ops.expand_dims(mean, -1)), -1), axis=-1)

    def weigh(self, predictions):
        """Returns each member's weight for each image.

        Args:
            predictions: List of tensors of probabilities, as `call` takes them.

        Returns:
            Tensor `(batch, members)`; every row sums to 1.
        """
        predictions = [base.as_probabilities(p) for p in predictions]
        self._check_count(len(predictions))
        scores = [self._score(x) for x in self.seen(predictions)]
        scores = ops.concatenate(scores, axis=-1)
        # A softmax, written out: that of Keras warns where there is one member.
        return ops.exp(scores - ops.logsumexp(scores, axis=-1, keepdims=True))

    def with_descriptors(self, descriptors):
        """Returns a gate for other members, with the weights of this one.

        Args:
            descriptors: As in the constructor, with the same names.
        """
        if self.built and [sorted(d) for d in descriptors[:1]] != [sorted(self.descriptors[0])]:
            raise ValueError(
                f"`descriptors` must have the names {sorted(self.descriptors[0])}. Received: {descriptors}."
            )
        gate = type(self).from_config({**self.get_config(), "descriptors": descriptors})
        if self.built:
            gate.build([(None, self._num_classes)] * len(descriptors))
            gate.set_weights(self.get_weights())
        return gate

    def draw_weights(self, seed):
        """Draws the hidden kernels anew (Glorot uniform), the same from `seed` on every backend; all scores are 0."""
        rng = np.random.default_rng(seed)
        for layer in self.hidden:
            limit = np.sqrt(6 / sum(layer.kernel.shape))
            layer.set_weights([rng.uniform(-limit, limit, layer.kernel.shape), np.zeros(layer.units)])
        self.score.set_weights([np.zeros(self.score.kernel.shape)])
        self.sharpness.set_weights([np.ones((1, 1))])

    def get_config(self):
        """Returns the arguments that make this layer again."""
        return {**super().get_config(), "descriptors": self.descriptors, "units": list(self.units)}

    def seen(self, predictions):
        """Returns what the network sees of each member: a list of tensors `(batch, width)`.

        Args:
            predictions: List of tensors `(batch, num_classes)` of probabilities.
        """
        count = len(predictions)
        mean = sum(predictions[1:], start=predictions[0]) / count
        return [self._seen(p, mean, count, d) for p, d in zip(predictions, self.descriptors, strict=True)]

    def _check_count(self, members):
        if members != len(self.descriptors or ()):
            raise ValueError(
                f"Expected one descriptor per member. Received: {len(self.descriptors or ())} descriptors for "
                f"{members} members."
            )

    def _seen(self, p, mean, count, descriptor):
        logarithms = ops.log(ops.maximum(p, base.SMALLEST_PROBABILITY))
        entropy = -ops.sum(p * logarithms, axis=-1, keepdims=True) / math.log(p.shape[-1])
        two = ops.top_k(p, 2)[0]
        # The mean over the others of the probability that both say the same.
        others = (count * mean - p) / max(1, count - 1)
        agreement = ops.sum(p * others, axis=-1, keepdims=True)
        one = ops.ones_like(entropy)
        described = [one * value for value in _scaled(descriptor)]
        return ops.concatenate([p, mean, entropy, two[:, :1] - two[:, 1:], agreement, *described], axis=-1)

    def _score(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.score(x)


def _scaled(descriptor):
    pairs = ((value, _SCALES.get(name, (0.0, 1.0))) for name, value in sorted(descriptor.items()))
    return [(value - middle) / scale for value, (middle, scale) in pairs]


def _check_descriptors(descriptors):
    if not all(isinstance(one, dict) for one in descriptors):
        raise ValueError(f"`descriptors` must be a dict per member. Received: {descriptors!r}.")
    descriptors = [{str(name): float(value) for name, value in one.items()} for one in descriptors]
    if not descriptors or any(one.keys() != descriptors[0].keys() for one in descriptors) or not descriptors[0]:
        raise ValueError(
            "`descriptors` must be a dict per member, all with the same names, such as `describe_architecture` "
            f"gives. Received: {[sorted(one) for one in descriptors]}."
        )
    for index, one in enumerate(descriptors):
        for name, value in one.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"`descriptors` must hold finite numbers. Received: {name} {value} of member {index}."
                )
    return descriptors

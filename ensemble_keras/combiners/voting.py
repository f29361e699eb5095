"""Voting: combine members by averaging or counting their predictions."""

import keras
import numpy as np
from keras import ops

from ensemble_keras._validation import check_choice
from ensemble_keras.combiners import base


class _WeightedVoting(base.Combiner):
    """A voting combiner with one weight per member; `ways` are those in which `fit_combiner` can find them."""

    ways = ()

    def __init__(self, weights=None, **kwargs):
        super().__init__(**kwargs)
        # Keras keeps `weights` for a layer's variables.
        self.member_weights = _check_weights(weights, self.ways)

    def get_config(self):
        """Returns the arguments that make this layer again."""
        return {**super().get_config(), "weights": self.member_weights}

    def _mean(self, tensors):
        if isinstance(self.member_weights, str):
            raise ValueError(
                f"The weights of this {type(self).__name__} are to be found: weights={self.member_weights!r}. "
                "Call `fit_combiner` first."
            )
        if self.member_weights is None:
            return sum(tensors[1:], start=tensors[0]) / len(tensors)
        if len(self.member_weights) != len(tensors):
            raise ValueError(
                f"Expected one weight per member. Received: {len(self.member_weights)} weights "
                f"for {len(tensors)} members."
            )
        total = sum(self.member_weights)
        parts = [(weight / total) * x for weight, x in zip(self.member_weights, tensors, strict=True)]
        return sum(parts[1:], start=parts[0])


@keras.saving.register_keras_serializable("ensemble_keras")
class SoftVoting(_WeightedVoting):
    """Soft voting: the (weighted) mean of the members' probabilities.

    Call arguments: a list of tensors of shape `(batch, num_classes)`, one per member; `(batch, 1)`, one sigmoid
    unit, counts as two classes. Output: `(batch, num_classes)`, rows sum to 1.

    Args:
        weights: One number per member, none negative; only their proportions count. Or how `fit_combiner` is to
            find them on out-of-fold predictions: `"log_loss"` (`convex_weights`), `"greedy"` (`select_members`) or
            `"best"` (all to the member with the highest accuracy). Defaults to `None`, equal weights. Kept as
            `member_weights`.

    Raises:
        ValueError: If a weight is negative, not finite, or all are 0; when called, if there is not one per member.

    Example:

    >>> vote = ek.SoftVoting(weights=[3, 1])
    >>> probabilities = vote([np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])])
    >>> keras.ops.convert_to_numpy(probabilities).tolist()
    [[0.75, 0.25]]
    """

    ways = ("best", "log_loss", "greedy")

    def call(self, predictions):
        """Returns the mean of a list of probabilities, one tensor per member."""
        return self._mean([base.as_probabilities(p) for p in predictions])


@keras.saving.register_keras_serializable("ensemble_keras")
class GeometricVoting(_WeightedVoting):
    """Geometric voting: the softmax of the (weighted) mean of the members' logits.

    The mean of log-probabilities stands for that of the logits: they differ by a constant per row, which softmax
    takes out again. One member that excludes a class counts more than in soft voting (a logarithmic opinion pool).
    Probabilities below 1e-7 count as 1e-7. Call arguments, output and errors as those of `SoftVoting`.

    Args:
        weights: One number per member, none negative; only their proportions count. Defaults to `None`, equal
            weights. Kept as `member_weights`.

    Example:

    >>> vote = ek.GeometricVoting()
    >>> probabilities = vote([np.array([[0.9, 0.1]]), np.array([[0.5, 0.5]])])
    >>> np.round(keras.ops.convert_to_numpy(probabilities), 2).tolist()  # sqrt(.45) to sqrt(.05): 3 to 1
    [[0.75, 0.25]]
    """

    def call(self, predictions):
        """Returns the normalised geometric mean of a list of probabilities, one tensor per member."""
        return ops.softmax(self._mean([base.log_probabilities(p) for p in predictions]), axis=-1)


@keras.saving.register_keras_serializable("ensemble_keras")
class HardVoting(base.Combiner):
    """Hard voting: every member votes for its most probable class; the output is each class's share of the votes.

    Classes that tie for the first place share their votes in proportion to their mean probability over the
    members, so that the more probable one wins and the order of the members never counts. A member whose best
    classes are equally probable votes for the first of them. Call arguments and output as those of `SoftVoting`.

    Votes have no gradient: to train members through the ensemble, take `SoftVoting`.

    Example:

    >>> vote = ek.HardVoting()
    >>> sure, unsure = np.array([[1.0, 0.0]]), np.array([[0.25, 0.75]])
    >>> keras.ops.convert_to_numpy(vote([sure, unsure, unsure, unsure])).tolist()
    [[0.25, 0.75]]
    >>> keras.ops.convert_to_numpy(vote([sure, unsure])).tolist()  # one to one: the mean decides
    [[0.625, 0.375]]
    """

    def call(self, predictions):
        """Returns each class's share of the votes from a list of probabilities, one tensor per member."""
        predictions = [base.as_probabilities(p) for p in predictions]
        mean = sum(predictions[1:], start=predictions[0]) / len(predictions)
        ballots = [ops.one_hot(ops.argmax(p, axis=-1), p.shape[-1], dtype="float32") for p in predictions]
        votes = sum(ballots[1:], start=ballots[0])
        first = ops.cast(ops.equal(votes, ops.max(votes, axis=-1, keepdims=True)), "float32")
        tied_votes = ops.sum(first * votes, axis=-1, keepdims=True)
        portion = first * mean / ops.sum(first * mean, axis=-1, keepdims=True)
        return ((1.0 - first) * votes + portion * tied_votes) / len(predictions)


def _check_weights(weights, ways):
    if weights is None:
        return None
    if isinstance(weights, str) and ways:
        return check_choice("weights", weights, ways)
    array = np.asarray(weights)
    numbers = array.dtype.kind in "iuf" and array.ndim == 1 and np.isfinite(array).all()
    if not numbers or (array < 0).any() or not array.sum() > 0:
        raise ValueError(
            "`weights` must be one number per member, finite, not negative and not all 0. "
            f"Received: {array.tolist()!r}."
        )
    return array.astype("float64").tolist()

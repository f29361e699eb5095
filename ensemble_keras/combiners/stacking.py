"""Stacking: combine members by a classifier that learns from their predictions."""

import keras
from keras import ops

from ensemble_keras.combiners import base


@keras.saving.register_keras_serializable("ensemble_keras")
class StackedMetaLearner(base.DenseCombiner):
    """Stacked generalisation (Wolpert, 1992): the members' log-probabilities, dense layers, class probabilities.

    Call arguments: a list of tensors of shape `(batch, num_classes)`, one per member; `(batch, 1)`, one sigmoid
    unit, counts as two classes. Output: `(batch, num_classes)`, rows sum to 1. Probabilities below 1e-7 count as
    1e-7. Logarithms, since a linear layer on them contains weighted geometric voting and a temperature per member.

    It must be fitted on out-of-fold predictions (see `fit_combiner`), or it learns the members' memory.

    Args:
        num_classes: Int, at least 2. Number of classes.
        units: Widths of hidden layers (ReLU) before the last one. Defaults to `()`, a linear classifier, which
            `fit_combiner` solves to its optimum.

    Raises:
        ValueError: If `num_classes` is below 2, or a width is below 1.

    Example:

    >>> layer = ek.StackedMetaLearner(2)
    >>> layer([np.array([[0.9, 0.1]]), np.array([[0.3, 0.7]])]).shape[1]
    2
    """

    def __init__(self, num_classes, units=(), **kwargs):
        super().__init__(num_classes, units, **kwargs)

    def join(self, predictions):
        """Returns the log-probabilities side by side, shape `(batch, members * num_classes)`."""
        return ops.concatenate([base.log_probabilities(p) for p in predictions], axis=-1)

    def widths(self, shapes):
        """Returns how many columns each member adds to the joined matrix: one sigmoid unit adds two."""
        return [max(shape[-1], 2) for shape in shapes]

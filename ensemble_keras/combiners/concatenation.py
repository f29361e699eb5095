"""Concatenation: combine members by dense layers on their features side by side."""

import keras
from keras import ops

from ensemble_keras.combiners import base


@keras.saving.register_keras_serializable("ensemble_keras")
class ConcatenateDense(base.DenseCombiner):
    """The members' features side by side, dense layers, class probabilities.

    Call arguments: a list of tensors of shape `(batch, d_i)`, one per member; the widths may differ. Output:
    `(batch, num_classes)`, rows sum to 1.

    Args:
        num_classes: Int. Number of classes. 1 with `activation="sigmoid"`: one unit for two classes, whose output
            `p` is given as `[1 - p, p]`.
        units: Widths of hidden layers (ReLU) before the last one. Defaults to `()`, a linear classifier, which
            `fit_combiner` solves to its optimum.
        activation: `"softmax"`, or `"sigmoid"` for one unit. Defaults to `"softmax"`.

    Raises:
        ValueError: If `activation` does not fit `num_classes`, or a width is below 1.

    Example:

    >>> layer = ek.ConcatenateDense(3, units=(16,))
    >>> layer([np.zeros((2, 4)), np.zeros((2, 6))]).shape[1]
    3
    """

    takes = "features"

    def call(self, features):
        """Returns class probabilities of shape `(batch, num_classes)`; two columns for one sigmoid unit."""
        return self.classify(features)

    def join(self, features):
        """Returns the features side by side, shape `(batch, sum of d_i)`."""
        return ops.concatenate([base.as_float32(f) for f in features], axis=-1)

    def get_config(self):
        """Returns the arguments that make this layer again."""
        return {**super().get_config(), "activation": self.activation}

"""Stacking: combine members by a classifier that learns from their predictions."""

import keras
from keras import ops

from ensemble_keras.combiners import base


@keras.saving.register_keras_serializable("ensemble_keras")
class StackedMetaLearner(base.DenseCombiner):
    """Stacked generalisation (Wolpert, 1992): the members' log-probabilities, dense layers, class probabilities.

    Call arguments: a list of tensors of shape `(batch, num_classes)`, one per member; `(batch, 1)`, one sigmoid
    unit, counts as two classes; with `passthrough` a second list, the members' features `(batch, d_i)`. Output:
    `(batch, num_classes)`, rows sum to 1. Probabilities below 1e-7 count as 1e-7. Logarithms, since a linear layer
    on them contains weighted geometric voting and a temperature per member.

    It must be fitted on out-of-fold predictions (see `fit_combiner`), or it learns the members' memory.

    Args:
        num_classes: Int, at least 2. Number of classes.
        units: Widths of hidden layers (ReLU) before the last one. Defaults to `()`, a linear classifier, which
            `fit_combiner` solves to its optimum, its L2 strength chosen out of fold.
        passthrough: Whether it also sees the members' features, as scikit-learn's `StackingClassifier` with this
            option sees its input. Defaults to `False`.
        final_estimator: A linear scikit-learn classifier, such as `LogisticRegression(C=0.1)`, alone or at the end of
            a pipeline: `fit_combiner` fits it instead, and gives back a layer with its weights, which says exactly
            what it says. Defaults to `None`.

    Raises:
        ValueError: If `num_classes` is below 2, a width is below 1, or there is a `final_estimator` beside `units`.

    Example:

    >>> layer = ek.StackedMetaLearner(2)
    >>> layer([np.array([[0.9, 0.1]]), np.array([[0.3, 0.7]])]).shape[1]
    2
    """

    def __init__(self, num_classes, units=(), passthrough=False, final_estimator=None, **kwargs):
        super().__init__(num_classes, units, **kwargs)
        if final_estimator is not None and self.units:
            raise ValueError(
                f"`final_estimator` takes the place of all dense layers. Received: also units={self.units}."
            )
        self.passthrough, self.final_estimator = bool(passthrough), final_estimator
        self.takes = "both" if self.passthrough else "predictions"

    def build(self, predictions_shape, features_shape=()):
        """Builds the dense layers for tensors of these shapes, one per member."""
        super().build([*((None, max(shape[-1], 2)) for shape in predictions_shape), *(features_shape or ())])

    def call(self, predictions, features=None):
        """Returns class probabilities of shape `(batch, num_classes)`."""
        return self.classify(*([predictions] if features is None else [predictions, features]))

    def join(self, predictions, features=()):
        """Returns the log-probabilities, and features where there are any, side by side."""
        parts = [base.log_probabilities(p) for p in predictions] + [base.as_float32(f) for f in features]
        return ops.concatenate(parts, axis=-1)

    def get_config(self):
        """Returns the arguments that make this layer again."""
        own = {"passthrough": self.passthrough, "final_estimator": self.final_estimator}
        return {**super().get_config(), **own}

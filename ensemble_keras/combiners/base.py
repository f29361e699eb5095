"""Base: what combiners share: members' outputs as probabilities, weights, and a dense network over them."""

import keras
import numpy as np
from keras import ops

from ensemble_keras._validation import check_choice

# Below this a probability counts as this much: one member that is sure and wrong must not give infinities.
SMALLEST_PROBABILITY = 1e-7


def as_widths(units):
    """Returns the widths of hidden layers as a tuple of ints, or raises `ValueError`."""
    if isinstance(units, str) or not np.iterable(units):
        raise ValueError(f"`units` must be a tuple of widths, one per hidden layer. Received: {units!r}.")
    widths = tuple(int(width) for width in units)
    if any(width < 1 for width in widths):
        raise ValueError(f"`units` must be widths of at least 1. Received: {widths}.")
    return widths


class Combiner(keras.layers.Layer):
    """A layer from a list of tensors, one per member, to class probabilities.

    `takes` says which tensors: the members' `"predictions"`, their `"features"`, or `"both"`, in which case `call`
    takes two lists, predictions and features. `call` holds `keras.ops` and stock Keras layers only and never
    reads the batch size, since `build_ensemble` writes its operations into the ensemble's graph.
    """

    takes = "predictions"

    def __init__(self, **kwargs):
        # Logarithms and sums of probabilities need float32 under mixed precision, too.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)


class DenseCombiner(Combiner):
    """A combiner that joins its tensors into one matrix and puts dense layers on it.

    A subclass defines `join`, from what it is called with to one tensor of shape `(batch, width)`, and a `call` that
    returns `classify` of the same. Without hidden units the layer is a linear classifier on that matrix, which
    `fit_combiner` solves to its optimum.

    Args:
        num_classes: Int. Number of classes; 1 for one sigmoid unit.
        units: Widths of the hidden layers (ReLU). Defaults to `()`, none.
        activation: `"softmax"`, or `"sigmoid"` for one unit. Defaults to `"softmax"`.

    Raises:
        ValueError: If rows of the output could not sum to 1, or a width is below 1.
    """

    def __init__(self, num_classes, units=(), activation="softmax", **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.units = int(num_classes), as_widths(units)
        self.activation = activation
        self._check()
        self.hidden = [
            keras.layers.Dense(width, "relu", dtype="float32", name=f"{self.name}_hidden_{i}")
            for i, width in enumerate(self.units)
        ]
        self.head = keras.layers.Dense(self.num_classes, activation, dtype="float32", name=f"{self.name}_head")

    def build(self, input_shape):
        """Builds the dense layers for tensors of these shapes, one per member."""
        self.width = sum(shape[-1] for shape in input_shape)
        shape = (None, self.width)
        for layer in [*self.hidden, self.head]:
            layer.build(shape)
            shape = (None, layer.units)

    def classify(self, *tensors):
        """Returns class probabilities of shape `(batch, num_classes)`; two columns for one sigmoid unit."""
        x = self.join(*tensors)
        if self.built and x.shape[-1] != self.width:
            raise ValueError(
                f"`{type(self).__name__}` was built for {self.width} values per image. Received: {x.shape[-1]} from "
                f"{len(tensors[0])} members. Fit a new one on the outputs of these members."
            )
        for layer in self.hidden:
            x = layer(x)
        return as_probabilities(self.head(x))

    def draw_weights(self, seed):
        """Draws the dense layers' kernels anew (Glorot uniform): the same ones from `seed` on every backend."""
        rng = np.random.default_rng(seed)
        for layer in [*self.hidden, self.head]:
            limit = np.sqrt(6 / sum(layer.kernel.shape))
            layer.set_weights([rng.uniform(-limit, limit, layer.kernel.shape), np.zeros(layer.units)])

    def get_config(self):
        """Returns the arguments that make this layer again."""
        return {**super().get_config(), "num_classes": self.num_classes, "units": list(self.units)}

    def _check(self):
        one, many = ("sigmoid", 1), ("softmax", max(self.num_classes, 2))
        if (self.activation, self.num_classes) not in (one, many):
            raise ValueError(
                'Expected `activation="softmax"` with 2 or more classes, or "sigmoid" with `num_classes=1`, so that '
                f"rows sum to 1. Received: activation={self.activation!r}, num_classes={self.num_classes}."
            )


def takes_of(combiner):
    """Returns what a combiner layer takes: what its `takes` says, `"predictions"` where it has none, as Keras' own.

    Raises:
        ValueError: If it says anything else than `"predictions"`, `"features"` or `"both"`.
    """
    return check_choice(
        "combiner.takes", getattr(combiner, "takes", "predictions"), ["predictions", "features", "both"]
    )


def as_probabilities(tensor):
    """Returns a member's predictions as float32 rows that sum to 1: one sigmoid column `p` becomes `[1 - p, p]`."""
    tensor = as_float32(tensor)
    return ops.concatenate([1.0 - tensor, tensor], axis=-1) if tensor.shape[-1] == 1 else tensor


def as_float32(tensor):
    """Returns the tensor in float32; one that is so already adds no operation to the graph."""
    return tensor if keras.backend.standardize_dtype(tensor.dtype) == "float32" else ops.cast(tensor, "float32")


def log_probabilities(tensor):
    """Returns the logarithms of a member's probabilities, which are its logits up to a constant per row."""
    return ops.log(ops.maximum(as_probabilities(tensor), SMALLEST_PROBABILITY))

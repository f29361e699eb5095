"""Logits: what a classifier's softmax or sigmoid takes, told from the layers before it."""

import keras
from keras import layers, ops

from ensemble_keras.combiners.base import as_float32, as_probabilities

_ACTIVATIONS = (keras.activations.softmax, keras.activations.sigmoid)
# Smaller numbers of float32 lose digits; a logarithm must stay finite.
_SMALLEST = 1e-37


def logits_from(steps, prediction):
    """Returns the place of a tensor, and a function from it to the logits `(batch, num_classes)` of a prediction.

    Of a dense layer with softmax or sigmoid they are what it makes of its inputs without the activation: a classifier
    that is very sure gives probabilities of 1 and 0, which have no slope. Of others they are the logarithms of the
    probabilities. They are known up to a constant per image; of one sigmoid unit `z` they are `-z / 2` and `z / 2`.

    Args:
        steps: `Steps` of the model.
        prediction: Place of probabilities, `(batch, num_classes)` or `(batch, 1)`.
    """
    step, place = steps.maker(prediction), prediction
    while isinstance(step.operation, layers.Activation) and step.operation.activation is keras.activations.linear:
        [place] = step.given.values()
        step = steps.maker(place)
    if not _is_dense_classifier(step.operation):
        return place, lambda tensor: ops.log(ops.maximum(as_probabilities(tensor), _SMALLEST))
    [place] = step.given.values()
    return place, lambda tensor: _linear(step.operation, tensor)


def _is_dense_classifier(operation):
    dense = type(operation) is layers.Dense and operation.quantization_mode is None
    return dense and operation.activation in _ACTIVATIONS


def _linear(dense, x):
    logits = ops.matmul(as_float32(x), as_float32(dense.kernel))
    logits = logits + as_float32(dense.bias) if dense.use_bias else logits
    return ops.concatenate([-logits / 2, logits / 2], axis=-1) if logits.shape[-1] == 1 else logits

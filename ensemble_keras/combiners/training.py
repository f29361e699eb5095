"""Training: fits a combiner with hidden units, or one of a user's own, by gradient descent on arrays."""

import keras
import numpy as np

from ensemble_keras.combiners import base

# Training ends when the watched loss has not fallen for so many epochs.
EPOCHS, PATIENCE, LEARNING_RATE = 200, 10, 5e-3
# Rows of a step: at least so many, and so that an epoch has at most so many steps.
BATCH_SIZE, STEPS = 64, 25


def train_layer(layer, part, watched, *, seed):
    """Trains a built layer in place (AdamW, cross-entropy) and leaves it with its best weights.

    Keras' own loop would shuffle by the user's global random state: here the order of the rows is a function of
    seed and epoch, on every backend.

    Args:
        layer: A combiner layer.
        part: `(inputs, y, weights)` to train on: inputs as `call` takes them, one or two lists of arrays; class
            indices `(n,)`; row weights `(n,)`.
        watched: The same of other rows; the weights with the lowest loss on them are kept.
        seed: Int.
    """
    model, rng = _model(layer, part[0]), np.random.default_rng(seed)
    arrays, n = _flat(*part), len(part[1])
    # A start that no epoch betters is kept.
    lowest, best, best_epoch = _log_loss(model, *_flat(*watched)), model.get_weights(), 0
    for epoch in range(EPOCHS):
        for rows in np.array_split(rng.permutation(n), min(STEPS, -(-n // BATCH_SIZE))):
            *x, y, weights = (array[rows] for array in arrays)
            model.train_on_batch(x, y, weights)
        loss = _log_loss(model, *_flat(*watched))
        if loss < lowest:
            lowest, best, best_epoch = loss, model.get_weights(), epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    model.set_weights(best)


def _model(layer, inputs):
    tensors = [[keras.Input(array.shape[1:]) for array in group] for group in inputs]
    model = keras.Model([tensor for group in tensors for tensor in group], layer(*tensors))
    # On a CPU TensorFlow takes longer to compile such small steps than to run them.
    jit_compile = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.AdamW(LEARNING_RATE), "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return model


def _flat(inputs, y, weights):
    return [*(array for group in inputs for array in group), y, weights]


def _log_loss(model, *arrays):
    # `test_on_batch` gives a running mean over all calls.
    *x, y, weights = arrays
    probabilities = model.predict_on_batch(x)[np.arange(len(y)), y]
    return np.average(-np.log(np.maximum(probabilities, base.SMALLEST_PROBABILITY)), weights=weights)

"""Inference: a model as a compiled function of arrays, for one image at a time as well as for many."""

import contextlib
import threading

import keras
import numpy as np

from ensemble_keras._terminal import without_retracing_warnings
from ensemble_keras.backbones.folding import fold_batch_norms
from ensemble_keras.memory import without_registered_gradients

# Every one costs a compilation, where the backend compiles shapes: four sizes leave little of a batch empty.
BATCH_SIZES = (1, 8, 32, 256)


def compiled(model, *, batch_sizes=BATCH_SIZES):
    """Returns a model as a function of arrays that is fast from the first image on.

    `keras.Model.predict` sets up a data pipeline for every call, which takes longer than a small network does for an
    image. Here the compiled step is called itself, with batch normalisations folded into the convolutions before
    them. The step is compiled anew for every number of images: so it sees but a few of them. More images are divided
    among these batch sizes, and the last batch is filled up.

    Args:
        model: A `keras.Model` from one tensor to one tensor, such as `build_ensemble` or `load_ensemble` gives.
        batch_sizes: Ints, 1 among them: the numbers of images that the step is compiled for, each at the first call
            that needs it. Defaults to `(1, 8, 32, 256)`.

    Returns:
        A function from an array `(n, …)` to a float32 array: what `model.predict` gives for it, up to rounding. It
        may keep the weights that the model has now: make a new one after training.

    Raises:
        ValueError: If `model` has several inputs or outputs, or `batch_sizes` are not as described.

    Example:

    >>> model = ek.build_member("CNN", 10, image_size=32, weights=None)
    >>> predict = ek.compiled(model)
    >>> predict(np.zeros((1, 32, 32, 3), "uint8")).shape
    (1, 10)
    """
    return Compiled(model, batch_sizes)


class Compiled:
    """What `compiled` returns: `batch_sizes` of its step, the largest first, and the folded `model` itself."""

    def __init__(self, model, batch_sizes=BATCH_SIZES):
        if len(getattr(model, "inputs", None) or []) != 1 or len(model.outputs) != 1:
            raise ValueError(f"`model` must be a `keras.Model` with one input and one output. Received: {model!r}.")
        self.batch_sizes = _check_sizes(batch_sizes)
        # A model of its own: the user's keeps what it has compiled.
        self.model = fold_batch_norms(keras.Model(model.inputs, model.outputs[0], name=model.name))
        self._width = tuple(model.output_shape[1:])
        self._lock, self._traced = threading.Lock(), set()

    def __call__(self, x):
        """Returns the outputs for an array `(n, …)`, float32."""
        with quietly_traced():
            return self.run(np.asarray(x))

    def run(self, x):
        """As a call, to be made within `quietly_traced`, also from several threads."""
        outputs = np.empty((len(x), *self._width), "float32")
        for start, size in batches_of(len(x), self.batch_sizes):
            part = x[start : start + size]
            outputs[start : start + size] = self._step(_filled(part, size))[: len(part)]
        return outputs

    def _step(self, batch):
        """Runs the compiled step; of several threads one at a time, but on TensorFlow once its size is compiled."""
        # On JAX a model holds the state of the call that is under way.
        if len(batch) in self._traced and keras.backend.backend() == "tensorflow":
            return self.model.predict_on_batch(batch)
        with self._lock:
            outputs = self.model.predict_on_batch(batch)
        self._traced.add(len(batch))
        return outputs


@contextlib.contextmanager
def quietly_traced():
    """Keeps what TensorFlow says and registers when a model's step is traced for the first time from the user."""
    with without_retracing_warnings(), without_registered_gradients():
        yield


def batches_of(n, sizes):
    """Yields the start and the size of each batch of `n` rows; at most a quarter of a batch is left to be filled up.

    Args:
        n: Int.
        sizes: Ints, the largest first and 1 the last.

    Example:

    >>> list(batches_of(40, (16, 4, 1)))
    [(0, 16), (16, 16), (32, 4), (36, 4)]
    >>> list(batches_of(13, (16, 4, 1)))
    [(0, 16)]
    """
    start = 0
    for size in sizes:
        while n - start >= max(0.75 * size, 1):
            yield start, size
            start += size


def _filled(part, size):
    if len(part) == size:
        return part
    return np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])


def _check_sizes(batch_sizes):
    sizes = sorted({int(size) for size in batch_sizes}, reverse=True)
    if not sizes or sizes[-1] != 1:
        raise ValueError(f"`batch_sizes` must be ints of at least 1, 1 among them. Received: {batch_sizes!r}.")
    return tuple(sizes)

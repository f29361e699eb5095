"""Memory: freeing what a finished member used, and going on with a smaller batch when it runs out."""

import contextlib
import ctypes
import gc
import logging
import sys

import keras

_LOGGER = logging.getLogger("ensemble_keras")
# What the backends call it: TensorFlow's error class, and the status in JAX's and torch's messages.
_SIGNS = ("resource_exhausted", "out of memory", "out_of_memory", "oom when allocating")


def free():
    """Frees the models that nothing refers to any more, what the backend compiled for them, and gives memory back."""
    gc.collect()
    if keras.backend.backend() == "jax" and "jax" in sys.modules:
        # Otherwise about 15 MB stay for every architecture that was built and run.
        sys.modules["jax"].clear_caches()
    if sys.platform == "linux":
        # The C library keeps what is freed in small pieces: 600 MB after a fine-tuning on JAX.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@contextlib.contextmanager
def without_registered_gradients():
    """Takes out again the gradient functions that TensorFlow registers while the block's steps are traced.

    It registers one for every custom gradient in a traced step, for good, and each refers to the step's whole graph:
    90 MB for every MobileNetV2 that was trained. They are needed while the step is traced, not when it runs.
    """
    registered = _registered_gradients()
    before = set(registered)
    try:
        yield
    finally:
        for name in [name for name in registered if name.startswith("CustomGradient-") and name not in before]:
            del registered[name]


def _registered_gradients():
    ops = sys.modules.get("tensorflow.python.framework.ops") if keras.backend.backend() == "tensorflow" else None
    return getattr(getattr(ops, "gradient_registry", None), "_registry", {})


def is_out_of_memory(error):
    """Returns whether an exception says that memory ran out, on any backend, or was raised while such a one was."""
    if isinstance(error, MemoryError):
        return True
    text = f"{type(error).__name__} {error}".lower()
    if type(error).__name__ in ("ResourceExhaustedError", "OutOfMemoryError") or any(s in text for s in _SIGNS):
        return True
    # On JAX `fit` finalizes averaged weights even after a failed step, which has taken the weights along: an error
    # of its own, that would hide the first.
    return error.__context__ is not None and is_out_of_memory(error.__context__)


def with_smaller_batches(step, batch_size, *, name):
    """Calls `step(batch_size)`; each time memory runs out, halves the batch and calls it again.

    Gradient functions that TensorFlow registers meanwhile are taken out (`without_registered_gradients`).

    Args:
        step: Function of a batch size, safe to repeat.
        batch_size: Int, the size to begin with.
        name: What is being done, for the log.

    Returns:
        What `step` returned, and the batch size that it took.

    Raises:
        MemoryError: If even one image at a time does not fit.
    """
    while True:
        try:
            with without_registered_gradients():
                return step(batch_size), batch_size
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if batch_size == 1:
            raise MemoryError(f"{name}: out of memory even with one image at a time ({reason}).")
        free()
        _LOGGER.warning(
            "%s: out of memory with %d images at a time, going on with %d.", name, batch_size, batch_size // 2
        )
        batch_size //= 2

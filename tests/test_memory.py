import logging
import sys
import weakref

import keras
import numpy as np
import pytest
from many_fine_tunings import resident_megabytes

from ensemble_keras import memory


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (ResourceExhaustedError("OOM when allocating tensor with shape[64,3]"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY"), True),
        (ValueError("shapes differ"), False),
        (KeyError("zoom"), False),
    ],
)
def test_out_of_memory_is_known_on_any_backend(error, expected):
    assert memory.is_out_of_memory(error) is expected


def test_an_error_in_the_clean_up_after_it_does_not_hide_it():
    with pytest.raises(TypeError) as caught:
        try:
            raise MemoryError("no room")
        finally:
            raise TypeError("no weights")
    assert memory.is_out_of_memory(caught.value)


def test_the_batch_is_halved_until_it_fits_and_each_time_is_said(caplog):
    tried = []

    def step(size):
        tried.append(size)
        if size > 5:
            raise ResourceExhaustedError("OOM when allocating")
        return size * 10

    with caplog.at_level(logging.WARNING, "ensemble_keras"):
        assert memory.with_smaller_batches(step, 20, name="VGG19") == (50, 5)
    assert tried == [20, 10, 5]
    assert [record.getMessage() for record in caplog.records] == [
        "VGG19: out of memory with 20 images at a time, going on with 10.",
        "VGG19: out of memory with 10 images at a time, going on with 5.",
    ]


def test_one_image_that_does_not_fit_is_an_error():
    def step(size):
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match=r"VGG19: out of memory even with one image at a time \(no room\)"):
        memory.with_smaller_batches(step, 4, name="VGG19")


def test_another_error_passes():
    def step(size):
        raise ValueError("shapes differ")

    with pytest.raises(ValueError, match="shapes differ"):
        memory.with_smaller_batches(step, 4, name="VGG19")


def test_freeing_keeps_what_is_in_use():
    layer = keras.layers.Dense(2)
    before = keras.ops.convert_to_numpy(layer(np.ones((1, 3), "float32")))
    memory.free()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(np.ones((1, 3), "float32"))), before, rtol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_freed_in_small_pieces_goes_back_to_the_machine():
    # Pieces too small to be returned one by one; some that stay keep the C library from returning the others.
    pieces = [np.ones(1250) for _ in range(20000)]
    kept = pieces[::200]
    full = resident_megabytes()
    del pieces
    memory.free()
    assert full - resident_megabytes() > 100
    assert sum(len(piece) for piece in kept) == 125000


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow registers gradients")
def test_a_step_that_was_traced_and_is_gone_leaves_nothing_behind():
    import tensorflow as tf

    @tf.custom_gradient
    def doubled(x):
        return 2 * x, lambda upstream: 3 * upstream

    def make_step():
        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.reduce_sum(doubled(x))
            return tape.gradient(y, x)

        return step

    def graph_of(step):
        return weakref.ref(step.get_concrete_function(tf.TensorSpec([2])).graph)

    outside = make_step()
    stays = graph_of(outside)
    with memory.without_registered_gradients():
        step = make_step()
        gone = graph_of(step)
    # It was traced with its gradient, and runs with it.
    np.testing.assert_array_equal(step(tf.constant([1.0, 1.0])), [3, 3])
    del step, outside
    memory.free()
    assert gone() is None
    # What was registered outside of the block is none of ours.
    assert stays() is not None


def test_a_step_with_smaller_batches_takes_registered_gradients_out(monkeypatch):
    registered = {"CustomGradient-1": "of another", "Sub": "of an operation"}
    monkeypatch.setattr(memory, "_registered_gradients", lambda: registered)

    def step(size):
        registered[f"CustomGradient-{size}0"] = "of the step"
        registered["Wave"] = "of the user's callback"
        if size > 1:
            raise MemoryError("no room")

    memory.with_smaller_batches(step, 2, name="VGG19")
    assert sorted(registered) == ["CustomGradient-1", "Sub", "Wave"]

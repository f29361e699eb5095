import logging

import numpy as np
import pytest

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
        (ValueError("shapes differ"), False),
        (KeyError("zoom"), False),
    ],
)
def test_out_of_memory_is_known_on_any_backend(error, expected):
    assert memory.is_out_of_memory(error) is expected


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
    import keras

    layer = keras.layers.Dense(2)
    before = keras.ops.convert_to_numpy(layer(np.ones((1, 3), "float32")))
    memory.free()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(np.ones((1, 3), "float32"))), before, rtol=1e-6)

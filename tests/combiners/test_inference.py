import concurrent.futures

import keras
import numpy as np
import pytest
from tiny_members import tiny_member

from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.inference import batches_of, compiled, quietly_traced
from ensemble_keras.combiners.voting import SoftVoting


@pytest.fixture(scope="module")
def model():
    return build_ensemble([tiny_member("a"), tiny_member("b", width=5)], SoftVoting())


@pytest.mark.parametrize("n", [0, 1, 2, 5, 23])
def test_it_gives_what_predict_gives_for_any_number_of_images(model, rng, n):
    images = rng.integers(0, 256, (n, 8, 8, 3), dtype="uint8")
    found = compiled(model, batch_sizes=(1, 4, 8))(images)
    assert found.dtype == np.float32
    expected = model.predict(images, verbose=0) if n else np.empty((0, 2))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_batch_norms_are_folded_and_the_model_stays_what_it_was(rng):
    images = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(images))
    model = keras.Model(images, keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(x)))
    model.layers[2].set_weights([rng.uniform(0.5, 2, 4) for _ in range(4)])
    batch = rng.integers(0, 256, (3, 8, 8, 3), dtype="uint8")
    predict = compiled(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in predict.model.layers)
    np.testing.assert_allclose(predict(batch), model.predict(batch, verbose=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1,), (4, 1), (256, 32, 8, 1)])
@pytest.mark.parametrize("n", [0, 1, 3, 40, 200, 1000])
def test_batches_hold_all_rows_and_at_most_a_third_more(n, sizes):
    batches = list(batches_of(n, sizes))
    assert [start for start, _ in batches] == np.cumsum([0, *(size for _, size in batches)])[: len(batches)].tolist()
    total = sum(size for _, size in batches)
    assert n <= total <= n * 4 / 3
    assert {size for _, size in batches} <= set(sizes)


def test_what_it_cannot_call_is_refused(model):
    with pytest.raises(
        ValueError, match="`batch_sizes` must be ints of at least 1, 1 among them. Received: \\(8,\\)"
    ):
        compiled(model, batch_sizes=(8,))
    with pytest.raises(ValueError, match="must be a `keras.Model` with one input and one output"):
        compiled(keras.Model(model.inputs, [model.output, model.output]))
    with pytest.raises(ValueError, match="must be a `keras.Model` with one input and one output"):
        compiled("model.keras")


def test_several_threads_get_what_one_does(rng):
    member = tiny_member("a")
    images = [rng.integers(0, 256, (n, 8, 8, 3), dtype="uint8") for n in (1, 7, 12, 20, 3, 9, 16, 5) * 3]
    predict = compiled(member, batch_sizes=(1, 4, 8))
    with quietly_traced(), concurrent.futures.ThreadPoolExecutor(4) as workers:
        found = list(workers.map(predict.run, images))
    for x, p in zip(images, found, strict=True):
        np.testing.assert_allclose(p, member.predict(x, verbose=0), rtol=0, atol=1e-5)

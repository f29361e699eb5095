import time

import keras
import pandas as pd
import pytest
from keras import layers
from tiny_members import tiny_member

from ensemble_keras.measures.cost import measure_latency, member_costs, time_in_turns
from ensemble_keras.measures.macs import count_macs


@pytest.fixture
def calls(monkeypatch):
    """The batches that models are called with; a call takes as many milliseconds as its model's name says."""
    seen = []

    def predict_on_batch(self, x):
        seen.append((self.name, x))
        # The first calls take longer, as compiling does.
        time.sleep(0.1 if sum(name == self.name for name, _ in seen) < 3 else float(self.name[1:]) / 1000)

    monkeypatch.setattr(keras.Model, "predict_on_batch", predict_on_batch)
    return seen


def test_latency_is_the_median_of_calls_after_a_warm_up(calls):
    found = measure_latency(tiny_member("m5"), batch_size=4, repeats=5)
    assert 5 <= found < 50
    assert len(calls) == 3 + 5
    assert calls[0][1].shape == (4, 8, 8, 3)
    assert 0 <= calls[0][1].min() < calls[0][1].max() <= 255


def test_members_are_timed_in_turns(calls):
    found = member_costs([tiny_member("m20"), tiny_member("m5")], repeats=4)["latency_ms"]
    assert [name for name, _ in calls[6:]] == ["m20", "m5"] * 4
    assert found["m20"] > found["m5"] + 10


def test_a_real_call_takes_time():
    member = tiny_member("a")
    one, many = (measure_latency(member, batch_size=size, repeats=5) for size in (1, 4096))
    assert many > one > 0


def test_costs_are_those_of_each_member():
    odd = keras.Input((8, 8, 3))
    unknown = keras.Model(odd, layers.Dense(2, "softmax")(_Mean()(odd)), name="odd")
    small, large = tiny_member("small"), tiny_member("large", width=32)
    table = member_costs([small, large, unknown], repeats=1)
    assert table.index.tolist() == ["small", "large", "odd"]
    assert table["parameters"].tolist() == [m.count_params() for m in (small, large, unknown)]
    assert table["macs"].tolist()[:2] == [count_macs(m).total for m in (small, large)]
    assert table["macs"]["odd"] is pd.NA
    assert (table["latency_ms"] > 0).all()


def test_models_of_several_inputs_are_called_with_all_of_them():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b", dtype="int32")}
    model = keras.Model(inputs, layers.Concatenate()([inputs["a"], keras.ops.cast(inputs["b"], "float32")]))
    assert measure_latency(model, repeats=1) > 0


def test_functions_are_timed_in_turns_with_each_argument_after_all_were_given_once():
    seen = []

    def waiting(milliseconds):
        def call(x):
            seen.append((milliseconds, x))
            time.sleep(milliseconds * x / 1000)

        return call

    found = time_in_turns([waiting(2), waiting(8)], [[1, 2], [3, 4]], repeats=5)
    assert found.shape == (5, 2, 2)
    assert seen[:6] == [(2, 1), (2, 2), (2, 1), (8, 3), (8, 4), (8, 3)]
    assert seen[6:10] == [(2, 1), (8, 3), (2, 2), (8, 4)]
    assert (found.min(axis=0) >= [[0.002, 0.024], [0.004, 0.032]]).all()


def test_what_cannot_be_timed_is_refused():
    images = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=r"All sizes but the batch's must be known. Received: model 'any'"):
        measure_latency(keras.Model(images, layers.GlobalAveragePooling2D()(images), name="any"))
    for wrong in ({"batch_size": 0}, {"repeats": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be an int of at least 1. Received: 0"):
            measure_latency(tiny_member("a"), **wrong)
    with pytest.raises(ValueError, match="unique names. Received: a, a"):
        member_costs([tiny_member("a"), tiny_member("a")])


class _Mean(layers.Layer):
    def call(self, images):
        return keras.ops.mean(images, axis=(1, 2))

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])

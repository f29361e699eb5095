import json
import os
import pathlib
import random
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

import ensemble_keras as ek
from ensemble_keras import devices
from ensemble_keras.devices import (
    data_parallel,
    replica_count,
    resolve_devices,
    supports_bfloat16,
    with_precision,
)

JAX = keras.backend.backend() == "jax"


class Spy(keras.layers.Layer):
    """Notes the dtype of what passes through each time it is traced."""

    seen = None

    def call(self, inputs):
        self.seen.append(keras.backend.standardize_dtype(inputs.dtype))
        return inputs


@pytest.fixture
def small():
    """A flat network: preprocessing, a convolution, and two classes."""
    Spy.seen = []
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255, name="scaled"),
            keras.layers.Conv2D(4, 3, name="convolution"),
            keras.layers.BatchNormalization(name="normalised"),
            Spy(name="spy"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(2, activation="softmax", name="classes"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    Spy.seen.clear()
    return model


def dtypes(model):
    return {layer.name: layer.compute_dtype for layer in model.layers}


def dtypes_in(step):
    """Returns the dtypes that the spy saw while a step was traced."""
    Spy.seen.clear()
    step()
    return set(Spy.seen)


def test_a_cpu_does_not_run_bfloat16_itself():
    if {device.partition(":")[0] for device in keras.distribution.list_devices()} == {"cpu"}:
        assert supports_bfloat16() is False


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([("gpu", 9.0)], True),
        ([("gpu", 8.0), ("gpu", 8.0)], True),
        ([("gpu", 9.0), ("gpu", 7.0)], False),
        ([("gpu", 0.0)], False),
        ([("tpu", 0.0)], True),
        ([("rocm", 0.0)], False),
        ([], False),
    ],
)
def test_bfloat16_needs_ampere_or_a_tpu_on_every_device(monkeypatch, kinds, expected):
    monkeypatch.setattr(devices, "_accelerators", lambda: kinds)
    assert supports_bfloat16() is expected


def _device(platform, **more):
    return types.SimpleNamespace(platform=platform, **more)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([_device("gpu", compute_capability="9.0")], [("gpu", 9.0)]),
        ([_device("gpu", compute_capability="gfx90a")], [("gpu", 0.0)]),
        ([_device("tpu")], [("tpu", 0.0)]),
        ([_device("cpu")], []),
    ],
)
def test_accelerators_as_jax_tells_them(found, expected):
    assert devices._of_jax(types.SimpleNamespace(devices=lambda: found)) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"GPU": [{"compute_capability": (8, 6)}, {"compute_capability": (7, 5)}]}, [("gpu", 8.0), ("gpu", 7.0)]),
        ({"GPU": [{"device_name": "of another maker"}]}, [("gpu", 0.0)]),
        ({"TPU": ["TPU:0"]}, [("tpu", 0.0)]),
        ({}, []),
    ],
)
def test_accelerators_as_tensorflow_tells_them(found, expected):
    config = types.SimpleNamespace(
        list_physical_devices=lambda kind: found.get(kind, []),
        experimental=types.SimpleNamespace(get_device_details=lambda gpu: gpu),
    )
    assert devices._of_tensorflow(types.SimpleNamespace(config=config)) == expected


@pytest.mark.parametrize(("count", "expected"), [(0, []), (2, [("gpu", 8.0), ("gpu", 7.0)])])
def test_accelerators_as_torch_tells_them(count, expected):
    cuda = types.SimpleNamespace(
        is_available=lambda: count > 0,
        device_count=lambda: count,
        get_device_capability=lambda index: [(8, 0), (7, 5)][index],
    )
    assert devices._of_torch(types.SimpleNamespace(cuda=cuda)) == expected


def test_training_runs_in_bfloat16_and_afterwards_nothing_does(small, rng):
    x, y = rng.uniform(0, 255, (8, 8, 8, 3)).astype("float32"), np.arange(8) % 2
    # Each step is traced before the policy changes: the trace must not be used again.
    steps = [
        lambda: small.fit(x, y, verbose=0),
        lambda: small.evaluate(x, y, verbose=0),
        lambda: small.predict(x, verbose=0),
    ]
    assert [dtypes_in(step) for step in steps] == [{"float32"}] * 3
    before = small.get_weights()
    with with_precision(small, "mixed_bfloat16") as same:
        assert same is small
        assert [dtypes_in(step) for step in steps] == [{"bfloat16"}] * 3
        assert {keras.backend.standardize_dtype(weight.dtype) for weight in small.weights} == {"float32"}
        assert keras.backend.standardize_dtype(small(x).dtype) == "float32"
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, small.get_weights(), strict=True))
    assert [dtypes_in(step) for step in steps] == [{"float32"}] * 3
    predictions = small.predict(x, verbose=0)
    pristine = keras.models.clone_model(small)
    pristine.set_weights(small.get_weights())
    np.testing.assert_array_equal(predictions, pristine.predict(x, verbose=0))


def test_preprocessing_and_probabilities_stay_float32(small):
    with with_precision(small, "mixed_bfloat16"):
        assert dtypes(small) == {
            "scaled": "float32",
            "convolution": "bfloat16",
            "normalised": "bfloat16",
            "spy": "bfloat16",
            "flat": "bfloat16",
            "classes": "float32",
        }
    assert set(dtypes(small).values()) == {"float32"}


def test_layers_get_their_own_policies_back_also_after_an_error(small):
    small.get_layer("flat").dtype_policy = "float64"
    with pytest.raises(RuntimeError, match="in the middle"), with_precision(small, "mixed_bfloat16"):
        assert small.get_layer("flat").compute_dtype == "bfloat16"
        raise RuntimeError("in the middle")
    assert dtypes(small) == {**dict.fromkeys(dtypes(small), "float32"), "flat": "float64"}


def test_of_a_member_and_of_an_ensemble_the_networks_change_and_nothing_around_them():
    members = [ek.build_member("CNN", 2, image_size=32, weights=None, name=name) for name in "ab"]
    model = ek.build_ensemble(members, ek.ConcatenateDense(2))
    with with_precision(model, "mixed_bfloat16"):
        for member in members:
            assert set(dtypes(member).values()) == {"float32"}
            networks = [layer for layer in member._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
            assert len(networks) > 1
            assert {layer.compute_dtype for layer in networks} == {"bfloat16"}
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}


def test_layers_within_a_composite_layer_change_too():
    inputs = keras.Input((4, 8))
    x = keras.layers.Dense(8)(inputs)
    attention = keras.layers.MultiHeadAttention(2, 4)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(attention(x, x)))
    with with_precision(model, "mixed_bfloat16"):
        assert {layer.compute_dtype for layer in attention._flatten_layers()} == {"bfloat16"}
        assert model.layers[-1].compute_dtype == "float32"


@pytest.mark.parametrize("policy", [None, "float32"])
def test_no_other_precision_leaves_the_traces(small, policy):
    small.train_function = "traced"
    with with_precision(small, policy):
        assert set(dtypes(small).values()) == {"float32"}
    assert small.train_function == "traced"


def test_float16_is_refused(small):
    with (
        pytest.raises(ValueError, match="must be 'mixed_bfloat16', 'float32' or None. Received: 'mixed_float16'"),
        with_precision(small, "mixed_float16"),
    ):
        pass


@pytest.mark.parametrize("wanted", [None, 1])
def test_one_device_trains_the_model_itself(small, wanted):
    assert resolve_devices(wanted) == ()
    with data_parallel(small, wanted) as trained:
        assert trained is small
        assert replica_count() == 1
        assert keras.distribution.distribution() is None


@pytest.mark.parametrize("wanted", [0, -1, True, 1.5, "gpus", [], [0, 1], {"gpu:0"}])
def test_devices_of_another_form_are_refused(wanted):
    with pytest.raises(ValueError, match="must be None, a number of devices, 'all' or a list of their names"):
        resolve_devices(wanted)


def test_other_backends_than_jax_train_on_one_device(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: ["gpu:0", "gpu:1"])
    for wanted in (2, "all", ["gpu:0", "gpu:1"]):
        with pytest.raises(ValueError, match="needs Keras' JAX backend.*'tensorflow'.*KERAS_BACKEND=jax"):
            resolve_devices(wanted)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: ["gpu:0"])
    assert resolve_devices("all") == ()


def test_devices_are_chosen_among_those_that_are_there(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    names = {None: ["gpu:0", "gpu:1", "gpu:2"], "cpu": ["cpu:0"]}
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: names[kind])
    assert resolve_devices("all") == ("gpu:0", "gpu:1", "gpu:2")
    assert resolve_devices(2) == ("gpu:0", "gpu:1")
    assert resolve_devices(["gpu:2"]) == ("gpu:2",)
    for wanted in (4, ["gpu:0", "gpu:7"], ["gpu:0", "gpu:0"]):
        with pytest.raises(ValueError, match="among this machine's, each once: gpu:0, gpu:1, gpu:2. Received"):
            resolve_devices(wanted)


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    """In a process of its own, which forces JAX to show two devices on the CPU."""
    script = pathlib.Path(__file__).parent / "two_devices.py"
    flags = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    run = subprocess.run(
        [sys.executable, script, tmp_path / "found.json"], env=os.environ | flags, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["devices"] == ["cpu:0", "cpu:1"]
    # Each weight lay on both, each batch of 8 was divided, that of 7 was not.
    assert found["replicas"] == 2
    assert found["shards"] == {"weights": 2, "8": [4, 4], "7": [7, 7]}
    assert found["moved"] > 1e-2
    assert found["largest difference"] < 1e-4
    assert found["largest difference, undivided"] < 1e-4
    assert found["largest difference, fine_tune"] < 1e-4
    assert found["best epochs"][0] == found["best epochs"][1] > 0
    assert found["seeds"] == "equal"
    assert found["after"] == "no distribution"
    assert found["after an error"] == "no distribution, model as it was"
    assert "7 images do not divide among 2 devices: each of them takes the whole batch." in run.stderr


@pytest.mark.skipif(not JAX, reason="Keras distributes on JAX")
def test_a_replica_leaves_pythons_random_state(small):
    random.seed(3)
    state = random.getstate()
    with data_parallel(small, ["cpu:0"]) as replica:
        assert replica is not small
        for own, other in zip(small.get_weights(), replica.get_weights(), strict=True):
            np.testing.assert_array_equal(own, other)
    assert random.getstate() == state

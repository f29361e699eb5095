import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.measures.cost import measure_latencies

CARD = {"class_names": ["a", "b", "c"], "filter": "bilinear"}


def dense_network(units=256):
    images = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(images)
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Flatten()(layers.MaxPooling2D(4)(x))
    x = layers.Dense(units, "relu", name="wide")(x)
    x = layers.Dense(units, "relu", name="deep")(x)
    return keras.Model(images, layers.Dense(3, "softmax", name="predictions")(x), name="network")


@pytest.fixture(scope="module")
def model():
    network = dense_network()
    rng = np.random.default_rng(0)
    moments = [rng.uniform(0.5, 1.5, w.shape) for w in network.get_layer("norm").get_weights()]
    network.get_layer("norm").set_weights(moments)
    return network


@pytest.fixture(scope="module")
def images():
    return pictures(30)[0]


@pytest.mark.parametrize(("mode", "atol"), [("int8", 0.02), ("int4", 0.2)])
def test_predictions_stay_near_and_the_model_stays_as_it_is(model, images, mode, atol):
    before = model.predict(images, verbose=0)
    quantized = ek.quantize_model(model, mode, verbose=0)
    found = quantized.predict(images, verbose=0)
    np.testing.assert_allclose(found, before, atol=atol)
    assert np.abs(found - before).max() > 0
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)
    assert quantized.get_layer("wide").quantization_mode == mode
    assert model.get_layer("wide").dtype_policy.name == "float32"
    assert quantized.name == model.name


def test_weights_are_whole_numbers_times_a_scale(model):
    """As in Keras' absmax quantiser, computed here by hand."""
    kernel = model.get_layer("wide").get_weights()[0]
    layer = ek.quantize_model(model, verbose=0).get_layer("wide")
    stored = keras.ops.convert_to_numpy(layer._kernel)
    assert stored.dtype == np.int8
    np.testing.assert_allclose(stored, np.rint(127 * kernel / np.abs(kernel).max(axis=0)), atol=1)


@pytest.mark.slow
def test_the_file_is_a_fraction_and_opens_with_keras_alone(model, images, tmp_path):
    quantized = ek.quantize_model(model, verbose=0)
    ek.save_ensemble(model, tmp_path / "float32.keras", card=CARD, verbose=0)
    ek.save_ensemble(quantized, tmp_path / "int8.keras", card=CARD, verbose=0)
    sizes = [(tmp_path / f"{name}.keras").stat().st_size for name in ("float32", "int8")]
    assert sizes[1] < 0.45 * sizes[0]
    np.save(tmp_path / "x.npy", images)
    code = (
        "import keras, numpy as np, sys\n"
        "p = keras.saving.load_model('int8.keras').predict(np.load('x.npy'), verbose=0)\n"
        "assert 'ensemble_keras' not in sys.modules\n"
        "np.save('p.npy', p)"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), quantized.predict(images, verbose=0), atol=1e-6)


def test_filters_choose_layers_and_ensembles_are_quantised_within(model, images):
    quantized = ek.quantize_model(model, filters="deep", verbose=0)
    assert quantized.get_layer("deep").dtype_policy.name == "int8_from_float32"
    assert quantized.get_layer("wide").dtype_policy.name == "float32"
    ensemble = ek.build_ensemble([model, ek.build_member("CNN", 3, image_size=16, weights=None)], ek.SoftVoting())
    found = ek.quantize_model(ensemble, verbose=0)
    np.testing.assert_allclose(found.predict(images, verbose=0), ensemble.predict(images, verbose=0), atol=0.02)
    assert found.get_layer("network").get_layer("wide").dtype_policy.name == "int8_from_float32"


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        ({1: 2.0, 32: 2.0}, "not faster on this machine"),
        ({1: 2.0, 32: 0.5}, r"faster at batch \[32\] only"),
        ({1: 0.5, 32: 0.5}, "faster on this machine"),
    ],
)
def test_it_is_said_whether_it_is_faster_here(model, monkeypatch, capsys, factor, said):
    def measured(models, *, batch_size):
        return [10.0, 10.0 * factor[batch_size]]

    monkeypatch.setattr("ensemble_keras.compression.quantization.measure_latencies", measured)
    ek.quantize_model(model)
    text = capsys.readouterr().out
    assert text.startswith("int8: 3 layers, ")
    dense = 36 * 256 + 256 * 256 + 256 * 3
    share = dense / (dense + 14 * 14 * 27 * 4)
    assert f"{share:.1%} of the multiply-accumulates" in text
    assert text.rstrip().endswith(f"{said.replace(chr(92), '')}.")


def test_both_are_measured_for_real(model, capsys):
    assert len(measure_latencies([model, ek.quantize_model(model, verbose=0)], repeats=2)) == 2
    ek.quantize_model(model)
    assert "batch 1: " in capsys.readouterr().out


def test_what_cannot_be_quantised_is_refused(model):
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(images))
    plain = keras.Model(images, layers.Softmax()(x), name="plain")
    with pytest.raises(ValueError, match="must have a layer that Keras quantises to int8.*Received: 'plain'"):
        ek.quantize_model(plain, verbose=0)
    with pytest.raises(ValueError, match="which has none that the filters let pass"):
        ek.quantize_model(model, filters="nothing", verbose=0)
    with pytest.raises(ValueError, match="`mode` must be one of 'int8', 'int4'. Received: 'float8'"):
        ek.quantize_model(model, "float8")
    with pytest.raises(ValueError, match="`model` must be a functional `keras.Model`. Received: 'model.keras'"):
        ek.quantize_model("model.keras")

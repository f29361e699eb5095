"""A saved ensemble opens with Keras alone: in safe mode, without this package, on either backend."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.backbones import registry

SIZE = 64
COMBINERS = ["soft_voting", "hard_voting", "geometric_voting", "concatenate", "stacking", "gated"]

# What a person runs who has the files, Keras and nothing of ours.
READER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ensemble_keras":
            raise ImportError("ensemble_keras is not installed here")

sys.meta_path.insert(0, Blocked())
import keras
import numpy as np

x = np.load("x.npy")
for file in sys.argv[1:]:
    model = keras.saving.load_model(file + ".keras", safe_mode=True)
    np.save(file + ".read.npy", model.predict(x, verbose=0))
assert "ensemble_keras" not in sys.modules
print(keras.backend.backend())
"""


def small_caffe(input_shape):
    import keras

    layers = [keras.layers.Conv2D(8, 3, strides=2, activation="relu"), keras.layers.Conv2D(16, 3, strides=2)]
    return keras.Sequential([keras.Input(input_shape), *layers])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a saved ensemble for each combiner, images, and what the saving process predicts for them."""
    folder = tmp_path_factory.mktemp("saved")
    x, y = pictures(90, size=SIZE)
    np.save(folder / "x.npy", x[:12])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))
        # Turns the channels round, as VGG's preprocessing does, without VGG's 60 MB.
        ek.register_backbone("Caffe", small_caffe, preprocessing="caffe", default_size=32)
        frozen = {"input_shape": (SIZE, SIZE, 3), "weights": None}
        backbones = [
            ek.build_backbone("MobileNetV2(alpha=0.35)", **frozen),
            ek.build_backbone("Caffe", resize_to=40, interpolation="bicubic", **frozen),
            "CNN(filters=(8, 16))",
        ]
    for combiner in COMBINERS:
        classifier = ek.EnsembleClassifier(
            backbones,
            combiner=combiner,
            image_size=SIZE,
            cv=2,
            training=ek.Training(epochs=2),
            directory=folder / "run",
            verbose=0,
        )
        probabilities = classifier.fit(x, y).predict_proba(x[:12])
        classifier.save(folder / f"{combiner}.keras")
        np.save(folder / f"{combiner}.npy", probabilities)
        assert np.ptp(probabilities, axis=0).max() > 0.1, "nothing to compare: all images get the same"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_every_combiner_predicts_the_same_where_only_keras_is(saved, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", READER, *COMBINERS]
    run = subprocess.run(
        command,
        cwd=saved,
        env={**environment, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == backend
    for combiner in COMBINERS:
        read, written = np.load(saved / f"{combiner}.read.npy"), np.load(saved / f"{combiner}.npy")
        np.testing.assert_allclose(read, written, atol=1e-5, err_msg=combiner)

"""Whole networks at real sizes: the nine default members in one file, and one backbone of each family."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import ensemble_keras as ek
from ensemble_keras import memory
from ensemble_keras.backbones.applications import APPLICATIONS
from ensemble_keras.backbones.registry import default_size

ROOT = pathlib.Path(__file__).parents[1]
GIB = 2**30

# Builds, joins, saves, loads and predicts, in a process of its own, whose memory can be measured.
NINE = """
import json, resource, sys, time
sys.path.insert(0, "examples")
import keras
import numpy as np
import ensemble_keras as ek
from chest_xray import BACKBONES
from ensemble_keras.backbones.registry import backbone_label

members = [
    ek.build_member(ek.build_backbone(name, input_shape=(96, 96, 3), weights=None), 2) for name in BACKBONES
]
model = ek.build_ensemble(members, ek.ConcatenateDense(2))
x = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), "uint8")
expected = model.predict(x, verbose=0)
card = {"class_names": ["NORMAL", "PNEUMONIA"], "filter": "bilinear"}
ek.save_ensemble(model, sys.argv[1], card=card, verbose=0)
parameters = model.count_params()
del model, members
keras.backend.clear_session()
model, card = ek.load_ensemble(sys.argv[1])
difference = float(np.abs(model.predict(x, verbose=0) - expected).max())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"members": len(BACKBONES), "parameters": parameters, "difference": difference, "peak": peak,
                  "sums": expected.sum(axis=1).tolist()}))
"""

# The first network of each family, which is its smallest.
FAMILIES = list({application.module: application.name for application in reversed(APPLICATIONS)}.values())
OWN = ["CNN", "AlexNet", "Darknet19", "Darknet53"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in KiB on Linux only")
def test_all_nine_default_members_make_one_file_in_6_gib(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", NINE, str(tmp_path / "nine.keras")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["members"] == 9
    assert result["difference"] <= 1e-6
    assert result["peak"] <= 6 * GIB
    np.testing.assert_allclose(result["sums"], 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", [*sorted(FAMILIES), *OWN])
def test_a_backbone_of_each_family_runs_at_its_default_size_on_x_rays(shared, name):
    size = default_size(name)
    folder = shared / "data" / "chest_xray" / "test"
    files = [file for kind in sorted(folder.iterdir()) for file in sorted(kind.iterdir())[:2]][:3]
    x_rays = ek.ImageDataset.from_files(files)
    backbone = ek.build_backbone(name, input_shape=(size, size, 3), weights=None)
    features = ek.extract_features([backbone], x_rays, image_size=size, batch_size=2, verbose=0)[backbone.name]
    expected = keras.ops.convert_to_numpy(backbone(x_rays.load(image_size=size), training=False))
    assert features.shape == (3, backbone.output_shape[-1])
    assert np.isfinite(features).all()
    assert np.ptp(features, axis=0).max() > 0
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
    del backbone
    keras.backend.clear_session()
    memory.free()

"""A search of many trials holds no more memory and no more disk than one of a few."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "many_trials.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("backend", "limit"), [("tensorflow", 3), ("jax", 2)])
def test_memory_and_disk_are_flat_over_forty_trials(backend, limit, tmp_path):
    pytest.importorskip(backend)
    run = subprocess.run(
        [sys.executable, SCRIPT, tmp_path],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    megabytes = [float(line) for line in run.stdout.split()]
    assert len(megabytes) == 40
    # The first few load what all need; a line through the others tells what each adds.
    slope = np.polyfit(np.arange(35), megabytes[5:], 1)[0]
    assert slope < limit, megabytes
    # Three best, the team of two, and those that are as good as the best.
    assert len(list((tmp_path / "search" / "weights").iterdir())) <= 8

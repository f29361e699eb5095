"""One fine-tuning after another: what a member used is freed."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "many_fine_tunings.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_memory_after_ten_fine_tunings_is_that_after_two(backend):
    pytest.importorskip(backend)
    # The C library's arenas, one a thread, hold back some 40 MB more or less from run to run; with one arena of all
    # threads, the figure is what is in use.
    environment = os.environ | {"KERAS_BACKEND": backend, "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    megabytes = [float(line) for line in run.stdout.split()]
    assert len(megabytes) == 10
    assert megabytes[9] <= 1.05 * megabytes[1], megabytes

"""A search that is killed at any moment and started again is the search that it would have been."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / "digits_search.py"
KILLS = 10


def search(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


def sequence(folder):
    """What a search did, but for the time it took."""
    return pd.read_csv(folder / "search" / "trials.csv").drop(columns="seconds")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["aging", "generational"])
def test_ten_kills_change_nothing(mode, tmp_path):
    start = time.perf_counter()
    undisturbed = search(tmp_path / "undisturbed", mode)
    assert undisturbed.returncode == 0, undisturbed.stderr
    seconds = time.perf_counter() - start
    rng = np.random.default_rng(0)
    killed = 0
    for kill in range(KILLS):
        number = signal.SIGKILL if kill % 2 else 0
        ended = search(tmp_path / "killed", mode, rng.uniform(0.02, 0.18) * seconds, int(number))
        assert ended.returncode in (0, 9, -signal.SIGKILL), ended.stderr
        killed += ended.returncode != 0
    assert killed >= KILLS // 2
    assert search(tmp_path / "killed", mode).returncode == 0
    expected, found = sequence(tmp_path / "undisturbed"), sequence(tmp_path / "killed")
    assert (expected["status"] == "COMPLETED").sum() == 60
    pd.testing.assert_frame_equal(found, expected)
    # What is half-written or left over is gone.
    files = [path.name for path in (tmp_path / "killed").rglob("*")]
    left = [name for name in files if ".partial" in name or name == "running"]
    assert not left
    kept = {path.name for path in (tmp_path / "undisturbed" / "search" / "weights").iterdir()}
    assert {path.name for path in (tmp_path / "killed" / "search" / "weights").iterdir()} == kept

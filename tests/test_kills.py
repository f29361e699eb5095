"""A fit that is killed at any moment goes on when the same command is started again, and loses nothing it stored."""

import contextlib
import json
import os
import pathlib
import random
import sqlite3
import subprocess
import sys
import time
import zipfile

import keras
import numpy as np
import pytest
from synthetic import pictures

TESTS = pathlib.Path(__file__).parent
# In which phase each kill falls. What is finished is not repeated, so the early phases come first.
PHASES = ["extraction"] * 4 + ["heads", "heads", "training"] + ["saving"] * 3


@contextlib.contextmanager
def fit(folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, str(TESTS / "killed_fit.py"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


def run_to_the_end(folder):
    """Runs the command undisturbed; returns the seconds that each phase took."""
    began = []
    with fit(folder) as process:
        for line in process.stdout:
            began.append((line.strip(), time.monotonic()))
        assert process.wait() == 0
    ends = [moment for _, moment in began[1:]] + [time.monotonic()]
    return {phase: end - moment for (phase, moment), end in zip(began, ends, strict=True)}


def run_and_kill(folder, phase, wait):
    """Runs the command and kills it `wait` seconds after a phase begins; returns whether it was still running."""
    with fit(folder) as process:
        for line in process.stdout:
            if line.strip() == phase:
                time.sleep(wait)
                break
        killed = process.poll() is None
        process.kill()
    return killed


def stored(folder):
    """The vectors in the store, as `"label digest"`; also shows that the store is whole."""
    path = folder / "run" / "features.sqlite"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return set()
        rows = connection.execute(
            "SELECT description, digest FROM vectors JOIN spaces ON vectors.space = spaces.id"
        ).fetchall()
    return {f"{json.loads(description)['backbone']} {digest.hex()}" for description, digest in rows}


def computed(folder):
    """What was about to be computed, in order."""
    path = folder / "computed.txt"
    return path.read_text().splitlines() if path.exists() else []


def units(folder):
    """Finished units of work, and when they were written; a checkpoint is what an unfinished one goes on from."""
    paths = (folder / "run" / "units").glob("[!.]*")
    return {path: path.stat().st_mtime_ns for path in paths if ".checkpoint." not in path.name}


def checkpoints(folder):
    return list((folder / "run" / "units").glob("*.checkpoint.*"))


def check_files(folder):
    """Every file under a final name is whole."""
    for path in [*units(folder), *checkpoints(folder)]:
        with np.load(path, allow_pickle=False) as arrays:
            assert all(np.isfinite(array).all() for array in dict(arrays).values() if array.dtype.kind == "f")
    settings = folder / "run" / "run.json"
    assert not settings.exists() or json.loads(settings.read_text())["seed"] == 0
    model = folder / "model.keras"
    if model.exists():
        with zipfile.ZipFile(model) as file:
            assert file.testzip() is None
            assert {"config.json", "model.weights.h5", "ensemble.json"} <= set(file.namelist())


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_nothing(tmp_path):
    rng, undisturbed, folder = random.Random(0), tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    folder.mkdir()
    seconds = run_to_the_end(undisturbed)
    assert set(seconds) == set(PHASES)
    assert len(computed(undisturbed)) == len(stored(undisturbed)) == 800

    partly = 0
    for phase in PHASES:
        wait = rng.uniform(0, seconds[phase])
        before, done, finished = stored(folder), len(computed(folder)), units(folder)
        while not run_and_kill(folder, phase, wait):
            wait /= 2  # The command was done before the kill, since less was left to do than at first.
        check_files(folder)
        after = stored(folder)
        assert before <= after
        assert not before & set(computed(folder)[done:]), "a vector that was stored was computed again"
        assert finished.items() <= units(folder).items(), "a finished unit was computed again"
        partly += 0 < len(after) < 800
    assert partly, "no kill fell into the extraction"

    before, done = stored(folder), len(computed(folder))
    run_to_the_end(folder)
    assert not before & set(computed(folder)[done:])
    assert stored(folder) == stored(undisturbed)
    check_files(folder)
    assert not list((folder / "run").rglob("*.partial.*"))
    assert {path.name for path in units(folder)} == {path.name for path in units(undisturbed)}
    assert not checkpoints(folder)

    x, _ = pictures(400)
    expected = np.load(undisturbed / "expected.npy")
    np.testing.assert_allclose(np.load(folder / "expected.npy"), expected, atol=1e-6)
    model = keras.saving.load_model(folder / "model.keras")
    np.testing.assert_allclose(model.predict(x[:50], verbose=0), expected, atol=1e-5)


def fine_tune_until(folder, epoch=None, step=None):
    """Runs the fine-tuning and kills it at a step; returns the epochs that began, and whether it was killed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, str(TESTS / "killed_fine_tuning.py"), str(folder)]
    epochs, killed = [], False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            what, number = line.split()
            if what == "epoch":
                epochs.append(int(number))
            if what == "step" and epochs[-1] == epoch and int(number) == step:
                process.kill()
                killed = True
                break
        assert process.wait() == (-9 if killed else 0)
    return epochs


@pytest.mark.slow
def test_fine_tuning_that_is_killed_at_a_random_step_loses_an_epoch_at_most_and_ends_the_same(tmp_path):
    rng = random.Random(0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert fine_tune_until(whole) == list(range(6))
    reached = 0
    for epoch in (1, 3, 4):
        epochs = fine_tune_until(killed, epoch, rng.randrange(12))
        # It goes on with the epoch that was not finished.
        assert epochs == list(range(reached, epoch + 1))
        reached = epoch
    assert fine_tune_until(killed) == [4, 5]
    # Finished: nothing begins again.
    assert fine_tune_until(killed) == []
    with np.load(whole / "weights.npz") as expected, np.load(killed / "weights.npz") as found:
        assert len(expected.files) == len(found.files) == 6
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name])

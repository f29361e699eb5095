"""Fixtures shared by all tests; the environment is set before Keras is imported."""

import atexit
import os
import pathlib
import shutil
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent
SHARED = pathlib.Path(os.environ.get("ENSEMBLE_KERAS_SHARED", ROOT.parent / "shared"))

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# Keras writes into its home, and the shared one is read-only: the tests use a copy.
_KERAS_HOME = tempfile.mkdtemp(prefix="keras-home-")
atexit.register(shutil.rmtree, _KERAS_HOME, ignore_errors=True)
if (SHARED / "keras_home").is_dir():
    shutil.copytree(SHARED / "keras_home", _KERAS_HOME, dirs_exist_ok=True)
os.environ["KERAS_HOME"] = _KERAS_HOME

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(scope="session")
def shared():
    """The folder of real data; a test that asks for it is skipped where the folder is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real data in ../shared is not on this machine")
    return SHARED


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def images(rng):
    """Twelve random uint8 images of 32 by 32 pixels."""
    return rng.integers(0, 256, (12, 32, 32, 3), dtype="uint8")


@pytest.fixture(autouse=True)
def _names_in_doctests(doctest_namespace):
    """Doctests may use `np`, `keras` and `ek` without importing them."""
    import keras

    import ensemble_keras

    doctest_namespace.update(np=np, keras=keras, ek=ensemble_keras)

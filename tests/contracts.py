"""Contracts: one check per kind of object, which all of its kind pass."""

import contextlib
import os
import pathlib
import random
import re
import subprocess
import sys

import keras
import numpy as np
from search_problems import Killed, history, run

from ensemble_keras.combiners.ensemble import build_ensemble


def check_backbone(model, input_shape, *, directory):
    """Checks what every backbone promises: raw images in, float32 features out, one file that stands alone.

    Args:
        model: The backbone, with pooled features.
        input_shape: `(height, width, 3)` that it was built for.
        directory: Path of a folder to save it in.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4, *input_shape), dtype="uint8")
    features = model.predict(images, verbose=0)
    scale = np.abs(features).max()

    assert model.input_shape == (None, *input_shape)
    assert model.inputs[0].dtype == "float32"
    assert len(model.output_shape) == 2
    assert features.shape == (4, model.output_shape[1])
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert scale > 0

    # The same pixels in another dtype are the same images, and fractions of a pixel count.
    np.testing.assert_array_equal(model.predict(images.astype("float32"), verbose=0), features)
    between = model.predict(images + np.float32(0.5), verbose=0)
    assert not np.allclose(between, features, rtol=0, atol=1e-6 * scale)

    # An image's features do not depend on its neighbours in the batch.
    alone = np.concatenate([model.predict(image[None], verbose=0) for image in images])
    np.testing.assert_allclose(alone, features, rtol=0, atol=1e-5 * scale)

    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    assert len(nested) == 1
    assert len(model.variables) == len(nested[0].variables)

    assert_stock_only(model)
    path = pathlib.Path(directory) / f"{model.name}.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    np.testing.assert_array_equal(again.predict(images, verbose=0), features)


def check_combiner(combiner, members, images, *, directory, order_matters=False):
    """Checks what every combiner promises: float32 probabilities, one plain model, its config makes it again.

    That the file opens where the package is missing is checked for all combiners at once, in a process of their own:
    `predict_elsewhere`.

    Args:
        combiner: A combiner layer.
        members: List of at least three members.
        images: Array of images that they take.
        directory: Path of a folder to save the ensemble in.
        order_matters: Whether the combiner may treat its first member otherwise than its last.
    """
    model = build_ensemble(members, combiner)
    expected = model.predict(images, verbose=0)
    assert expected.dtype == np.float32
    assert expected.shape == (len(images), members[0].output_shape[-1])
    assert model.layers[-1].name == "predictions"
    assert (expected >= 0).all()
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)

    # An image's probabilities do not depend on its batch, whose size the graph does not hold.
    alone = np.concatenate([model.predict(image[None], verbose=0) for image in images[:3]])
    np.testing.assert_allclose(alone, expected[:3], atol=1e-5)

    again = type(combiner).from_config(combiner.get_config())
    assert again.get_config() == combiner.get_config()
    rebuilt = build_ensemble(members, again)
    again.set_weights(combiner.get_weights())
    np.testing.assert_array_equal(rebuilt.predict(images, verbose=0), expected)

    if not order_matters:
        reordered = build_ensemble(members[1:] + members[:1], combiner)
        np.testing.assert_allclose(reordered.predict(images, verbose=0), expected, atol=1e-6)

    assert_stock_only(model)
    path = pathlib.Path(directory) / f"{combiner.name}.keras"
    model.save(path)
    np.testing.assert_array_equal(keras.saving.load_model(path).predict(images, verbose=0), expected)


def assert_stock_only(model):
    """Asserts that a model's config names nothing outside Keras."""
    modules = re.findall(r'"module": "([^"]*)"', model.to_json())
    assert {module.split(".")[0] for module in modules} == {"keras"}
    registered = re.findall(r'"registered_name": "([^"]*)"', model.to_json())
    assert not [name for name in registered if ">" in name]


# Run in a fresh process that cannot import the package: load, predict, save the predictions.
_OPEN_ELSEWHERE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ensemble_keras":
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
import keras, numpy as np
folder, *names = sys.argv[1:]
images = np.load(folder + "/images.npy")
for name in names:
    model = keras.saving.load_model(folder + "/" + name + ".keras")
    np.save(folder + "/" + name + ".npy", model.predict(images, verbose=0))
assert not any(name.startswith("ensemble_keras") for name in sys.modules)
"""


def predict_elsewhere(models, images, directory, *, backend=None):
    """Saves models and predicts with the files in a fresh process where `ensemble_keras` cannot be imported.

    Args:
        models: List of `keras.Model`s with unique names.
        images: Array of images that all of them take.
        directory: Path of an empty folder.
        backend: String, the Keras backend of that process. Defaults to this process' own.

    Returns:
        A list of arrays, one per model.
    """
    for model in models:
        model.save(pathlib.Path(directory) / f"{model.name}.keras")
    np.save(pathlib.Path(directory) / "images.npy", images)
    names = [model.name for model in models]
    subprocess.run(
        [sys.executable, "-c", _OPEN_ELSEWHERE, str(directory), *names],
        check=True,
        env={**os.environ, "KERAS_BACKEND": backend or keras.backend.backend()},
    )
    return [np.load(pathlib.Path(directory) / f"{name}.npy") for name in names]


def check_oracle(make, fitness, *, directory, promotes=False):
    """Checks what every oracle promises: a seed determines the trials, nothing is tried twice, kills change nothing.

    That they are the same in a fresh process, and after kills at any moment, is checked for all at once by
    `killed_search.py`.

    Args:
        make: Function from options of `SearchOracle` (`max_trials`, `seed`, `folder`) to an oracle.
        fitness: Function from a dict of values to a float.
        directory: Path of an empty folder.
        promotes: Whether the oracle gives genomes out again, for more epochs.
    """
    state = random.getstate(), np.random.get_state()[1].tolist()
    whole = run(make(max_trials=25, seed=0), fitness)
    expected = history(whole)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state
    assert len(expected) == 25
    assert history(run(make(max_trials=25, seed=0), fitness)) == expected
    assert history(run(make(max_trials=25, seed=1), fitness)) != expected

    genomes = {trial.genome_id for trial in whole.trials.values() if trial.origin["kind"] != "promotion"}
    promoted = [trial for trial in whole.trials.values() if trial.origin["kind"] == "promotion"]
    assert len(genomes) + len(promoted) == 25
    assert bool(promoted) == promotes

    # A kill in a trial, a search that goes on, and one more kill.
    for killed_in in (3, 16):
        with contextlib.suppress(Killed):
            run(make(max_trials=25, seed=0, folder=directory / "killed"), fitness, killed_in=killed_in)
    again = run(make(max_trials=25, seed=0, folder=directory / "killed"), fitness)
    assert history(again) == expected

    # A failed trial is the worst: not among the best, no parent, and not one of those that were asked for.
    median = np.median([score for *_, score in expected])

    def fails(values):
        if fitness(values) > median:
            raise FloatingPointError("the loss became NaN")
        return fitness(values)

    oracle = run(make(max_trials=25, seed=0, max_failed=100), fails)
    failed = {trial.trial_id for trial in oracle.failed()}
    assert failed
    assert len(oracle.finished()) == 25
    assert not failed & {trial.trial_id for trial in oracle.get_best_trials(100)}
    assert not failed & {parent for trial in oracle.trials.values() for parent in trial.origin["parents"]}
    assert all("NaN" in trial.message for trial in oracle.failed())

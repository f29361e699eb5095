import collections
import json
import random

import numpy as np
import pytest

from ensemble_keras.members.tuning_oracles import TUNERS, build_oracle, run_trials
from ensemble_keras.members.tuning_space import keras_tuner_space, search_space


class Killed(BaseException):
    """Stands for a kill: nothing of the program reacts to it."""


def build(tuner, max_trials=15, *, seed=0, folder=None, **given):
    space = search_space(given, end_to_end=False)
    if tuner == "hyperband":
        del space["epochs"]
    options = {"objective": "val_loss", "max_trials": max_trials, "max_epochs": 27, "seed": seed, "folder": folder}
    return build_oracle(tuner, keras_tuner_space(space), **options)


def loss(values):
    figures = {"val_loss": (np.log10(values["learning_rate"]) + 3) ** 2 + values["dropout"], "seconds": 1.0}
    return figures, ""


def proposals(oracle):
    return [trial.hyperparameters.values for trial in oracle.trials.values()]


def search(*args, **options):
    oracle = build(*args, **options)
    run_trials(oracle, loss)
    return proposals(oracle)


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_seed_determines_the_trials_and_0_is_one(tuner):
    state = random.getstate()
    first, second, other = (search(tuner, seed=seed) for seed in (0, 0, 1))
    assert first == second
    assert first[0] != other[0]
    assert len(first) == 15
    assert random.getstate() == state


@pytest.mark.parametrize("tuner", TUNERS)
@pytest.mark.parametrize("finished", [1, 12])
def test_a_killed_search_goes_on_as_if_nothing_had_been(tuner, finished, tmp_path):
    count = 0

    def killed(values):
        nonlocal count
        if count == finished:
            raise Killed
        count += 1
        return loss(values)

    with pytest.raises(Killed):
        run_trials(build(tuner, folder=tmp_path), killed)
    again = build(tuner, folder=tmp_path)
    assert len(again.trials) == finished
    run_trials(again, loss)
    assert proposals(again) == search(tuner)


@pytest.mark.parametrize("tuner", ["bayesian", "random"])
def test_more_trials_can_be_added_later(tuner, tmp_path):
    whole = search(tuner, 13)
    assert search(tuner, 9, folder=tmp_path) == whole[:9]
    assert search(tuner, 13, folder=tmp_path) == whole
    # And fewer be asked for: the first ones.
    assert search(tuner, 11, folder=tmp_path) == whole[:11]


def test_the_files_are_a_keras_tuner_project_and_no_half_written_one_is_left(tmp_path):
    oracle = build("random", 3, folder=tmp_path)
    run_trials(oracle, loss)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oracle.json", "trial_0", "trial_1", "trial_2"]
    state = json.loads((tmp_path / "trial_1" / "trial.json").read_text())
    assert state["status"] == "COMPLETED"
    assert state["hyperparameters"]["values"] == proposals(oracle)[1]
    assert json.loads((tmp_path / "oracle.json").read_text())["end_order"] == ["0", "1", "2"]


def test_an_error_in_a_trial_is_not_swallowed_and_the_trial_is_repeated(tmp_path):
    def fails(values):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        run_trials(build("random", 5, folder=tmp_path), fails)
    assert search("random", 5, folder=tmp_path) == search("random", 5)


@pytest.mark.parametrize("tuner", TUNERS)
def test_no_trial_is_repeated_and_the_choices_run_out(tuner):
    fixed = {"head": ["linear"], "batch_size": [32], "learning_rate": [1e-3], "weight_decay": [1e-2], "epochs": [9]}
    # More than the Gaussian process leaves to chance.
    choices = [number / 20 for number in range(12)]
    found = [values["dropout"] for values in search(tuner, 40, dropout=choices, **fixed)]
    if tuner == "hyperband":  # trials that go on have the same values, but more epochs
        assert set(found) == set(choices)
    else:
        assert len(found) == len(set(found)) > 9
    if tuner == "bayesian":
        assert sorted(found)[:3] == choices[:3]  # the best ones are among them


def test_numbers_stay_within_their_ends_and_are_plain():
    fixed = {"head": ["linear"], "batch_size": [32], "learning_rate": [1e-3], "weight_decay": [1e-2]}
    oracle = build("bayesian", 25, epochs=(5, 40), dropout=(0.0, 0.1), **fixed)
    # The best is at the upper ends.
    run_trials(oracle, lambda values: ({"val_loss": -values["epochs"] - 100 * values["dropout"]}, ""))
    found = proposals(oracle)
    assert max(values["epochs"] for values in found) == 40
    assert max(values["dropout"] for values in found) <= 0.1
    assert all(type(value) in (int, float, str) for values in found for value in values.values())


def test_the_gaussian_process_finds_better_values_than_chance_does():
    best = {
        tuner: min(loss(values)[0]["val_loss"] for values in search(tuner, 30)) for tuner in ("bayesian", "random")
    }
    assert best["bayesian"] < best["random"] / 2


def test_hyperband_gives_the_best_third_three_times_as_many_epochs():
    oracle = build("hyperband", 22)
    run_trials(oracle, loss)
    rounds = collections.defaultdict(list)
    for trial in oracle.trials.values():
        rounds[trial.hyperparameters.values["tuner/epochs"]].append(trial.score)
    assert {epochs: len(scores) for epochs, scores in rounds.items()} == {3: 12, 9: 4, 27: 6}
    assert sorted(rounds[9]) == sorted(rounds[3])[:4]


def test_hyperband_does_not_begin_what_its_trials_are_too_few_for():
    found = search("hyperband", 7)
    # A bracket of 6 and the 2 that go on would lose one of these.
    assert {values["tuner/epochs"] for values in found} == {27}


def test_1_and_its_text_are_two_values():
    oracle = build("random")
    hashes = {oracle._compute_values_hash({"a": value}) for value in (1, "1", 1.0)}
    assert len(hashes) == 3

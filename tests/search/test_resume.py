"""A search goes on, whatever came: interrupted, its files damaged or gone, its trials known from elsewhere."""

import contextlib
import json
import shutil

import pandas as pd
import pytest
from tiny_search import tiny_images, tiny_space, untrained

from ensemble_keras.search import tuner as tuner_module
from ensemble_keras.search.tuner import ArchitectureSearch, GeneticSearch


@pytest.fixture(autouse=True)
def evaluated(monkeypatch):
    """The names of the trials that were evaluated, which takes no time here."""
    names = []
    monkeypatch.setattr(tuner_module, "evaluate", lambda job: names.append(job.name) or untrained(job))
    return names


def searched(directory, max_trials=4, **options):
    tuner = GeneticSearch(tiny_space(), population_size=3, max_trials=max_trials, directory=directory, **options)
    tuner.search(*tiny_images(), epochs=2, verbose=0)
    return tuner


def names_of(trials):
    return [trial.genome_id[:16] for trial in trials]


def test_an_interrupted_search_goes_on_in_the_same_object(tmp_path, evaluated, monkeypatch):
    expected = searched(tmp_path / "undisturbed").leaderboard()
    tuner = GeneticSearch(tiny_space(), population_size=3, max_trials=4, directory=tmp_path / "interrupted")

    def interrupted(job):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(
            tuner_module, "evaluate", lambda job: untrained(job) if job.trial_id == "0000" else interrupted(job)
        )
        with pytest.raises(KeyboardInterrupt):
            tuner.search(*tiny_images(), epochs=2, verbose=0)
    assert len(tuner.leaderboard()) == 1
    tuner.search(*tiny_images(), epochs=2, verbose=0)
    pd.testing.assert_frame_equal(tuner.leaderboard(), expected)


def test_what_another_process_did_meanwhile_is_taken_up(tmp_path, evaluated):
    early = GeneticSearch(tiny_space(), population_size=3, max_trials=4, directory=tmp_path)
    done = searched(tmp_path)
    evaluated.clear()
    early.search(*tiny_images(), epochs=2, verbose=0)
    assert not evaluated
    pd.testing.assert_frame_equal(early.leaderboard(), done.leaderboard())


@pytest.mark.parametrize("damage", ["gone", "truncated"])
def test_an_evaluation_that_is_lost_is_computed_again(tmp_path, evaluated, damage):
    tuner = searched(tmp_path)
    expected, _ = tuner.predictions(tuner.completed_trials())
    for path in (tmp_path / "evaluations").iterdir():
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:200])
    evaluated.clear()
    again = GeneticSearch(tiny_space(), population_size=3, max_trials=4, directory=tmp_path)
    again.search(*tiny_images(), epochs=2, verbose=0)
    told = (
        pytest.warns(UserWarning, match=r"evaluations/.* is damaged .* computed again")
        if damage != "gone"
        else contextlib.nullcontext()
    )
    with told:
        found, _ = again.predictions(again.completed_trials())
    assert sorted(evaluated) == sorted(names_of(tuner.completed_trials()))
    for one, other in zip(found, expected, strict=True):
        assert (one == other).all()


def test_weights_that_are_damaged_are_trained_again(tmp_path, evaluated):
    tuner = searched(tmp_path)
    best = tuner.completed_trials()[0]
    (path,) = (tmp_path / "search" / "weights").glob(f"{best.genome_id[:16]}*")
    path.write_bytes(b"")
    evaluated.clear()
    with pytest.warns(UserWarning, match="weights/.* is damaged"):
        tuner.load_model(best)
    assert evaluated == names_of([best])
    tuner.load_model(best)


def test_the_champion_is_the_best_trial_even_if_another_search_dropped_its_weights(tmp_path):
    searched(tmp_path)
    shutil.rmtree(tmp_path / "search" / "weights")
    other = searched(tmp_path, project_name="other")
    best = other.completed_trials()[0]
    source = (tmp_path / "other" / "champion.py").read_text()
    assert source == (tmp_path / "other" / "architectures" / f"{best.genome_id[:16]}.py").read_text()


def test_halving_goes_by_the_curves_of_trials_whose_files_are_gone(tmp_path, evaluated):
    tuner = searched(tmp_path, halving=True)
    shutil.rmtree(tmp_path / "evaluations")
    searched(tmp_path, max_trials=5, halving=True)
    assert set(names_of(tuner.completed_trials())) <= set(evaluated)


def test_a_mistake_in_the_arguments_leaves_the_folder_free_for_the_right_ones(tmp_path):
    tuner = ArchitectureSearch(tiny_space(), max_trials=2, directory=tmp_path)
    for wrong, message in (
        ({"settings": {"labelsmoothing": 0.1}}, "Received: 'labelsmoothing'. Did you mean 'label_smoothing'?"),
        ({"settings": {"label_smoothing": 2.0}}, "`label_smoothing` must be in"),
        (
            {"settings": {"learning_rate": 0.1}},
            r"which the space searches. Give the space `training=.'learning_rate': \[0.1\]",
        ),
        ({"settings": {"epochs": 3}}, "that no other argument sets. Received: 'epochs'"),
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"augmentation": "light"}, r"images with three channels. Received: images of shape \(8, 8, 1\)"),
        ({"augmentation": "lihgt"}, "Did you mean 'light'?"),
        ({"class_weight": {3: 1.0}}, "names a class that is not there: 3"),
        ({"executor": 0}, "`executor` must be an int of at least 1"),
        ({"validation_split": 1.5}, "`validation_split` must be a share between 0 and 1. Received: 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            tuner.search(*tiny_images(), **{"epochs": 2, "verbose": 0} | wrong)
    assert not (tmp_path / "search" / "run.json").exists()
    tuner.search(*tiny_images(), epochs=2, verbose=0)
    assert len(tuner.leaderboard()) == 2


def test_an_optimizer_among_the_settings_is_known_again(tmp_path):
    import keras

    def search(momentum):
        tuner = ArchitectureSearch(tiny_space(), algorithm="random", max_trials=1, directory=tmp_path)
        optimizer = keras.optimizers.SGD(momentum=momentum)
        tuner.search(*tiny_images(), epochs=2, settings={"optimizer": optimizer}, verbose=0)

    search(0.9)
    search(0.9)
    with pytest.raises(ValueError, match="trained otherwise .*momentum: 0.9 then, 0.5 now"):
        search(0.5)


def test_settings_that_a_genome_makes_impossible_fail_its_trial_alone(tmp_path):
    space = tiny_space()
    training = {**space.training, "warmup_epochs": [0, 2]}
    space = type(space)(2, (8, 8, 1), families=list(space.families.values()), training=training)
    tuner = ArchitectureSearch(space, algorithm="random", max_trials=3, directory=tmp_path)
    tuner.search(*tiny_images(), epochs=2, verbose=0)
    table = tuner.leaderboard()
    assert (table["status"] == "COMPLETED").sum() == 3
    failed = table[table["status"] == "FAILED"]
    assert len(failed)
    assert (failed["warmup_epochs"] == 2).all()
    assert failed["reason"].str.startswith("ValueError: `warmup_epochs` must be from 0 to below").all()


@pytest.mark.slow
def test_images_for_processes_and_checkpoints_are_gone_afterwards(tmp_path):
    tuner = GeneticSearch(tiny_space(), population_size=3, max_trials=2, directory=tmp_path)
    tuner.search(*tiny_images(), epochs=2, executor=1, verbose=0)
    names = {path.name for path in (tmp_path / "search").iterdir()}
    assert not names & {"images", "running"}
    # What was in those files is still at hand.
    dropped = tuner.completed_trials()[-1]
    tuner._records.keep_weights_of([])
    tuner.load_model(dropped)


def test_options_that_no_file_can_hold_are_no_obstacle(tmp_path):
    first = searched(tmp_path)
    known = {trial.genome_id for trial in first.completed_trials()}
    options = {"known": known, "parents": lambda finished: [finished[0].trial_id]}
    other = searched(tmp_path, max_trials=5, project_name="other", oracle_options=options)
    assert not known & {trial.genome_id for trial in other.completed_trials()}
    children = other.leaderboard().query("origin != 'random'")
    assert children["parents"].tolist() == [(1,)] * 2
    described = json.loads((tmp_path / "other" / "run.json").read_text())["search"]
    assert described["population_size"] == 3

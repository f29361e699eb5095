import json
import os
import pathlib
import random
import subprocess
import sys
import threading

import keras_tuner
import numpy as np
import pytest
from contracts import check_oracle
from keras_tuner.engine.trial import TrialStatus
from killed_search import fails_at_times
from search_problems import family_fitness, family_space, history, nk_landscape, nk_space, run

from ensemble_keras.search.baselines import BayesianOracle, HyperbandOracle, RandomOracle
from ensemble_keras.search.genetic import GeneticOracle
from ensemble_keras.search.genome import genome_id
from ensemble_keras.search.local import LocalOracle

ORACLES = {
    "random": (RandomOracle, {}),
    "aging": (GeneticOracle, {"population_size": 8}),
    "generational": (GeneticOracle, {"mode": "generational", "population_size": 6}),
    "local": (LocalOracle, {"num_initial": 4}),
    "bayesian": (BayesianOracle, {"num_initial": 18}),
    "hyperband": (HyperbandOracle, {"max_epochs": 9}),
}


def build(name="aging", space=family_space, **options):
    kind, given = ORACLES[name]
    return kind(hyperparameters=space(), **{**given, **options})


def end(oracle, trial, status=TrialStatus.COMPLETED, message=None, **metrics):
    if status == TrialStatus.COMPLETED:
        oracle.update_trial(trial.trial_id, metrics)
    trial.status, trial.message = status, message
    oracle.end_trial(trial)


@pytest.mark.parametrize("name", ORACLES)
def test_oracles_keep_the_contract(name, tmp_path):
    check_oracle(
        lambda **options: build(name, **options), family_fitness, directory=tmp_path, promotes=name == "hyperband"
    )


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What each oracle did in a fresh process, undisturbed and, the genetic ones, with ten kills."""
    folder = tmp_path_factory.mktemp("killed")
    cases = []
    for kind, given in ORACLES.values():
        genetic = kind is GeneticOracle
        cases.append(
            [kind.__module__, kind.__name__, {**given, "max_trials": 60 if genetic else 20}, 10 if genetic else 0]
        )
    script = pathlib.Path(__file__).parent.parent / "killed_search.py"
    subprocess.run([sys.executable, str(script), str(folder), json.dumps(cases)], check=True)
    return dict(zip(ORACLES, json.loads((folder / "histories.json").read_text()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ORACLES)
def test_trials_are_the_same_in_a_fresh_process(name, elsewhere):
    expected, _ = elsewhere[name]
    found = history(run(build(name, max_trials=len([1 for *_, score in expected if score])), fails_at_times))
    assert json.loads(json.dumps(found)) == expected


@pytest.mark.parametrize("name", ["aging", "generational"])
def test_ten_kills_at_random_moments_change_nothing(name, elsewhere):
    undisturbed, killed = elsewhere[name]
    assert len(undisturbed) > 60  # some failed
    assert killed == undisturbed


def test_30_percent_failures_do_not_end_a_search():
    failing = np.random.default_rng(0)

    def fails(genome):
        if failing.random() < 0.3:
            raise MemoryError if failing.random() < 0.5 else FloatingPointError
        return nk_landscape()(genome)

    for name in ("aging", "generational", "random", "local"):
        oracle = build(name, nk_space, max_trials=100)
        assert len(run(oracle, fails).finished()) == 100
        assert 20 < len(oracle.failed()) < 70
        assert len({trial.genome_id for trial in oracle.trials.values()}) == len(oracle.trials)


def test_too_many_failures_end_a_search():
    def fails(genome):
        raise FloatingPointError

    oracle = run(build(max_trials=7), fails)
    assert len(oracle.failed()) == 8
    assert oracle.create_trial("a").message == "8 trials have failed, and 0 have not."
    assert len(run(build(max_failed=0), fails).failed()) == 1


def test_more_trials_can_be_asked_for_later(tmp_path):
    for name in ("aging", "local", "bayesian"):
        whole = history(run(build(name, max_trials=20), family_fitness))
        first = run(build(name, max_trials=9, folder=tmp_path / name), family_fitness)
        assert history(first) == whole[:9]
        assert first.create_trial("a").message == "9 trials have completed."
        first.max_trials = 12
        assert first.remaining_trials() == 3
        assert history(run(first, family_fitness)) == whole[:12]
        assert history(run(build(name, max_trials=20, folder=tmp_path / name), family_fitness)) == whole


def test_0_is_a_seed_and_pythons_random_state_is_left_alone():
    state = random.getstate()
    assert build(seed=0).seed == 0
    assert random.getstate() == state


def test_1_and_its_text_and_true_are_three_genomes():
    assert len({genome_id({"a": value}) for value in (1, "1", True, 1.0)}) == 4


def test_inactive_values_do_not_make_another_genome():
    class Proposes(RandomOracle):
        def propose(self, rng, finished):
            for width in (8, 16):
                yield {**cnn, "vgg/width": width}, {"kind": "random", "parents": []}

    cnn = {"family": "cnn", "cnn/filters": 8, "cnn/norm": False, "learning_rate": 1e-3, "optimizer": "adamw"}
    oracle = Proposes(hyperparameters=family_space())
    assert oracle.create_trial("a").hyperparameters.values == cnn
    assert oracle.create_trial("b").origin["kind"] == "random"
    assert oracle.trials["0001"].hyperparameters.values != cnn


@pytest.mark.parametrize(
    ("name", "size"), [("random", 3), ("aging", 3), ("generational", 3), ("local", 3), ("bayesian", 2)]
)
def test_a_small_space_is_tried_wholly_and_then_the_search_stops(name, size):
    oracle = run(build(name, lambda: nk_space(size), max_trials=100), lambda genome: genome["gene0"] / 3)
    assert len(oracle.finished()) == 4**size
    assert oracle.create_trial("a").message == "1,000 proposals were known or refused."


def test_genomes_of_other_searches_are_not_tried_again():
    first = run(build(max_trials=20), family_fitness)
    known = {trial.genome_id for trial in first.trials.values()}
    second = run(build(max_trials=20, known=known), family_fitness)
    assert not known & {trial.genome_id for trial in second.trials.values()}


def test_a_refused_genome_costs_no_trial_and_is_asked_about_once():
    asked = []

    def refusal(genome):
        asked.append(genome_id(genome))
        return "too large" if genome["family"] == "vgg" else None

    oracle = run(build(max_trials=20, refusal=refusal), family_fitness)
    assert {trial.hyperparameters.values["family"] for trial in oracle.trials.values()} == {"cnn"}
    assert len(oracle.finished()) == len(oracle.trials) == 20
    assert len(asked) == len(set(asked)) == 20 + len(oracle.refused)
    assert set(oracle.refused.values()) == {"too large"}


def test_an_error_in_a_refusal_leaves_no_lock_behind():
    def refusal(genome):
        if not errors:
            errors.append(genome)
            raise OSError("the disk is full")

    errors = []
    oracle = build(refusal=refusal)
    with pytest.raises(OSError, match="the disk is full"):
        oracle.create_trial("a")
    other = threading.Thread(target=oracle.create_trial, args=("a",))
    other.start()
    other.join(timeout=20)
    assert not other.is_alive()
    assert list(oracle.ongoing_trials) == ["a"]


def test_several_trials_run_at_once_and_none_is_given_out_twice():
    oracle = build("generational", max_trials=30)
    rng = np.random.default_rng(0)
    running = {}
    while True:
        trial = oracle.create_trial(f"worker{len(oracle.trials)}")
        if trial.status == TrialStatus.STOPPED:
            break
        if trial.status == TrialStatus.RUNNING:
            running[trial.trial_id] = trial
        if trial.status == TrialStatus.IDLE or len(running) == 4:
            ended = running.pop(rng.choice(sorted(running)))
            end(oracle, ended, val_accuracy=family_fitness(ended.hyperparameters.values))
    assert len(oracle.finished()) == len(oracle.trials) == 30
    assert len({trial.genome_id for trial in oracle.trials.values()}) == 30
    assert oracle.end_order != oracle.start_order
    assert not running


def test_who_asks_again_gets_the_trial_that_he_has():
    oracle = build()
    assert oracle.create_trial("a") is oracle.create_trial("a")
    assert oracle.create_trial("a") is not oracle.create_trial("b")


def test_idle_while_the_last_trials_run():
    oracle = build(max_trials=2)
    first, second = oracle.create_trial("a"), oracle.create_trial("b")
    assert oracle.create_trial("c").status == TrialStatus.IDLE
    end(oracle, first, TrialStatus.FAILED, "out of memory")
    third = oracle.create_trial("c")
    assert third.status == TrialStatus.RUNNING
    for trial in (second, third):
        end(oracle, trial, val_accuracy=0.5)
    assert oracle.create_trial("c").status == TrialStatus.STOPPED


def test_trials_that_ran_at_a_kill_are_given_out_again_and_the_order_of_the_ends_is_kept(tmp_path):
    oracle = build(max_trials=9, folder=tmp_path)
    trials = [oracle.create_trial(name) for name in "abcd"]
    for place, accuracy in ((2, 0.3), (0, 0.2)):
        end(oracle, trials[place], val_accuracy=accuracy)
    oracle.update_trial(trials[1].trial_id, {"val_accuracy": 0.9})

    again = build(max_trials=9, folder=tmp_path)
    for name, place in (("x", 1), ("y", 3)):
        trial = again.create_trial(name)
        assert trial.trial_id == trials[place].trial_id
        assert trial.hyperparameters.values == trials[place].hyperparameters.values
    assert again.end_order == ["0002", "0000"]
    # What the killed attempt had reported is no second execution to be averaged with.
    end(again, again.trials["0001"], val_accuracy=0.1)
    assert again.trials["0001"].score == 0.1
    assert again.create_trial("x").trial_id == "0004"


def test_a_damaged_file_loses_its_trial_and_not_the_search(tmp_path):
    whole = history(run(build(max_trials=20), family_fitness))
    run(build(max_trials=12, folder=tmp_path), family_fitness)
    (tmp_path / "trial_0004" / "trial.json").write_text('{"trial_id": "0004", "hyper')
    (tmp_path / "trial_0006" / "trial.json").write_text("{}")
    with pytest.warns(UserWarning, match="is damaged") as warned:
        oracle = run(build(max_trials=20, folder=tmp_path), family_fitness)
    assert len(warned) == 2
    assert "trial_0004" in str(warned[0].message)
    assert len(oracle.finished()) == 20
    assert history(oracle)[:4] == whole[:4]
    assert max(oracle.trials) == "0021"


@pytest.mark.parametrize("name", ["generational", "local", "bayesian", "hyperband"])
def test_every_search_goes_on_without_trials_that_it_had(name, tmp_path):
    run(build(name, max_trials=19, folder=tmp_path), family_fitness)
    # The parent of the last one, and a whole round where there are rounds.
    for number in (0, 14, 15, 16, 17, 18):
        (tmp_path / f"trial_{number:04d}" / "trial.json").write_text("[")
    with pytest.warns(UserWarning, match="is damaged"):
        oracle = run(build(name, max_trials=22, folder=tmp_path), family_fitness)
    assert len(oracle.finished()) == 22


def test_the_last_file_damaged_is_made_again(tmp_path):
    whole = history(run(build(max_trials=20), family_fitness))
    run(build(max_trials=12, folder=tmp_path), family_fitness)
    (tmp_path / "trial_0011" / "trial.json").write_bytes(b"\x00\xff")
    with pytest.warns(UserWarning, match="trial_0011"):
        oracle = run(build(max_trials=20, folder=tmp_path), family_fitness)
    assert history(oracle) == whole


def test_files_are_complete_or_missing_and_kerastuner_reads_them(tmp_path):
    oracle = run(build(max_trials=3, folder=tmp_path), family_fitness)
    oracle.save()
    names = ["oracle.json", "trial_0000", "trial_0001", "trial_0002"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [path.name for path in (tmp_path / "trial_0000").iterdir()] == ["trial.json"]
    trial = keras_tuner.engine.trial.Trial.load(str(tmp_path / "trial_0001" / "trial.json"))
    assert trial.score == oracle.trials["0001"].score
    assert trial.hyperparameters.values == oracle.trials["0001"].hyperparameters.values
    state = json.loads((tmp_path / "trial_0001" / "trial.json").read_text())
    assert state["origin"] == {"kind": "random", "parents": []}


def test_another_space_or_objective_in_the_folder_is_an_error(tmp_path):
    run(build(max_trials=3, folder=tmp_path), family_fitness)
    space = family_space()
    space.Choice("activation", ["relu", "gelu"])
    with pytest.raises(ValueError, match="must be of the same search space.*differs in activation"):
        build(space=lambda: space, folder=tmp_path).create_trial("a")
    with pytest.raises(ValueError, match="must be of the same objective.*val_loss"):
        build(objective="val_loss", folder=tmp_path).create_trial("a")


def test_nan_hides_no_other_epoch_and_nothing_but_nan_is_a_failure():
    oracle = build()
    trial = oracle.create_trial("a")
    for step, value in enumerate([float("nan"), 0.4, 0.6, float("inf"), 0.5]):
        oracle.update_trial(trial.trial_id, {"val_accuracy": value, "loss": 1.0}, step)
    trial.status = TrialStatus.COMPLETED
    oracle.end_trial(trial)
    assert (trial.score, trial.best_step) == (0.6, 2)

    trial = oracle.create_trial("a")
    end(oracle, trial, val_accuracy=float("nan"))
    assert (trial.status, trial.message) == ("FAILED", "No step had finite values of val_accuracy.")
    assert oracle.get_best_trials(10) == [oracle.trials["0000"]]


def test_an_ended_trial_cannot_end_again_nor_one_that_runs():
    oracle = build()
    trial = oracle.create_trial("a")
    with pytest.raises(ValueError, match="Expected a running trial whose `status`.*0000, RUNNING"):
        oracle.end_trial(trial)
    end(oracle, trial, TrialStatus.INVALID, "out of memory")
    assert (trial.status, trial.message) == ("FAILED", "out of memory")
    with pytest.raises(ValueError, match="Received: trial 0000, ended"):
        oracle.end_trial(trial)


def test_an_objective_that_was_not_reported_is_an_error():
    oracle = build()
    with pytest.raises(ValueError, match="Objective value missing"):
        oracle.update_trial(oracle.create_trial("a").trial_id, {"accuracy": 0.5})


def test_pareto_trials_are_those_that_no_other_one_dominates():
    accuracy, macs = nk_landscape(0), nk_landscape(1)

    def metrics(genome):
        return {"val_accuracy": accuracy(genome), "macs": macs(genome)}

    for mode in ("aging", "generational"):
        oracle = run(build(mode, nk_space, objective=["val_accuracy", "macs"], max_trials=60), metrics)
        points = [(metrics(trial.hyperparameters.values), trial) for trial in oracle.finished()]
        front = {
            trial.trial_id
            for one, trial in points
            if not any(
                other["val_accuracy"] >= one["val_accuracy"] and other["macs"] <= one["macs"] and other != one
                for other, _ in points
            )
        }
        found = oracle.get_pareto_trials()
        assert {trial.trial_id for trial in found} == front
        assert 2 < len(front) < 40
        scores = [trial.score for trial in found]
        assert scores == sorted(scores, reverse=True)
        assert {trial.trial_id for trial in oracle.get_best_trials(len(front))} == front


def test_with_one_objective_the_front_is_the_best_trial():
    oracle = build(objective=["val_loss"])
    assert oracle.get_pareto_trials() == []
    for loss in (0.3, 0.2, 0.4):
        end(oracle, oracle.create_trial("a"), val_loss=loss)
    assert [trial.score for trial in oracle.get_pareto_trials()] == [0.2]
    assert [trial.score for trial in oracle.get_best_trials(2)] == [0.2, 0.3]


def test_objectives_are_taken_of_one_epoch():
    oracle = build(objective=["val_accuracy", keras_tuner.Objective("val_loss", "min")])
    trial = oracle.create_trial("a")
    for step, (accuracy, loss) in enumerate([(0.5, 0.1), (0.9, 0.8), (0.7, float("nan"))]):
        oracle.update_trial(trial.trial_id, {"val_accuracy": accuracy, "val_loss": loss}, step)
    trial.status = TrialStatus.COMPLETED
    oracle.end_trial(trial)
    assert trial.objectives == (0.9, -0.8)


def test_a_stock_tuner_works_with_it_and_resumes_without_its_own_file(tmp_path):
    class Stock(keras_tuner.engine.base_tuner.BaseTuner):
        def run_trial(self, trial):
            ran.append(trial.trial_id)
            return {"val_accuracy": family_fitness(trial.hyperparameters.values)}

    def search(max_trials, overwrite=False):
        tuner = Stock(build(max_trials=max_trials), directory=tmp_path, project_name="nas", overwrite=overwrite)
        tuner.search()
        return tuner

    ran = []
    assert history(search(12).oracle) == history(run(build(max_trials=12), family_fitness))
    os.remove(tmp_path / "nas" / "tuner0.json")
    assert len(search(14).oracle.finished()) == 14
    assert len(ran) == 14
    search(3, overwrite=True)
    assert len(ran) == 17


class Undeclared(keras_tuner.HyperModel):
    """Tells its hyperparameters only when it is built."""

    def __init__(self):
        super().__init__()
        self.built = 0

    def build(self, hp):
        self.built += 1
        hp.Choice("family", ["cnn", "vgg"])
        with hp.conditional_scope("family", ["vgg"]):
            hp.Int("width", 8, 16)


def test_a_tuner_finds_out_a_space_that_is_not_declared(tmp_path):
    class Stock(keras_tuner.engine.base_tuner.BaseTuner):
        def run_trial(self, trial):
            return {"val_accuracy": 0.5}

    def search(max_trials):
        tuner = Stock(RandomOracle(max_trials=max_trials), hypermodel, directory=tmp_path, project_name="nas")
        tuner.search()
        return tuner.oracle

    hypermodel = Undeclared()
    first = search(5)
    built = hypermodel.built
    assert [gene.name for gene in first.get_space().space] == ["family", "width"]
    second = search(9)
    assert hypermodel.built == built > 0
    assert len(second.finished()) == 9
    assert history(second)[:5] == history(first)


def test_a_model_cannot_add_to_the_space_later():
    oracle = build()
    trial = oracle.create_trial("a")
    trial.hyperparameters.Choice("late", [1, 2])
    with pytest.raises(RuntimeError, match="found new entries.*late"):
        end(oracle, trial, val_accuracy=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_trials": 0}, "`max_trials` must be an int of at least 1. Received: 0"),
        ({"max_trials": None}, "`max_trials` must be an int of at least 1. Received: None"),
        ({"max_failed": -1}, "`max_failed` must be an int of at least 0"),
        ({"seed": -1}, "`seed` must be an int of at least 0"),
        ({"objective": "fancy"}, "Could not infer optimization direction"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

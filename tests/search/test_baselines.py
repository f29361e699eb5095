import collections

import pytest
from keras_tuner.engine.trial import TrialStatus
from search_problems import family_fitness, family_space, nk_space, run

from ensemble_keras.search.baselines import BayesianOracle, HyperbandOracle, RandomOracle


def rounds_of(oracle):
    """Trials by bracket and round."""
    rounds = collections.defaultdict(list)
    for trial in oracle.trials.values():
        rounds[trial.origin["bracket"], trial.origin["round"]].append(trial)
    return dict(rounds)


def epochs(trial):
    return trial.hyperparameters.values["tuner/epochs"]


def test_bayesian_optimisation_finds_better_genomes_than_chance_does():
    def best(kind):
        searches = [kind(hyperparameters=family_space(), max_trials=25, seed=seed) for seed in range(2)]
        return [run(search, family_fitness).get_best_trials()[0].score for search in searches]

    # The best there is has 0.8495: cnn with 32 filters, a momentum of 0.99, a learning rate of 1e-3.
    assert sum(best(BayesianOracle)) > sum(best(RandomOracle)) + 0.03


def test_bayesian_optimisation_tells_unordered_values_apart():
    space = family_space()
    space.Choice("activation", ["relu", "gelu", "silu"])
    oracle = BayesianOracle(hyperparameters=space)
    cnn = {"family": "cnn", "cnn/filters": 8, "cnn/norm": False, "learning_rate": 1e-3, "optimizer": "adamw"}
    encoded = oracle._encode([{**cnn, "activation": "gelu"}, {**cnn, "family": "vgg"}])
    assert encoded.shape == (2, 2 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 3)
    assert encoded[0, :2].tolist() == [1, 0]
    assert encoded[0, -3:].tolist() == [0, 1, 0]
    assert encoded[1, -3:].tolist() == [0.5, 0.5, 0.5]
    assert ((encoded >= 0) & (encoded <= 1)).all()


def test_running_and_failed_trials_are_taken_into_account():
    oracle = BayesianOracle(hyperparameters=family_space(), max_trials=40, num_initial=9)
    for number in range(20):
        trial = oracle.create_trial(f"worker{number}")
        if number % 5 == 0:
            continue  # goes on running
        if number % 5 == 1:
            trial.status, trial.message = TrialStatus.FAILED, "out of memory"
        else:
            oracle.update_trial(trial.trial_id, {"val_accuracy": family_fitness(trial.hyperparameters.values)})
            trial.status = TrialStatus.COMPLETED
        oracle.end_trial(trial)
    assert len({trial.genome_id for trial in oracle.trials.values()}) == 20


def test_hyperband_gives_the_best_third_three_times_as_many_epochs():
    rounds = rounds_of(run(HyperbandOracle(hyperparameters=family_space(), max_trials=22), family_fitness))
    # 12 + 4 trials and 6 of the smallest bracket, as published for 27 epochs; one of 27 would be cut.
    found = {place: (len(trials), {epochs(trial) for trial in trials}) for place, trials in rounds.items()}
    assert found == {(0, 0): (12, {3}), (0, 1): (4, {9}), (0, 2): (2, {27}), (1, 0): (4, {27})}
    best = sorted(rounds[0, 0], key=lambda trial: -trial.score)[:4]
    assert [trial.origin["parents"] for trial in rounds[0, 1]] == [[trial.trial_id] for trial in best]
    for trial in rounds[0, 1]:
        parent = trial.hyperparameters.values["tuner/trial_id"]
        assert trial.genome_id == {one.trial_id: one.genome_id for one in rounds[0, 0]}[parent]
        assert trial.hyperparameters.values["tuner/initial_epoch"] == 3


def test_hyperband_starts_with_short_trials_and_goes_through_its_brackets():
    oracle = run(HyperbandOracle(hyperparameters=family_space(), max_trials=100, max_epochs=9), family_fitness)
    first = [epochs(trials[0]) for (_, number), trials in rounds_of(oracle).items() if number == 0]
    assert first[:6] == [1, 3, 9, 1, 3, 9]


def test_a_failed_trial_of_a_bracket_is_replaced():
    failed = []

    def fails(values):
        if len(failed) < 3 and values["tuner/round"] == len(failed):
            failed.append(values)
            raise FloatingPointError
        return family_fitness(values)

    oracle = run(HyperbandOracle(hyperparameters=family_space(), max_trials=18, max_epochs=27), fails)
    good = {
        place: len([trial for trial in trials if trial.status == "COMPLETED"])
        for place, trials in rounds_of(oracle).items()
    }
    assert len(failed) == 3
    assert good == {(0, 0): 12, (0, 1): 4, (0, 2): 2}


def test_hyperband_waits_for_a_round_only_if_nothing_else_can_begin():
    oracle = HyperbandOracle(hyperparameters=family_space(), max_trials=18)
    trials = [oracle.create_trial(f"worker{number}") for number in range(12)]
    assert oracle.create_trial("another").status == TrialStatus.IDLE
    oracle.max_trials = 25
    another = oracle.create_trial("another")
    assert another.origin["bracket"] == 1
    for trial in trials:
        oracle.update_trial(trial.trial_id, {"val_accuracy": family_fitness(trial.hyperparameters.values)})
        trial.status = TrialStatus.COMPLETED
        oracle.end_trial(trial)
    assert oracle.create_trial("worker0").origin["kind"] == "promotion"


@pytest.mark.parametrize("kind", [BayesianOracle, HyperbandOracle])
def test_several_objectives_are_refused(kind):
    with pytest.raises(ValueError, match="takes one objective. Received: val_accuracy, macs. Take GeneticOracle."):
        kind(["val_accuracy", "macs"], hyperparameters=nk_space())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (BayesianOracle, {"num_initial": 0}, "`num_initial` must be an int of at least 1. Received: 0"),
        (HyperbandOracle, {"max_epochs": 0}, "`max_epochs` must be an int of at least 1"),
        (HyperbandOracle, {"factor": 1}, "`factor` must be an int of at least 2"),
    ],
)
def test_bad_arguments_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(hyperparameters=nk_space(), **options)

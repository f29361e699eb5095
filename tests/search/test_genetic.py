import time

import numpy as np
import pytest
from search_problems import family_fitness, family_space, history, nk_landscape, nk_space, run, trials

from ensemble_keras.search.baselines import RandomOracle
from ensemble_keras.search.genetic import GeneticOracle


def build(space=nk_space, **options):
    return GeneticOracle(**{"hyperparameters": space(), "max_trials": 60, "population_size": 10, **options})


def lineage(oracle):
    """The numbers of the parents of each trial."""
    return [[int(name) for name in oracle.trials[trial].origin["parents"]] for trial in oracle.end_order]


def test_the_first_trials_are_random_and_the_others_have_parents():
    parents = lineage(run(build(), nk_landscape()))
    assert parents[:10] == [[]] * 10
    assert {len(of) for of in parents[10:]} == {1, 2}


def test_parents_of_the_aging_mode_are_among_the_youngest():
    for number, parents in enumerate(lineage(run(build(), nk_landscape()))):
        assert all(number - 10 <= parent < number for parent in parents)


def test_parents_of_a_generation_are_the_one_before_and_its_elite():
    oracle = run(build(mode="generational", elitism=2), nk_landscape())
    scores = [oracle.trials[name].score for name in oracle.end_order]
    # 10 at first, then 8 new ones in each generation beside the best 2 of the one before.
    population = list(range(10))
    for number, parents in enumerate(lineage(oracle)):
        if number >= 18 and (number - 10) % 8 == 0:
            elite = sorted(population, key=lambda one: -scores[one])[:2]
            population = elite + list(range(number - 8, number))
        assert set(parents) <= set(population)
    assert {parent for parents in lineage(oracle)[50:] for parent in parents} & set(range(42))


def test_a_child_differs_from_its_only_parent_by_mutation():
    oracle = run(build(crossover_prob=0, mutation_prob=0), nk_landscape())
    for trial in oracle.trials.values():
        for parent in trial.origin["parents"]:
            mine, its = trial.hyperparameters.values, oracle.trials[parent].hyperparameters.values
            assert sum(mine[name] != its[name] for name in mine) == 1
            assert trial.origin["kind"] == "mutation"


@pytest.mark.parametrize("crossover", ["uniform", "one_point"])
def test_a_child_of_two_has_their_genes_but_for_mutation(crossover):
    oracle = run(build(crossover_prob=1, mutation_prob=0, crossover=crossover), nk_landscape())
    for trial in list(oracle.trials.values())[10:]:
        first, second = (oracle.trials[parent].hyperparameters.values for parent in trial.origin["parents"])
        child = trial.hyperparameters.values
        assert trial.origin["kind"] == "crossover"
        assert len(set(trial.origin["parents"])) == 2
        assert sum(child[name] not in (first[name], second[name]) for name in child) <= 1


def test_a_tournament_of_all_makes_the_best_one_the_parent():
    oracle = run(build(crossover_prob=0, tournament_size=10), nk_landscape())
    scores = [trial.score for trial in oracle.trials.values()]
    for number, parents in enumerate(lineage(oracle)):
        if number >= 10:
            assert scores[parents[0]] == max(scores[number - 10 : number])


def test_without_crossover_a_tournament_of_one_draws_evenly():
    oracle = run(build(crossover_prob=0, tournament_size=1, max_trials=150), nk_landscape())
    ages = [number - parents[0] for number, parents in enumerate(lineage(oracle)) if parents]
    assert set(ages) == set(range(1, 11))


def test_parents_can_be_chosen_from_outside():
    def worst_three(finished):
        return [trial.trial_id for trial in sorted(finished, key=lambda trial: trial.score)[:3]]

    oracle = run(build(parents=worst_three), nk_landscape())
    scores = [trial.score for trial in oracle.trials.values()]
    drawn = set()
    for number, parents in enumerate(lineage(oracle)):
        worst = sorted(range(number), key=lambda one: scores[one])[:3]
        assert set(parents) <= set(worst)
        drawn |= {worst.index(parent) for parent in parents}
    assert drawn == {0, 1, 2}


def test_with_nobody_chosen_parents_are_drawn_as_usual():
    assert history(run(build(parents=lambda finished: []), nk_landscape())) == history(run(build(), nk_landscape()))


def test_families_are_crossed_and_none_is_lost_at_once():
    oracle = run(build(family_space, max_trials=80), family_fitness)
    families = [trial.hyperparameters.values["family"] for trial in oracle.trials.values()]
    assert {"cnn", "vgg"} <= set(families)
    assert oracle.get_best_trials()[0].score > max(trial.score for trial in oracle.finished()[:10])


def test_a_proposal_after_300_trials_takes_milliseconds():
    oracle = run(build(population_size=20, max_trials=300), nk_landscape())
    oracle.max_trials = 400
    start = time.process_time()
    for number in range(20):
        oracle.create_trial(f"worker{number}")
    # 20 of them: 5 to 10 ms each on a common core.
    assert time.process_time() - start < 1


@pytest.mark.slow
def test_it_finds_in_a_third_of_the_trials_what_chance_finds_on_an_nk_landscape():
    fitness, seeds = nk_landscape(), range(30)
    target = np.mean(
        [run(RandomOracle(hyperparameters=nk_space(), max_trials=300, seed=seed), fitness).get_best_trials()[0].score
         for seed in seeds]
    )  # fmt: skip
    for mode, most in (("aging", 75), ("generational", 100)):
        needed = []
        for seed in seeds:
            oracle = GeneticOracle(hyperparameters=nk_space(), max_trials=300, mode=mode, seed=seed)
            reached = next((trial for trial in trials(oracle, fitness) if trial.score >= target), None)
            needed.append(300 if reached is None else 1 + int(reached.trial_id))
            assert len({trial.genome_id for trial in oracle.trials.values()}) == len(oracle.trials)
        assert np.mean(needed) <= most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 1}, "`population_size` must be an int of at least 2. Received: 1"),
        ({"tournament_size": 0}, "`tournament_size` must be an int of at least 1"),
        ({"elitism": 10}, "`elitism` must be less than `population_size`. Received: 10 of 10"),
        ({"elitism": -1}, "`elitism` must be an int of at least 0"),
        ({"mode": "ageing"}, "`mode` must be one of 'aging', 'generational'.*Did you mean 'aging'"),
        ({"crossover": "two_point"}, "`crossover` must be one of 'uniform', 'one_point'"),
        ({"crossover_prob": 1.1}, "`crossover_prob` must be from 0 to 1. Received: 1.1"),
        ({"mutation_prob": -0.1}, "`mutation_prob` must be from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

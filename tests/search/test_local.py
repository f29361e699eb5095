import pytest
from search_problems import nk_landscape, nk_space, run

from ensemble_keras.search.local import LocalOracle


def build(genes=12, **options):
    return LocalOracle(**{"hyperparameters": nk_space(genes), "max_trials": 120, **options})


def values_of(oracle):
    return [oracle.trials[name].hyperparameters.values for name in oracle.end_order]


def test_each_trial_is_a_neighbour_of_the_best_one_of_its_climb():
    oracle = run(build(), nk_landscape())
    values = values_of(oracle)
    scores = [oracle.trials[name].score for name in oracle.end_order]
    kinds = [oracle.trials[name].origin["kind"] for name in oracle.end_order]
    place = max(range(10), key=lambda number: scores[number])
    for number in range(10, 120):
        if kinds[number] == "random":
            place = number
            continue
        assert oracle.trials[oracle.end_order[number]].origin["parents"] == [oracle.end_order[place]]
        assert sum(values[number][name] != values[place][name] for name in values[number]) == 1
        if scores[number] > scores[place]:
            place = number
    assert kinds[:10] == ["random"] * 10
    assert kinds[10] == "neighbour"


def test_another_climb_begins_where_no_neighbour_is_better():
    oracle = run(build(4, max_trials=200), nk_landscape(genes=4))
    kinds = [trial.origin["kind"] for trial in oracle.trials.values()]
    assert "random" in kinds[10:]
    # Climbs end at a maximum: 12 neighbours, all of them tried and worse.
    last = kinds.index("random", 10)
    fitness = nk_landscape(genes=4)
    top = oracle.place(oracle.finished()[:last]).hyperparameters.values
    around = [{**top, name: value} for name in top for value in range(4)]
    assert fitness(top) == max(map(fitness, around))
    assert all(one in values_of(oracle)[:last] for one in around)


def test_a_climb_finds_better_genomes_than_chance_does():
    fitness = nk_landscape()
    found = run(build(), fitness).get_best_trials()[0].score
    assert found > run(build(num_initial=120), fitness).get_best_trials()[0].score


def test_fewer_than_one_trial_to_begin_with_is_refused():
    with pytest.raises(ValueError, match="`num_initial` must be an int of at least 1. Received: 0"):
        build(num_initial=0)

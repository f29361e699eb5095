"""Genetic: a population derived from the finished trials, tournaments for parents, crossover and mutation."""

from ensemble_keras._validation import check_at_least, check_choice
from ensemble_keras.search.genome import genes
from ensemble_keras.search.operators import CROSSOVERS, cross, mutate, tournament
from ensemble_keras.search.oracle import SearchOracle

MODES = ("aging", "generational")


class GeneticOracle(SearchOracle):
    """Genetic search: the best trials of a population are crossed and mutated.

    - `"aging"` (Real et al., 2019, regularised evolution): the population is the trials that completed last, so the
      oldest one leaves with each new one, however good it is.
    - `"generational"`: a generation is bred from the one before, of which the best `elitism` trials stay on. Where
      trials run at the same time, nobody waits for a generation's last one: the population is the latest complete
      generation.

    The first `population_size` trials are drawn at random. The population is derived from the finished trials
    whenever a trial is asked for; nothing else is kept. `benchmarks/results/nk_landscape_variants.md` has what the
    defaults were chosen by.

    Args:
        objective: See `SearchOracle`, as all other arguments that are not named here.
        max_trials: See `SearchOracle`.
        population_size: Int, 2 or above. Defaults to 20.
        mode: `"aging"` or `"generational"`. Defaults to `"aging"`.
        tournament_size: Int, 1 or above. How many of the population a parent is the best of. Defaults to half of the
            population.
        elitism: Int from 0 to `population_size - 1`: how many of a generation stay on. Of no effect in the aging
            mode. Defaults to 1.
        crossover: `"uniform"` or `"one_point"`, see `operators.cross`. Defaults to `"uniform"`.
        crossover_prob: Float in [0, 1]. How likely a child has two parents. Defaults to 0.25.
        mutation_prob: Float in [0, 1], with which each gene of a child changes; one changes at least. Defaults to
            `None`: one changes.
        parents: Function from the list of completed trials to a list of ids of those among which parents are drawn,
            each as likely; from an empty list they are drawn by tournament as usual. Defaults to `None`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        objective="val_accuracy",
        max_trials=10,
        *,
        population_size=20,
        mode="aging",
        tournament_size=None,
        elitism=1,
        crossover="uniform",
        crossover_prob=0.25,
        mutation_prob=None,
        parents=None,
        **options,
    ):
        super().__init__(objective, max_trials, **options)
        check_at_least("population_size", population_size, 2)
        check_at_least("tournament_size", 1 if tournament_size is None else tournament_size, 1)
        check_at_least("elitism", elitism, 0)
        if elitism >= population_size:
            raise ValueError(
                f"`elitism` must be less than `population_size`. Received: {elitism} of {population_size}."
            )
        _check_probability("crossover_prob", crossover_prob)
        if mutation_prob is not None:
            _check_probability("mutation_prob", mutation_prob)
        self.mode = check_choice("mode", mode, MODES)
        self.crossover = check_choice("crossover", crossover, CROSSOVERS)
        self.population_size, self.elitism = population_size, elitism
        self.tournament_size = tournament_size or max(1, population_size // 2)
        self.crossover_prob, self.mutation_prob, self.parents = crossover_prob, mutation_prob, parents

    def propose(self, rng, finished):
        """Yields children of the population, or random genomes until there is one; see `SearchOracle`."""
        if len(finished) < self.population_size:
            yield from self.at_random(rng)
        chosen = set(self.parents(finished)) if self.parents is not None else set()
        pool = [trial for trial in finished if trial.trial_id in chosen]
        # Those that were chosen are one as good as another.
        size = 1 if pool else self.tournament_size
        pool = pool or self._best_first(self.population(finished))
        while True:
            yield self._child(pool, size, rng)

    def population(self, finished):
        """Returns the trials from which parents are drawn.

        Args:
            finished: List of completed trials, in the order in which they ended.
        """
        size = self.population_size
        if self.mode == "aging":
            return finished[-size:]
        population = finished[:size]
        for start in range(size, len(finished), size - self.elitism):
            children = finished[start : start + size - self.elitism]
            if len(children) == size - self.elitism:
                population = self._best_first(population)[: self.elitism] + children
        return population

    def _child(self, pool, size, rng):
        """Returns a genome and its origin; the pool has the best trial first."""
        declared = genes(self.hyperparameters)
        place = tournament(len(pool), size, rng)
        parents = [pool[place]]
        if len(pool) > 1 and rng.random() < self.crossover_prob:
            others = pool[:place] + pool[place + 1 :]
            parents.append(others[tournament(len(others), size, rng)])
        genomes = [self._genome(parent) for parent in parents]
        child = genomes[0] if len(genomes) == 1 else cross(declared, *genomes, rng, crossover=self.crossover)
        origin = {
            "kind": "mutation" if len(parents) == 1 else "crossover",
            "parents": [parent.trial_id for parent in parents],
        }
        return mutate(declared, child, rng, prob=self.mutation_prob), origin


def _check_probability(argument, value):
    if not 0 <= value <= 1:
        raise ValueError(f"`{argument}` must be from 0 to 1. Received: {value!r}.")

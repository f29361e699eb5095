"""Local search: from the best trial to a better neighbour, until none is left; then anew (White et al., 2021)."""

from ensemble_keras._validation import check_at_least
from ensemble_keras.search.genome import genes
from ensemble_keras.search.operators import neighbours
from ensemble_keras.search.oracle import SearchOracle


class LocalOracle(SearchOracle):
    """Hill climbing: the neighbours of a trial are tried in random order, and the first better one takes its place.

    Neighbours differ in one gene. Where all of them have been tried, another climb begins at a random genome. The
    place of the climb is derived from the finished trials. With several objectives, better means on an earlier front
    of the two.

    Args:
        objective: See `SearchOracle`, as all other arguments that are not named here.
        max_trials: See `SearchOracle`.
        num_initial: Int, 1 or above. Random trials at first, of which the best one is where the climb begins.
            Defaults to 10.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, objective="val_accuracy", max_trials=10, *, num_initial=10, **options):
        super().__init__(objective, max_trials, **options)
        check_at_least("num_initial", num_initial, 1)
        self.num_initial = num_initial

    def propose(self, rng, finished):
        """Yields the neighbours of where the climb is, then random genomes; see `SearchOracle`."""
        if len(finished) < self.num_initial:
            yield from self.at_random(rng)
        place = self.place(finished)
        around = list(neighbours(genes(self.hyperparameters), self._genome(place)))
        for number in rng.permutation(len(around)):
            yield around[number], {"kind": "neighbour", "parents": [place.trial_id]}
        yield from self.at_random(rng)

    def place(self, finished):
        """Returns the trial where the climb is.

        Args:
            finished: List of completed trials, in the order in which they ended; `num_initial` of them at least.
        """
        place = self._best_first(finished[: self.num_initial])[0]
        for trial in finished[self.num_initial :]:
            # A random trial after the first ones says that no neighbour was left: a climb begins there.
            if trial.origin["kind"] == "random" or self._best_first([place, trial])[0] is trial:
                place = trial
        return place

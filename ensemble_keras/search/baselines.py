"""Baselines: random search, Bayesian optimisation and Hyperband, on the same base as our own searches."""

import itertools
import math

import numpy as np
from keras_tuner.engine.trial import TrialStatus

from ensemble_keras._validation import check_at_least
from ensemble_keras.members.gaussian_process import lower_bounds
from ensemble_keras.search.genome import genes
from ensemble_keras.search.operators import mutate
from ensemble_keras.search.oracle import SearchOracle

# Genomes among which the next trial is chosen: anywhere, and near the best ones so far.
_ANYWHERE, _NEARBY, _BEST = 500, 500, 10


class RandomOracle(SearchOracle):
    """Random search: each trial is drawn anew."""

    def propose(self, rng, finished):
        """Yields random genomes; see `SearchOracle`."""
        return self.at_random(rng)


class BayesianOracle(SearchOracle):
    """Bayesian optimisation: a Gaussian process tells which of 1,000 genomes may be the best.

    Half of them are random ones, half are mutations of the ten best trials; the one with the highest upper confidence
    bound is tried, as in KerasTuner. A gene without order is one column per value, and an inactive one stands at its
    columns' middle. Failed trials have the worst score so far, and running ones the mean of all (the constant liar
    of Ginsbourger et al., 2010), so that what runs already is not proposed again and again.

    Args:
        objective: See `SearchOracle`, as all other arguments that are not named here. One objective.
        max_trials: See `SearchOracle`.
        num_initial: Int, 1 or above. Random trials before the process is asked. Defaults to 10.

    Raises:
        ValueError: If an argument is out of its range, or there are several objectives.
    """

    def __init__(self, objective="val_accuracy", max_trials=10, *, num_initial=10, **options):
        super().__init__(objective, max_trials, **options)
        self._check_one_objective()
        check_at_least("num_initial", num_initial, 1)
        self.num_initial = num_initial

    def propose(self, rng, finished):
        """Yields genomes, the most promising first; see `SearchOracle`."""
        if len(finished) < self.num_initial:
            yield from self.at_random(rng)
        candidates = self._candidates(rng, finished)
        scores = [trial.objectives[0] for trial in finished]
        failed, running = self.failed(), self.running()
        y = [*scores, *[min(scores)] * len(failed), *[np.mean(scores)] * len(running)]
        x = [self._genome(trial) for trial in [*finished, *failed, *running]]
        bounds = lower_bounds(
            self._encode(x), -np.array(y), self._encode([genome for genome, _ in candidates]), seed=self.seed
        )
        for place in np.argsort(bounds, kind="stable"):
            yield candidates[place]

    def _candidates(self, rng, finished):
        declared = genes(self.hyperparameters)
        best = self._best_first(finished)[:_BEST]
        candidates = list(itertools.islice(self.at_random(rng), _ANYWHERE))
        for number in range(_NEARBY):
            parent = best[number % len(best)]
            genome = mutate(declared, self._genome(parent), rng)
            candidates.append((genome, {"kind": "bayesian", "parents": [parent.trial_id]}))
        return [(genome, {**origin, "kind": "bayesian"}) for genome, origin in candidates]

    def _encode(self, genomes):
        """Returns genomes as an array `(n, columns)` in [0, 1]."""
        columns = []
        for gene in genes(self.hyperparameters):
            values = [genome.get(gene.name) for genome in genomes]
            if getattr(gene, "ordered", True):
                columns.append([0.5 if value is None else gene.value_to_prob(value) for value in values])
            else:
                columns += [
                    [0.5 if value is None else float(value == choice) for value in values] for choice in gene.values
                ]
        return np.array(columns).T


class HyperbandOracle(SearchOracle):
    """Hyperband (Li et al., 2018): brackets of random trials with few epochs, the best of which get more.

    The values of a trial have `"tuner/epochs"`, how many epochs it trains for, and KerasTuner's other ones:
    `"tuner/initial_epoch"`, `"tuner/bracket"`, `"tuner/round"`, and `"tuner/trial_id"`, whose genome it has. An
    `ArchitectureSearch` trains it anew, by a schedule of its own over the larger number of epochs.
    The trials of all rounds count towards `max_trials`; a bracket that would be cut makes room for a smaller one.
    A trial that fails is replaced. The brackets are derived from the trials.

    Args:
        objective: See `SearchOracle`, as all other arguments that are not named here. One objective.
        max_trials: See `SearchOracle`.
        max_epochs: Int, 1 or above, for the trials of a bracket's last round. Defaults to 27.
        factor: Int, 2 or above. A round has so many times fewer trials than the one before, with so many times more
            epochs. Defaults to 3.

    Raises:
        ValueError: If an argument is out of its range, or there are several objectives.
    """

    def __init__(self, objective="val_accuracy", max_trials=10, *, max_epochs=27, factor=3, **options):
        super().__init__(objective, max_trials, **options)
        self._check_one_objective()
        check_at_least("max_epochs", max_epochs, 1)
        check_at_least("factor", factor, 2)
        self.max_epochs, self.factor = max_epochs, factor

    def propose(self, rng, finished):
        """Yields random genomes, for the first round of a bracket; see `SearchOracle`."""
        return self.at_random(rng)

    def populate_space(self, trial_id):
        """Returns the values of a new trial, its status, and where it comes from; see `keras_tuner.Oracle`."""
        brackets = self._brackets()
        for number, bracket in brackets.items():
            place = self._free_place(bracket)
            if place is not None:
                return self._fill(trial_id, number, len(bracket) - 1, *place)
        left = self.max_trials - sum(self._bracket_size(len(bracket) - 1) for bracket in brackets.values())
        if left <= 0 and self.running():
            return {"status": TrialStatus.IDLE, "message": "The last rounds wait for the trials that run."}
        # From many short trials to few long ones, and round again.
        last = max(brackets, default=None)
        halvings = self._most_halvings if last is None else len(brackets[last]) - 2
        halvings = halvings if halvings >= 0 else self._most_halvings
        while halvings and self._bracket_size(halvings) > left:
            halvings -= 1
        return self._fill(trial_id, 0 if last is None else last + 1, halvings, 0, None)

    def _fill(self, trial_id, number, halvings, round_number, parent):
        """Returns what `populate_space` does, for a trial of this round: another one's genome, or a random one."""
        if parent is None:
            response = super().populate_space(trial_id)
            if response["status"] != TrialStatus.RUNNING:
                return response
        else:
            response = {
                "status": TrialStatus.RUNNING,
                "values": {**self._genome(parent), "tuner/trial_id": parent.trial_id},
                "origin": {"kind": "promotion", "parents": [parent.trial_id]},
            }
        response["values"] |= {
            "tuner/epochs": self._epochs(halvings, round_number),
            "tuner/initial_epoch": self._epochs(halvings, round_number - 1) if round_number else 0,
            "tuner/bracket": halvings,
            "tuner/round": round_number,
        }
        response["origin"] |= {"bracket": number, "halvings": halvings, "round": round_number}
        return response

    def _brackets(self):
        """Returns the brackets by number, each a list of rounds, each a list of trials."""
        brackets = {}
        for trial in self.trials.values():
            rounds = [[] for _ in range(trial.origin["halvings"] + 1)]
            brackets.setdefault(trial.origin["bracket"], rounds)[trial.origin["round"]].append(trial)
        return brackets

    def _free_place(self, bracket):
        """Returns a round with room for a trial and the trial to go on with, `None` at random; or `None`."""
        halvings = len(bracket) - 1
        for number, trials in enumerate(bracket):
            used = [trial for trial in trials if trial.status != TrialStatus.FAILED]
            room = len(used) < self._size(halvings, number)
            if number == 0 and room:
                return 0, None
            if number and room:
                promoted = {trial.origin["parents"][0] for trial in trials}
                ready = [trial for trial in bracket[number - 1] if trial.status == TrialStatus.COMPLETED]
                ready = [trial for trial in self._best_first(ready) if trial.trial_id not in promoted]
                if ready:
                    return number, ready[0]
            if any(trial.status == TrialStatus.RUNNING for trial in trials):
                return None
        return None

    @property
    def _most_halvings(self):
        # Not by a logarithm, which misses exact powers.
        halvings = 0
        while self.factor ** (halvings + 1) <= self.max_epochs:
            halvings += 1
        return halvings

    def _size(self, halvings, number):
        finalists = math.ceil(1 + math.log(self.max_epochs, self.factor)) / (halvings + 1)
        return math.ceil(finalists * self.factor ** (halvings - number))

    def _bracket_size(self, halvings):
        return sum(self._size(halvings, number) for number in range(halvings + 1))

    def _epochs(self, halvings, number):
        return math.ceil(self.max_epochs / self.factor ** (halvings - number))

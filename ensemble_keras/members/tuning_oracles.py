"""Oracles: KerasTuner's ways to propose the next trial, seeded, quick, resumable from the finished trials alone."""

import contextlib
import json
import pathlib
import warnings

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from ensemble_keras.members import gaussian_process, trial_files
from ensemble_keras.members.curves import DIRECTIONS

# Proposals at random before the Gaussian process is asked.
_FIRST_AT_RANDOM = 10
# Points among which the next trial is chosen: anywhere, and near the best one so far.
_ANYWHERE, _NEARBY, _SPREAD = 2048, 512, 0.1


def build_oracle(tuner, space, *, objective, max_trials, max_epochs, seed, folder):
    """Builds an oracle and takes up the trials that are finished already.

    Args:
        tuner: `"bayesian"`, `"random"` or `"hyperband"`.
        space: `keras_tuner.HyperParameters`, all of them declared.
        objective: `"val_loss"`, `"val_accuracy"` or `"val_auc"`.
        max_trials: Int.
        max_epochs: Int, what a trial that Hyperband does not stop early trains for.
        seed: Int, 0 or above.
        folder: Path of KerasTuner's project, or `None` to keep nothing.

    Returns:
        A `keras_tuner.Oracle`.
    """
    options = {"max_epochs": max_epochs} if tuner == "hyperband" else {}
    oracle = TUNERS[tuner](space, objective=objective, max_trials=max_trials, seed=seed, folder=folder, **options)
    oracle.restore()
    return oracle


def run_trials(oracle, run, advance=lambda count=1: None):
    """Runs the trials that are left, one after another.

    An error in a trial ends the search, and the same command repeats that trial: KerasTuner's own loop would note it
    and go on, and three in a row would bar the project for good.

    Args:
        oracle: What `build_oracle` returned.
        run: Function from a dict of values to a dict of floats with the objective, and a string, what a reader must
            know.
        advance: Function called with the number of trials that are done.
    """
    advance(len(oracle.trials))
    while True:
        with _quiet():
            trial = oracle.create_trial("tuner0")
        if trial.status == TrialStatus.STOPPED:
            return
        metrics, trial.message = run(dict(trial.hyperparameters.values))
        trial.status = TrialStatus.COMPLETED
        with _quiet():
            oracle.update_trial(trial.trial_id, metrics)
            oracle.end_trial(trial)
        advance()


class _Resumable:
    """What all of our oracles do otherwise than KerasTuner's.

    - Every proposal is a function of the seed and of the trials before it. Nothing else is read back, so no second
      copy of the state can fall out of step with the trials when a run is killed between two writes.
    - Files are written beside themselves and renamed: a truncated one would make the project unreadable.
    - A seed of 0 counts (KerasTuner takes it for none), and Python's global random state is left alone.
    - Two values are one only if they have one type: 1 and "1" differ.
    """

    def __init__(self, space, *, objective, max_trials, seed, folder, **options):
        super().__init__(
            objective=keras_tuner.Objective(objective, DIRECTIONS[objective]),
            hyperparameters=space,
            seed=_numbers(seed)[0] + 1,
            **options,
        )
        self.max_trials, self.folder, self._entropy = max_trials, folder, seed
        self.verbose = 0

    def populate_space(self, trial_id):
        """Returns the next values; see `keras_tuner.Oracle`."""
        self._seed_state, *_ = numbers = _numbers(self._entropy, len(self.trials))
        self._random_state = np.random.RandomState(numbers[1])
        return super().populate_space(trial_id)

    def restore(self):
        """Takes up the finished trials in the folder, in their order, up to one that a kill left half-done."""
        if self.folder is None:
            return
        for path in trial_files.trial_paths(self.folder):
            trial = trial_files.read_trial(path)
            expected = trial_files.trial_number(path) == len(self.trials) < self.max_trials
            if trial.status != TrialStatus.COMPLETED or not expected:
                return
            self._take_up(trial)

    def _take_up(self, trial):
        self.trials[trial.trial_id] = trial
        self.start_order.append(trial.trial_id)
        self.end_order.append(trial.trial_id)
        self._record_values(trial)

    def save(self):
        """Writes what KerasTuner's own tools read; it is never read back here."""
        if self.folder is not None:
            trial_files.write_state(pathlib.Path(self.folder) / "oracle.json", self.get_state())

    def _save_trial(self, trial):
        if self.folder is not None:
            trial_files.write_state(trial_files.trial_path(self.folder, trial.trial_id), trial.get_state())

    def _compute_values_hash(self, values):
        return super()._compute_values_hash({name: json.dumps(value) for name, value in values.items()})


class RandomOracle(_Resumable, keras_tuner.oracles.RandomSearchOracle):
    """Random search."""


class BayesianOracle(_Resumable, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimisation with a Gaussian process and a lower confidence bound, as KerasTuner's.

    Only the next point is looked for otherwise: KerasTuner descends from 50 points with numerical gradients, which
    takes seconds, longer than a trial on features does, and may end at a point that was tried already or, for ints,
    one above the upper end. Here it is the best of 2,560 points that were not tried.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, num_initial_points=_FIRST_AT_RANDOM, **options)

    def populate_space(self, trial_id):
        """Returns the next values; see `keras_tuner.Oracle`."""
        if len(self.trials) < _FIRST_AT_RANDOM or not self._nonfixed_space():
            return super().populate_space(trial_id)
        rng = np.random.default_rng([self._entropy, len(self.trials)])
        x, y = self._vectorize_trials()
        points = rng.uniform(size=(_ANYWHERE, x.shape[1]))
        nearby = x[y.argmin()] + rng.normal(scale=_SPREAD, size=(_NEARBY, x.shape[1]))
        # Below 1: KerasTuner makes of it a value above the upper end.
        points = np.concatenate([points, nearby.clip(0, 1 - 1e-9)])
        bounds = gaussian_process.lower_bounds(x, y, points, seed=self.seed, alpha=self.alpha, beta=self.beta)
        for row in np.argsort(bounds, kind="stable"):
            values = {name: _plain(value) for name, value in self._vector_to_values(points[row]).items()}
            if not self._duplicate(values):
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED}


class HyperbandOracle(_Resumable, keras_tuner.oracles.HyperbandOracle):
    """Hyperband: many trials of few epochs, of which the best third goes on with three times as many.

    A trial that goes on starts from new weights, since the learning rate falls over the epochs that it has.
    """

    def __init__(self, *args, max_epochs, **options):
        super().__init__(*args, max_epochs=max_epochs, hyperband_iterations=None, **options)
        # The base class began a bracket before it was told how many trials there may be.
        self._brackets.clear()
        self._start_new_bracket()

    def _start_new_bracket(self):
        if self.max_trials is not None:
            # The last trials of a bracket are its finalists: one that would be cut makes room for a smaller one.
            left = self.max_trials - len(self.trials)
            while self._current_bracket and self._trials_of(self._current_bracket) > left:
                self._current_bracket -= 1
        super()._start_new_bracket()

    def _trials_of(self, bracket):
        return sum(self._get_size(bracket, number) for number in range(self._get_num_rounds(bracket)))

    def _take_up(self, trial):
        # The brackets follow from the trials: they are gone through once more.
        self.populate_space(trial.trial_id)
        super()._take_up(trial)


TUNERS = {"bayesian": BayesianOracle, "random": RandomOracle, "hyperband": HyperbandOracle}


@contextlib.contextmanager
def _quiet():
    """Hides what KerasTuner says about itself while the block runs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="keras_tuner")
        yield


def _numbers(*entropy):
    """Returns two ints that depend on the entropy alone, as Python ints below 2³¹."""
    return [int(number) for number in np.random.SeedSequence(entropy).generate_state(2) % 2**31]


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value

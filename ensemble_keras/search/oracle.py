"""Oracle: the base of all searches, which asks for the next trial and keeps what came of it, in trial files alone."""

import abc
import itertools
import pathlib
import threading

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from ensemble_keras._validation import check_at_least, check_seed
from ensemble_keras.members import trial_files
from ensemble_keras.members.curves import DIRECTIONS
from ensemble_keras.search.genome import active_values, genes, genome_id
from ensemble_keras.search.operators import random_genome
from ensemble_keras.search.pareto import best_first, non_dominated_ranks
from ensemble_keras.search.trial import SearchTrial, read_trials

# So many proposals for one trial may be known already or refused; the second half of them is drawn at random, since
# all that an oracle has in mind may have been tried.
_MAX_ATTEMPTS = 1000
# Better or worse, where KerasTuner cannot tell by the name.
_DIRECTIONS = {**DIRECTIONS, "macs": "min", "parameters": "min"}
_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED, TrialStatus.INVALID)


class SearchOracle(keras_tuner.Oracle, abc.ABC):
    """Base of the oracles: a KerasTuner oracle that repeats nothing, resumes exactly, and lives with failures.

    - A proposal is a function of the seed, the trial's number and the trials before it. Nothing else is kept between
      calls, so a search that was killed goes on as if it had not been; with one worker its trials are identical.
    - The state is in the trial files, written beside and renamed. A damaged one loses its trial, with a warning. A
      trial that was running when the search was killed is given out again, with the same values.
    - A genome is tried once. Inactive values do not make two genomes of one.
    - A failed trial is the worst one: it is no parent, it is not among the best, and it does not count towards
      `max_trials`.

    Trials may run at the same time, each under a `tuner_id` of its own: as in KerasTuner, a `tuner_id` whose trial
    has not ended gets that trial again.

    A subclass defines `propose`.

    Args:
        objective: A metric's name, a `keras_tuner.Objective`, or a list of them for a Pareto search: dominance, then
            crowding, never a sum. Defaults to `"val_accuracy"`.
        max_trials: Int, 1 or above. How many trials are to complete. Raised later, the search goes on. Defaults
            to 10.
        hyperparameters: `keras_tuner.HyperParameters`, the search space with everything declared. Defaults to `None`:
            a KerasTuner tuner finds it out by building models. With the first trial it is closed.
        seed: Int, 0 or above. Defaults to 0.
        refusal: Function from a genome (dict of active values) to the reason why it is not to be tried, or `None`.
            It is asked before a trial is spent, once in a process for each genome.
        known: Collection of genome ids that are not to be tried, from other searches. Defaults to `()`.
        max_failed: Int, 0 or above. How many trials may fail; one more ends the search. Defaults to `max_trials`.
        folder: Path of the project, or `None`: then nothing is written, until a tuner or `set_folder` names one.

    Raises:
        ValueError: If an argument is out of its range; or, when trials are taken up, if the folder holds those of
            another search space or objective.
    """

    def __init__(
        self,
        objective="val_accuracy",
        max_trials=10,
        *,
        hyperparameters=None,
        seed=0,
        refusal=None,
        known=(),
        max_failed=None,
        folder=None,
    ):
        check_at_least("max_trials", max_trials, 1)
        if max_failed is not None:
            check_at_least("max_failed", max_failed, 0)
        super().__init__(
            objective=_objective(objective),
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            # Of 0 KerasTuner would make a random one.
            seed=check_seed(seed) + 1,
        )
        self.seed = self._seed_state = seed
        self.allow_new_entries = hyperparameters is None
        self._objectives = getattr(self.objective, "objectives", [self.objective])
        self.refusal, self.known, self._answers = refusal, frozenset(known), {}
        self.max_failed = max_failed
        self.verbose = 0
        # KerasTuner's own lock is never released if a call raises.
        self._lock = threading.RLock()
        self.set_folder(folder)

    @abc.abstractmethod
    def propose(self, rng, finished):
        """Yields proposals until one is taken: the first that was not tried and is not refused.

        Args:
            rng: A `numpy.random.Generator` for this trial alone.
            finished: List of completed trials, in the order in which they ended.

        Yields:
            Pairs of a genome and its origin, a dict with `"kind"` and `"parents"`. After 500 of them the next 500 are
            drawn at random.
        """

    @property
    def refused(self):
        """Dict from genome id to the reason of its refusal, of those that this process proposed."""
        return {identity: reason for identity, reason in self._answers.items() if reason is not None}

    def finished(self):
        """Returns the list of completed trials, in the order in which they ended."""
        return [trial for trial in map(self.trials.get, self.end_order) if trial.status == TrialStatus.COMPLETED]

    def failed(self):
        """Returns the list of failed trials, in the order in which they ended; `message` says why."""
        return [trial for trial in map(self.trials.get, self.end_order) if trial.status == TrialStatus.FAILED]

    def running(self):
        """Returns the list of trials that were given out and have not ended, those of a killed search included."""
        return [trial for trial in self.trials.values() if trial.status == TrialStatus.RUNNING]

    # What KerasTuner's tuners call.

    def create_trial(self, tuner_id):
        """Returns the trial to be run next.

        Args:
            tuner_id: String, who asks.

        Returns:
            A `SearchTrial`. Its `status` is `"RUNNING"`; or `"IDLE"` while as many trials run as are left, one of
            which may fail; or `"STOPPED"` if the search is over: enough trials, too many failures, or nothing new to
            try in 1,000 attempts.
        """
        with self._lock:
            self._take_up_once()
            # What is declared later would leave the trials before it without a value.
            self.allow_new_entries = False
            if tuner_id in self.ongoing_trials:
                return self.ongoing_trials[tuner_id]
            trial = self._interrupted() or self._new_trial()
            if trial.status == TrialStatus.RUNNING:
                self.ongoing_trials[tuner_id] = trial
                self._display.on_trial_begin(trial)
            return trial

    def update_trial(self, trial_id, metrics, step=0):
        """Notes a running trial's metrics.

        Args:
            trial_id: String.
            metrics: Dict from name to number, every objective among them. One that is not finite is left out: a NaN
                would hide what came before and after it.
            step: Int, the epoch. Defaults to 0.

        Returns:
            The trial.

        Raises:
            ValueError: If an objective is missing.
        """
        with self._lock:
            trial = self.trials[trial_id]
            self._check_objective_found(metrics)
            directions = {objective.name: objective.direction for objective in self._objectives}
            for name, value in metrics.items():
                if np.isfinite(value):
                    if not trial.metrics.exists(name):
                        trial.metrics.register(name, directions.get(name))
                    trial.metrics.update(name, value, step)
            self._save_trial(trial)
            return trial

    def end_trial(self, trial):
        """Notes that a trial has ended.

        Args:
            trial: The trial. Its `status` is `"COMPLETED"`; or `"FAILED"` or `"INVALID"`, and `message` the reason.
                One that completed without a finite objective has failed.

        Raises:
            ValueError: If the status is none of these, or the trial does not run.
            RuntimeError: If the model asked for a hyperparameter that the space does not declare.
        """
        with self._lock:
            own = self.trials[trial.trial_id]
            if trial.status not in _ENDED or own.end_number is not None:
                raise ValueError(
                    f"Expected a running trial whose `status` was set to one of {', '.join(_ENDED)}. Received: trial "
                    f"{trial.trial_id}, {'ended' if own.end_number is not None else trial.status}."
                )
            self.update_space(trial.hyperparameters)
            own.message = trial.message
            # There is no second try: the same seed would fail again.
            own.status = TrialStatus.COMPLETED if trial.status == TrialStatus.COMPLETED else TrialStatus.FAILED
            if own.status == TrialStatus.COMPLETED:
                self.score_trial(own)
            own.end_number = 1 + max((self.trials[name].end_number for name in self.end_order), default=-1)
            self.end_order.append(own.trial_id)
            self._save_trial(own)
            self.ongoing_trials = {
                name: other for name, other in self.ongoing_trials.items() if other.trial_id != own.trial_id
            }
            self._display.on_trial_end(own)

    def score_trial(self, trial):
        """Sets a completed trial's `score`, `best_step` and `objectives`; see `SearchTrial.score_by`."""
        trial.score_by(self._objectives)

    def populate_space(self, trial_id):
        """Returns the values of a new trial, its status, and where it comes from; see `keras_tuner.Oracle`."""
        rng = np.random.default_rng([self.seed, int(trial_id)])
        tried = {trial.genome_id for trial in self.trials.values()} | self.known
        half = _MAX_ATTEMPTS // 2
        proposals = itertools.chain(itertools.islice(self.propose(rng, self.finished()), half), self.at_random(rng))
        for values, origin in itertools.islice(proposals, _MAX_ATTEMPTS):
            genome = active_values(self.hyperparameters, values)
            if genome_id(genome) not in tried and not self._is_refused(genome):
                return {"status": TrialStatus.RUNNING, "values": genome, "origin": origin}
        return {"status": TrialStatus.STOPPED, "message": f"{_MAX_ATTEMPTS:,} proposals were known or refused."}

    def at_random(self, rng):
        """Yields proposals drawn at random, without end."""
        while True:
            yield random_genome(genes(self.hyperparameters), rng), {"kind": "random", "parents": []}

    def get_best_trials(self, num_trials=1):
        """Returns the best completed trials; with several objectives in the order of front, then of crowding."""
        return self._best_first(self.finished())[:num_trials]

    def get_pareto_trials(self):
        """Returns the completed trials that no other one dominates, by the first objective from the best.

        With one objective these are the best trial and those that equal it.
        """
        trials = self._best_first(self.finished())
        if not trials:
            return []
        ranks = non_dominated_ranks([trial.objectives for trial in trials])
        front = [trial for trial, rank in zip(trials, ranks, strict=True) if rank == 0]
        return sorted(front, key=lambda trial: trial.objectives, reverse=True)

    def remaining_trials(self):
        """Returns how many trials are still to complete."""
        return max(0, self.max_trials - len(self.finished()))

    # Files.

    def set_folder(self, folder):
        """Sets where the trial files are; those in it are taken up before the next trial is created.

        Args:
            folder: Path, or `None` to write nothing.
        """
        self.folder = None if folder is None else pathlib.Path(folder)
        self._taken_up = False

    def reload(self):
        """Takes up the trials in the folder, and forgets others.

        Raises:
            ValueError: If they are of another search space or have no value of an objective.
        """
        with self._lock:
            self._taken_up = True
            self.trials, self.ongoing_trials, self.start_order, self.end_order = {}, {}, [], []
            if self.folder is None:
                return
            trials = read_trials(self.folder, self.hyperparameters, self._objectives)
            if trials and not self.hyperparameters.space:
                # A tuner that goes on does not find it out once more.
                self.hyperparameters = trials[0].hyperparameters.copy()
                self.hyperparameters.values = {}
            for trial in trials:
                self.trials[trial.trial_id] = trial
                self.start_order.append(trial.trial_id)
            ended = [trial for trial in self.trials.values() if trial.end_number is not None]
            self.end_order = [trial.trial_id for trial in sorted(ended, key=lambda trial: trial.end_number)]

    def save(self):
        """Writes what KerasTuner's own tools read; it is never read back here."""
        if self.folder is not None:
            trial_files.write_state(self.folder / "oracle.json", self.get_state())

    def _set_project_dir(self, directory, project_name):
        super()._set_project_dir(directory, project_name)
        self.set_folder(pathlib.Path(directory) / project_name)

    def _save_trial(self, trial):
        if self.folder is not None:
            trial_files.write_state(trial_files.trial_path(self.folder, trial.trial_id), trial.get_state())

    def _take_up_once(self):
        # Not when the folder is set: KerasTuner empties it after that with `overwrite=True`.
        if not self._taken_up and self.folder is not None:
            self.reload()

    # Trials.

    def _interrupted(self):
        """Returns a trial that a killed search had begun, or `None`."""
        given_out = {trial.trial_id for trial in self.ongoing_trials.values()}
        return next((trial for trial in self.running() if trial.trial_id not in given_out), None)

    def _new_trial(self):
        trial_id = f"{1 + max(map(int, self.trials), default=-1):04d}"
        response = self._reason_to_wait() or self.populate_space(trial_id)
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = response.get("values", {})
        trial = SearchTrial(hyperparameters, trial_id, response["status"], response.get("message"))
        if trial.status == TrialStatus.RUNNING:
            trial.origin = response["origin"]
            trial.genome_id = genome_id(active_values(hyperparameters, hyperparameters.values))
            self.trials[trial_id] = trial
            self.start_order.append(trial_id)
            self._save_trial(trial)
        return trial

    def _reason_to_wait(self):
        completed, failed, running = len(self.finished()), len(self.failed()), len(self.running())
        max_failed = self.max_trials if self.max_failed is None else self.max_failed
        if completed >= self.max_trials:
            return {"status": TrialStatus.STOPPED, "message": f"{completed} trials have completed."}
        if failed > max_failed:
            return {
                "status": TrialStatus.STOPPED,
                "message": f"{failed} trials have failed, and {completed} have not.",
            }
        if completed + running >= self.max_trials:
            return {"status": TrialStatus.IDLE, "message": f"{running} trials run, as many as are left."}
        return None

    def _is_refused(self, genome):
        """Asks once for each genome: an answer may cost building a network."""
        if self.refusal is None:
            return False
        identity = genome_id(genome)
        if identity not in self._answers:
            self._answers[identity] = self.refusal(dict(genome))
        return self._answers[identity] is not None

    def _genome(self, trial):
        return active_values(self.hyperparameters, trial.hyperparameters.values)

    def _check_one_objective(self):
        if len(self._objectives) > 1:
            names = ", ".join(objective.name for objective in self._objectives)
            raise ValueError(f"{type(self).__name__} takes one objective. Received: {names}. Take GeneticOracle.")

    def _best_first(self, trials):
        scores = np.reshape([trial.objectives for trial in trials], (-1, len(self._objectives)))
        return [trials[place] for place in best_first(scores)]


def _objective(objective):
    """Returns what KerasTuner takes, with the directions that it does not know."""
    if isinstance(objective, list | tuple):
        objectives = [_objective(one) for one in objective]
        return objectives[0] if len(objectives) == 1 else objectives
    if isinstance(objective, str) and objective in _DIRECTIONS:
        return keras_tuner.Objective(objective, _DIRECTIONS[objective])
    return objective

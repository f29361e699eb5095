"""Trial: KerasTuner's trial with where it comes from and what it is worth, and a folder of them."""

import json
import warnings

from keras_tuner.engine.trial import Trial, TrialStatus

from ensemble_keras.members import trial_files
from ensemble_keras.search.genome import active_values, genome_id


class SearchTrial(Trial):
    """KerasTuner's trial, with where it comes from.

    Attributes:
        origin: Dict with `"kind"` (`"random"`, `"mutation"`, `"crossover"` ...) and `"parents"`, a list of trial ids.
        end_number: Int, how many trials ended before; `None` while it runs.
        genome_id: String, see `genome.genome_id`.
        objectives: Tuple of floats, higher is better; `None` where it did not complete.
    """

    def __init__(self, hyperparameters, trial_id=None, status=TrialStatus.RUNNING, message=None):
        super().__init__(hyperparameters, trial_id, status, message)
        self.origin = {"kind": "random", "parents": []}
        self.end_number = self.genome_id = self.objectives = None

    def get_state(self):
        """Returns KerasTuner's state of a trial and ours."""
        return {
            **super().get_state(),
            "origin": self.origin,
            "end_number": self.end_number,
            "genome_id": self.genome_id,
        }

    def set_state(self, state):
        """Takes up what `get_state` returned."""
        super().set_state(state)
        self.origin, self.end_number = state["origin"], state["end_number"]
        self.genome_id = genome_id(active_values(self.hyperparameters, self.hyperparameters.values))

    def score_by(self, objectives):
        """Sets `score`, `best_step` and `objectives`, all of one step: the first objective's best one.

        Without a step at which all objectives are finite the trial has failed.

        Args:
            objectives: List of `keras_tuner.Objective`s. The score is the first one's.
        """
        histories = [self._history(objective.name) for objective in objectives]
        signs = [1 if objective.direction == "max" else -1 for objective in objectives]
        steps = [step for step in histories[0] if all(step in history for history in histories)]
        if not steps:
            self.status = TrialStatus.FAILED
            self.message = f"No step had finite values of {', '.join(one.name for one in objectives)}."
            return
        self.best_step = max(steps, key=lambda step: signs[0] * histories[0][step])
        self.score = histories[0][self.best_step]
        self.objectives = tuple(
            sign * history[self.best_step] for sign, history in zip(signs, histories, strict=True)
        )

    def _history(self, name):
        if not self.metrics.exists(name):
            return {}
        return {observation.step: float(observation.mean()) for observation in self.metrics.get_history(name)}


def read_trials(folder, space, objectives):
    """Reads the trials of a project.

    A damaged file is left out, with a warning. A trial that was running comes without what it had reported: that
    belongs to the attempt that was killed.

    Args:
        folder: Path.
        space: `keras_tuner.HyperParameters`, the search space; if it is empty, that of the first trial is taken.
        objectives: List of `keras_tuner.Objective`s.

    Returns:
        List of `SearchTrial`s in the order of their numbers.

    Raises:
        ValueError: If a trial is of another search space, or has no value of an objective.
    """
    trials = []
    declared = _by_name(space)
    for path in trial_files.trial_paths(folder):
        try:
            trial = trial_files.read_trial(path, SearchTrial)
        except trial_files.DamagedTrialError as error:
            warnings.warn(f"{error} Its trial is left out, and the search goes on.", stacklevel=2)
        else:
            declared = declared or _by_name(trial.hyperparameters)
            _check_space(trial, declared, folder)
            trials.append(_taken_up(trial, objectives, folder))
    return trials


def _check_space(trial, declared, folder):
    there = _by_name(trial.hyperparameters)
    if there != declared:
        names = sorted(name for name in {*declared, *there} if declared.get(name) != there.get(name))
        raise ValueError(
            f"The trials in {folder} must be of the same search space. Received: one that differs in "
            f"{', '.join(names[:8])}. Take the same space, or another folder."
        )


def _taken_up(trial, objectives, folder):
    if trial.status == TrialStatus.RUNNING:
        again = SearchTrial(trial.hyperparameters, trial.trial_id)
        again.origin, again.genome_id = trial.origin, trial.genome_id
        return again
    if trial.status == TrialStatus.COMPLETED:
        trial.score_by(objectives)
        if trial.status != TrialStatus.COMPLETED:
            raise ValueError(
                f"The trials in {folder} must be of the same objective. Received: trial {trial.trial_id}. "
                f"{trial.message} Take the same objective, or another folder."
            )
    return trial


def _by_name(hyperparameters):
    """Returns a space by name, as JSON: a trial's was read from a file."""
    configs = {}
    for gene in hyperparameters.space:
        configs.setdefault(gene.name, []).append([type(gene).__name__, gene.get_config()])
    return {name: json.dumps(config) for name, config in configs.items()}

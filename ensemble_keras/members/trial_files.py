"""Trial files: KerasTuner's `trial.json`s, written beside and renamed, and read without random numbers."""

import json
import pathlib

from keras_tuner.engine.trial import Trial

from ensemble_keras import runs


class DamagedTrialError(ValueError):
    """A trial file that cannot be read."""


def write_state(path, state):
    """Writes a dict of JSON values. A truncated file would make KerasTuner's project unreadable."""
    with runs.atomic_path(path) as temporary:
        temporary.write_text(json.dumps(state))


def trial_path(folder, trial_id):
    """Returns where a project keeps a trial."""
    return pathlib.Path(folder) / f"trial_{trial_id}" / "trial.json"


def trial_paths(folder):
    """Returns the paths of a project's trial files, by the trials' numbers. A trial without one is not ours."""
    paths = pathlib.Path(folder).glob("trial_*/trial.json")
    return sorted((path for path in paths if path.parent.name[len("trial_") :].isdigit()), key=trial_number)


def trial_number(path):
    """Returns the number of the trial that a file is about."""
    return int(path.parent.name.removeprefix("trial_"))


def read_trial(path, kind=Trial):
    """Reads a trial.

    Args:
        path: Path of its file.
        kind: `keras_tuner.engine.trial.Trial` or a subclass of it.

    Returns:
        A trial of that kind.

    Raises:
        DamagedTrialError: If the file is damaged.
    """
    try:
        state = json.loads(pathlib.Path(path).read_text())
        # With an id: KerasTuner's own loader draws a random one, from Python's global state.
        trial = kind(hyperparameters=None, trial_id=state["trial_id"])
        trial.set_state(state)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedTrialError(f"{path} is damaged ({type(error).__name__}: {error}).") from error
    return trial

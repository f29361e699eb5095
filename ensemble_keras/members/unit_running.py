"""Unit running: a member's trainings one after another here, or several at a time in an executor."""

import copy
import dataclasses
import pathlib
import threading

from ensemble_keras._progress import progress_bar
from ensemble_keras.executors import run_units
from ensemble_keras.members.fold_training import FoldTraining, Unit

# Of trainings in one process one would take out what the other has registered with the backend.
_ONE_IN_A_PROCESS = threading.Lock()


@dataclasses.dataclass(frozen=True)
class _Job:
    training: FoldTraining
    unit: Unit
    checkpoint: pathlib.Path | None


def results_of(training, units, run, executor=None):
    """Returns the results of trainings, computed and kept, or taken up where a run has them.

    Args:
        training: A `FoldTraining`.
        units: List of its `Unit`s.
        run: The `Run` that keeps results, and the state of each training after every epoch. It is written here
            alone, but for that state.
        executor: As in `run_units`. `None`: each is trained here, with the same network.

    Returns:
        A list of dicts of arrays.

    Raises:
        MemoryError: If not even one image at a time fits.
        RuntimeError: If another training fails in the executor. What is done is kept.
    """
    elsewhere = {} if executor is None else _compute_elsewhere(training, units, run, executor)

    def result(unit):
        checkpoint = run.checkpoint(unit.name, unit.depends_on)
        return run.unit(unit.name, unit.depends_on, lambda: training.compute(unit, checkpoint))[0]

    return [elsewhere.get(unit.name) or result(unit) for unit in units]


def _compute_elsewhere(training, units, run, executor):
    """Returns the results of those units that the run has not, by name."""
    verbose, training = training.trainer.verbose, _quiet(training)
    missing = [unit for unit in units if not run.has(unit.name, unit.depends_on)]
    jobs, results = iter([_Job(training, unit, _checkpoint(unit, run)) for unit in missing]), {}
    with progress_bar(training.name, len(missing), unit="trainings", verbose=verbose) as advance:

        def tell(job, outcome):
            result = _result(job.unit, outcome)
            run.keep(job.unit.name, job.unit.depends_on, result, outcome.seconds)
            results[job.unit.name] = result
            advance()

        run_units(_compute, lambda: next(jobs, None), tell, executor=executor)
    return results


def _quiet(training):
    """Returns the same training without its bars: there is one for all, not one of each process."""
    quiet = copy.copy(training)
    quiet.trainer = copy.copy(training.trainer)
    quiet.trainer.verbose = 0
    return quiet


def _checkpoint(unit, run):
    path = run.checkpoint(unit.name, unit.depends_on)
    if path is None:
        return None
    # By this folder another machine knows whether it sees the run's directory.
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.absolute()


def _compute(job):
    """Does one training, in the worker; where memory runs out, its result is the `MemoryError`."""
    checkpoint = job.checkpoint if job.checkpoint is not None and job.checkpoint.parent.is_dir() else None
    with _ONE_IN_A_PROCESS:
        try:
            return job.training.compute(job.unit, checkpoint)
        except MemoryError as error:
            return error
        finally:
            job.training.trainer.release()


def _result(unit, outcome):
    if outcome.error is not None:
        error = RuntimeError(f"{unit.name!r} could not be trained: {outcome.error}. What is done is kept.")
        error.add_note(f"In the worker: {outcome.traceback}")
        raise error
    if isinstance(outcome.value, MemoryError):
        raise outcome.value
    return outcome.value

"""Executors: where units of work run: in this process, in processes of its own, on a Dask or Ray cluster."""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import sys
import threading
import time
import traceback
import typing

# Ray and Dask need not be installed: their errors are known by name.
_SIGNS_OF_A_DEAD_WORKER = {
    "BrokenExecutor",
    "KilledWorker",
    "WorkerCrashedError",
    "NodeDiedError",
    "OutOfMemoryError",
}
_THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    # XLA's, for JAX on a CPU.
    "NPROC",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        value: What the function returned; `None` where it did not.
        error: `None`, or what went wrong: type and message of what the function raised, or that its worker died.
        traceback: `None`, or the text of the function's traceback, or what is known of the worker's death.
        seconds: Float, how long the function ran; `None` where its worker died.
    """

    value: typing.Any = None
    error: str | None = None
    traceback: str | None = None
    seconds: float | None = dataclasses.field(default=None, compare=False)


def run_units(function, ask, tell, *, executor=None, workers=None):
    """Runs `function(job)` for one job after another, several at a time, until there are no more.

    Ask and tell: a job is asked for only when a worker is free for it, so that whoever proposes jobs has seen every
    result there is. Both are called in the calling thread alone, and need no locks. With one worker `ask` and `tell`
    alternate, on every executor. A job whose worker died is tried once more, in a new one.

    Args:
        function: Function of a job, with `executor` other than `None` picklable, as jobs and results are. The
            other processes import it: under `if __name__ == "__main__":` must stand what starts the run.
        ask: Function without arguments. Returns a job; or `None` where there is none at present: it is asked again
            when a result has been told, and the run ends when nothing is running any more.
        tell: Function of a job and its `Outcome`, called once for each job as it ends.
        executor: `None`: in this process, one after another. An int: in so many processes of our own, see
            `ProcessExecutor`. A `concurrent.futures.Executor`, such as `RayExecutor()`. Or a Dask client, whose
            workers have this package, too. What is given is left open.
        workers: Int, how many jobs run at a time. Defaults to the executor's own number, of a Dask cluster's threads
            for instance; to 1 for an executor that has none.

    Raises:
        TypeError: If `executor` is none of these.
        ValueError: If `workers` is not a positive int, or not 1 without an executor.
        RuntimeError: If a given executor is broken for good. Every result there was has been told before.

    What `ask` or `tell` raises ends the run, as Ctrl-C does: processes of our own are killed, jobs that wait in a
    given executor are cancelled, those that run in it are left.

    Example:

    >>> import math
    >>> jobs, told = [1, 4, 9], []
    >>> run_units(math.sqrt, lambda: jobs.pop(0) if jobs else None, lambda job, end: told.append((job, end.value)))
    >>> told
    [(1, 1.0), (4, 2.0), (9, 3.0)]
    """
    with opened(executor) as executor:
        pool, workers = _open(executor, workers)
        running = {}
        try:
            while True:
                while len(running) < workers and (job := ask()) is not None:
                    _submit(pool, function, job, running)
                if not running:
                    return
                for job in _tell_finished(running, tell):
                    _submit(pool, function, job, running, attempt=2)
        finally:
            for future in running:
                future.cancel()


def _submit(executor, function, job, running, attempt=1):
    try:
        future = executor.submit(_attempt, function, job)
    except RuntimeError as error:
        raise RuntimeError(
            f"The executor takes no more jobs ({_text(error)}). What had ended before is kept. "
            "Start again with a new executor."
        ) from error
    running[future] = (job, attempt)


def _attempt(function, job):
    # An exception need not survive pickling, its text does.
    start = time.perf_counter()
    try:
        ended = {"value": function(job)}
    except Exception as error:
        ended = {"error": _text(error), "traceback": traceback.format_exc()}
    return Outcome(**ended, seconds=time.perf_counter() - start)


def _tell_finished(running, tell):
    """Waits for a job to end and tells what has ended, in the order of submission; returns the jobs to try again."""
    done = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done
    lost = []
    for future in sorted([future for future in running if future in done], key=concurrent.futures.Future.cancelled):
        job, attempt = running.pop(future)
        outcome = _outcome(future, attempt)
        if outcome is None:
            lost.append(job)
        else:
            tell(job, outcome)
    return lost


def _outcome(future, attempt):
    """Returns the `Outcome` of a future that is done; `None` where its job is to be tried once more."""
    try:
        return future.result()
    except concurrent.futures.CancelledError as error:
        raise RuntimeError("The executor cancelled a job. Start again with a new executor.") from error
    except Exception as error:
        if not _worker_died(error):
            return Outcome(error=_text(error), traceback=traceback.format_exc())
        # Dask's scheduler has tried it again itself, unless it was told not to.
        final = attempt > 1 or getattr(error, "allowed_failures", 0) > 0
        return (
            Outcome(error="the worker process died, at the second attempt, too", traceback=_text(error))
            if final
            else None
        )


def _worker_died(error):
    return any(kind.__name__ in _SIGNS_OF_A_DEAD_WORKER for kind in type(error).__mro__)


def _text(error):
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextlib.contextmanager
def opened(executor):
    """Gives an executor to several runs, one after another: for an int, processes that end with the block.

    Args:
        executor: As in `run_units`.

    Yields:
        What `run_units` takes: the same, but for an int a `ProcessExecutor`.

    Raises:
        TypeError: If it is no executor.
        ValueError: If it is an int below 1.
    """
    check_executor(executor)
    if isinstance(executor, int):
        with ProcessExecutor(executor) as own:
            yield own
    else:
        yield executor


def check_executor(executor):
    """Raises `TypeError` or `ValueError` unless `executor` is one, as in `run_units`."""
    if isinstance(executor, int):
        _check_count("executor", executor)
    elif not (executor is None or isinstance(executor, concurrent.futures.Executor) or _is_dask_client(executor)):
        raise TypeError(
            "`executor` must be None, a number of processes, a `concurrent.futures.Executor` or a Dask client. "
            f"Received: {executor!r}."
        )


def _open(executor, workers):
    """Returns a `concurrent.futures.Executor` and the number of jobs it is to have at a time."""
    _check_count("workers", 1 if workers is None else workers)
    if executor is None:
        if workers not in (None, 1):
            raise ValueError(
                f"`workers` must be 1 without an executor. Received: {workers}. Give `executor={workers}`."
            )
        return _InThisProcess(), 1
    if _is_dask_client(executor):
        # A job that is tried again must not be answered from the first attempt.
        return executor.get_executor(pure=False), workers or sum(executor.nthreads().values())
    # The standard library's and loky's executors tell it by this name alone.
    own = getattr(executor, "workers", getattr(executor, "_max_workers", 1))
    return executor, workers or own


def _is_dask_client(executor):
    return hasattr(executor, "get_executor")


def _check_count(argument, count):
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"`{argument}` must be an int of at least 1. Received: {count!r}.")


class _InThisProcess(concurrent.futures.Executor):
    """Computes when it is given a job."""

    def submit(self, function, /, *args, **kwargs):
        future = concurrent.futures.Future()
        future.set_result(function(*args, **kwargs))
        return future


class ProcessExecutor(concurrent.futures.Executor):
    """Processes of our own, each a loky pool of one: a worker that dies takes only its own job along.

    They are started anew, not forked, so a backend loaded here does no harm there, and stay until the executor is
    shut down, or this process ends in whatever way. Each has one of the visible GPUs, in turn, and its part of the
    CPU cores, where the environment sets no thread counts. A backend that holds all of a GPU's memory in the calling
    process leaves none to the worker on that GPU.

    Args:
        workers: Int, the number of processes.

    Example:

    >>> import math
    >>> with ProcessExecutor(2) as executor:
    ...     [executor.submit(math.sqrt, x).result() for x in (1, 4)]
    [1.0, 2.0]
    """

    def __init__(self, workers):
        _check_count("executor", workers)
        self.workers = workers
        self._pools = [_start_pool(environment) for environment in worker_environments(workers)]
        self._unfinished = [set() for _ in self._pools]

    def submit(self, function, /, *args, **kwargs):
        """Submits a call to the process with the fewest; a process that died is replaced."""
        slot = min(range(self.workers), key=lambda slot: len(self._unfinished[slot]))
        try:
            future = self._pools[slot].submit(function, *args, **kwargs)
        except concurrent.futures.BrokenExecutor:
            self._pools[slot].shutdown()
            self._pools[slot] = _start_pool(worker_environments(self.workers)[slot])
            future = self._pools[slot].submit(function, *args, **kwargs)
        self._unfinished[slot].add(future)
        future.add_done_callback(self._unfinished[slot].discard)
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Ends the processes: after their jobs, or with `cancel_futures` at once."""
        for pool in self._pools:
            pool.shutdown(wait=wait, kill_workers=cancel_futures)

    def __exit__(self, kind, error, trace):
        self.shutdown(cancel_futures=kind is not None)


def _start_pool(environment):
    # Here, for those who need no processes.
    import loky

    return loky.ProcessPoolExecutor(1, env=environment, initializer=_live_with, initargs=(os.getpid(),))


def _live_with(parent):
    """Leaves Ctrl-C to the parent, and ends this process when the parent has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def worker_environments(workers):
    """Returns the environment variables of each of so many processes, a list of dicts.

    Args:
        workers: Int, the number of processes.
    """
    import loky

    threads = str(max(1, loky.cpu_count() // workers))
    common = {name: os.environ.get(name, threads) for name in _THREAD_COUNTS}
    # loky would end a worker that has grown by 300 MB, as any does that trains networks.
    common["LOKY_MAX_MEMORY_LEAK_SIZE"] = "1e18"
    if "keras" in sys.modules:
        common["KERAS_BACKEND"] = sys.modules["keras"].backend.backend()
    gpus = visible_gpus()
    if not gpus:
        return [common] * workers
    if workers > len(gpus):
        common |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return [common | {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers)]


def visible_gpus(devices="/dev"):
    """Returns the names of the NVIDIA GPUs that this process may use, as in `CUDA_VISIBLE_DEVICES`; loads no backend.

    Args:
        devices: Folder of the device files, counted where the variable is not set.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        files = [path for path in pathlib.Path(devices).glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
        return [str(i) for i in range(len(files))]
    names = []
    for name in map(str.strip, chosen.split(",")):
        # What stands behind an invalid name does not count: so does CUDA.
        if name in ("", "-1"):
            break
        names.append(name)
    return names


class RayExecutor(concurrent.futures.Executor):
    """Jobs as tasks of the Ray cluster that this process is connected to, or of a local one, started here.

    Args:
        workers: Int, how many jobs run at a time. Defaults to how many the cluster has room for.
        num_cpus: CPU cores of each job. Defaults to 1.
        num_gpus: GPUs of each job, fractions as well. Defaults to 0.

    Raises:
        ModuleNotFoundError: If Ray is not installed.

    Example:

    ```python
    ray.init(address="auto")  # the cluster; without this line a local one
    tuner = ek.search.GeneticSearch(space, max_trials=200, directory="night")
    tuner.search(x, y, executor=RayExecutor(num_gpus=0.5))  # two trials at a time on each GPU
    ```
    """

    def __init__(self, workers=None, *, num_cpus=1, num_gpus=0):
        import ray

        if not ray.is_initialized():
            ray.init()
        # A task whose worker died is repeated by `run_units`.
        self._options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": 0}
        rooms = [ray.cluster_resources().get(kind, 0) // n for kind, n in (("CPU", num_cpus), ("GPU", num_gpus)) if n]
        self.workers = workers or max(1, int(min(rooms, default=1)))

    def submit(self, function, /, *args, **kwargs):
        """Submits a call as a Ray task; its future cannot be cancelled."""
        import ray

        return ray.remote(**self._options)(function).remote(*args, **kwargs).future()

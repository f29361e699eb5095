import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import types

import psutil
import pytest
import units_of_work
from units_of_work import die_or_sleep, environment, refuse, square

from ensemble_keras import executors
from ensemble_keras.executors import Outcome, ProcessExecutor, RayExecutor, run_units, visible_gpus

TESTS = pathlib.Path(__file__).parent
DEAD = "the worker process died, at the second attempt, too"


def run(function, jobs, **options):
    """Returns `{job: Outcome}` in the order in which they were told."""
    jobs, told = iter(jobs), {}
    run_units(function, lambda: next(jobs, None), told.__setitem__, **options)
    return told


class Log:
    """Asks for jobs and is told, and notes in which order, and on which thread."""

    def __init__(self, jobs):
        self.jobs = list(jobs)
        self.events = []
        self.threads = set()

    def ask(self):
        self.threads.add(threading.get_ident())
        if not self.jobs:
            return None
        self.events.append(("ask", self.jobs[0]))
        return self.jobs.pop(0)

    def tell(self, job, outcome):
        self.threads.add(threading.get_ident())
        self.events.append(("tell", job))

    def most_at_a_time(self):
        counts = [0]
        for kind, _ in self.events:
            counts.append(counts[-1] + (1 if kind == "ask" else -1))
        return max(counts)


@pytest.fixture(scope="module")
def processes():
    with ProcessExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def dask_client():
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client
        # Dask fails if it is to close a worker process that it is just starting again.
        client.wait_for_workers(2, timeout=60)


@pytest.fixture
def folder(tmp_path):
    """An empty folder, for `die`."""
    path = tmp_path / "attempts"
    path.mkdir()
    return path


def test_without_an_executor_jobs_run_here_one_after_another():
    log = Log([1, 2, 3])
    run_units(square, log.ask, log.tell)
    assert log.events == [(kind, job) for job in (1, 2, 3) for kind in ("ask", "tell")]
    assert run(lambda job: (job, os.getpid()), [1]) == {1: Outcome((1, os.getpid()))}


def test_other_processes_give_the_same_results(processes):
    jobs = range(1, 8)
    assert run(refuse, jobs, executor=processes).keys() == set(jobs)
    here, there = run(refuse, jobs), run(refuse, jobs, executor=processes)
    for job in jobs:
        assert here[job].value == there[job].value == (None if job % 2 else job)
        assert here[job].error == there[job].error == (f"ValueError: {job} is odd" if job % 2 else None)
        assert (here[job].traceback is None) == (there[job].traceback is None) == (job % 2 == 0)
    assert 'raise ValueError(f"{job} is odd")' in there[1].traceback


@pytest.mark.parametrize(("workers", "expected"), [(1, 1), (2, 2), (None, 2)])
def test_no_more_jobs_are_asked_for_than_there_are_workers(processes, workers, expected):
    log = Log(range(6))
    run_units(square, log.ask, log.tell, executor=processes, workers=workers)
    assert log.most_at_a_time() == expected
    assert log.threads == {threading.get_ident()}
    assert sorted(job for kind, job in log.events if kind == "tell") == list(range(6))


def test_one_worker_of_a_given_executor_sees_each_result_before_the_next_job():
    one, all_of_them = Log([1, 2, 3]), Log(range(10))
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        run_units(square, one.ask, one.tell, executor=executor, workers=1)
        run_units(square, all_of_them.ask, all_of_them.tell, executor=executor)
        assert run(square, range(10), executor=executor) == {job: Outcome(job * job) for job in range(10)}
    assert one.events == [(kind, job) for job in (1, 2, 3) for kind in ("ask", "tell")]
    assert all_of_them.most_at_a_time() == 4


def test_an_outcome_says_how_long_the_function_ran():
    (outcome,) = run(time.sleep, [0.2]).values()
    assert 0.2 <= outcome.seconds < 2


def test_a_none_means_none_at_present():
    """A generation waits for the one before: each of its jobs is asked for when all of those are told."""
    generations, told = [[1, 2, 3], [4, 5]], []

    def ask():
        if generations and not generations[0] and len(told) in (3, 5):
            generations.pop(0)
        return generations[0].pop(0) if generations and generations[0] else None

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        run_units(square, ask, lambda job, outcome: told.append(job), executor=executor, workers=2)
    assert sorted(told[:3]) == [1, 2, 3]
    assert sorted(told[3:]) == [4, 5]


def test_a_killed_worker_costs_one_more_attempt_and_disturbs_no_other(processes, folder):
    other = run(environment, [("PATH",), ("HOME",)], executor=processes)
    pids = {outcome.value[0] for outcome in other.values()}
    assert len(pids) == 2
    told = run(die_or_sleep, [0.5, (folder, 1)], executor=processes)
    assert told == {0.5: Outcome("slept"), (folder, 1): Outcome(2)}
    after = {outcome.value[0] for outcome in run(environment, [("PATH",), ("HOME",)], executor=processes).values()}
    assert len(after) == 2
    assert len(after & pids) == 1


def test_a_job_that_kills_its_worker_twice_has_failed(processes, folder):
    told = run(die_or_sleep, [0.1, (folder, 9), 0.2, 0.3], executor=processes)
    assert told[folder, 9].error == DEAD
    assert "SIGKILL" in told[folder, 9].traceback
    assert [told[job].value for job in (0.1, 0.2, 0.3)] == ["slept"] * 3
    assert len(list(folder.iterdir())) == 2


def test_several_runs_may_share_the_processes_of_an_int():
    with executors.opened(1) as executor:
        pids = {run(environment, [()], executor=executor)[()].value[0] for _ in range(2)}
    assert len(pids) == 1
    assert not is_alive(pids.pop())


def test_an_int_is_so_many_processes_that_are_gone_afterwards():
    told = run(environment, [("A",), ("B",)], executor=2)
    pids = {outcome.value[0] for outcome in told.values()}
    assert len(pids - {os.getpid()}) == 2
    assert not any(is_alive(pid) for pid in pids)


def test_what_tell_raises_ends_the_run_and_its_processes(tmp_path):
    def tell(job, outcome):
        raise KeyboardInterrupt

    jobs = iter([0.01, 60.0])
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_units(die_or_sleep, lambda: next(jobs, None), tell, executor=2)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_one_that_started_it(tmp_path, sign):
    run = subprocess.Popen([sys.executable, units_of_work.__file__, tmp_path], stderr=subprocess.PIPE)
    with run:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        run.send_signal(sign)
        assert run.wait(20) != 0
        assert (b"KeyboardInterrupt" in run.stderr.read()) == (sign == signal.SIGINT)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_a_given_executor_that_is_broken_is_not_replaced(folder):
    jobs, told = iter([0.01, (folder, 9)]), []
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn()) as executor,
        pytest.raises(RuntimeError, match="takes no more jobs .BrokenProcessPool.*Start again with a new executor"),
    ):
        run_units(die_or_sleep, lambda: next(jobs, None), lambda job, _: told.append(job), executor=executor)
    assert told == [0.01]


def test_an_executor_that_is_shut_down_meanwhile_ends_the_run_with_what_there_is():
    told, started = [], threading.Event()

    def shut_down_the_executor(job, outcome):
        told.append(job)
        executor.shutdown(cancel_futures=True)

    executor = concurrent.futures.ThreadPoolExecutor(1)
    with pytest.raises(RuntimeError, match="executor cancelled a job. Start again with a new executor"):
        run(lambda job: started.wait(0.2), [1, 2], executor=Canceller(), workers=2)
    jobs = iter([1, 2])
    with pytest.raises(RuntimeError, match="takes no more jobs .RuntimeError: cannot schedule new futures"):
        run_units(square, lambda: next(jobs, None), shut_down_the_executor, executor=executor)
    assert told == [1]


class Canceller(concurrent.futures.Executor):
    def submit(self, function, /, *args):
        future = concurrent.futures.Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_a_result_that_cannot_be_sent_is_an_error_of_its_job(processes):
    told = run(units_of_work.lock, [1, 2], executor=processes)
    assert ["pickle" in outcome.error for outcome in told.values()] == [True, True]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"executor": 0}, ValueError, "`executor` must be an int of at least 1. Received: 0"),
        ({"executor": True}, ValueError, "`executor` must be an int of at least 1. Received: True"),
        ({"executor": "dask"}, TypeError, "a number of processes, .* or a Dask client. Received: 'dask'"),
        ({"workers": 0}, ValueError, "`workers` must be an int of at least 1. Received: 0"),
        ({"workers": 2.0}, ValueError, "`workers` must be an int of at least 1. Received: 2.0"),
        ({"workers": 2}, ValueError, "`workers` must be 1 without an executor. Received: 2. Give `executor=2`"),
    ],
)
def test_other_executors_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        run(square, [1], **options)


def test_each_process_has_a_gpu_and_a_part_of_the_cores(monkeypatch):
    import loky

    monkeypatch.setattr(loky, "cpu_count", lambda: 9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5f")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    two, three = executors.worker_environments(2), executors.worker_environments(3)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in two] == ["2", "GPU-5f"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in three] == ["2", "GPU-5f", "2"]
    assert [each["OMP_NUM_THREADS"] for each in two + three] == ["4"] * 2 + ["3"] * 3
    assert {each["MKL_NUM_THREADS"] for each in two} == {"7"}
    # Only where two share a GPU must neither take all of its memory.
    assert ["TF_FORCE_GPU_ALLOW_GROWTH" in each for each in two + three] == [False] * 2 + [True] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in executors.worker_environments(1)[0]


def test_a_process_has_its_environment_and_the_backend_of_this_one(monkeypatch):
    import keras

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    names = ("CUDA_VISIBLE_DEVICES", "KERAS_BACKEND")
    told = run(environment, [names, names[::-1]], executor=2)
    assert {outcome.value[1]["CUDA_VISIBLE_DEVICES"] for outcome in told.values()} == {"0", "1"}
    assert {outcome.value[1]["KERAS_BACKEND"] for outcome in told.values()} == {keras.backend.backend()}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(None, ["0", "1"]), ("1", ["1"]), (" 1, 0", ["1", "0"]), ("", []), ("-1", []), ("0,-1,1", ["0"])],
)
def test_gpus_are_counted_without_a_backend(tmp_path, monkeypatch, chosen, expected):
    for name in ("nvidia0", "nvidia7", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus(tmp_path) == expected


def test_a_dask_cluster_takes_as_many_jobs_as_it_has_threads(dask_client):
    log = Log(range(6))
    run_units(square, log.ask, log.tell, executor=dask_client)
    assert log.most_at_a_time() == 2
    told = run(refuse, [1, 2, 3], executor=dask_client)
    assert {job: outcome.error for job, outcome in told.items()} == {
        1: "ValueError: 1 is odd",
        2: None,
        3: "ValueError: 3 is odd",
    }


@pytest.mark.slow
def test_dask_itself_tries_a_job_again_whose_worker_is_killed(dask_client, tmp_path):
    once, always = tmp_path / "once", tmp_path / "always"
    once.mkdir()
    always.mkdir()
    told = run(die_or_sleep, [0.1, (once, 1), 0.2], executor=dask_client)
    assert told == {0.1: Outcome("slept"), (once, 1): Outcome(2), 0.2: Outcome("slept")}
    told = run(die_or_sleep, [(always, 9)], executor=dask_client)
    assert told[always, 9].error == DEAD
    assert "KilledWorker" in told[always, 9].traceback
    assert len(list(always.iterdir())) == 2


@pytest.mark.parametrize(("allowed_failures", "error"), [(0, None), (1, DEAD), (3, DEAD)])
def test_a_job_that_dask_has_tried_again_is_not_tried_by_us(allowed_failures, error):
    from distributed import KilledWorker

    where = types.SimpleNamespace(address="tcp://here")
    future = concurrent.futures.Future()
    future.set_exception(KilledWorker("job", where, allowed_failures))
    outcome = executors._outcome(future, 1)
    assert outcome == (error and Outcome(error=error, traceback=outcome.traceback))
    assert executors._outcome(future, 2).error == DEAD


@pytest.fixture(scope="module")
def ray_executor():
    ray = pytest.importorskip("ray", reason="Ray is not installed: `pip install ensemble-keras[ray]`")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}},
    )
    yield RayExecutor()
    ray.shutdown()


@pytest.mark.slow
def test_ray_runs_jobs_and_one_whose_worker_is_killed_once_more(ray_executor, tmp_path):
    log = Log(range(6))
    run_units(square, log.ask, log.tell, executor=ray_executor)
    assert log.most_at_a_time() == 2
    assert run(refuse, [1], executor=ray_executor)[1].error == "ValueError: 1 is odd"
    once, always = tmp_path / "once", tmp_path / "always"
    once.mkdir()
    always.mkdir()
    told = run(die_or_sleep, [0.1, (once, 1), 0.2, (always, 9)], executor=ray_executor)
    assert told[once, 1] == Outcome(2)
    assert told[always, 9].error == DEAD
    assert "WorkerCrashedError" in told[always, 9].traceback
    assert [told[job].value for job in (0.1, 0.2)] == ["slept"] * 2
    assert len(list(always.iterdir())) == 2


def spawn():
    import multiprocessing

    return multiprocessing.get_context("spawn")


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.1)

"""Units of work for `test_executors.py`: functions that other processes can import."""

import os
import pathlib
import signal
import sys
import threading
import time


def square(job):
    return job * job


def refuse(job):
    if job % 2:
        raise ValueError(f"{job} is odd")
    return job


def lock(job):
    return threading.Lock()


def environment(job):
    time.sleep(0.3)
    return os.getpid(), {name: os.environ.get(name) for name in job}


def die(job):
    """Ends its process the first `deaths` times; returns the number of attempts.

    Args:
        job: `(folder, deaths)`. One file in the folder stands for each attempt.
    """
    folder, deaths = job
    attempt = len(list(pathlib.Path(folder).iterdir())) + 1
    (pathlib.Path(folder) / str(attempt)).touch()
    if attempt <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


def die_or_sleep(job):
    """Sleeps for a number of seconds; else as `die`."""
    if isinstance(job, float):
        time.sleep(job)
        return "slept"
    return die(job)


def announce_and_sleep(folder):
    (pathlib.Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def main(folder):
    from ensemble_keras.executors import run_units

    # A shell's job in the background ignores it from the start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_units(announce_and_sleep, lambda: folder, lambda job, outcome: None, executor=2)


if __name__ == "__main__":
    main(sys.argv[1])

"""Threads: one pool per process for reading and decoding, with results in order and in constant memory."""

import collections
import concurrent.futures
import functools
import os

from ensemble_keras.data.decoding import BadImageError, BadImagesError


def map_in_threads(function, items):
    """Yields `function(item)` for each item, in order, computed in threads a little ahead of what is taken.

    Only a few results wait at any time, so memory does not grow with the number of items. An error of `function`
    is raised when its turn comes. `function` must not call `map_in_threads` itself: the pool's threads would wait
    for one another.
    """
    pool, window = _pool(os.getpid()), 4 * (os.cpu_count() or 1)
    waiting = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def for_each_in_threads(function, items):
    """Calls `function(item)` for each item in threads; goes on after a `BadImageError`.

    Raises:
        BadImagesError: At the end, with all bad images.
    """

    def call(item):
        try:
            function(item)
        except BadImageError as error:
            return error

    failures = {error.name: error.reason for error in map_in_threads(call, items) if error is not None}
    if failures:
        raise BadImagesError(failures)


# By process id: the threads of a pool do not survive a fork.
@functools.lru_cache(maxsize=1)
def _pool(process_id):
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="images")

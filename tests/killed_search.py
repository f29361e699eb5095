"""Searches in a fresh process, killed at random moments: `python killed_search.py FOLDER CASES`.

`CASES` is JSON: a list of `[module, class, options, kills]`. Each search is run undisturbed, and if there are to be
kills once more in a folder, in forked children that leave by `os._exit` at so many random moments: before, within and
after a write, or in a trial. `FOLDER/histories.json` gets what each search did, undisturbed and killed.
"""

import contextlib
import importlib
import json
import os
import pathlib
import sys

import numpy as np
from search_problems import family_fitness, family_space, history, run

KILLED = 9


def main(folder, cases):
    folder = pathlib.Path(folder)
    histories = [undisturbed_and_killed(folder / str(place), *case) for place, case in enumerate(json.loads(cases))]
    (folder / "histories.json").write_text(json.dumps(histories))


def undisturbed_and_killed(folder, module, name, options, kills):
    kind = getattr(importlib.import_module(module), name)

    def search(path):
        return history(run(kind(hyperparameters=family_space(), folder=path, **options), fails_at_times))

    undisturbed = search(None)
    # A trial has about 14 moments. A kill later than the last one lets the search end.
    for kill in np.random.default_rng(0).integers(1, 1 + 28 * options["max_trials"] // max(1, kills), kills):
        child = os.fork()
        if not child:
            with moments(kill):
                search(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, KILLED)
    return undisturbed, search(folder) if kills else None


def fails_at_times(values):
    """`family_fitness`, where the learning rate is not too high."""
    if values["learning_rate"] > 7e-3:
        raise FloatingPointError("the loss became NaN")
    os.getpid()  # a moment within a trial
    return family_fitness(values)


@contextlib.contextmanager
def moments(kill):
    """Ends the process at one of the moments that a search goes through."""
    count = 0

    def counted(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == kill:
                os._exit(KILLED)
            result = function(*arguments, **options)
            count += 1
            if count == kill:
                os._exit(KILLED)
            return result

        return call

    before = os.replace, os.getpid
    os.replace, os.getpid = counted(os.replace), counted(os.getpid)
    try:
        yield
    finally:
        os.replace, os.getpid = before


if __name__ == "__main__":
    main(*sys.argv[1:])

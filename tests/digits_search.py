"""A search on scikit-learn's digits in a process of its own: `python digits_search.py FOLDER MODE [SECONDS SIGNAL]`.

With `SECONDS`, the process ends so long after the search began, at once and without tidying up: by the signal of that
number, or, where it is 0, by `os._exit`.
"""

import os
import sys
import threading

from sklearn.datasets import load_digits

from ensemble_keras.search.space import HyperImageClassifier
from ensemble_keras.search.tuner import GeneticSearch

TRIALS = 60
FAMILIES = {
    "cnn": {"blocks": [2], "filters": [4, 6, 8], "widening": [1.5], "dropout": [0.0, 0.1]},
    "recurrent": {},
}


def main(folder, mode, seconds=None, number="0"):
    x, y = load_digits(return_X_y=True)
    x = (x * 15.9).astype("uint8").reshape(-1, 8, 8, 1)
    space = HyperImageClassifier(10, (8, 8, 1), families=FAMILIES, max_parameters=20_000)
    tuner = GeneticSearch(
        space, max_trials=TRIALS, population_size=10, mode=mode, keep=2, ensemble_size=2, directory=folder
    )
    if seconds is not None:
        timer = threading.Timer(float(seconds), end, [int(number)])
        timer.daemon = True
        timer.start()
    tuner.search(x[:800], y[:800], epochs=1, verbose=0)


def end(number):
    """Ends the process."""
    if number:
        os.kill(os.getpid(), number)
    os._exit(9)


if __name__ == "__main__":
    main(*sys.argv[1:])

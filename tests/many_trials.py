"""Searches 40 different small networks; prints the process' memory after each, in MB."""

import sys

import numpy as np
from many_fine_tunings import resident_megabytes

from ensemble_keras.search import tuner as tuner_module
from ensemble_keras.search.space import HyperImageClassifier

TRIALS = 40
FAMILIES = {"cnn": {"blocks": [2, 3], "filters": [4, 6, 8, 12], "widening": [1.5]}}


def main(folder):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (80, 8, 8, 3), "uint8"), np.arange(80) % 2
    space = HyperImageClassifier(2, (8, 8, 3), families=FAMILIES)
    tuner = tuner_module.ArchitectureSearch(
        space, algorithm="random", max_trials=TRIALS, keep=3, ensemble_size=2, directory=folder
    )
    evaluate = tuner_module.evaluate

    def watched(job):
        result = evaluate(job)
        print(f"{resident_megabytes():.1f}", flush=True)
        return result

    tuner_module.evaluate = watched
    tuner.search(x, y, epochs=1, verbose=0)


if __name__ == "__main__":
    main(*sys.argv[1:])

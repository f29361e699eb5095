"""The command that `test_kills.py` starts and kills: `python killed_fit.py FOLDER`.

It fits two frozen backbones and one trained network, and saves the model. It says on its output when a phase begins,
and appends to `FOLDER/computed.txt` which vectors it is about to compute.
"""

import pathlib
import sys
import time

import numpy as np
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras import artifact, pipeline
from ensemble_keras.features import extraction


def main(folder):
    folder = pathlib.Path(folder)
    spy(folder)
    classifier = ek.EnsembleClassifier(
        [random_backbone("a"), random_backbone("b", 6, seed=1), "CNN(filters=(4, 8))"],
        combiner="stacking",
        image_size=16,
        cv=2,
        training=ek.Training(epochs=3, batch_size=32),
        directory=folder / "run",
        verbose=0,
    )
    x, y = pictures(400)
    classifier.fit(x, y)
    classifier.save(folder / "model.keras")
    np.save(folder / "expected.npy", classifier.predict_proba(x[:50]))


def spy(folder):
    """Makes the phases known and the extraction slow enough to be killed in."""
    announce(pipeline, "extract", "extraction")
    announce(pipeline, "fit_frozen_member", "heads")
    announce(pipeline, "fit_trained_member", "training")
    announce(artifact, "save_ensemble", "saving")
    compute = extraction._Column._compute

    def logged(column, batch, missing):
        if column._store is not None:
            with open(folder / "computed.txt", "a") as log:
                log.writelines(f"{column.label} {batch.digests[i].hex()}\n" for i in missing)
            time.sleep(0.3)
        compute(column, batch, missing)

    extraction._Column._compute = logged
    extraction._WRITE_EVERY = 0.5


def announce(module, name, phase):
    function = getattr(module, name)

    def announced(*arguments, **options):
        print(phase, flush=True)
        return function(*arguments, **options)

    setattr(module, name, announced)


if __name__ == "__main__":
    main(sys.argv[1])

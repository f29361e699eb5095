"""Records: what a search keeps on disk: evaluations, weights, statistics of every epoch, architectures as code."""

import json
import pathlib
import shutil

import numpy as np

from ensemble_keras.members.trainer import weights_of
from ensemble_keras.runs import atomic_path
from ensemble_keras.search.evaluation import Evaluation

# Of a SHA-256 in file names: 64 bits tell apart what there is.
SHORT = 16


class Records:
    """The files of a search.

    - `stats/<genome>/<epoch>.json`: the figures after each epoch;
    - `architectures/<genome>.py`: the network as Python code that needs Keras alone;
    - `weights/<genome>.npz`: weights of the trials that are kept;
    - beside the project, for all searches in one directory: `evaluations/<genome>-<key>.npz`, curves and predictions,
      so that no genome is trained twice.

    `<genome>` is the beginning of its SHA-256, and the number of epochs where an algorithm deals these out: the name
    of a trial, which all methods take.

    Args:
        project: Path of the search's folder.
        key: String of all that an evaluation depends on besides.
    """

    def __init__(self, project, key):
        self.project, self.key = pathlib.Path(project), key

    def evaluation(self, name):
        """Returns the `Evaluation` of a genome, without weights, if there is one; else `None`."""
        path = self._evaluation_path(name)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return Evaluation.of_arrays(dict(arrays))

    def keep(self, name, evaluation):
        """Writes an evaluation; what others look for last is written last."""
        self.keep_weights(name, evaluation.weights)
        self.describe(name, evaluation)
        # Other searches write there, too: what a kill leaves is to be found among this one's own.
        with atomic_path(self._evaluation_path(name), within=self.project) as temporary:
            np.savez(temporary, **evaluation.arrays())

    def describe(self, name, evaluation):
        """Writes what people read of an evaluation: its epochs and its network."""
        folder = self.project / "stats" / name
        for epoch in range(len(evaluation.history["loss"])):
            figures = {"epoch": epoch + 1} | {key: values[epoch] for key, values in evaluation.history.items()}
            with atomic_path(folder / f"{epoch + 1}.json") as temporary:
                temporary.write_text(json.dumps(figures, indent=1))
        self.write(f"architectures/{name}.py", evaluation.source)

    def keep_weights(self, name, weights):
        """Writes the weights of a genome, a list of arrays."""
        with atomic_path(self._weights_path(name)) as temporary:
            np.savez(temporary, **{f"weight_{i}": value for i, value in enumerate(weights)})

    def has_weights(self, name):
        """Returns whether the weights of a genome are kept, by this search or another one in the directory."""
        return self._weights_path(name).exists() or self._elsewhere(name) is not None

    def weights(self, name):
        """Returns the weights of a genome, a list of arrays."""
        own = self._weights_path(name)
        with np.load(own if own.exists() else self._elsewhere(name), allow_pickle=False) as arrays:
            return weights_of(dict(arrays))

    def keep_weights_of(self, names):
        """Removes the weights of all others."""
        kept = {self._weights_path(name) for name in names}
        for path in (self.project / "weights").glob("*.npz"):
            if path not in kept:
                path.unlink()

    def checkpoint(self, name):
        """Returns the path where a trial in training keeps its state."""
        return self.project / "running" / f"{name}-{self.key[:SHORT]}.npz"

    def remove_checkpoints(self):
        """Removes what trials kept that nobody will go on with."""
        shutil.rmtree(self.project / "running", ignore_errors=True)

    def write(self, name, text):
        """Writes a text file of the project in one step."""
        with atomic_path(self.project / name) as temporary:
            temporary.write_text(text)

    def _evaluation_path(self, name):
        return self.project.parent / "evaluations" / f"{name}-{self.key[:SHORT]}.npz"

    def _weights_path(self, name):
        return self.project / "weights" / f"{name}-{self.key[:SHORT]}.npz"

    def _elsewhere(self, name):
        return next(self.project.parent.glob(f"*/weights/{self._weights_path(name).name}"), None)

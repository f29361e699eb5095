"""Records: what a search keeps on disk: evaluations, weights, statistics of every epoch, architectures as code."""

import json
import pathlib
import shutil

import numpy as np

from ensemble_keras.members.trainer import weights_of
from ensemble_keras.runs import atomic_path
from ensemble_keras.search.evaluation import Evaluation

# Of the SHA-256s in file names; 64 bits tell genomes apart.
SHORT = 16


class Records:
    """The files of a search.

    - `stats/<genome>/<epoch>.json`: the figures after each epoch;
    - `architectures/<genome>.py`: the network as Python code that needs Keras alone;
    - `weights/<genome>.npz`: weights of the trials that are kept;
    - beside the project, for all searches in one directory: `evaluations/<genome>-<key>.npz`, curves and predictions,
      so that no genome is trained twice.

    Args:
        project: Path of the search's folder.
        key: String of all that an evaluation depends on besides the genome.
    """

    def __init__(self, project, key):
        self.project, self.key = pathlib.Path(project), key

    def evaluation(self, genome):
        """Returns the `Evaluation` of a genome, without weights, if there is one; else `None`."""
        path = self._evaluation_path(genome)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return Evaluation.of_arrays(dict(arrays))

    def keep(self, genome, evaluation):
        """Writes an evaluation; what others look for last is written last."""
        self.keep_weights(genome, evaluation.weights)
        self.describe(genome, evaluation)
        with atomic_path(self._evaluation_path(genome)) as temporary:
            np.savez(temporary, **evaluation.arrays())

    def describe(self, genome, evaluation):
        """Writes what people read of an evaluation: its epochs and its network."""
        folder = self.project / "stats" / genome[:SHORT]
        for epoch in range(len(evaluation.history["loss"])):
            figures = {"epoch": epoch + 1} | {name: values[epoch] for name, values in evaluation.history.items()}
            with atomic_path(folder / f"{epoch + 1}.json") as temporary:
                temporary.write_text(json.dumps(figures, indent=1))
        self.write(f"architectures/{genome[:SHORT]}.py", evaluation.source)

    def keep_weights(self, genome, weights):
        """Writes the weights of a genome, a list of arrays."""
        with atomic_path(self._weights_path(genome)) as temporary:
            np.savez(temporary, **{f"weight_{i}": value for i, value in enumerate(weights)})

    def has_weights(self, genome):
        """Returns whether the weights of a genome are kept, by this search or another one in the directory."""
        return self._weights_path(genome).exists() or self._elsewhere(genome) is not None

    def weights(self, genome):
        """Returns the weights of a genome, a list of arrays."""
        own = self._weights_path(genome)
        with np.load(own if own.exists() else self._elsewhere(genome), allow_pickle=False) as arrays:
            return weights_of(dict(arrays))

    def keep_weights_of(self, genomes):
        """Removes the weights of all others."""
        kept = {self._weights_path(genome) for genome in genomes}
        for path in (self.project / "weights").glob("*.npz"):
            if path not in kept:
                path.unlink()

    def checkpoint(self, genome):
        """Returns the path where a trial in training keeps its state."""
        return self.project / "running" / f"{genome[:SHORT]}-{self.key[:SHORT]}.npz"

    def remove_checkpoints(self):
        """Removes what trials kept that nobody will go on with."""
        shutil.rmtree(self.project / "running", ignore_errors=True)

    def write(self, name, text):
        """Writes a text file of the project in one step."""
        with atomic_path(self.project / name) as temporary:
            temporary.write_text(text)

    def _evaluation_path(self, genome):
        return self.project.parent / "evaluations" / f"{genome[:SHORT]}-{self.key[:SHORT]}.npz"

    def _weights_path(self, genome):
        return self.project / "weights" / f"{genome[:SHORT]}-{self.key[:SHORT]}.npz"

    def _elsewhere(self, genome):
        return next(self.project.parent.glob(f"*/weights/{self._weights_path(genome).name}"), None)

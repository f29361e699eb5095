"""Records: what a search keeps on disk: evaluations, weights, statistics of every epoch, architectures as code."""

import json
import pathlib
import shutil
import warnings
import zipfile

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
        kind: Class of the evaluations, as `Evaluation`.
    """

    def __init__(self, project, key, kind=Evaluation):
        self.project, self.key, self._kind = pathlib.Path(project), key, kind

    def evaluation(self, name):
        """Returns the `Evaluation` of a genome, without weights; `None` if there is none, or its file is damaged."""
        arrays = _read(self._evaluation_path(name))
        return None if arrays is None else self._kind.of_arrays(arrays)

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
        return any(path.exists() for path in self._weights_files(name))

    def weights(self, name):
        """Returns the weights of a genome, a list of arrays; `None` if none are kept, or their file is damaged."""
        arrays = next((found for found in map(_read, self._weights_files(name)) if found is not None), None)
        return None if arrays is None else weights_of(arrays)

    def keep_weights_of(self, names):
        """Removes the weights of all others."""
        kept = {self._weights_path(name) for name in names}
        for path in (self.project / "weights").glob("*.npz"):
            if path not in kept:
                path.unlink()

    def checkpoint(self, name):
        """Returns the path where a trial in training keeps its state."""
        return self.project / "running" / f"{name}-{self.key[:SHORT]}.npz"

    @property
    def images(self):
        """Path of the folder from which worker processes read the images."""
        return self.project / "images"

    def remove_scratch(self):
        """Removes what only a running search needs: the images for its processes, and states to go on from."""
        for folder in (self.images, self.project / "running"):
            shutil.rmtree(folder, ignore_errors=True)

    def read(self, name):
        """Returns a text file of the project; `None` if there is none."""
        path = self.project / name
        return path.read_text() if path.exists() else None

    def write(self, name, text):
        """Writes a text file of the project in one step."""
        with atomic_path(self.project / name) as temporary:
            temporary.write_text(text)

    def _evaluation_path(self, name):
        return self.project.parent / "evaluations" / f"{name}-{self.key[:SHORT]}.npz"

    def _weights_path(self, name):
        return self.project / "weights" / f"{name}-{self.key[:SHORT]}.npz"

    def _weights_files(self, name):
        """Yields where weights may be: here, then with other searches in the directory, which may drop them."""
        own = self._weights_path(name)
        yield own
        yield from (path for path in self.project.parent.glob(f"*/weights/{own.name}") if path != own)


def _read(path):
    """Returns the arrays of a file; `None` if there is none, or it is damaged, which a warning says."""
    try:
        # NumPy leaves a damaged file open that it opened itself.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        warnings.warn(
            f"{path} is damaged ({type(error).__name__}: {error}). What it held is computed again.", stacklevel=4
        )
        return None

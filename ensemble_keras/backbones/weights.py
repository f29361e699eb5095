"""Weights: pretrained ones by name or from a file, and clear errors where they are not to be had."""

import contextlib
import os
import re
import tempfile
import warnings
import zipfile

from ensemble_keras._validation import suggest

_SUFFIXES = (".h5", ".keras")
# What Keras raises for a file that does not fit, and for one that is damaged.
_MISFIT = (ValueError, KeyError, OSError, UserWarning, zipfile.BadZipFile)
_WAYS_ON = "weights=None (random weights) or the path of a weights file (.weights.h5, .h5, .keras)"


def is_weights_file(weights):
    """Returns whether `weights` is a path of a weights file by its suffix (it need not exist)."""
    return isinstance(weights, str | os.PathLike) and os.fspath(weights).endswith(_SUFFIXES)


def check_weights(weights, known, label):
    """Raises unless a backbone can have these weights.

    Args:
        weights: String, the name of pretrained weights; the path of a weights file; or `None`.
        known: Tuple of the names that the backbone knows; `None`: any name.
        label: String. Names the backbone in an error.

    Raises:
        FileNotFoundError: If the weights file does not exist.
        ValueError: If the backbone does not know weights of this name.
    """
    if weights is None:
        return
    if is_weights_file(weights):
        if not os.path.isfile(weights):
            raise FileNotFoundError(f"The weights file of {label} does not exist: {os.fspath(weights)}.")
    elif not isinstance(weights, str):
        raise ValueError(f"`weights` must be a name, a path or None. Received: {weights!r} for {label}.")
    elif known is not None and weights not in known:
        raise ValueError(f"{label} has no weights {weights!r}.{suggest(weights, known)} Use {_WAYS_ON}.")


def load_weights(path, network, backbone, label):
    """Loads a weights file into a network, or into the backbone built around it, whichever was saved.

    Raises:
        ValueError: If the file fits neither, or is damaged.
    """
    try:
        _load_all(network, path)
    except _MISFIT as of_network:
        try:
            _load_all(backbone, path)
        except _MISFIT:
            raise ValueError(
                f"The weights file {os.fspath(path)} does not fit {label}. It must hold the weights of this backbone "
                f"with the same options, or of the network inside it without its top. Keras says: {of_network}"
            ) from of_network


def _load_all(model, path):
    with warnings.catch_warnings():
        # Keras only warns where part of a model is not in the file, and leaves that part random.
        warnings.filterwarnings("error", message="Skipping nested container", category=UserWarning)
        model.load_weights(path)


@contextlib.contextmanager
def keras_loading(weights, label):
    """Turns a failed download inside the block into an error that says where the file belongs.

    Also silences Keras' warning that the weights of 224 pixels are loaded at another image size: they are the right
    ones, no others exist.

    Raises:
        OSError: If the weights are not in Keras' folder and cannot be downloaded.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square", category=UserWarning)
        try:
            yield
        except Exception as error:
            # Keras raises a bare Exception here: its text is the only mark.
            failure = re.search(r"URL fetch failure on (\S*/)?(\S+): (.*)", str(error), re.DOTALL)
            if failure is None:
                raise
            raise OSError(
                f"The {weights} weights of {label} could not be downloaded ({failure[3]}), and the file {failure[2]} "
                f"is not in {_models_folder()}. Put it there, or use {_WAYS_ON}."
            ) from error


def _models_folder():
    home = os.path.expanduser(os.environ.get("KERAS_HOME") or os.path.join("~", ".keras"))
    if not os.access(home, os.W_OK):
        # Keras does not look into a home that it cannot write to.
        fallback = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
        return f"{os.path.join(fallback, '.keras', 'models')} ({home} is not writable)"
    return os.path.join(home, "models")

"""Source: a network as runnable Python that needs nothing but Keras."""

import contextlib
import pathlib
import random
import shutil
import tempfile

from ensemble_keras.measures.macs import count_macs
from ensemble_keras.runs import atomic_path
from ensemble_keras.search.code.functions import RESERVED, network_functions, quoted

_MAIN = """
if __name__ == "__main__":
    model = {function}()
    weights = pathlib.Path(__file__).with_suffix(".weights.h5")
    if weights.exists():
        model.load_weights(weights)
    model.summary()
"""


def to_source(model, *, function_name="build_model"):
    """Returns Python source that builds the same network again, with Keras alone.

    One line per layer, with its name and the arguments that differ from their defaults; a nested network has a
    function of its own. Run as a script, the source builds the network, loads the weights beside it where there are
    any (`champion.weights.h5` beside `champion.py`), and prints the summary. Weights, the optimizer and the loss are
    not in it. It expects Keras' usual settings: float32, channels last.

    Args:
        model: A functional or built sequential `keras.Model` of stock layers and operations of `keras.ops`.
        function_name: String. Name of the function that builds it. Defaults to `"build_model"`.

    Returns:
        String, formatted; `compile` takes it as a module.

    Raises:
        ValueError: If `function_name` is no name of a function, the model has no graph of layers, or a part of it
            cannot be written: a Lambda, a layer or a function that is not Keras', a network inside a wrapper. The
            part is named.

    Example:

    >>> images = keras.Input((8, 8, 3), name="images")
    >>> x = keras.layers.Flatten(name="flatten")(images)
    >>> model = keras.Model(images, keras.layers.Dense(2, "softmax", name="predictions")(x), name="tiny")
    >>> print(to_source(model).partition("def ")[2].partition("if")[0].rstrip())
    build_model():
        \"\"\"Builds 'tiny', from (8, 8, 3) to (2,).\"\"\"
        images = keras.Input((8, 8, 3), name="images")
        x = layers.Flatten(name="flatten")(images)
        x = layers.Dense(2, activation="softmax", name="predictions")(x)
        return keras.Model(images, x, name="tiny")
    """
    if not function_name.isidentifier() or function_name in RESERVED:
        raise ValueError(f"`function_name` must be a name for a function. Received: {function_name!r}.")
    with _undrawn():
        functions = network_functions(model, function_name)
    body = "\n\n\n".join(functions)
    imports = ["import pathlib", "", "import keras"]
    imports += ["import numpy as np"] if "np." in body else []
    imports += ["from keras import layers"] if "layers." in body else []
    return "\n".join([_docstring(model), "", *imports, "", "", body, "", _MAIN.format(function=function_name)])


def write_champion(model, folder):
    """Writes a network as `champion.py`, and its weights as `champion.weights.h5` beside it.

    Each file takes its name in one step, the weights first: a kill leaves no half-written one.

    Args:
        model: As in `to_source`.
        folder: Path. Made where it is missing.

    Returns:
        Path of `champion.py`.

    Raises:
        ValueError: As `to_source`; nothing is written then.
    """
    source, path = to_source(model), pathlib.Path(folder) / "champion.py"
    with tempfile.TemporaryDirectory() as scratch:
        # Keras writes weights to names of this ending only.
        saved = pathlib.Path(scratch) / "champion.weights.h5"
        model.save_weights(saved)
        with atomic_path(path.with_suffix(".weights.h5")) as temporary:
            shutil.copyfile(saved, temporary)
    with atomic_path(path) as temporary:
        temporary.write_text(source, encoding="utf-8")
    return path


def _docstring(model):
    counted = f"{model.count_params():,} parameters"
    sizes = [size for tensor in model.inputs for size in tensor.shape[1:]]
    if None not in sizes:
        macs = count_macs(model)
        counted += f", {'at least ' if macs.unknown else ''}{macs.total:,} multiply-accumulates per image"
    return f'"""Network {quoted(model.name)}: {counted}."""'


@contextlib.contextmanager
def _undrawn():
    """Keeps the state of `random`, from which Keras draws a seed for every layer that is made without one."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)

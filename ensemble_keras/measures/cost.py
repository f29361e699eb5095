"""Cost: what members cost where they run, in parameters, multiply-accumulates and milliseconds."""

import time

import keras
import numpy as np
import pandas as pd

from ensemble_keras._terminal import without_retracing_warnings
from ensemble_keras._validation import check_at_least
from ensemble_keras.measures.macs import count_macs

# Calls before the clock starts: the first one compiles, the next ones settle threads and memory.
_WARM_UP = 3


def measure_latency(model, *, batch_size=1, repeats=30):
    """Measures how long one compiled call of a model takes on this machine, as it is loaded now.

    Timed is `model.predict_on_batch`, with images going in and probabilities coming out as NumPy arrays, after three
    calls that are not.

    Args:
        model: A functional or sequential `keras.Model` of known sizes but for the batch's.
        batch_size: Int. Images per call. Defaults to 1.
        repeats: Int. Calls that are timed, of which the median is given. Defaults to 30.

    Returns:
        Float, milliseconds per call.

    Raises:
        ValueError: If the model takes images of any size, or a number is below 1.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> model = keras.Model(images, keras.layers.Flatten()(images))
    >>> ek.measure_latency(model, repeats=3) > 0
    True
    """
    return measure_latencies([model], batch_size=batch_size, repeats=repeats)[0]


def measure_latencies(models, *, batch_size=1, repeats=30):
    """Measures several models in turns, so that what else the machine does meets all of them alike.

    Args:
        models: List of models; for these and the rest, see `measure_latency`.
        batch_size: Int.
        repeats: Int.

    Returns:
        A list of floats, milliseconds per call.
    """
    for name, number in {"batch_size": batch_size, "repeats": repeats}.items():
        check_at_least(name, number, 1)
    inputs = [[_random_inputs(model, batch_size)] for model in models]
    with without_retracing_warnings():
        seconds = time_in_turns([model.predict_on_batch for model in models], inputs, repeats=repeats)
    return (1000 * np.median(seconds[:, 0], axis=0)).tolist()


def time_in_turns(functions, inputs, *, repeats):
    """Times functions in turns, after calls that are not timed: with every argument once, at least three.

    Args:
        functions: List of functions of one argument.
        inputs: List with a list of arguments for each function, all of one length.
        repeats: Int, how often each argument is given.

    Returns:
        Float array `(repeats, arguments, functions)`, seconds.
    """
    for function, arguments in zip(functions, inputs, strict=True):
        for number in range(max(_WARM_UP, len(arguments))):
            function(arguments[number % len(arguments)])
    turns = list(zip(*inputs, strict=True))
    return np.array(
        [[[_seconds(f, x) for f, x in zip(functions, turn, strict=True)] for turn in turns] for _ in range(repeats)]
    )


def member_costs(members, *, batch_size=1, repeats=30):
    """Tells what each member costs: what to weigh its gain against.

    Args:
        members: List of functional or sequential `keras.Model`s with unique names.
        batch_size: Int. Images per timed call. Defaults to 1.
        repeats: Int. Timed calls of each member, in turns. Defaults to 30.

    Returns:
        A `pandas.DataFrame`, a row per member under its name: `parameters`, `macs` (multiply-accumulates per image;
        `<NA>` where `count_macs` does not know a layer) and `latency_ms` (see `measure_latency`). A column is what
        `select_members` and `pareto_front` take as `costs`.

    Raises:
        ValueError: If two members share a name, one takes images of any size, or a number is below 1.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> small = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)), name="small")
    >>> ek.member_costs([small], repeats=3)[["parameters", "macs"]].loc["small"].tolist()
    [386, 384]
    """
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"`members` must have unique names. Received: {', '.join(names)}.")
    counted = [count_macs(member) for member in members]
    table = pd.DataFrame(
        {
            "parameters": [count.parameters for count in counted],
            "macs": pd.array([pd.NA if count.unknown else count.total for count in counted], dtype="Int64"),
        },
        index=pd.Index(names, name="member"),
    )
    return table.assign(latency_ms=measure_latencies(members, batch_size=batch_size, repeats=repeats))


def _random_inputs(model, batch_size):
    rng = np.random.default_rng(0)

    def drawn(tensor):
        if None in tensor.shape[1:]:
            raise ValueError(
                f"All sizes but the batch's must be known. Received: model {model.name!r} with an input of shape "
                f"{tuple(tensor.shape)}. Build the model for images of one size."
            )
        return rng.uniform(0, 255, (batch_size, *tensor.shape[1:])).astype(tensor.dtype)

    return keras.tree.map_structure(drawn, model.input)


def _seconds(function, x):
    start = time.perf_counter()
    function(x)
    return time.perf_counter() - start

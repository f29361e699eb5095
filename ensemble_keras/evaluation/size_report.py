"""Size report: what models cost beside what they are worth, in one table and one plot."""

import dataclasses
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping

import keras
import numpy as np
import pandas as pd
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ensemble_keras._validation import check_at_least, check_choice
from ensemble_keras.artifact import CARD, load_ensemble
from ensemble_keras.combiners.cascade import Cascade
from ensemble_keras.combiners.inference import compiled
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.evaluation.drawing import COLORS, GRID, legend_below, own_axes, shortened
from ensemble_keras.evaluation.inputs import check_class_names, in_class_order, indices
from ensemble_keras.features.extraction import predict
from ensemble_keras.measures.cost import time_in_turns
from ensemble_keras.measures.macs import count_macs
from ensemble_keras.measures.metrics import check_probabilities

_MANY = 32
# Calls with so many images, each call with other ones, of which the mean is taken: to a cascade images differ.
_CALLS = {1: 16, _MANY: 4}
# What `plot_sizes` draws accuracy against, and how the axis is called.
_AXES = {
    "parameters": "parameters",
    "macs": "multiply-accumulates of an image",
    "file_bytes": "bytes of the file",
    "latency_ms": "ms for one image",
    "throughput": f"images per second, {_MANY} at a time",
}
_MARKERS = "osD^vPX*<>"


def compare_sizes(models, x, y=None, *, repeats=3, verbose=0):
    """Compares models by what they cost and what they are worth: accuracy, size, time.

    All are timed as they are best run, by `compiled` and `Cascade.predict`, in turns, so that what else the machine
    does meets all alike. Timed are calls with arrays in memory, each with other images; of `repeats` calls with the
    same images the median counts, over the images the mean.

    Args:
        models: Dict from a name to a functional `keras.Model` from images with values in [0, 255] to class
            probabilities; a `Cascade`; or the path of a `.keras` file. Each may take images of its own size.
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)`; no model may have seen them.
        y: Labels `(n,)`: class indices or names. Not needed with a labelled `ImageDataset`.
        repeats: Int, calls with the same images. Defaults to 3.
        verbose: 1 shows progress. Defaults to 0.

    Returns:
        A `pandas.DataFrame`, a row per model under its name: `accuracy`; `parameters`; `macs`, the
        multiply-accumulates of an image (of a cascade: of these images on average; `<NA>` where `count_macs` does not
        know a layer); `file_bytes`, the size of the `.keras` file without an optimizer (of a path: as it is);
        `latency_ms` of a call with one image; `throughput`, images per second of calls with 32.

    Raises:
        ValueError: If there is no model, one takes images of any size, or the labels are not of its classes.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> model = keras.Model(images, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(images)))
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), "uint8")
    >>> table = ek.compare_sizes({"linear": model}, x, np.arange(40) % 2)
    >>> table[["parameters", "macs"]].loc["linear"].tolist()
    [386, 384]
    """
    if not isinstance(models, Mapping) or not models:
        raise ValueError(f"`models` must be a dict from names to models, one or more. Received: {models!r}.")
    check_at_least("repeats", repeats, 1)
    dataset = as_dataset(x, y)
    subjects = {name: _subject(name, model) for name, model in models.items()}
    rows = [_row(subject, dataset, verbose) for subject in subjects.values()]
    table = pd.DataFrame(rows, index=pd.Index(list(subjects), name="model")).astype({"macs": "Int64"})
    one, many = (_seconds(list(subjects.values()), dataset, size, repeats) for size in (1, _MANY))
    return table.assign(latency_ms=1000 * one, throughput=_MANY / many)


def plot_sizes(table, ax=None, *, x="macs"):
    """Draws accuracy against one of the costs: a mark for each model, and the line of those that none beats.

    Marks differ by shape and by colour; their names stand below, where they cannot run into one another. A model
    whose cost is not known has none.

    Args:
        table: `DataFrame` such as `compare_sizes` returns.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        x: `"macs"`, `"parameters"`, `"file_bytes"`, `"latency_ms"` or `"throughput"`; of the last one more is better.
            Defaults to `"macs"`.

    Returns:
        The axes.

    Raises:
        ValueError: If `x` is none of these, or the table lacks a column.

    Example:

    >>> import pandas as pd
    >>> table = pd.DataFrame({"accuracy": [0.8, 0.9], "macs": [1e6, 1e8]}, index=["small", "large"])
    >>> ek.plot_sizes(table).get_xlabel()
    'multiply-accumulates of an image'
    """
    check_choice("x", x, _AXES)
    lacking = [column for column in ("accuracy", x) if column not in table]
    if lacking:
        raise ValueError(f"`table` must have a column {lacking[0]!r}. Received: {', '.join(map(str, table))}.")
    shown = table.dropna(subset=[x])
    costs, accuracies = shown[x].to_numpy("float64"), 100 * shown["accuracy"].to_numpy("float64")
    ax = own_axes(ax, (5.4, 3.6 + 0.2 * len(shown)))
    rising = np.argsort(-costs if x == "throughput" else costs, kind="stable")
    best = np.maximum.accumulate(accuracies[rising])
    ax.step(costs[rising], best, where="post", color=GRID, linewidth=1.2, zorder=1)
    for number, (name, cost, accuracy) in enumerate(zip(shown.index, costs, accuracies, strict=True)):
        color, marker = COLORS[number % len(COLORS)], _MARKERS[number % len(_MARKERS)]
        ax.plot(cost, accuracy, marker, color=color, markersize=8, label=shortened(name, 60), zorder=2)
    if len(costs) and costs.max() > 10 * costs.min() > 0:
        _make_logarithmic(ax, costs.min(), costs.max())
    ax.margins(x=0.1, y=0.12)
    ax.set_xlabel(_AXES[x])
    ax.set_ylabel("accuracy in %")
    if len(shown):
        legend_below(ax)
    return ax


def _make_logarithmic(ax, low, high):
    """Makes the x axis logarithmic, with as many numbers as have room: `200 k`, `500 k`, `1 M`."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    # Of half a millisecond it would say `500 m`.
    ax.xaxis.set_major_formatter(EngFormatter() if low >= 1 else "{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


@dataclasses.dataclass(frozen=True)
class _Subject:
    """A model as it is compared.

    Attributes:
        model: The `keras.Model`; of a cascade the one it takes apart.
        cascade: The `Cascade`, or `None`.
        call: Function from an array of images to probabilities, the one that is timed.
        file: Path of its file, or `None`.
        class_names: List of names in the order of the outputs, or `None`.
        image_size: `(height, width)`.
    """

    model: keras.Model
    cascade: Cascade | None
    call: Callable
    file: pathlib.Path | None
    class_names: list | None
    image_size: tuple


def _subject(name, given):
    if isinstance(given, Cascade):
        return _Subject(given.model, given, given.predict, None, None, tuple(given.image_size))
    file = pathlib.Path(given) if isinstance(given, str | os.PathLike) else None
    model, class_names = (given, None) if file is None else _loaded(file)
    if not getattr(model, "inputs", None) or None in model.input_shape[1:]:
        raise ValueError(
            f"`models[{name!r}]` must be a functional `keras.Model` from images of one size, a Cascade or the path "
            f"of a .keras file. Received: {given!r}."
        )
    call = compiled(model, batch_sizes=(1, _MANY))
    return _Subject(model, None, call, file, class_names, tuple(model.input_shape[1:3]))


def _loaded(file):
    if file.is_file() and not zipfile.is_zipfile(file):
        raise ValueError(f"{str(file)!r} is not a .keras file: it is no zip archive, or a part of one is missing.")
    with zipfile.ZipFile(file) as archive:
        has_card = CARD in archive.namelist()
    if not has_card:
        return keras.saving.load_model(file, safe_mode=True), None
    model, card = load_ensemble(file)
    return model, card["class_names"]


def _row(subject, dataset, verbose):
    labels, names = in_class_order(dataset, subject.class_names)
    names = check_class_names(names, max(subject.model.output_shape[-1], 2))
    y = indices(labels, names, len(dataset))
    if subject.cascade is None:
        p = predict(subject.model, dataset, image_size=subject.image_size, verbose=verbose)
        count = count_macs(subject.model)
        macs = pd.NA if count.unknown else count.total
    else:
        p, macs = subject.cascade.predict(dataset, return_macs=True)
        macs = pd.NA if macs is None else round(macs.mean())
    return {
        "accuracy": float(np.mean(check_probabilities(p).argmax(axis=1) == y)),
        "parameters": subject.model.count_params(),
        "macs": macs,
        "file_bytes": _file_bytes(subject),
    }


def _file_bytes(subject):
    if subject.file is not None:
        return subject.file.stat().st_size
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        # The same layers, without an optimizer.
        keras.Model(subject.model.inputs, subject.model.outputs, name=subject.model.name).save(path)
        return path.stat().st_size


def _seconds(subjects, dataset, size, repeats):
    """Returns the seconds of a call with `size` images, for each subject."""
    rows = np.resize(np.random.default_rng(0).permutation(len(dataset)), _CALLS[size] * size)
    pixels = {s.image_size: dataset.load(rows, image_size=s.image_size) for s in subjects}
    inputs = [np.split(pixels[subject.image_size], _CALLS[size]) for subject in subjects]
    seconds = time_in_turns([subject.call for subject in subjects], inputs, repeats=repeats)
    return np.median(seconds, axis=0).mean(axis=0)

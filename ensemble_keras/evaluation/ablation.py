"""Ablation: what each of several changes to a training brings, one on top of the other or one left out."""

import dataclasses
import functools
import pathlib

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import f1_score

from ensemble_keras import runs
from ensemble_keras._validation import check_choice, check_seed
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.data.labels import with_class_indices, with_class_indices_of
from ensemble_keras.evaluation.drawing import BLUE, GRID, INK, VERMILLION, shortened
from ensemble_keras.evaluation.experiments import Experiment, changed, check_names
from ensemble_keras.measures.significance import compare
from ensemble_keras.members.trainer import hold_decoded

_FIGURES = ("f1_train", "accuracy_train", "f1_test", "accuracy_test")
_LAST = ("improvement", "low", "high", "epochs", "seconds", "note")
_MODES = ("cumulative", "leave_one_out")


def ablation(changes, train, test, *, base=None, mode="cumulative", directory=None, seed=0, verbose=1):
    """Trains once per row of a table of changes, and says what each of them brings.

    Arguments of an experiment, for `base` and the changes alike: `backbone`, `weights` (`None`: random, trained end
    to end; `"imagenet"`: transfer learning), `fine_tune` (of pretrained weights; `False` leaves them frozen and
    solves its head), `image_size` (at which images are read), `resize_to` and `interpolation` (of the resizing inside
    the graph), `head`, `dropout`, `augmentation`, `views` (of each image, from which the head of a frozen backbone
    learns), `sampling`, `class_weight`, and every field of `Training` and `FineTuning` (`epochs`, `batch_size`,
    `learning_rate`, `optimizer`, ...). What nobody sets has the default of `Training`, with pretrained weights that
    of `FineTuning`; set what must not move with the weights in `base`.

    An augmentation that begins with `"+"` is added to what is there: `{"augmentation": "+rotation"}`. Anything else
    replaces it.

    The last row of a series chosen by the test images is judged too well by them.

    Args:
        changes: Dict from a name to a dict of arguments, in the order of the table.
        train: The training images: an `ImageDataset`, or `(x, y)`. Early stopping sets a part of them apart.
        test: Images that nothing trains on, likewise.
        base: Dict of the arguments that all rows begin with. Defaults to a small CNN from random weights.
        mode: `"cumulative"`: the base, then each change on top of those before it. `"leave_one_out"`: all changes,
            then all but each. Defaults to `"cumulative"`.
        directory: Folder that keeps finished rows and, within a row, finished epochs, so that the same command goes
            on after a kill; a row that another table has too is taken from it. Defaults to `None`: nothing is kept.
        seed: Int. Of weights, order, augmentation and the part set apart, the same in all rows. Defaults to 0.
        verbose: 0 shows no progress. Defaults to 1.

    Returns:
        An `AblationResult`.

    Raises:
        ValueError: If an argument is unknown or wrong, or a change changes nothing where it stands; before any
            training.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), "uint8")
    >>> data = ek.ImageDataset.from_arrays(x, np.arange(40) % 2)
    >>> base = {"backbone": "CNN(filters=(4,))", "image_size": 16, "epochs": 1}
    >>> changes = {"more epochs": {"epochs": 2}, "flip": {"augmentation": "+flip"}}
    >>> result = ek.ablation(changes, data, data, base=base, verbose=0)
    >>> result.table["experiment"].tolist()
    ['base', '+ more epochs', '+ flip']
    """
    check_choice("mode", mode, _MODES)
    check_seed(seed)
    train, classes = with_class_indices(_dataset(train))
    test = with_class_indices_of(_dataset(test), classes)
    rows = _rows(changes, base or {}, mode)
    experiments = [Experiment(arguments, train, classes) for _, _, arguments in rows]
    _check_effects(rows, experiments, mode)
    # One of each kind: names of layers, sizes and weights that are not to be had are found before the long work.
    kinds = {experiment.structure: experiment for experiment in experiments}
    networks = {structure: experiment.check() for structure, experiment in kinds.items()}
    data = {"train": train.fingerprint(), "test": test.fingerprint(), "seed": seed}
    options = {
        "store": None if directory is None else pathlib.Path(directory) / "features.sqlite",
        "seed": seed,
        "verbose": verbose,
    }

    @functools.lru_cache(maxsize=1)
    def decoded(size):
        return [hold_decoded(part, size) for part in (train, test)]

    with runs.Run(directory, data) as run:
        results = []
        for number, ((name, _, _), experiment) in enumerate(zip(rows, experiments, strict=True), start=1):
            unit, depends_on = f"ablation {experiment.label}", {**data, **experiment.depends_on}
            depends_on["network"] = networks[experiment.structure]
            own = {"checkpoint": run.checkpoint(unit, depends_on), "name": f"row {number} of {len(rows)}, {name}"}

            def compute(experiment=experiment, own=own):
                return experiment.run(*decoded(experiment.image_size), **own, **options)

            results.append(run.unit(unit, depends_on, compute)[0])
    return AblationResult(_table(rows, list(changes), results, train.labels, test, mode), mode)


@dataclasses.dataclass(frozen=True)
class AblationResult:
    """What each change brings.

    Attributes:
        table: `pandas.DataFrame`, a row per training: `experiment`, its name; a Boolean column per change, whether it
            is on; `f1_train`, `accuracy_train`, `f1_test`, `accuracy_test` (F1: the mean over the classes);
            `improvement` of the accuracy on the test images over the row before (`"cumulative"`) or over all
            changes together (`"leave_one_out"`: what is lost is what the change brings), with its 95 % interval
            `low` to `high` of a paired bootstrap; `epochs`, after which the best weights were found (0: none was
            better than the solved head); `seconds` of training, after a kill those since; `note`, what a reader must
            know.
        mode: `"cumulative"` or `"leave_one_out"`.
    """

    table: pd.DataFrame
    mode: str

    def to_markdown(self):
        """Returns the table as Markdown, a check mark where a change is on."""
        names = _changes_of(self.table)
        figures = [name.replace("f1_", "F1 ").replace("_", " ") for name in _FIGURES]
        header = ["experiment", *names, *figures, "improvement", "95 % interval", "epochs", "seconds"]
        lines = [header, ["---"] * len(header)]
        for row in self.table.to_dict("records"):
            first = np.isnan(row["improvement"])
            lines.append(
                [
                    row["experiment"],
                    *("✓" if row[name] else "" for name in names),
                    *(f"{row[name]:.4f}" for name in _FIGURES),
                    "" if first else f"{row['improvement']:+.4f}",
                    "" if first else f"{row['low']:+.4f} to {row['high']:+.4f}",
                    row["epochs"],
                    f"{row['seconds']:.0f}",
                ]
            )
        # A bar in a name would end its cell.
        return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines) + "\n"

    def to_csv(self, path):
        """Writes the table to a CSV file."""
        with runs.atomic_path(path) as temporary:
            self.table.to_csv(temporary, index=False)

    def plot(self):
        """Returns a `matplotlib.figure.Figure`: accuracy of every row on both sets, and what it gained."""
        count = len(self.table)
        figure = Figure(figsize=(7.2, 1.2 + 0.34 * count), facecolor="white", layout="constrained")
        ax, rows = figure.add_subplot(), np.arange(count)
        for name, label, color, face in (
            ("accuracy_train", "training images", BLUE, "white"),
            ("accuracy_test", "test images", VERMILLION, VERMILLION),
        ):
            ax.plot(100 * self.table[name], rows, "o-", color=color, markerfacecolor=face, linewidth=1, label=label)
        ax.set_yticks(rows, [shortened(name, 34) for name in self.table["experiment"]], parse_math=False)
        ax.set_ylim(count - 0.5, -0.5)
        ax.set_xlabel("accuracy in %", color=INK)
        gains = ax.twinx()
        gains.set_ylim(ax.get_ylim())
        gains.set_yticks(rows, [_gain_text(row) for row in self.table.to_dict("records")])
        for axes in (ax, gains):
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
        ax.grid(True, axis="x", color=GRID, alpha=0.25, linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
        return figure


def _dataset(data):
    return as_dataset(*data) if isinstance(data, tuple) else as_dataset(data)


def _rows(changes, base, mode):
    """Returns the rows of the table: name, the changes that are on, and the experiment's arguments."""
    if not isinstance(changes, dict) or not changes:
        raise ValueError(
            "`changes` must be a dict from a name to a dict of arguments, such as {'AdamW': {'optimizer': 'adamw'}}. "
            f"Received: {changes!r}."
        )
    check_names(base, "`base`")
    taken = {"experiment", *_FIGURES, *_LAST}
    for name, change in changes.items():
        if not isinstance(name, str) or name in taken:
            raise ValueError(f"A change must have a name that is no column of the table's own. Received: {name!r}.")
        if not isinstance(change, dict) or not change:
            raise ValueError(f"Change {name!r} must be a dict of arguments. Received: {change!r}.")
        check_names(change, f"Change {name!r}")
    names = list(changes)
    if mode == "cumulative":
        rows = [("base", [])] + [(f"+ {name}", names[: i + 1]) for i, name in enumerate(names)]
    else:
        rows = [("all changes", names)] + [(f"without {name}", [n for n in names if n != name]) for name in names]
    return [
        (name, on, functools.reduce(lambda arguments, n: changed(arguments, changes[n]), on, base))
        for name, on in rows
    ]


def _check_effects(rows, experiments, mode):
    """Raises `ValueError` where a row is what the one is that it is compared with."""
    for i, (name, _, arguments) in enumerate(rows[1:], start=1):
        if experiments[i].depends_on == experiments[i - 1 if mode == "cumulative" else 0].depends_on:
            raise ValueError(
                f"The row {name!r} is no other training than {rows[i - 1 if mode == 'cumulative' else 0][0]!r}: what "
                "the change sets is so already, is set anew by another change, or plays no part (augmentation, "
                "dropout and training settings where only a head is solved; `interpolation` without `resize_to`). "
                f"The row's arguments: {arguments}."
            )


def _table(rows, changes, results, labels, test, mode):
    y = {"train": labels, "test": test.labels}
    table = []
    for i, ((name, on, _), result) in enumerate(zip(rows, results, strict=True)):
        row = {"experiment": name, **{change: change in on for change in changes}}
        for part in ("train", "test"):
            predicted = result[part].argmax(axis=1)
            row[f"f1_{part}"] = float(f1_score(y[part], predicted, average="macro", zero_division=0))
            row[f"accuracy_{part}"] = float(np.mean(predicted == y[part]))
        gain = dict.fromkeys(("improvement", "low", "high"), np.nan)
        if i:
            other = results[i - 1 if mode == "cumulative" else 0]
            comparison = compare(result["test"], other["test"], test.labels, groups=test.groups)
            gain = {"improvement": comparison.difference, "low": comparison.low, "high": comparison.high}
        known = {"epochs": int(result["epochs"]), "seconds": float(result["seconds"]), "note": str(result["note"])}
        table.append({**row, **gain, **known})
    return pd.DataFrame(table)


def _changes_of(table):
    own = {"experiment", *_FIGURES, *_LAST}
    return [name for name in table if name not in own]


def _gain_text(row):
    if np.isnan(row["improvement"]):
        return ""
    gain, low, high = (100 * row[name] for name in ("improvement", "low", "high"))
    return f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"

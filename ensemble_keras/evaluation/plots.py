"""Plots: confusion matrix, ROC curves, training curves and members, each on matplotlib axes; augmented images.

Every function draws on the axes it is given, or on a new figure of its own, as `evaluation.drawing` makes it. In a
notebook the returned axes show themselves.
"""

import keras
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator
from sklearn import metrics as sk

from ensemble_keras._validation import check_at_least, check_choice, check_images
from ensemble_keras.data.augmentation import build_augmentation
from ensemble_keras.evaluation.drawing import (
    BLUE,
    COLORS,
    GRID,
    INK,
    VERMILLION,
    ShownFigure,
    legend_below,
    own_axes,
    shortened,
)
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities

# From clear to blue, so that the ground shows through where there is nothing.
_CLEAR_TO_BLUE = LinearSegmentedColormap.from_list("clear_to_blue", [(0, 0.447, 0.698, 0), (0, 0.447, 0.698, 1)])
_MOST_NUMBERS = 15
_MOST_CURVES = 6


def plot_confusion(confusion, ax=None, *, class_names=None, normalize=False):
    """Draws a confusion matrix: true classes down, predicted ones across.

    Up to 15 classes the cells carry their numbers; beyond, the colours speak alone and names that would run into one
    another are left out.

    Args:
        confusion: Counts of shape `(num_classes, num_classes)`; row: the true class. An array or a `DataFrame`, such
            as `EvaluationReport.confusion` or what `sklearn.metrics.confusion_matrix` gives.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        class_names: List of names. Defaults to `None`: the index of a `DataFrame`, or 0, 1, ...
        normalize: Whether numbers are shares of the true class, in percent. Colours always are. Defaults to `False`.

    Returns:
        The axes.

    Example:

    >>> ax = ek.plot_confusion([[3, 1], [0, 4]], class_names=["cat", "dog"], normalize=True)
    >>> [text.get_text() for text in ax.texts]
    ['75 %', '25 %', '0 %', '100 %']
    """
    if class_names is None:
        class_names = getattr(confusion, "index", range(len(confusion)))
    counts = np.asarray(confusion)
    names = [shortened(name) for name in class_names]
    side = np.clip(1.7 + 0.42 * len(names), 3.6, 8.5)
    ax = own_axes(ax, (side, side))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.grid(False)
    ax.imshow(shares, cmap=_CLEAR_TO_BLUE, vmin=0, vmax=1, interpolation="nearest")
    every = int(np.ceil(len(names) / 50))
    ticks = np.arange(0, len(names), every)
    size = 9 if len(names) <= 25 else 7
    labels = [names[i] for i in ticks]
    # About 13.5 characters go on an inch; names and margins take 1.4 inches of the side.
    flat = max(map(len, labels)) * len(labels) <= (side - 1.4) * 13.5
    ax.set_xticks(ticks, labels, rotation=0 if flat else 90, fontsize=size, parse_math=False)
    ax.set_yticks(ticks, labels, fontsize=size, parse_math=False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    if len(names) <= _MOST_NUMBERS:
        _write_cells(ax, 100 * shares if normalize else counts, shares, "{:.0f} %" if normalize else "{:,}")
    return ax


def against_the_rest(probabilities, y, class_names, curve, area):
    """Returns the curves of class 1 for two classes, else of each class against the rest.

    Args:
        probabilities: Array `(n, num_classes)`, or p of class 1, `(n,)`.
        y: Array `(n,)` of class indices.
        class_names: List of names, or `None`: 0, 1, ...
        curve: Function from truth and scores, arrays `(n,)`, to two arrays and their thresholds.
        area: Function from these to a float.

    Returns:
        The names, shortened; two dicts by the index of each class that has images and is not all of them, its curve
        and its area; and the indices of the classes to draw: all up to six, else the five with the smallest areas.
    """
    probabilities = check_probabilities(probabilities)
    num_classes = probabilities.shape[1]
    y = check_class_indices(y, num_classes, len(probabilities))
    names = [shortened(name) for name in (range(num_classes) if class_names is None else class_names)]
    there = [k for k in ([1] if num_classes == 2 else range(num_classes)) if 0 < np.sum(y == k) < len(y)]
    curves = {k: curve(y == k, probabilities[:, k])[:2] for k in there}
    areas = {k: float(area(y == k, probabilities[:, k])) for k in there}
    shown = there if len(there) <= _MOST_CURVES else sorted(there, key=areas.get)[: _MOST_CURVES - 1]
    return names, curves, areas, shown


def curves_size(shown, num_classes):
    """Returns the size in inches of a square plot of curves with the legend below it."""
    return 4.3, 4.35 + 0.215 * (len(shown) + (num_classes > 2))


def plot_roc(probabilities, y, ax=None, *, class_names=None):
    """Draws ROC curves: of class 1 for two classes, else of each class against the rest and their macro mean.

    Beyond six classes: the macro mean and the five classes with the smallest areas. A class without images has no
    curve.

    Args:
        probabilities: Array `(n, num_classes)`, rows summing to 1; or p of class 1, `(n,)`.
        y: Array `(n,)` of class indices.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        class_names: List of names. Defaults to `None`: 0, 1, ...

    Returns:
        The axes.

    Raises:
        ValueError: If the probabilities or the class indices are not as described.

    Example:

    >>> probabilities, y = [[0.8, 0.2], [0.4, 0.6], [0.7, 0.3], [0.1, 0.9]], [0, 0, 1, 1]
    >>> [text.get_text() for text in ek.plot_roc(probabilities, y, class_names=["cat", "dog"]).get_legend().texts]
    ['dog, AUC 0.750']
    """
    names, curves, areas, shown = against_the_rest(probabilities, y, class_names, sk.roc_curve, sk.roc_auc_score)
    num_classes = len(names)
    ax = own_axes(ax, curves_size(shown, num_classes))
    ax.plot([0, 1], [0, 1], color=GRID, linewidth=1, linestyle=(0, (4, 4)))
    if num_classes > 2 and curves:
        rates = np.linspace(0, 1, 201)
        mean = np.mean([np.interp(rates, *curve) for curve in curves.values()], axis=0)
        mean[0] = 0
        label = f"macro mean, AUC {np.mean(list(areas.values())):.3f}"
        ax.plot(rates, mean, color=INK, linewidth=2.2, label=label)
    for color, k in zip(COLORS, shown, strict=False):
        ax.plot(*curves[k], color=color, linewidth=1.6, label=f"{names[k]}, AUC {areas[k]:.3f}")
    if not curves:
        ax.plot([], [], color="none", label="no curve: images of one class only")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate")
    legend_below(ax)
    return ax


def plot_history(history, ax=None, *, metric="accuracy"):
    """Draws the training and the validation curve of one training run.

    Args:
        history: Dict of lists, one value per epoch, as `keras.callbacks.History.history`: `"loss"`, `"val_loss"`,
            `"accuracy"`, `"val_accuracy"`, ... What is not there is not drawn.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        metric: Name of the curve, `"accuracy"` or `"loss"`, say. Defaults to `"accuracy"`.

    Returns:
        The axes.

    Raises:
        ValueError: If `history` has no curve of that name.

    Example:

    >>> ax = ek.plot_history({"loss": [0.9, 0.5, 0.3], "val_loss": [1.0, 0.7, 0.8]}, metric="loss")
    >>> [line.get_label() for line in ax.lines]
    ['training', 'validation']
    """
    check_choice("metric", metric, [name for name in history if not name.startswith("val_")])
    ax = own_axes(ax, (4.3, 3.2))
    for name, label, color, style in (
        (metric, "training", BLUE, "--"),
        (f"val_{metric}", "validation", VERMILLION, "-"),
    ):
        values = history.get(name, [])
        if len(values):
            epochs = np.arange(1, len(values) + 1)
            marker = "o" if len(values) <= 20 else ""
            ax.plot(epochs, values, style, color=color, label=label, linewidth=1.6, marker=marker, markersize=3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(metric.replace("_", " "))
    legend_below(ax)
    return ax


def plot_members(members, ax=None):
    """Draws the accuracy of every member and of the ensemble, with its interval.

    Args:
        members: `DataFrame` with the columns `accuracy`, `accuracy_low` and `accuracy_high` and one row per
            classifier, as `EvaluationReport.members`; the row `"ensemble"` stands out.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.

    Returns:
        The axes.

    Example:

    >>> a, b = [[0.8, 0.2], [0.4, 0.6]], [[0.6, 0.4], [0.3, 0.7]]
    >>> report = ek.EvaluationReport.from_predictions([0, 1], a, members={"a": a, "b": b})
    >>> [label.get_text() for label in ek.plot_members(report.members).get_yticklabels()]
    ['a', 'b', 'ensemble']
    """
    ax = own_axes(ax, (4.6, 1.0 + 0.32 * len(members)))
    for row, (name, values) in enumerate(members.iterrows()):
        color = VERMILLION if name == "ensemble" else BLUE
        low, high = 100 * values["accuracy_low"], 100 * values["accuracy_high"]
        ax.plot([low, high], [row, row], color=color, linewidth=2, solid_capstyle="round")
        ax.plot(100 * values["accuracy"], row, "o", color=color, markersize=7)
    ax.set_yticks(range(len(members)), [shortened(name, 28) for name in members.index], parse_math=False)
    ax.set_ylim(len(members) - 0.4, -0.6)
    ax.set_xlabel("accuracy in %, with its 95 % interval")
    return ax


def plot_augmentation(policy, images, *, views=5, seed=0):
    """Draws what an augmentation does to images: a row per image, first as it is, then as training may see it.

    Args:
        policy: As in `build_augmentation`: a name of `list_augmentations()`, a Keras layer, or a list of these.
        images: Array `(n, height, width, 3)` with values in [0, 255]; a few. They are one batch, so MixUp and CutMix
            mix them with each other.
        views: Int. Number of changed images per row. Defaults to 5.
        seed: Int. Defaults to 0.

    Returns:
        A matplotlib `Figure`, which shows itself in a notebook.

    Raises:
        ValueError: If the policy is unknown, or the images are not as described.

    Example:

    >>> figure = ek.plot_augmentation("light", np.zeros((2, 32, 32, 3), "uint8"), views=3)
    >>> len(figure.axes)
    8
    """
    check_at_least("views", views, 1)
    images, augment = check_images(images, "images"), build_augmentation(policy, seed=seed)
    columns = [images]
    for _ in range(views):
        # Each image of a class of its own: only what is done to the images is shown.
        data = {"images": images, "labels": np.eye(len(images), dtype="float32")}
        changed = data if augment is None else augment(data, training=True)
        columns.append(keras.ops.convert_to_numpy(changed["images"]))
    height, width = 1.5 * images.shape[1] / images.shape[2], 1.5
    size = (width * len(columns), height * len(images) + 0.25)
    figure = ShownFigure(figsize=size, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(len(images), len(columns), squeeze=False)
    for (row, column), ax in np.ndenumerate(grid):
        ax.imshow(np.rint(columns[column][row]).astype("uint8"))
        ax.set_axis_off()
        if row == 0:
            ax.set_title("as it is" if column == 0 else f"view {column}", fontsize=9, color=INK)
    return figure


def _write_cells(ax, values, shares, form):
    ink = ax.xaxis.label.get_color()
    for (row, column), value in np.ndenumerate(values):
        color = "white" if shares[row, column] > 0.55 else ink
        ax.text(column, row, form.format(value), ha="center", va="center", color=color, fontsize=9)

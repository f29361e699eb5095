"""Class plots: precision against recall class by class, and what each member makes of each class.

Each draws on the axes it is given, or on a new figure of its own, as in `evaluation.drawing`.
"""

import numpy as np
from sklearn import metrics as sk

from ensemble_keras._validation import check_choice
from ensemble_keras.evaluation.drawing import BLUE, COLORS, GRID, INK, VERMILLION, legend_below, own_axes, shortened
from ensemble_keras.evaluation.plots import against_the_rest, curves_size
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities

_MOST_CLASSES = 25
_MARKERS = "osD^vP*X<>"
_SCORES = ("precision", "recall", "f1")


def plot_precision_recall(probabilities, y, ax=None, *, class_names=None):
    """Draws precision-recall curves: of class 1 for two classes, else of each class against the rest and their mean.

    The macro mean is that of the classes' precisions at each recall. Beyond six classes: the mean and the five
    classes with the smallest average precision. A class without images has no curve.

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
    >>> ax = ek.plot_precision_recall(probabilities, y, class_names=["cat", "dog"])
    >>> [text.get_text() for text in ax.get_legend().texts]
    ['dog, AP 0.833', 'by chance, 0.500']
    """
    names, curves, areas, shown = against_the_rest(
        probabilities, y, class_names, sk.precision_recall_curve, sk.average_precision_score
    )
    num_classes = len(names)
    ax = own_axes(ax, curves_size(shown, num_classes))
    if num_classes > 2 and curves:
        recalls = np.linspace(0, 1, 201)
        mean = np.mean([_precision_at(recalls, *curve) for curve in curves.values()], axis=0)
        label = f"macro mean, AP {np.mean(list(areas.values())):.3f}"
        ax.plot(recalls, mean, color=INK, linewidth=2.2, label=label)
    for color, k in zip(COLORS, shown, strict=False):
        precision, recall = curves[k]
        label = f"{names[k]}, AP {areas[k]:.3f}"
        ax.plot(recall, precision, color=color, linewidth=1.6, label=label, drawstyle="steps-post")
    if num_classes == 2 and curves:
        share = np.mean(np.asarray(y) == 1)
        ax.axhline(share, color=GRID, linewidth=1, linestyle=(0, (4, 4)), label=f"by chance, {share:.3f}")
    if not curves:
        ax.plot([], [], color="none", label="no curve: images of one class only")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    ax.set_xlabel("recall")
    ax.set_ylabel("precision")
    legend_below(ax, columns=1)
    return ax


def plot_class_scores(predictions, y, ax=None, *, class_names=None, score="f1"):
    """Draws what each member and the ensemble make of each class: a row per class, a mark per classifier.

    Beyond 25 classes: those where the last classifier scores lowest.

    Args:
        predictions: Dict from names to probabilities `(n, num_classes)`; the last stands out, as `"ensemble"` does.
        y: Array `(n,)` of class indices.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        class_names: List of names. Defaults to `None`: 0, 1, ...
        score: `"precision"`, `"recall"` or `"f1"`. Defaults to `"f1"`.

    Returns:
        The axes.

    Raises:
        ValueError: If the score is unknown, or probabilities or class indices are not as described.

    Example:

    >>> tables = {"a": [[0.8, 0.2], [0.4, 0.6]], "ensemble": [[0.6, 0.4], [0.7, 0.3]]}
    >>> ax = ek.plot_class_scores(tables, [0, 1], class_names=["cat", "dog"], score="recall")
    >>> [line.get_xdata().tolist() for line in ax.lines]
    [[100.0, 100.0], [100.0, 0.0]]
    """
    position = _SCORES.index(check_choice("score", score, _SCORES))
    tables = [check_probabilities(p, name=f"predictions[{name!r}]") for name, p in predictions.items()]
    last = tables[-1]
    y = check_class_indices(y, last.shape[1], len(last))
    names = [shortened(name) for name in (range(last.shape[1]) if class_names is None else class_names)]
    labels = range(len(names))
    scores = np.stack(
        [
            sk.precision_recall_fscore_support(y, p.argmax(axis=1), labels=labels, zero_division=0)[position]
            for p in tables
        ]
    )
    shown = labels if len(names) <= _MOST_CLASSES else np.argsort(scores[-1], kind="stable")[:_MOST_CLASSES]
    rows = np.arange(len(shown))
    ax = own_axes(ax, (3.4, 1.15 + 0.3 * len(shown) + 0.2 * len(tables)))
    for number, (name, values) in enumerate(zip(predictions, scores, strict=True)):
        is_last = number == len(tables) - 1
        # Shape and place tell classifiers apart, too, not colour alone; equal scores lie beside one another.
        place = rows + 0.5 * ((number + 0.5) / len(tables) - 0.5)
        color = VERMILLION if is_last else (BLUE, *COLORS[2:])[number % (len(COLORS) - 1)]
        marker = "|" if is_last else _MARKERS[number % len(_MARKERS)]
        size = {"markersize": 13, "markeredgewidth": 3} if is_last else {"markersize": 5, "alpha": 0.85}
        ax.plot(
            100 * values[shown],
            rows if is_last else place,
            linestyle="none",
            marker=marker,
            color=color,
            label=shortened(name, 30),
            **size,
        )
    ax.set_yticks(rows, [names[k] for k in shown], parse_math=False)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlabel(f"{'F1' if score == 'f1' else score} in %")
    legend_below(ax, columns=1)
    return ax


def _precision_at(recalls, precision, recall):
    """Returns the precision at each recall, from the curve's step that reaches it."""
    # scikit-learn's curve goes from recall 1 down to 0; a step lasts until the next higher recall.
    found = np.searchsorted(recall[::-1], recalls, side="left")
    return precision[::-1][np.minimum(found, len(recall) - 1)]

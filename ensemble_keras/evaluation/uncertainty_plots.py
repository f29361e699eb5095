"""Uncertainty plots: what is won by not answering, and how large prediction sets are.

Each draws on the axes it is given, or on a new figure of its own, as in `evaluation.drawing`.
"""

import numpy as np
from matplotlib.ticker import MaxNLocator

from ensemble_keras.evaluation.drawing import BLUE, COLORS, VERMILLION, legend_below, own_axes, shortened
from ensemble_keras.measures.metrics import check_class_indices
from ensemble_keras.measures.uncertainty import area_under_risk_coverage, risk_coverage


def plot_risk_coverage(probabilities, y, ax=None, *, threshold=None):
    """Draws the accuracy of the images that are answered over their share, the surest first.

    Args:
        probabilities: Array `(n, num_classes)`, or p of class 1, `(n,)`; drawn with its 95 % interval. Or a dict from
            names to such arrays, up to six, drawn without; the legend has the area under the curve of their errors
            (AURC, 0 is best).
        y: Class indices of shape `(n,)`.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        threshold: Float, a confidence below which nothing is answered: where it lies is marked. Defaults to `None`.

    Returns:
        The axes.

    Raises:
        ValueError: If a table or a label is wrong, or there are more than six tables.

    Example:

    >>> p = np.random.default_rng(0).dirichlet([1, 1], 100)
    >>> ek.plot_risk_coverage(p, p.argmax(axis=1)).get_xlabel()
    'images answered in %'
    """
    several = isinstance(probabilities, dict)
    tables = probabilities if several else {"accuracy, 95 % interval": probabilities}
    if len(tables) > len(COLORS):
        raise ValueError(f"`probabilities` must hold at most {len(COLORS)} tables. Received: {len(tables)}.")
    curves = {name: risk_coverage(p, y) for name, p in tables.items()}
    ax = own_axes(ax, (5.4, 3.6 + 0.2 * len(curves)))
    for color, (name, curve) in zip(COLORS, curves.items(), strict=False):
        shares, label = 100 * curve["coverage"], name
        if several:
            label = f"{shortened(name, 30)}, AURC {area_under_risk_coverage(tables[name], y):.4f}"
        else:
            ax.fill_between(shares, 100 * curve["low"], 100 * curve["high"], color=color, alpha=0.2, linewidth=0)
        ax.plot(shares, 100 * curve["accuracy"], color=color, linewidth=1.6, label=label)
        answered = curve[curve["threshold"] >= threshold] if threshold is not None else curve[:0]
        if len(answered):
            at = answered.iloc[-1]
            ax.plot(100 * at["coverage"], 100 * at["accuracy"], "o", color=VERMILLION, markersize=6)
    # The few surest images have an interval that would take the room of all others.
    lowest = min(curve.loc[curve["coverage"] >= 0.05, "low"].min() for curve in curves.values())
    ax.set_ylim(100 * lowest - 1, 100.5)
    ax.set_xlim(0, 101)
    ax.set_xlabel("images answered in %")
    ax.set_ylabel("accuracy of the answers in %")
    legend_below(ax)
    return ax


def plot_set_sizes(sets, y, ax=None):
    """Draws how many prediction sets have how many classes, and how many of each size hold the true one.

    Args:
        sets: Bool array `(n, num_classes)`, as `ConformalSets.predict` gives.
        y: Class indices of shape `(n,)`.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If a label is wrong.

    Example:

    >>> ax = ek.plot_set_sizes(np.array([[True, False], [True, True], [False, False]]), [0, 1, 1])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['with the true class: 67 %', 'without: 33 %']
    """
    sets = np.asarray(sets, bool)
    y = check_class_indices(y, sets.shape[1], len(sets))
    held, sizes = sets[np.arange(len(y)), y], sets.sum(axis=1)
    columns = np.arange(sizes.max() + 1)
    good, bad = (100 * np.bincount(sizes[rows], minlength=len(columns)) / len(y) for rows in (held, ~held))
    ax = own_axes(ax, (4.6, 3.4))
    ax.bar(columns, good, color=BLUE, width=0.8, label=f"with the true class: {100 * held.mean():.0f} %")
    ax.bar(columns, bad, bottom=good, color=VERMILLION, width=0.8, label=f"without: {100 - 100 * held.mean():.0f} %")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("classes in the set")
    ax.set_ylabel("images in %")
    legend_below(ax)
    return ax

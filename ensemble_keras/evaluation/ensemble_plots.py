"""Ensemble plots: what accuracy costs, what a cascade loses, how members differ, whether predictions hold good.

Each draws on the axes it is given, or on a new figure of its own, as in `evaluation.drawing`.
"""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from ensemble_keras.evaluation.drawing import BLUE, GRID, VERMILLION, legend_below, own_axes, shortened
from ensemble_keras.measures.calibration import expected_calibration_error, reliability

# From blue by clear to vermillion: signs that colour-blind readers tell apart, on light and on dark grounds.
_SIGNED = LinearSegmentedColormap.from_list(
    "signed", [(0, 0.447, 0.698, 1), (0, 0.447, 0.698, 0), (0.835, 0.369, 0, 0), (0.835, 0.369, 0, 1)]
)
_MOST_NUMBERS = 12
_MOST_NAMES = 40
_MOST_SETS = 8


def plot_diversity(table, ax=None, *, label=None):
    """Draws a measure of each two members as a heat map: blue below 0, clear at 0, vermillion above.

    A member beside itself is left blank: it says nothing about diversity, and its value would drown the others. Up to
    12 members the cells carry their numbers; beyond, a bar beside the map tells what the colours mean.

    Args:
        table: `DataFrame` members by members, such as `diversity` returns; NaN stays blank.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        label: String, what the numbers are. Defaults to `None`: nothing.

    Returns:
        The axes.

    Example:

    >>> predictions = np.random.default_rng(0).dirichlet([1, 1], (50, 3))
    >>> table = ek.diversity(predictions, np.arange(50) % 2, names=["a", "b", "c"])
    >>> [text.get_text() for text in ek.plot_diversity(table, label="disagreement").get_xticklabels()]
    ['a', 'b', 'c']
    """
    count = len(table)
    values = np.where(np.eye(count, dtype=bool), np.nan, np.asarray(table, "float64"))
    side = np.clip(1.9 + 0.5 * count, 3.4, 8.5)
    ax = own_axes(ax, (side, side))
    ax.grid(False)
    largest = np.nanmax(np.abs(values), initial=0) or 1.0
    image = ax.imshow(values, cmap=_SIGNED, vmin=-largest, vmax=largest, interpolation="nearest")
    ticks = np.arange(0, count, int(np.ceil(count / _MOST_NAMES)))
    names = [shortened(table.index[i]) for i in ticks]
    ax.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 4 else 0, parse_math=False)
    ax.set_yticks(ticks, names, parse_math=False)
    if label is not None:
        ax.set_title(label, fontsize=10, color=ax.xaxis.label.get_color(), parse_math=False)
    if count <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                color = "white" if abs(value) > 0.9 * largest else ax.xaxis.label.get_color()
                # Adding 0 turns -0.0 into 0.0.
                text = f"{round(value, 2) + 0.0:.2f}"
                ax.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    else:
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
        # The sign that does not occur is no part of the scale.
        low, high = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
        bar.ax.set_ylim(low, high if high > low else largest)
        bar.ax.tick_params(color=GRID, labelcolor=ax.xaxis.label.get_color(), labelsize=9)
        bar.outline.set_edgecolor(GRID)
    return ax


def plot_pareto(table, ax=None, *, unit=None):
    """Draws accuracy against cost: every set of members as a dot, the front as a line of steps.

    Up to eight sets on the front carry numbers, and the legend says which members they are.

    Args:
        table: `DataFrame` with `members`, `cost`, `accuracy` and `on_front`, such as `pareto_front` returns.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        unit: String, what the cost counts: `"multiply-accumulates"`, `"ms"`. Defaults to `None`: not told.

    Returns:
        The axes.

    Example:

    >>> y = np.arange(60) % 2
    >>> good = np.where(y[:, None] == [0, 1], 0.8, 0.2)
    >>> table = ek.pareto_front(np.stack([good, np.full((60, 2), 0.5)], axis=1), y, [3.0, 1.0])
    >>> ek.plot_pareto(table, unit="ms").get_xlabel()
    'cost in ms'
    """
    front, rest = table[table["on_front"]], table[~table["on_front"]]
    named = front if len(front) <= _MOST_SETS else front[:0]
    ax = own_axes(ax, (5.4, 3.8 + 0.2 * len(named)))
    ax.plot(rest["cost"], 100 * rest["accuracy"], "o", color=GRID, markersize=3, label="not on the front")
    accuracy = 100 * front["accuracy"]
    ax.step(front["cost"], accuracy, where="post", color=BLUE, linewidth=1.6)
    ax.plot(front["cost"], accuracy, "o", color=BLUE, markersize=6, label="on the front")
    if table["cost"].max() > 20 * table["cost"].min() > 0:
        ax.set_xscale("log")
    for number, row in enumerate(named.itertuples(), 1):
        # Above and to the left of the front there is nothing; names have no room there.
        options = {"textcoords": "offset points", "ha": "right", "color": ax.xaxis.label.get_color(), "fontsize": 8}
        ax.annotate(str(number), (row.cost, 100 * row.accuracy), xytext=(-4, 3), **options)
        names = shortened(" + ".join(map(str, row.members)), 60)
        ax.plot([], [], marker=f"${number}$", color=BLUE, linestyle="none", label=names)
    ax.margins(x=0.1, y=0.12)
    ax.set_xlabel("cost" if unit is None else f"cost in {unit}")
    ax.set_ylabel("out-of-fold accuracy in %")
    legend_below(ax)
    return ax


def plot_cascade(curve, ax=None, *, measured=None):
    """Draws what a cascade loses against what it gains: the expected loss, with its interval, over the throughput.

    Args:
        curve: `DataFrame` with `throughput`, `loss`, `low` and `high`, such as `cascade_curve` returns.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        measured: Another such `DataFrame`, of new images and by the clock, drawn as dots with bars. Defaults to
            `None`.

    Returns:
        The axes.

    Example:

    >>> y = np.arange(100) % 2
    >>> predictions = np.stack([np.where(y[:, None] == [0, 1], p, 1 - p) for p in (0.8, 0.9)], axis=1)
    >>> ek.plot_cascade(ek.cascade_curve(predictions, y, [1, 3], names=["small", "large"])).get_ylabel()
    'loss of accuracy in points'
    """
    ax = own_axes(ax, (5.4, 3.8))
    ax.fill_between(curve["throughput"], 100 * curve["low"], 100 * curve["high"], color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(curve["throughput"], 100 * curve["loss"], color=BLUE, linewidth=1.6, label="expected, 95 % interval")
    if measured is not None:
        loss = 100 * measured["loss"]
        bars = [loss - 100 * measured["low"], 100 * measured["high"] - loss]
        ax.errorbar(
            measured["throughput"], loss, bars, fmt="o", color=VERMILLION, markersize=4, linewidth=1, label="measured"
        )
    ax.set_xlabel("throughput ÷ the full ensemble's")
    ax.set_ylabel("loss of accuracy in points")
    legend_below(ax)
    return ax


def plot_reliability(probabilities, y, ax=None, *, bins=15, binning="equal_width"):
    """Draws a reliability diagram: how often predictions are right, against how sure they are.

    Below the diagonal predictions are too sure of themselves. The area of a dot tells its share of the rows.

    Args:
        probabilities: Array `(n, num_classes)`, rows summing to 1; or p of class 1, `(n,)`.
        y: Array `(n,)` of class indices.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        bins: Int. Number of bins. Defaults to 15.
        binning: `"equal_width"` or `"adaptive"`, as in `expected_calibration_error`. Defaults to `"equal_width"`.

    Returns:
        The axes.

    Raises:
        ValueError: As `expected_calibration_error`.
    """
    table = reliability(probabilities, y, bins=bins, binning=binning)
    error = expected_calibration_error(probabilities, y, bins=bins, binning=binning)
    ax = own_axes(ax, (4.3, 4.3))
    ax.plot([0, 1], [0, 1], color=GRID, linewidth=1, linestyle=(0, (4, 4)), label="right as often as it says")
    ax.plot(
        table["confidence"],
        table["accuracy"],
        color=VERMILLION,
        linewidth=1.4,
        label=f"calibration error {error:.3f}",
    )
    ax.scatter(
        table["confidence"], table["accuracy"], s=10 + 300 * table["count"] / table["count"].sum(), color=VERMILLION
    )
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set_xlabel("confidence")
    ax.set_ylabel("accuracy")
    legend_below(ax)
    return ax

"""Search plots: how a search got on, what it tried, what accuracy costs, and who came from whom.

Each takes the table of a search's trials and draws on the axes it is given, or on a new figure of its own, as in
`evaluation.drawing`. The table is a `pandas.DataFrame` with one row per trial, in any order. Of its columns these are
read: `trial` (int from 1), `family`, `score`, `status` (`"COMPLETED"`, `"STOPPED"` early or `"FAILED"`),
`val_accuracy`, costs such as `macs` and `parameters`, and `parents` (a tuple of trial numbers). The numbers of a
failed trial may be missing.
"""

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.ticker import EngFormatter, MaxNLocator

from ensemble_keras._validation import check_at_least, check_choice
from ensemble_keras.evaluation.drawing import BLUE, COLORS, GRID, INK, VERMILLION, legend_below, own_axes

# A family is told by its colour and its sign: there are more families than colours that all readers tell apart.
_MARKERS = "osD^vP*Xph"
_HATCHES = ("", "//", "..")
_BEST_SO_FAR = {"max": "cummax", "min": "cummin"}


def plot_search_progress(trials, ax=None, *, direction="max"):
    """Draws the score of every trial and the best so far, or the best so far of several searches.

    Args:
        trials: A table of trials. Or, to compare searches, a dict from a name to a table, or to a list of tables, one
            per seed: then the mean of their best so far is drawn, with a band of one standard deviation.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        direction: `"max"` or `"min"`, which score is best. Defaults to `"max"`.

    Returns:
        The axes.

    Raises:
        ValueError: If a table lacks a column or has no trial with a score, or `direction` is neither.

    Example:

    >>> import pandas as pd
    >>> trials = pd.DataFrame({"trial": [1, 2, 3], "score": [0.4, 0.7, 0.6], "status": "COMPLETED"})
    >>> ek.plot_search_progress(trials).get_ylabel()
    'score'
    """
    check_choice("direction", direction, _BEST_SO_FAR)
    ax = own_axes(ax, (5.4, 3.6))
    if isinstance(trials, dict):
        for name, color in zip(trials, _cycled(COLORS, len(trials)), strict=True):
            tables = trials[name] if isinstance(trials[name], list | tuple) else [trials[name]]
            _draw_search(ax, name, tables, color, direction)
    else:
        _draw_trials(ax, trials, direction)
    _finish(ax, "trial", "score")
    return ax


def plot_family_shares(trials, ax=None, *, windows=20):
    """Draws the share of each family in the trials over the search, stacked.

    Args:
        trials: A table of trials.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        windows: Int. Number of parts into which the search is cut, each as long as the others up to one trial.
            Defaults to 20; fewer where there are not five trials a part.

    Returns:
        The axes.

    Raises:
        ValueError: If the table lacks a column or is empty, or `windows` is below 1.

    Example:

    >>> import pandas as pd
    >>> trials = pd.DataFrame({"trial": [1, 2], "family": ["cnn", "vgg"]})
    >>> ek.plot_family_shares(trials).get_ylabel()
    'share of the trials in %'
    """
    check_at_least("windows", windows, 1)
    _check(trials, "trial", "family")
    trials = trials.sort_values("trial")
    parts = np.array_split(np.arange(len(trials)), max(1, min(windows, len(trials) // 5)))
    families = _families(trials)
    shares = 100 * np.array(
        [[np.mean(trials["family"].iloc[part] == family) for family in families] for part in parts]
    )
    # A trial's number stands in the middle of its part of the axis.
    first = np.array([trials["trial"].iloc[part[0]] for part in parts]) - 0.5
    widths = np.array([len(part) for part in parts])
    ax = own_axes(ax, (5.4, 3.6 + 0.1 * len(families)))
    bottom = np.zeros(len(parts))
    for i, family in enumerate(families):
        ax.bar(
            first,
            shares[:, i],
            widths,
            bottom,
            align="edge",
            color=COLORS[i % len(COLORS)],
            hatch=_HATCHES[i // len(COLORS) % len(_HATCHES)],
            edgecolor="white",
            linewidth=0.4,
            label=family,
        )
        bottom += shares[:, i]
    ax.grid(False)
    ax.set_ylim(0, 100)
    ax.set_xlim(first[0], first[-1] + widths[-1])
    _finish(ax, "trial", "share of the trials in %", columns=3)
    return ax


def plot_search_front(trials, ax=None, *, cost="macs"):
    """Draws accuracy against cost by family, and the Pareto front of what no other trial betters in both.

    Args:
        trials: A table of trials.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        cost: Name of the column of costs: `"macs"`, `"parameters"`, `"seconds"`. Defaults to `"macs"`.

    Returns:
        The axes.

    Raises:
        ValueError: If the table lacks a column, or no trial has both accuracy and cost.

    Example:

    >>> import pandas as pd
    >>> trials = pd.DataFrame({"family": ["cnn", "vgg"], "val_accuracy": [0.7, 0.8], "macs": [1e6, 3e6]})
    >>> trials["status"] = "COMPLETED"
    >>> ek.plot_search_front(trials).get_xlabel()
    'multiply-accumulates'
    """
    good = _scored(trials, "family", "val_accuracy", cost, "status", values=("val_accuracy", cost))
    ax = own_axes(ax, (5.4, 3.8))
    for i, family in enumerate(_families(trials)):
        some = good[good["family"] == family]
        if len(some):
            ax.plot(
                some[cost],
                100 * some["val_accuracy"],
                _MARKERS[i % len(_MARKERS)],
                color=COLORS[i % len(COLORS)],
                markersize=5,
                alpha=0.75,
                markeredgewidth=0,
                label=family,
            )
    front = _front(good[cost], good["val_accuracy"])
    ends = pd.concat([front, pd.Series([front.iloc[-1]], [good[cost].max()])])
    ax.step(ends.index, 100 * ends, where="post", color=INK, linewidth=1.4, label="Pareto front", zorder=1.5)
    ax.plot(front.index, 100 * front, "o", color="none", markeredgecolor=INK, markersize=8)
    if good[cost].max() > 20 * good[cost].min() > 0:
        ax.set_xscale("log")
    # 2 M, where Matplotlib would write 0.2 and 1e7 beside the axis.
    ax.xaxis.set_major_formatter(EngFormatter())
    label = {"macs": "multiply-accumulates", "seconds": "seconds of training"}.get(cost, cost.replace("_", " "))
    _finish(ax, label, "validation accuracy in %", columns=3, whole=False)
    return ax


def plot_lineage(trials, ax=None, *, direction="max"):
    """Draws who came from whom: a dot per trial, a line to each parent, the champion's ancestors standing out.

    Args:
        trials: A table of trials.
        ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
        direction: `"max"` or `"min"`, which score is best. Defaults to `"max"`.

    Returns:
        The axes.

    Raises:
        ValueError: If the table lacks a column or has no trial with a score, or `direction` is neither.

    Example:

    >>> import pandas as pd
    >>> trials = pd.DataFrame({"trial": [1, 2, 3], "score": [0.4, 0.7, 0.8], "status": "COMPLETED"})
    >>> trials["parents"] = [(), (), (1, 2)]
    >>> ek.plot_lineage(trials).get_ylabel()
    'score'
    """
    check_choice("direction", direction, _BEST_SO_FAR)
    good = _scored(trials, "trial", "score", "status", "parents").set_index("trial")
    champion = good["score"].idxmax() if direction == "max" else good["score"].idxmin()
    ancestors = _ancestors(good["parents"], champion)
    lines = {True: [], False: []}
    for trial, parents in good["parents"].items():
        for parent in parents:
            if parent in good.index:
                ends = [(parent, good["score"][parent]), (trial, good["score"][trial])]
                lines[trial in ancestors].append(ends)
    ax = own_axes(ax, (7.2, 4.2))
    ax.add_collection(LineCollection(lines[False], colors=GRID, linewidths=0.6, alpha=0.35))
    ax.add_collection(LineCollection(lines[True], colors=VERMILLION, linewidths=1.4, alpha=0.9))
    others = good.drop(index=list(ancestors))["score"]
    ax.plot(others.index, others, "o", color=BLUE, alpha=0.6, markersize=3.5, markeredgewidth=0, label="other trials")
    forebears = good.loc[sorted(ancestors - {champion}), "score"]
    if len(forebears):
        ax.plot(forebears.index, forebears, "o", color=VERMILLION, markersize=5, label="ancestors of the champion")
    ax.plot(
        champion, good["score"][champion], "*", color=VERMILLION, markersize=15, label=f"champion: trial {champion}"
    )
    _finish(ax, "trial", "score", columns=3)
    return ax


def _draw_trials(ax, trials, direction):
    good = _scored(trials, "trial", "score", "status")
    for status, marker, color, label in (
        ("COMPLETED", "o", BLUE, "trial"),
        ("STOPPED", "v", GRID, "stopped early"),
    ):
        some = good[good["status"] == status]
        if len(some):
            ax.plot(some["trial"], some["score"], marker, color=color, markersize=4, markeredgewidth=0, label=label)
    best = _best_so_far(good, direction)
    ax.step(best.index, best, where="post", color=VERMILLION, linewidth=1.8, label="best so far")
    failed = trials.loc[trials["status"] == "FAILED", "trial"]
    if len(failed):
        # Along the foot of the axes: a failed trial has no score.
        ax.plot(
            failed,
            np.full(len(failed), 0.025),
            "x",
            color=INK,
            transform=ax.get_xaxis_transform(),
            label="failed",
            clip_on=False,
        )


def _draw_search(ax, name, tables, color, direction):
    """Draws the mean of the best so far of one search's seeds, and its band."""
    runs = [_best_so_far(_scored(table, "trial", "score", "status"), direction) for table in tables]
    runs = pd.concat(runs, axis=1).sort_index().ffill().dropna()
    mean, spread = runs.mean(axis=1), runs.std(axis=1, ddof=0)
    ax.step(
        mean.index,
        mean,
        where="post",
        color=color,
        linewidth=1.8,
        label=name if len(tables) == 1 else f"{name}, {len(tables)} seeds",
    )
    if len(tables) > 1:
        ax.fill_between(mean.index, mean - spread, mean + spread, step="post", color=color, alpha=0.18, linewidth=0)


def _best_so_far(good, direction):
    return getattr(good.set_index("trial")["score"], _BEST_SO_FAR[direction])()


def _front(costs, accuracy):
    """The Pareto front: accuracy by cost, rising."""
    ordered = (
        pd.Series(accuracy.to_numpy(), costs.to_numpy())
        .sort_values(ascending=False, kind="stable")
        .sort_index(kind="stable")
    )
    return ordered[ordered > ordered.cummax().shift(fill_value=-np.inf)]


def _ancestors(parents, trial):
    """The trial, and all from which it came that are in the table."""
    found, ahead = set(), [trial]
    while ahead:
        one = ahead.pop()
        if one not in found and one in parents.index:
            found.add(one)
            ahead += parents[one]
    return found


def _families(trials):
    """The families by name, so that two plots of one search show them alike."""
    return sorted(trials["family"].unique())


def _cycled(values, count):
    return [values[i % len(values)] for i in range(count)]


def _scored(trials, *columns, values=("score",)):
    """The rows of trials that did not fail and have these values, as floats; by trial number, where that is asked."""
    _check(trials, *columns)
    good = trials[(trials["status"] != "FAILED") & trials[list(values)].notna().all(axis=1)]
    if good.empty:
        raise ValueError(f"`trials` must have a trial with {' and '.join(values)}. Received: {len(trials)} without.")
    # Trials that ran side by side end in another order than they began.
    return (good.sort_values("trial") if "trial" in columns else good).astype(dict.fromkeys(values, "float64"))


def _check(trials, *columns):
    missing = [column for column in columns if column not in trials.columns]
    if missing:
        raise ValueError(f"`trials` must have the columns {', '.join(columns)}. Missing: {', '.join(missing)}.")
    if trials.empty:
        raise ValueError("`trials` must hold at least one trial. Received: an empty table.")


def _finish(ax, x, y, *, columns=2, whole=True):
    if whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    legend_below(ax, columns)

"""Page: a report as one HTML file that needs no network and nothing beside it."""

import functools

import jinja2
import numpy as np
import pandas as pd

from ensemble_keras._version import __version__
from ensemble_keras.evaluation import page_images, page_plots, page_provenance
from ensemble_keras.evaluation.page_tables import (
    block,
    number,
    p_value,
    percent,
    percents,
    table,
    with_index,
    without_empty,
)
from ensemble_keras.runs import atomic_path

# Beyond, the matrix would not fit a screen: a picture of it, and buttons for more of the most frequent mistakes.
_MOST_CELLS = 15
_FEW_MISTAKES, _MANY_MISTAKES = 10, 25
_FIGURES = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, macro",
    "mcc": "Matthews' correlation",
    "log_loss": "log loss",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
}
_COSTS = ("parameters", "macs", "latency_ms", "seconds")


def write(report, path, baseline=None, heat_maps=True):
    """Writes the report's page to `path`, in one step: never half of one stands under its name."""
    page = _environment().get_template("report.html.jinja").render(_content(report, baseline, heat_maps))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def fragment(report):
    """Returns what a notebook shows of a report: the verdict, the notes, the figures and the members, as HTML."""
    figures = pd.DataFrame([[value for _, value, _ in _figures(report)]], columns=[n for n, _, _ in _figures(report)])
    template = _environment().get_template("fragment.html.jinja")
    return template.render(
        report=report,
        figures=table(figures),
        members=table(_members(report)),
        confusion=page_plots.confusion(report),
    )


def _content(report, baseline, heat_maps):
    """Returns what the template shows, by name; tables as `page_tables.table` makes them."""
    board = report.leaderboard
    mistakes = _mistakes(report.confusion)
    images = None if report.images is None else page_images.cell_images(report, [pair["cell"] for pair in mistakes])
    telling, about_maps = ({}, "") if images is None else page_images.telling_images(report, heat_maps)
    return {
        "report": report,
        "version": __version__,
        "figures": _figures(report),
        "members": table(_members(report)),
        "leaderboard": None if board is None else table(_out_of_fold(board)),
        "costs": table(_costs(board)) if board is not None and {*_COSTS} & {*board.columns} else None,
        "per_class": table(report.per_class),
        "changes": None if baseline is None else table(report.changes_per_class(baseline)),
        "confusion": _confusion(report),
        "mistakes": mistakes,
        "images": images,
        "telling": telling,
        "about_maps": about_maps,
        "operating_point": None if report.operating_point is None else table(_shares(report.operating_point)),
        "prediction_sets": None if report.prediction_sets is None else table(_sets(report.prediction_sets)),
        "answers": table(_answers(report.risk_coverage)),
        **_data(report),
        "making": {heading: block(content) for heading, content in page_provenance.making(report).items()},
        "details": {_title(name): block(content) for name, content in page_provenance.rest(report).items()},
        **page_plots.plots_of(report),
    }


def _data(report):
    found = page_provenance.data(report)
    return {
        "data_classes": table(found["classes"]),
        "data_facts": {part: block(facts) for part, facts in found["facts"].items() if facts},
        "data_problems": {problem: block(listed) for problem, listed in found["problems"].items() if len(listed)},
        "data_clean": [_lower(problem) for problem, listed in found["problems"].items() if not len(listed)],
    }


@functools.cache
def _environment():
    # Everything is escaped; only the plots, made here, are marked as safe in the templates.
    loader = jinja2.PackageLoader("ensemble_keras.evaluation", package_path="")
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )


def _figures(report):
    """Returns names, values and intervals of the figures, accuracy first."""
    s, intervals = report.summary, report.intervals
    figures = [("accuracy", percent(s["accuracy"]), percents(s["accuracy_low"], s["accuracy_high"]))]
    for name, label in _FIGURES.items():
        low, high = intervals.loc[name, ["low", "high"]] if name in intervals.index else (np.nan, np.nan)
        interval = f"{low:.3f} to {high:.3f}" if np.isfinite([low, high]).all() else ""
        figures.append((label, number(s[name], 3), interval))
    return figures


def _members(report):
    rows = [
        (
            name,
            number(100 * m.accuracy, 1),
            _points(m.accuracy_low, m.accuracy_high),
            m.log_loss,
            m.roc_auc,
            _points(m.difference, signed=True),
            _points(m.difference_low, m.difference_high, signed=True),
            "" if np.isnan(m.p_holm) else p_value(m.p_holm),
        )
        for name, m in report.members.iterrows()
    ]
    gain = ("ensemble's gain, points", "gain's 95 % interval", "p (Holm)")
    return pd.DataFrame(rows, columns=["name", "accuracy, %", "95 % interval", "log loss", "ROC AUC", *gain])


def _out_of_fold(board):
    """Returns a classifier's leaderboard without its costs; any other as it is."""
    board = with_index(board)
    if not {"difference", "low", "high"} <= set(board.columns):
        return without_empty(board)
    kept = board.drop(columns=[name for name in _COSTS if name in board])
    kept["accuracy"] = [_points(accuracy) for accuracy in board["accuracy"]]
    kept["low"] = [_points(*ends, signed=True) for ends in zip(board["low"], board["high"], strict=True)]
    kept["difference"] = [_points(difference, signed=True) for difference in board["difference"]]
    # The best member has no gain over itself.
    kept.loc[(board[["difference", "low", "high"]] == 0).all(axis=1), ["low", "difference"]] = ""
    names = {
        "accuracy": "accuracy, %",
        "difference": "gain over the best member, points",
        "low": "gain's 95 % interval",
    }
    return without_empty(kept.drop(columns="high").rename(columns=names))


def _costs(board):
    board = with_index(board)
    return without_empty(board[[name for name in ("name", "kind", "chosen", *_COSTS) if name in board]])


def _title(name):
    text = str(name).replace("_", " ")
    return text[:1].upper() + text[1:]


def _lower(text):
    return text[:1].lower() + text[1:]


def _points(*shares, signed=False):
    """Returns shares in percent, without the sign: one, or the two ends of an interval; nothing for NaN."""
    form = "{:+.1f}" if signed else "{:.1f}"
    return "" if np.isnan(shares).any() else " to ".join(form.format(100 * share) for share in shares)


def _shares(frame):
    """Returns figures with intervals, such as those of an operating point, in percent."""
    rows = [
        (str(name).replace("_", " ").replace("f1", "F1"), percent(row["value"]), percents(row["low"], row["high"]))
        for name, row in frame.iterrows()
    ]
    return pd.DataFrame(rows, columns=["figure", "value", "95 % interval"])


def _sets(frame):
    return pd.DataFrame(
        {
            "images of class": frame.index,
            "images": frame["images"].astype(int),
            "hold the true class": frame["coverage"].map(percent),
            "95 % interval": [percents(*ends) for ends in zip(frame["low"], frame["high"], strict=True)],
            "classes in a set": frame["size"].map("{:.2f}".format),
            "of one class": frame["single"].map(percent),
            "empty": frame["empty"].map(percent),
        }
    )


def _answers(curve):
    """Returns what the curve of answers is at a few shares of images."""
    rows = [curve.iloc[(curve["coverage"] - share).abs().argmin()] for share in (1, 0.95, 0.9, 0.8, 0.7, 0.5)]
    frame = pd.DataFrame(rows).drop_duplicates("coverage")
    return pd.DataFrame(
        {
            "answered": frame["coverage"].map(percent),
            "from a confidence of": frame["threshold"].map("{:.3f}".format),
            "right": frame["accuracy"].map(percent),
            "95 % interval": [percents(*ends) for ends in zip(frame["low"], frame["high"], strict=True)],
        }
    )


def _confusion(report):
    """Returns the confusion matrix as names and rows of cells; `None` where there are too many classes for it."""
    counts = report.confusion.to_numpy()
    if len(counts) > _MOST_CELLS:
        return None
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        {"name": name, "cells": [{"count": int(n), "share": s} for n, s in zip(*row, strict=True)]}
        for name, *row in zip(report.class_names, counts, shares, strict=True)
    ]


def _mistakes(confusion):
    """Returns the most frequent confusions: both classes, their names, images and their share of the true class."""
    counts = confusion.to_numpy().copy()
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    listed = _FEW_MISTAKES if len(counts) <= _MOST_CELLS else _MANY_MISTAKES
    worst = [np.unravel_index(i, counts.shape) for i in np.argsort(-counts, axis=None, kind="stable")[:listed]]
    names = confusion.index
    return [
        {
            "cell": f"{t}-{p}",
            "true": names[t],
            "predicted": names[p],
            "count": int(counts[t, p]),
            "share": percent(counts[t, p] / totals[t]),
        }
        for t, p in worst
        if counts[t, p]
    ]

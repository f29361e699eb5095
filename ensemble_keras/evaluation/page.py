"""Page: a report as one HTML file that needs no network and nothing beside it."""

import functools
import numbers

import jinja2
import numpy as np
import pandas as pd

from ensemble_keras._version import __version__
from ensemble_keras.evaluation import plots
from ensemble_keras.measures.significance import p_text
from ensemble_keras.runs import atomic_path

# Of a list or table in the details, more would bury the page.
_MOST_ROWS = 50
_WORST_PAIRS = 10
_HEADS = {"roc_auc": "ROC AUC", "f1": "F1"}
_MISSING = "\N{EN DASH}"


def write(report, path, baseline=None):
    """Writes the report's page to `path`, in one step: never half of one stands under its name."""
    page = _render("report.html.jinja", report, baseline)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def fragment(report):
    """Returns what a notebook shows of a report: the verdict, the notes, the figures and the members, as HTML."""
    template = _environment().from_string(
        "{% import 'tables.html.jinja' as tables %}"
        "{% if report.verdict %}<p><b>{{ report.verdict }}</b></p>{% endif %}"
        "{% for note in report.notes %}<p>{{ note }}</p>{% endfor %}{{ tables.table(figures) }}"
        "{% if report.members|length > 1 %}{{ tables.table(members) }}{% endif %}"
    )
    figures = pd.DataFrame([[text for _, text in _figures(report)]], columns=[name for name, _ in _figures(report)])
    return template.render(report=report, figures=_table(figures), members=_table(_members(report)))


def _render(name, report, baseline):
    return (
        _environment()
        .get_template(name)
        .render(
            report=report,
            version=__version__,
            figures=_figures(report),
            leaderboard=None
            if report.leaderboard is None
            else _table(_without_empty(_with_index(report.leaderboard))),
            members=_table(_members(report)),
            per_class=_table(report.per_class),
            changes=None if baseline is None else _table(report.changes_per_class(baseline)),
            mistakes=_table(_mistakes(report.confusion)),
            details={str(heading): _block(content) for heading, content in report.details.items()},
            confusion=plots.svg(report.plot_confusion()),
            roc=plots.svg(report.plot_roc()),
            bars=plots.svg(report.plot_members()),
            curves=_curves(report),
        )
    )


@functools.cache
def _environment():
    # Everything is escaped; only the plots, made here, are marked as safe in the template.
    loader = jinja2.PackageLoader("ensemble_keras.evaluation", package_path="")
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )


def _figures(report):
    s = report.summary
    names = {
        "roc_auc": "ROC AUC" if s["classes"] == 2 else "ROC AUC, macro",
        "log_loss": "log loss",
        "balanced_accuracy": "balanced accuracy",
        "f1_macro": "F1, macro",
        "precision_macro": "precision, macro",
        "recall_macro": "recall, macro",
        "f1_weighted": "F1, weighted",
        "precision_weighted": "precision, weighted",
        "recall_weighted": "recall, weighted",
    }
    interval = f"accuracy, {100 * s['accuracy_low']:.1f} to {100 * s['accuracy_high']:.1f} % with 95 % confidence"
    figures = [(interval, f"{100 * s['accuracy']:.1f} %")]
    return figures + [(label, _number(s[name], 3)) for name, label in names.items()]


def _members(report):
    m = report.members
    gains = [
        (f"{100 * d:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}", p_text(p).removeprefix("p ").removeprefix("= "))
        if np.isfinite(d)
        else ("", "", "")
        for d, low, high, p in zip(
            m["difference"], m["difference_low"], m["difference_high"], m["p_value"], strict=True
        )
    ]
    shown = {"member": m.index, "accuracy": m["accuracy"], "log loss": m["log_loss"], "ROC AUC": m["roc_auc"]}
    columns = ("ensemble's gain, points", "95 % interval", "p")
    return pd.DataFrame(shown | dict(zip(columns, zip(*gains, strict=True), strict=True))).reset_index(drop=True)


def _mistakes(confusion):
    """Returns the most frequent confusions: true class, predicted class, images, share of the true class' images."""
    counts = confusion.to_numpy().copy()
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    worst = [np.unravel_index(i, counts.shape) for i in np.argsort(-counts, axis=None, kind="stable")[:_WORST_PAIRS]]
    names = confusion.index
    rows = [
        (names[t], names[p], int(counts[t, p]), f"{100 * counts[t, p] / totals[t]:.1f} %")
        for t, p in worst
        if counts[t, p]
    ]
    return pd.DataFrame(rows, columns=["true", "predicted", "images", "of the class"])


def _curves(report):
    return [
        {"member": member, "metric": metric, "svg": plots.svg(plots.plot_history(history, metric))}
        for member, history in report.history.items()
        for metric in ("accuracy", "loss")
        if metric in history
    ]


def _with_index(frame):
    return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()


def _without_empty(frame):
    return frame.loc[:, [not column.isin(["", None]).all() for _, column in frame.items()]]


def _table(frame, most=None):
    """Returns a table for the template: head and rows of texts, which columns are numbers, how many rows are left."""
    shown = frame if most is None else frame.head(most)
    columns = [[_cell(value, _digits(shown.iloc[:, k])) for value in shown.iloc[:, k]] for k in range(shown.shape[1])]
    numeric = [all(_is_number(text) for text in column) for column in columns]
    head = [_HEADS.get(name, str(name).replace("_", " ")) for name in frame.columns]
    return {
        "head": head,
        "rows": list(zip(*columns, strict=True)),
        "numeric": numeric,
        "left": len(frame) - len(shown),
    }


def _block(content):
    """Returns what stands under a heading: a table, a list, names with values, or a text."""
    if isinstance(content, pd.DataFrame):
        return {"table": _table(_with_index(content), _MOST_ROWS)}
    if isinstance(content, dict):
        return {"pairs": [(str(name), _block(value)) for name, value in content.items()]}
    if isinstance(content, list | tuple) and content and all(isinstance(item, dict) for item in content):
        return {"table": _table(pd.DataFrame(content), _MOST_ROWS)}
    if isinstance(content, list | tuple | np.ndarray | pd.Series):
        items = [_cell(item) for item in content]
        left = max(0, len(items) - _MOST_ROWS)
        return {"list": items[:_MOST_ROWS], "left": left, "long": any(len(item) > 16 for item in items)}
    return {"text": _cell(content)}


def _digits(column):
    """Returns how many decimals a column of numbers gets, so that they stand under one another."""
    if not pd.api.types.is_float_dtype(column):
        return None
    largest = np.nanmax(np.abs(column.to_numpy(float, na_value=np.nan)), initial=0)
    return 3 if largest < 10 else 1 if largest < 1000 else 0


def _cell(value, digits=None):
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or value is pd.NA:
        return _MISSING
    if isinstance(value, numbers.Real):
        return _number(value, digits)
    return str(value)


def _number(value, digits=None):
    if not np.isfinite(value):
        return _MISSING if np.isnan(value) else str(value)
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return f"{value:,.{digits}f}" if digits is not None else f"{value:.6g}"


def _is_number(text):
    return text in ("", _MISSING) or text.lstrip("+-<> ")[:1].isdigit()

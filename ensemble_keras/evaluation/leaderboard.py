"""Leaderboard: what each member and each combiner is worth, and whether an ensemble pays."""

import textwrap

import numpy as np
import pandas as pd

from ensemble_keras.measures.metrics import metric_summary
from ensemble_keras.measures.significance import compare

_FIGURES = ("accuracy", "log_loss", "roc_auc")


def leaderboard(
    members,
    candidates,
    chosen,
    y,
    *,
    skipped,
    parameters,
    macs=None,
    latencies=None,
    validation=None,
    groups=None,
    seed=0,
):
    """Compares members and combiners on the same out-of-fold predictions.

    Args:
        members: List of objects with `name`, `out_of_fold`, `seconds`, `note`.
        candidates: List of objects with `name`, `out_of_fold`, `seconds`, `used`: the combiners that were tried.
        chosen: The one of `candidates` that the model uses.
        y: Int array `(n,)` of class indices.
        skipped: Dict from the name of a member that could not be used to the reason.
        parameters: Dict from a member's name to its number of parameters.
        macs: Dict from a member's name to its multiply-accumulates per image; `None` where they are not known.
        latencies: Dict from a member's name to its milliseconds per image; `None` where they were not measured.
        validation: What `validate` gave, or `None`: there are no validation data.
        groups: Sequence `(n,)` or `None`: the intervals resample groups where there are any.
        seed: Int, of the resampling.

    Returns:
        A `pandas.DataFrame`, a row for each member, then for each combiner: `name`, `kind` (`"member"` or
        `"ensemble"`), `chosen`, out-of-fold `accuracy`, `log_loss` and `roc_auc`, the `difference` in accuracy to the
        best member with its 95 % interval `low` to `high` (paired bootstrap), `seconds`, `parameters`, `macs` of
        an image, `note`; where they were measured, `latency_ms`, of several members the sum; and, where there are
        validation data, `validation_accuracy`, NaN of what was not fitted on all images.
    """
    best, of = best_member(members, y), {"parameters": parameters, "macs": macs, "latency_ms": latencies}
    rows = [_row(m, "member", best, y, groups, seed) | _costs([m], of) | {"note": m.note} for m in members]
    for candidate in candidates:
        row = _row(candidate, "ensemble", best, y, groups, seed)
        costs = _costs([members[i] for i in candidate.used], of)
        rows.append(row | costs | {"chosen": candidate is chosen, "note": ""})
    rows += [{"name": name, "kind": "member", "chosen": False, "note": reason} for name, reason in skipped.items()]
    columns = [
        "name",
        "kind",
        "chosen",
        *_FIGURES,
        "difference",
        "low",
        "high",
        "seconds",
        "parameters",
        "macs",
        *(["latency_ms"] if latencies else []),
        "note",
    ]
    table = pd.DataFrame(rows, columns=columns).astype({"parameters": "Int64", "macs": "Int64"})
    if validation is not None:
        accuracies = [validation[row.kind].get(row.name, np.nan) for row in table.itertuples(index=False, name="Row")]
        table.insert(columns.index("difference"), "validation_accuracy", accuracies)
    return table


def leaderboard_text(table):
    """Returns a leaderboard as text of 80 columns, for a terminal.

    Args:
        table: The `DataFrame` of `leaderboard`.

    Returns:
        String: a line of explanation, a row for each member and combiner, and what the notes say.
    """
    names = [f"{row.name} (chosen)" if row.chosen else row.name for row in table.itertuples()]
    width = max(26, *map(len, names))
    heads = ("accuracy", "log loss", "AUC", "gain, 95 %", "seconds", "size")
    lines = ["Out of fold. Gain: points of accuracy over the best member.", ""]
    lines.append(" " * width + _cells(heads))
    for name, row in zip(names, table.itertuples(), strict=True):
        if row.accuracy == row.accuracy:
            lines.append(f"{name:{width}}{_cells(_texts(row))}")
    notes = [f"{row.name}: {row.note}" for row in table.itertuples() if row.note]
    if "validation_accuracy" in table:
        known = table.dropna(subset="validation_accuracy")
        listed = (f"{row.name} {row.validation_accuracy:.4f}" for row in known.itertuples())
        notes.insert(0, textwrap.fill(f"Accuracy on the validation data: {', '.join(listed)}.", 80))
    return "\n".join(lines + [""] * bool(notes) + notes)


def best_member(members, y):
    """Returns the member with the highest out-of-fold accuracy; of equals, the one with the lower log loss."""

    def rank(member):
        figures = metric_summary(y, member.out_of_fold)
        return figures["accuracy"], -figures["log_loss"]

    return max(members, key=rank)


def verdict(chosen, candidates, members, y, *, parameters, macs=None, groups=None, seed=0):
    """Returns what to make of it, in a sentence or two: whether the ensemble is worth it, against its best member.

    That is judged as combiners are chosen: by accuracy, and with two classes by the area under the ROC curve, too.

    Args:
        chosen: Object with `name`, `out_of_fold` and `used`: the combiner that the model uses.
        candidates: List of such objects: all that were tried.
        members: As in `leaderboard`.
        y: Int array `(n,)`.
        parameters: Dict from a member's name to its number of parameters.
        macs: Dict from a member's name to its multiply-accumulates per image; `None`: costs are told in parameters.
        groups: Sequence `(n,)` or `None`.
        seed: Int.
    """
    best = members[chosen.used[0]] if len(chosen.used) == 1 else best_member(members, y)
    accuracy = np.mean(best.out_of_fold.argmax(axis=1) == y)
    if len(members) == 1:
        return f"One member: {best.name}, out-of-fold accuracy {accuracy:.4f}. There is nothing to compare it with."
    alone = f"{best.name} alone has an out-of-fold accuracy of {accuracy:.4f}."
    ensembles = [c for c in candidates if len(c.used) > 1]
    if len(chosen.used) > 1:
        ensembles = [chosen]
    elif not ensembles:
        return f"One of {len(members)} models is used: {alone}"
    tried = max(ensembles, key=lambda c: np.mean(c.out_of_fold.argmax(axis=1) == y))
    gain = compare(tried.out_of_fold, best.out_of_fold, y, groups=groups, seed=seed)
    unit, costs = ("multiply-accumulates", macs) if macs else ("parameters", parameters)
    cost = sum(costs[members[i].name] for i in tried.used) / costs[best.name]
    method = {"concatenate": "concatenation", "gated": "the gate"}.get(tried.name, tried.name.replace("_", " "))
    count = len(members) if len(tried.used) == len(members) else f"{len(tried.used)} of {len(members)}"
    method = f"{method[0].upper()}{method[1:]} of {count} members"
    points = (
        f"{100 * gain.difference:+.1f} points of out-of-fold accuracy over {best.name} alone, 95 % interval "
        f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    )
    price = f"at {cost:.1f} times its {unit}."
    if len(chosen.used) > 1 and gain.low > 0:
        return f"{method}: {points}, {price}"
    if len(chosen.used) > 1 and best.out_of_fold.shape[1] == 2:
        area = compare(tried.out_of_fold, best.out_of_fold, y, metric="roc_auc", groups=groups, seed=seed)
        if area.low > 0:
            areas = f"{area.difference:+.4f} of ROC AUC, 95 % interval {area.low:+.4f} to {area.high:+.4f}"
            return f"{method}: {areas}; {points}, {price}"
    return f"One model would do: {alone} {method} gives {points}, {price}"


def _texts(row):
    best = row.kind == "member" and row.difference == row.low == row.high == 0
    gain = "best member" if best else f"{100 * row.low:+.1f} to {100 * row.high:+.1f}"
    # A combiner that only adds up takes less than a tenth of a second: no digit of it matters.
    seconds = f"{row.seconds:.1f}" if row.seconds < 100 else f"{row.seconds:.0f}"
    figures = (f"{value:.4f}" for value in (row.accuracy, row.log_loss, row.roc_auc))
    return (*figures, gain, seconds, _short(row.parameters))


def _cells(texts):
    return "".join(f"{text:>{width}}" for text, width in zip(texts, (9, 9, 7, 15, 8, 6), strict=True))


def _short(count):
    """`2257984` -> `"2.3M"`."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}" if count < 100 * size else f"{count / size:.0f}{letter}"
    return str(count)


def _costs(members, of):
    """Returns what members cost together by each measure, `None` by one that is not known."""
    return {
        measure: sum(costs[member.name] for member in members) if costs else None for measure, costs in of.items()
    }


def _row(entry, kind, best, y, groups, seed):
    figures = metric_summary(y, entry.out_of_fold)
    row = {"name": entry.name, "kind": kind, "chosen": False, "seconds": entry.seconds}
    row |= {figure: figures[figure] for figure in _FIGURES}
    if entry is best:
        return row | {"difference": 0.0, "low": 0.0, "high": 0.0}
    difference = compare(entry.out_of_fold, best.out_of_fold, y, groups=groups, seed=seed)
    return row | {"difference": difference.difference, "low": difference.low, "high": difference.high}

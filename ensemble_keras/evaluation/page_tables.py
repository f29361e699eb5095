"""Page tables: tables, settings and numbers as the texts that a page's templates show."""

import numbers

import numpy as np
import pandas as pd

from ensemble_keras.measures.significance import p_text

# Of a list or table in the details, more would bury the page.
_MOST_ROWS = 50
_HEADS = {
    "roc_auc": "ROC AUC",
    "macs": "multiply-accumulates",
    "latency_ms": "ms per image",
    "mcc": "MCC",
}
_MISSING = "\N{EN DASH}"


def table(frame, most=None):
    """Returns a table for the template: head and rows of texts, which columns are numbers, how many rows are left."""
    shown = frame if most is None else frame.head(most)
    columns = [[cell(value, _digits(shown.iloc[:, k])) for value in shown.iloc[:, k]] for k in range(shown.shape[1])]
    return {
        "head": [_head(name) for name in frame.columns],
        "rows": list(zip(*columns, strict=True)),
        "numeric": [all(_is_number(text) for text in column) for column in columns],
        "left": len(frame) - len(shown),
    }


def block(content):
    """Returns what stands under a heading: a table, a list, names with values, or a text."""
    if isinstance(content, pd.DataFrame):
        return {"table": table(with_index(content), _MOST_ROWS)}
    if isinstance(content, dict):
        return {"pairs": [(_head(name), block(value)) for name, value in content.items()]}
    if isinstance(content, list | tuple) and content and all(isinstance(item, dict) for item in content):
        return {"table": table(without_empty(_flat(content)), _MOST_ROWS)}
    if isinstance(content, list | tuple | np.ndarray | pd.Series):
        items = [cell(item) for item in content]
        left = max(0, len(items) - _MOST_ROWS)
        return {"list": items[:_MOST_ROWS], "left": left, "long": any(len(item) > 16 for item in items)}
    return {"text": cell(content)}


def with_index(frame):
    """Returns the frame with an index of names as its first column."""
    return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()


def without_empty(frame):
    """Returns the frame without columns that hold nothing."""
    return frame.loc[:, [not (column.isna() | column.eq("")).all() for _, column in frame.items()]]


def cell(value, digits=None):
    """Returns a value as text; numbers with so many decimals, or with six digits that count."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or value is pd.NA:
        return _MISSING
    if isinstance(value, numbers.Real):
        return number(value, digits)
    return str(value)


def number(value, digits=None):
    """Returns a number as text, an en dash for NaN."""
    if not np.isfinite(value):
        return _MISSING if np.isnan(value) else str(value)
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return f"{value:,.{digits}f}" if digits is not None else f"{value:.6g}"


def percent(share):
    """Returns a share as text in percent, an en dash for NaN."""
    return _MISSING if not np.isfinite(share) else f"{100 * share:.1f} %"


def percents(low, high):
    """Returns the ends of an interval of shares as text in percent; nothing where they are not known."""
    return "" if not np.isfinite([low, high]).all() else f"{100 * low:.1f} to {100 * high:.1f} %"


def p_value(p):
    """Returns a p-value as text without its name, `"0.03"` or `"< 0.001"`."""
    return p_text(p).removeprefix("p ").removeprefix("= ")


def _head(name):
    return _HEADS.get(name, str(name).replace("_", " ").replace("f1", "F1").replace("brier", "Brier"))


def _flat(records):
    """Returns records as a frame without what would not fit into a cell: of metrics, accuracy alone stays."""
    rows = []
    for record in records:
        row = {}
        for name, value in record.items():
            if not isinstance(value, dict):
                row[name] = value
            elif "accuracy" in value:
                row[f"{name}_accuracy"] = value["accuracy"]
            else:
                row |= {f"{name}_{inner}": of for inner, of in value.items()}
        rows.append(row)
    # Whole numbers stay so where some records have none.
    return pd.DataFrame(rows, dtype=object)


def _digits(column):
    """Returns how many decimals a column of numbers gets, so that they stand under one another."""
    real = [value for value in column if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)]
    largest = max((abs(value) for value in real if np.isfinite(value)), default=None)
    return None if largest is None else 3 if largest < 10 else 1 if largest < 1000 else 0


def _is_number(text):
    return text in ("", _MISSING) or text.lstrip("+-<> ")[:1].isdigit()

"""Calibration: whether predictions that say 80 % are right in 80 % of the cases."""

import numpy as np
import pandas as pd

from ensemble_keras._validation import check_at_least, check_choice
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities, confidence_bins


def expected_calibration_error(probabilities, y, *, bins=15, binning="equal_width"):
    """Returns the expected calibration error (Naeini et al., 2015; Guo et al., 2017, arXiv:1706.04599, equation 3).

    Rows are put into bins by their confidence, the probability of the most probable class. The error is the mean over
    the rows of how far the accuracy of a row's bin is from the bin's mean confidence; 0 is best. It depends on the
    bins: compare only what has the same ones.

    Args:
        probabilities: Array `(n, num_classes)`, rows summing to 1; or p of class 1, `(n,)` or `(n, 1)`.
        y: Array `(n,)` of class indices.
        bins: Int, at least 1. Number of bins. Defaults to 15.
        binning: `"equal_width"`: bins between 0 and 1; or `"adaptive"`: by quantiles, so that every bin has as many
            rows (Nixon et al., 2019, arXiv:1904.01685). Defaults to `"equal_width"`.

    Returns:
        Float in [0, 1].

    Raises:
        ValueError: If a table, a label or an option is wrong.

    Example:

    >>> round(expected_calibration_error([[0.9, 0.1]] * 10, [0] * 7 + [1] * 3), 3)
    0.2
    """
    table = reliability(probabilities, y, bins=bins, binning=binning)
    return float((table["count"] * (table["accuracy"] - table["confidence"]).abs()).sum() / table["count"].sum())


def reliability(probabilities, y, *, bins=15, binning="equal_width"):
    """Returns the data of a reliability diagram: accuracy against confidence, bin by bin.

    Args:
        probabilities: As in `expected_calibration_error`.
        y: As in `expected_calibration_error`.
        bins: As in `expected_calibration_error`.
        binning: As in `expected_calibration_error`.

    Returns:
        A `pandas.DataFrame`, a row for each bin that holds rows: `low` and `high`, its ends (a confidence of exactly
        `high` is in it), `count`, mean `confidence` and `accuracy`.

    Raises:
        ValueError: As `expected_calibration_error`.

    Example:

    >>> reliability([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1], bins=2)["count"].tolist()
    [3]
    """
    p = check_probabilities(probabilities)
    y = check_class_indices(y, p.shape[1], len(p))
    check_choice("binning", binning, ["equal_width", "adaptive"])
    check_at_least("bins", bins, 1)
    shares = np.linspace(0, 1, bins + 1)
    edges = shares if binning == "equal_width" else np.unique(np.quantile(p.max(axis=1).astype("float64"), shares))
    # All rows may be equally confident: one bin from there to there.
    edges = np.repeat(edges, 2) if len(edges) == 1 else edges
    confidence, right, of_row = confidence_bins(y, p, edges)
    count = np.bincount(of_row, minlength=len(edges) - 1)
    there = np.flatnonzero(count)
    means = {
        name: np.bincount(of_row, values, minlength=len(count))[there] / count[there]
        for name, values in (("confidence", confidence), ("accuracy", right))
    }
    return pd.DataFrame({"low": edges[there], "high": edges[there + 1], "count": count[there], **means})

"""Metrics: what a table of class probabilities is worth against the labels; scikit-learn counts."""

import warnings

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from ensemble_keras._validation import check_labels, rows_text

# Rows of a softmax in float16 or bfloat16 sum to 1 within this; a table of logits or of votes does not.
SUM_TOLERANCE = 2e-3


def check_probabilities(probabilities, num_classes=None, name="probabilities"):
    """Returns a table of class probabilities as a float array, or raises `ValueError`.

    Args:
        probabilities: Array of shape `(n, num_classes)` whose rows sum to 1 (within 0.002). For two classes a
            column `(n,)` or `(n, 1)` of p, the probability of class 1, is taken too and becomes `[1 - p, p]`.
        num_classes: The number of columns that must be there. Defaults to `None`: any number from 2.
        name: What messages call the table, such as `"members['VGG16']"`.

    Returns:
        Array of shape `(n, num_classes)`, float32 if it came so and else float64. Values are not changed.

    Raises:
        ValueError: If the shape, the number of classes or a row is wrong. The message names the rows.

    Example:
    >>> check_probabilities([0.25, 1.0]).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    taken = f"`{name}` must hold one row of class probabilities per image"
    p = np.asarray(probabilities)
    if p.dtype.kind not in "fiub":
        raise ValueError(f"{taken}. Received: dtype {p.dtype}.")
    p = p if p.dtype == np.float32 else p.astype("float64")
    column = p.ndim == 1 or (p.ndim == 2 and p.shape[1] == 1)
    if not len(p.shape) or not len(p) or p.ndim > 2:
        raise ValueError(f"{taken}, shape (n, num_classes). Received: shape {p.shape}.")
    _refuse_rows(taken, p.reshape(len(p), -1), column)
    if column:
        p = np.stack([1 - p.ravel(), p.ravel()], axis=1)
    if num_classes is not None and p.shape[1] != num_classes:
        raise ValueError(f"{taken}, one column for each of {num_classes} classes. Received: shape {p.shape}.")
    return p


def check_class_indices(y, num_classes, n, name="y"):
    """Returns `y` as `n` int64 class indices in `[0, num_classes)`, or raises `ValueError` that names the rows."""
    y = check_labels(y, n, name)
    if y.dtype.kind != "i":
        raise ValueError(
            f"`{name}` must hold class indices, the columns of the probabilities. Received: labels such as "
            f"{str(y[0])!r}. Look them up in the class names first."
        )
    rows = np.flatnonzero((y < 0) | (y >= num_classes))
    if len(rows):
        raise ValueError(
            f"`{name}` must hold class indices from 0 to {num_classes - 1}. Received: {y[rows[0]]} "
            f"({rows_text(rows)})."
        )
    return y


def metric_summary(y, probabilities):
    """Returns the usual figures of a classifier, by name.

    Args:
        y: Class indices of shape `(n,)`.
        probabilities: Array of shape `(n, num_classes)`; see `check_probabilities`.

    Returns:
        Dict of floats: `accuracy`, `balanced_accuracy` (mean recall of the classes that are there), `log_loss`
        (natural logarithm), `brier_score` (see `brier_scores`), `calibration_error` (as
        `expected_calibration_error`), `roc_auc` and `average_precision` (of class 1 for two classes, else the macro
        mean of one against the rest), `mcc` (Matthews' correlation coefficient), and `precision`, `recall` and `f1`,
        each as `_macro` (mean over classes) and `_weighted` (by the classes' images); a class that is never predicted
        has precision 0.

    Raises:
        ValueError: If the probabilities or the labels are not as above.

    Warns:
        UserWarning: If a class has no image: `roc_auc` and `average_precision` are NaN then.

    Example:
    >>> metric_summary([0, 1, 1, 1], [0.1, 0.3, 0.8, 0.9])["accuracy"]
    0.75
    """
    p = check_probabilities(probabilities)
    y = check_class_indices(y, p.shape[1], len(p))
    absent = absent_classes(y, p.shape[1])
    if len(absent):
        listed = ", ".join(map(str, absent[:5])) + (", …" if len(absent) > 5 else "")
        reason = f"there is no image of class {listed}"
        warnings.warn(f"`roc_auc` and `average_precision` are NaN: {reason}.", stacklevel=2)
    predicted = p.argmax(axis=1)
    recall = sk.recall_score(y, predicted, labels=np.unique(y), average="macro", zero_division=0)
    summary = {
        "accuracy": float(np.mean(predicted == y)),
        "balanced_accuracy": float(recall),
        "log_loss": float(log_losses(y, p).mean()),
        "brier_score": float(brier_scores(y, p).mean()),
        "calibration_error": _calibration_error(y, p),
        "roc_auc": roc_auc(y, p),
        "average_precision": average_precision(y, p),
        # scikit-learn's 0 comes with a warning where there is one class only.
        "mcc": float(sk.matthews_corrcoef(y, predicted)) if len(np.union1d(y, predicted)) > 1 else 0.0,
    }
    for average in ("macro", "weighted"):
        scores = sk.precision_recall_fscore_support(y, predicted, average=average, zero_division=0)
        summary |= {f"{k}_{average}": float(v) for k, v in zip(("precision", "recall", "f1"), scores, strict=False)}
    return summary


def roc_auc(y, probabilities):
    """Returns the area under the ROC curve: of class 1 for two classes, else the macro mean of one against the rest.

    NaN where a class has no image, since a mean over the others would be another measure.
    """
    return _one_against_rest(_auc, y, probabilities)


def average_precision(y, probabilities):
    """Returns the average precision, of the classes that `roc_auc` takes; NaN where a class has no image."""
    return _one_against_rest(sk.average_precision_score, y, probabilities)


def log_losses(y, probabilities):
    """Returns each row's log loss, float64 of shape `(n,)`; their mean is scikit-learn's `log_loss`."""
    p = probabilities / probabilities.sum(axis=1, keepdims=True)
    # A saturated softmax gives 0: clipped at the precision of the array, as scikit-learn does.
    p = np.clip(p[np.arange(len(y)), y], np.finfo(p.dtype).eps, 1)
    return -np.log(p.astype("float64"))


def brier_scores(y, probabilities):
    """Returns each row's Brier score, float64 of shape `(n,)`: the squared distance to the true class' one-hot row.

    It is halved for two classes (Brier, 1950, sums over both; the common form is of one), as in scikit-learn's
    `brier_score_loss`, which their mean is.
    """
    p = probabilities.astype("float64")
    of_true = p[np.arange(len(y)), y]
    scores = (p**2).sum(axis=1) - 2 * of_true + 1
    return scores / 2 if p.shape[1] == 2 else scores


def confidence_bins(y, probabilities, edges=None):
    """Returns each row's confidence, whether it is right, and the bin of its confidence.

    Args:
        y: Class indices of shape `(n,)`.
        probabilities: Array of shape `(n, num_classes)`.
        edges: Ascending ends of the bins; a confidence at the end of a bin is in it. Defaults to 15 bins of equal
            width between 0 and 1.

    Returns:
        A float64, a bool and an int array `(n,)`.
    """
    edges = np.linspace(0, 1, 16) if edges is None else edges
    confidence = probabilities.max(axis=1).astype("float64")
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    return confidence, probabilities.argmax(axis=1) == y, bins


def absent_classes(y, num_classes):
    """Returns the indices of the classes that no label has."""
    return np.flatnonzero(np.bincount(y, minlength=num_classes) == 0)


def _one_against_rest(metric, y, probabilities):
    num_classes = probabilities.shape[1]
    if len(absent_classes(y, num_classes)):
        return float("nan")
    classes = [1] if num_classes == 2 else range(num_classes)
    return float(np.mean([metric(y == k, probabilities[:, k]) for k in classes]))


def _calibration_error(y, probabilities):
    confidence, right, bins = confidence_bins(y, probabilities)
    return float(np.abs(np.bincount(bins, right - confidence)).sum() / len(y))


def _auc(positive, score):
    # Mann and Whitney's U from ranks: what scikit-learn gives from the curve, several times faster.
    num_positive = int(positive.sum())
    wins = stats.rankdata(score)[positive].sum() - num_positive * (num_positive + 1) / 2
    return wins / (num_positive * (len(score) - num_positive))


def _refuse_rows(taken, p, column):
    checks = {"NaN or infinity": ~np.isfinite(p).all(axis=1)}
    with np.errstate(invalid="ignore"):
        checks["values outside [0, 1]"] = ((p < -SUM_TOLERANCE) | (p > 1 + SUM_TOLERANCE)).any(axis=1)
        if not column:
            checks["a sum other than 1"] = np.abs(p.sum(axis=1, dtype="float64") - 1) > SUM_TOLERANCE
    for fault, wrong in checks.items():
        rows = np.flatnonzero(wrong)
        if len(rows):
            raise ValueError(f"{taken}. Received: {fault} in {rows_text(rows)}. The first: {_row_text(p[rows[0]])}.")


def _row_text(row):
    return "[" + ", ".join(f"{value:g}" for value in row[:4]) + (", …]" if len(row) > 4 else "]")

"""Predictions: checks of the members' probabilities, one table `(n, members, num_classes)`, large ones quickly."""

import numpy as np
from scipy import optimize, sparse, stats

from ensemble_keras._validation import check_labels, rows_text
from ensemble_keras.measures.metrics import SUM_TOLERANCE

# Numbers looked at together: about 4 MB, which stay in the processor's cache from one look to the next.
_BLOCK = 1_000_000
# A member in the right order is refused with at most this probability.
_FALSE_ALARM = 1e-3
# Left out alone, a row's class is the rarer one among the others: who knows nothing but that prefers the other class,
# always and by little.
_LEAD = 1.1


def check_predictions(predictions):
    """Returns a float32 table of probabilities `(n, members, num_classes)`, or raises `ValueError`.

    One column, sigmoid outputs `p`, becomes `[1 - p, p]`. NaN, values outside [0, 1] and rows that do not sum to 1
    within 0.002 are refused; the message names member and rows. A float32 table is not copied.
    """
    table = np.asarray(predictions if predictions is not None else [], dtype="float32")
    if table.ndim != 3 or 0 in table.shape:
        raise ValueError(
            "`predictions` must be a table of shape (n, members, num_classes). "
            f"Received: {'None' if predictions is None else f'shape {table.shape}'}. Join those of the members by "
            "`np.stack(predictions, axis=1)`."
        )
    wrong = [rows for rows in row_blocks(table) if not _is_right(table[rows])]
    if wrong:
        _refuse(table, wrong)
    return np.concatenate([1 - table, table], axis=2) if table.shape[2] == 1 else table


def check_y(y, n, num_classes):
    """Returns `y` as an int array of class indices, each class at least once, or raises `ValueError`."""
    y = check_labels(y, n)
    if y.dtype.kind != "i":
        raise ValueError(f"`y` must hold class indices 0 … {num_classes - 1}. Received: names such as {str(y[0])!r}.")
    outside = np.flatnonzero((y < 0) | (y >= num_classes))
    if len(outside):
        raise ValueError(
            f"`y` must hold class indices 0 … {num_classes - 1}, one per column of the predictions. Received: "
            f"{y[outside[0]]} and the like in {rows_text(outside)}."
        )
    missing = np.setdiff1d(np.arange(num_classes), y)
    if len(missing):
        raise ValueError(
            f"`y` must hold images of all {num_classes} classes. Received: {n} rows, none of class "
            f"{', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''}."
        )
    return y


def check_sample_weight(sample_weight, n):
    """Returns `None` or a float64 array `(n,)` of numbers of at least 0, not all 0, or raises `ValueError`."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, "float64")
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError(
            f"`sample_weight` must be {n} finite numbers, none negative, not all 0. Received: shape {weights.shape}."
        )
    return weights


def check_class_order(predictions, y):
    """Raises `ValueError` if a member's columns stand in another order than the labels; names member and row.

    A member is refused if some classes form a circle in which it prefers for every class the next one of the circle
    to each other class: two classes exchanged, say. One class taken for another, which a poor member may do, is no
    circle. It must give the next one a tenth more on average, and more in so many of the class's rows as chance does
    not explain (sign tests), so that all members in the right order pass with a probability above .999.

    Args:
        predictions: Checked array `(n, members, num_classes)`.
        y: Int array `(n,)`, every class at least once.
    """
    means = _class_means(predictions, y)
    members, classes = means.shape[:2]
    own = np.einsum("mkk->mk", means)
    for member in np.flatnonzero((means.max(axis=2) > _LEAD * own).sum(axis=1) > 1):
        preferred = optimize.linear_sum_assignment(means[member], maximize=True)[1]
        for circle in _circles(preferred):
            highest = _FALSE_ALARM / (members * classes)
            leads = (means[member, circle, preferred[circle]] > _LEAD * own[member, circle]).all()
            if leads and all(_prefers(predictions[y == k, member], preferred[k], k, highest) for k in circle):
                raise ValueError(_order_text(member, circle[0], preferred[circle[0]], means[member], y))


def row_blocks(table):
    """Yields slices of rows, about a million numbers each."""
    step = max(1, _BLOCK // int(np.prod(table.shape[1:])))
    for start in range(0, len(table), step):
        yield slice(start, min(start + step, len(table)))


def _is_right(block):
    # Comparisons with NaN are false.
    within = block.min() >= -SUM_TOLERANCE and block.max() <= 1 + SUM_TOLERANCE
    return within and (block.shape[2] == 1 or bool((np.abs(_sums(block) - 1) <= SUM_TOLERANCE).all()))


def _sums(block):
    # Five times as fast as `sum` along a short axis.
    return np.einsum("nmk->nm", block)


def _refuse(table, blocks):
    """Raises for the first fault that the blocks of rows have, whatever row it is in."""
    faults = {
        "NaN": lambda block: np.isnan(block).any(axis=2),
        "values outside [0, 1]": lambda block: ((block < -SUM_TOLERANCE) | (block > 1 + SUM_TOLERANCE)).any(axis=2),
        "rows that do not sum to 1": lambda block: np.abs(_sums(block) - 1) > SUM_TOLERANCE,
    }
    for what, find in faults.items():
        bad = np.zeros(table.shape[:2], bool)
        for rows in blocks:
            bad[rows] = find(table[rows])
        members = np.flatnonzero(bad.any(axis=0))
        if len(members):
            raise ValueError(_fault_text(table, what, members, np.flatnonzero(bad[:, members[0]])))


def _fault_text(table, what, members, rows):
    sums = f" (the first sums to {table[rows[0], members[0]].sum():.4g})" if "sum" in what else ""
    others = f"; {len(members) - 1} more members have such rows" if len(members) > 1 else ""
    return (
        "`predictions` must hold probabilities, every row of which sums to 1. "
        f"Received: {what} from member {members[0]} in {rows_text(rows)}{sums}{others}."
    )


def _class_means(predictions, y):
    """Returns the mean probabilities that each member gives to the rows of each class, `(members, true, said)`."""
    members, classes = predictions.shape[1:]
    sums = np.zeros((classes, members * classes))
    for rows in row_blocks(predictions):
        block = predictions[rows]
        of_class = sparse.csr_matrix(
            (np.ones(len(block), "float32"), (y[rows], np.arange(len(block)))), (classes, len(block))
        )
        sums += of_class @ block.reshape(len(block), -1)
    means = sums / np.bincount(y, minlength=classes)[:, None]
    return means.reshape(classes, members, classes).transpose(1, 0, 2)


def _prefers(p, preferred, k, highest):
    """Returns whether each class has less probability than the preferred one in more rows than chance explains."""
    # The true class first: of members that know nothing no other class is looked at.
    for other in [k, *np.delete(np.arange(p.shape[1]), [k, preferred])]:
        less = np.count_nonzero(p[:, other] < p[:, preferred])
        if stats.binom.sf(less - 1, len(p), 0.5) >= highest:
            return False
    return True


def _order_text(member, k, preferred, means, y):
    return (
        "`predictions` must have their columns in the order of the class indices of `y`. Received: from member "
        f"{member} columns that look shuffled: where `y` is {k}, as in row {np.flatnonzero(y == k)[0]}, it gives "
        f"class {preferred} a mean probability of {means[k, preferred]:.2f}, and class {k} one of {means[k, k]:.2f}. "
        "Bring its columns into the order of the others."
    )


def _circles(said):
    """Returns the circles of a permutation, of two classes or more, as lists."""
    circles, seen = [], set()
    for k in range(len(said)):
        circle = []
        while k not in seen:
            seen.add(k)
            circle.append(k)
            k = int(said[k])
        if len(circle) > 1:
            circles.append(circle)
    return circles

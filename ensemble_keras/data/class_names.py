"""Class names: labels, given as names or ints, as indices into a list of names."""

import collections

import numpy as np

from ensemble_keras._validation import check_labels, rows_text, suggest


def check_class_names(class_names):
    """Returns class names as a list of strings; raises `ValueError` for one string, or a name that stands twice."""
    if isinstance(class_names, str):
        raise ValueError(f"`class_names` must be a list of strings. Received: the string {class_names!r}.")
    class_names = [str(name) for name in class_names]
    twice = [name for name, count in collections.Counter(class_names).items() if count > 1]
    if twice:
        raise ValueError(f"`class_names` must differ. Received: {twice[0]!r} more than once.")
    return class_names


def labels_and_names(y, n, class_names, argument="y"):
    """Returns labels as class indices, with the class names.

    Args:
        y: Sequence `(n,)` of ints or strings.
        n: Int. Number of images.
        class_names: List of strings, or `None`: the sorted strings of `y`, or no names for ints.
        argument: String. What an error calls `y`.

    Returns:
        int64 array `(n,)` of indices into the class names, and these; the ints as given and `None` without names.

    Raises:
        ValueError: If labels are missing, no class name or no index of one.
    """
    y = check_labels(y, n, argument)
    if class_names is None:
        if y.dtype.kind != "U":
            return y, None
        class_names = np.unique(y)
    class_names = check_class_names(class_names)
    if y.dtype.kind == "U":
        index = {name: i for i, name in enumerate(class_names)}
        unknown = [name for name in np.unique(y).tolist() if name not in index]
        if unknown:
            raise ValueError(
                f"`{argument}` holds a label that is not among `class_names`: {unknown[0]!r}, in "
                f"{rows_text(np.flatnonzero(y == unknown[0]))}.{suggest(unknown[0], class_names)}"
            )
        return np.array([index[name] for name in y.tolist()], dtype="int64"), class_names
    wrong = np.flatnonzero((y < 0) | (y >= len(class_names)))
    if len(wrong):
        raise ValueError(
            f"`{argument}` must hold indices into the {len(class_names)} `class_names`, from 0. "
            f"Received: {y[wrong[0]]} in {rows_text(wrong)}."
        )
    return y, class_names

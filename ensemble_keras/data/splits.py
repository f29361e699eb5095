"""Splits: stratified folds and train/test parts that keep groups and byte-identical images together."""

import warnings

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ensemble_keras._validation import rows_text


def make_folds(labels, *, groups=None, digests=None, cv=5, seed=0, class_names=None):
    """Assigns every image to the one fold that holds it out.

    Images of one group, and images with equal digests, share a fold. Otherwise classes and sizes are as even as
    that allows: the largest sets of images that belong together are placed first, each in the fold that has least
    of their classes.

    Args:
        labels: Array `(n,)` of labels.
        groups: Sequence `(n,)`, such as patients, or `None`.
        digests: Sequence `(n,)` of hashes of the images' content, or `None`.
        cv: Int, the number of folds, at least 2; or a scikit-learn splitter that holds every image out exactly once.
            A splitter decides alone: where it separates identical images or groups, a warning says so.
        seed: Int. Order among equals when `cv` is an int.
        class_names: Sequence of names that errors use, where `labels` are indices into it.

    Returns:
        Int array `(n,)` of fold numbers, from 0.

    Raises:
        ValueError: If there is one class only, a class has fewer images (or groups) than folds, all images of a class
            fall in one fold, `cv` is no such number or splitter, or a splitter does not hold out every image once.

    Example:

    >>> make_folds([0, 0, 1, 1], groups=["a", "b", "a", "b"], cv=2).tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
    True
    """
    names, classes = _classes(labels, class_names)
    blocks = together(len(classes), groups, digests)
    if hasattr(cv, "split") and not isinstance(cv, str):
        folds = _folds_of_splitter(cv, labels, groups)
        _warn_if_separated(folds, groups, "groups")
        _warn_if_separated(folds, digests, "sets of byte-identical images")
    else:
        _check_cv(cv)
        _check_class_sizes(names, classes, blocks, cv, groups, digests)
        folds = _distribute(classes, blocks, np.full(cv, 1 / cv), seed)
    for index, name in enumerate(names):
        if len(np.unique(folds[classes == index])) < 2:
            raise ValueError(
                f"Expected images of every class in two folds or more. Received: all of class {name!r} belong "
                f"together in fold {folds[classes == index][0]}, so members would never see the class."
            )
    return folds


def train_test_indices(
    labels,
    *,
    groups=None,
    digests=None,
    test_size=0.2,
    seed=0,
    class_names=None,
    every_class=True,
    argument="test_size",
):
    """Splits images into a training and a test part: stratified, groups and identical images on one side.

    Args:
        labels: Array `(n,)` of labels.
        groups: Sequence `(n,)` or `None`.
        digests: Sequence `(n,)` of hashes of the images' content, or `None`.
        test_size: Float between 0 and 1, the share of test images.
        seed: Int.
        class_names: Sequence of names that errors use, where `labels` are indices into it.
        every_class: Boolean. Whether a class that would be on one side only is refused. Defaults to `True`.
        argument: String, what errors call `test_size`. Defaults to `"test_size"`.

    Returns:
        Two int arrays of indices, each in rising order.

    Raises:
        ValueError: If `test_size` is out of range, or a class would be on one side only.

    Example:

    >>> train, test = train_test_indices([0, 0, 0, 0, 1, 1, 1, 1], test_size=0.25)
    >>> len(train), len(test)
    (6, 2)
    """
    if isinstance(test_size, bool) or not 0 < test_size < 1:
        raise ValueError(f"`{argument}` must be a share between 0 and 1. Received: {test_size!r}.")
    names, classes = _classes(labels, class_names, least=1)
    blocks = together(len(classes), groups, digests)
    side = _distribute(classes, blocks, np.array([1 - test_size, test_size]), seed)
    for part, share in enumerate(("training", "test")):
        missing = [str(names[i]) for i in np.setdiff1d(classes, classes[side == part])]
        if missing and every_class:
            raise ValueError(
                f"Expected images of every class on both sides. Received: no {share} image of {', '.join(missing)} "
                f"at {argument}={test_size}. Take another {argument}, more images (or groups), or leave the class "
                "out."
            )
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def together(n, *keys):
    """Returns an int array `(n,)`: equal numbers where rows are linked by an equal value in any of `keys`.

    Args:
        n: Int. Number of rows.
        *keys: Sequences `(n,)`, or `None`.

    Returns:
        Int array `(n,)` of numbers from 0.

    Raises:
        ValueError: If a sequence has another length.
    """
    rows = np.arange(n)
    first_rows = [_first_rows(key, n) for key in keys if key is not None]
    ends = np.concatenate([rows[:0], *first_rows])
    graph = coo_array((np.ones(len(ends), "int8"), (np.tile(rows, len(first_rows)), ends)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def check_groups(groups, n):
    """Returns groups as a string array `(n,)`, or `None`; raises `ValueError` if one is missing or the count differs.

    Whole floats, as tables with gaps hold them, become the same strings as ints.
    """
    if groups is None:
        return None
    groups = list(groups)
    _check_length(groups, n)
    missing = np.flatnonzero(pd.isna(np.array([*groups, None], dtype=object)[:-1]))
    if len(missing):
        raise ValueError(f"Expected a group for every image. Received: none in {rows_text(missing)}.")
    return np.array([str(int(g)) if isinstance(g, float) and g.is_integer() else str(g) for g in groups], dtype=str)


def _check_length(key, n):
    if len(key) != n:
        raise ValueError(f"Expected one group per image. Received: {len(key)} groups for {n} images.")


def _first_rows(key, n):
    _check_length(key, n)
    seen = {}
    return np.array([seen.setdefault(value, row) for row, value in enumerate(key)], dtype=int)


def _classes(labels, class_names, least=2):
    values, classes = np.unique(np.asarray(labels), return_inverse=True)
    names = values if class_names is None else np.asarray(class_names)[values]
    names = [name.item() if hasattr(name, "item") else name for name in names]
    if len(names) < least:
        found = f"only images of class {names[0]!r}" if names else "no images"
        raise ValueError(f"At least two classes with images are needed. Received: {found}.")
    return names, classes


def _check_cv(cv):
    if isinstance(cv, bool) or not isinstance(cv, int | np.integer) or cv < 2:
        raise ValueError(
            f"`cv` must be a number of folds of at least 2, or a scikit-learn splitter. Received: {cv!r}."
        )


def _check_class_sizes(names, classes, blocks, cv, groups, digests):
    pairs = np.unique(np.stack([classes, blocks]), axis=1)[0]
    counts = np.bincount(pairs, minlength=len(names))
    few = [f"{names[i]!r} has {counts[i]}" for i in np.flatnonzero(counts < cv)]
    if few:
        unit = "groups" if groups is not None else "different images" if digests is not None else "images"
        raise ValueError(
            f"Expected at least as many {unit} of each class as folds. Received: cv={cv}; "
            f"class {', '.join(few[:10])}{', …' if len(few) > 10 else ''}. Use fewer folds, or leave the class out."
        )


def _distribute(classes, blocks, shares, seed):
    """Gives each block of rows a part, so that every part gets its share of each class and of all rows."""
    members = np.split(np.argsort(blocks, kind="stable"), np.cumsum(np.bincount(blocks))[:-1])
    shuffled = np.random.default_rng(seed).permutation(len(members))
    order = sorted(shuffled, key=lambda block: -len(members[block]))
    wanted = np.outer(shares, np.bincount(classes))
    held, total = np.zeros_like(wanted), np.zeros(len(shares))
    result = np.empty(len(classes), dtype=int)
    for block in order:
        rows = members[block]
        kinds, counts = np.unique(classes[rows], return_counts=True) if len(rows) > 1 else (classes[rows], 1)
        # How much the sum of held² / wanted would grow; of equal growths, that of the sizes decides.
        growth = ((held[:, kinds] + counts / 2) * counts / wanted[:, kinds]).sum(axis=1)
        part = np.lexsort(((total + len(rows) / 2) / shares, growth.round(9)))[0]
        held[part, kinds] += counts
        total[part] += len(rows)
        result[rows] = part
    return result


def _folds_of_splitter(cv, labels, groups):
    n = len(labels)
    folds, held_out = np.full(n, -1), np.zeros(n, dtype=int)
    with warnings.catch_warnings():
        # We say so ourselves where a splitter separates groups.
        warnings.filterwarnings("ignore", message="The groups parameter is ignored")
        for fold, (_, test) in enumerate(cv.split(np.zeros((n, 1)), np.asarray(labels), groups)):
            folds[test] = fold
            held_out[test] += 1
    if (held_out != 1).any():
        raise ValueError(
            f"`cv` must hold every image out exactly once. Received: {type(cv).__name__}, which holds "
            f"out {(held_out == 0).sum()} images never and {(held_out > 1).sum()} more than once. "
            "Use StratifiedKFold or its like."
        )
    return folds


def _warn_if_separated(folds, key, what):
    if key is None:
        return
    first = _first_rows(key, len(folds))
    count = len(np.unique(first[folds != folds[first]]))
    if count:
        warnings.warn(
            f"`cv` puts {count} {what} into several folds, so out-of-fold figures will be too good. "
            "An int as `cv` keeps them together.",
            stacklevel=3,
        )

"""Inputs: images and labels, as a user gives them, as one dataset."""

import os

import numpy as np

from ensemble_keras._validation import check_labels, rows_text
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.data.splits import check_groups


def as_dataset(x, y=None, *, groups=None, class_names=None):
    """Returns images and labels, however given, as an `ImageDataset`.

    Args:
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        y: Labels `(n,)`, or `None`. With a labelled dataset they must agree with its own, as ints or class names.
        groups: Sequence `(n,)`, or `None`: those of the dataset.
        class_names: List of strings, or `None`: those of the dataset.

    Returns:
        An `ImageDataset`; `x` itself where there is nothing to add.

    Raises:
        ValueError: If labels, groups or class names differ from those of the dataset, or arrays are not as described.
    """
    if isinstance(x, str | os.PathLike):
        raise ValueError(
            f"Expected an ImageDataset or an array of images. Received: the path {os.fspath(x)!r}. Folders of "
            "classes are read by `ImageDataset.from_directory`, image files without labels by `from_files`."
        )
    if not isinstance(x, ImageDataset):
        return ImageDataset.from_arrays(x, y, class_names=class_names, groups=groups)
    if class_names is not None and x.class_names is not None and list(class_names) != x.class_names:
        raise ValueError(f"`class_names` differ from the dataset's. Received: {list(class_names)}, {x.class_names}.")
    if y is not None and x.labels is not None:
        _check_agreement(x, y)
    elif y is not None or (class_names is not None and x.class_names is None):
        x = x.with_labels(
            x.labels if y is None else y, class_names=x.class_names if class_names is None else class_names
        )
    groups = check_groups(groups, len(x))
    if groups is None or (x.groups is not None and (groups == x.groups).all()):
        return x
    if x.groups is not None:
        raise ValueError("`groups` differ from the dataset's. Give them once.")
    return x.with_groups(groups)


def validation_dataset(validation_data):
    """Returns validation data, a pair `(x, y)` or an `ImageDataset`, as an `ImageDataset`, or raises `ValueError`."""
    if not isinstance(validation_data, tuple | list):
        return as_dataset(validation_data)
    if len(validation_data) != 2:
        raise ValueError(
            f"`validation_data` must be (x, y) or an ImageDataset. Received: a sequence of {len(validation_data)}."
        )
    return as_dataset(*validation_data)


def _check_agreement(dataset, y):
    y = check_labels(y, len(dataset))
    own = dataset.labels
    if y.dtype.kind == "U":
        own = own.astype(str) if dataset.class_names is None else np.array(dataset.class_names)[own]
    differ = np.flatnonzero(own != y)
    if len(differ):
        raise ValueError(
            f"`y` differs from the dataset's labels in {rows_text(differ)}. The dataset has labels: leave `y` out."
        )

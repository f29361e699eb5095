"""Inputs: labels, names and tables that a report is made of, checked and brought into one form."""

import numpy as np

from ensemble_keras._validation import check_labels, suggest
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.measures import metrics


def in_class_order(dataset, class_names):
    """Returns the dataset's labels as indices into the model's classes, or as names of them, and the classes."""
    if dataset.labels is None:
        raise ValueError("Labels are needed. Received: images without labels. Give `y`, or a labelled ImageDataset.")
    if class_names is None or dataset.class_names is None:
        return dataset.labels, dataset.class_names if class_names is None else class_names
    # The data may come in another class order than the model's, or with a part of its classes: names decide.
    return np.array([str(name) for name in dataset.class_names])[dataset.labels], class_names


def check_class_names(class_names, num_classes):
    """Returns the class names as strings, `"0"`, `"1"`, ... for `None`; refuses too few, too many or equal ones."""
    names = [str(name) for name in (range(num_classes) if class_names is None else class_names)]
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise ValueError(
            f"`class_names` must hold {num_classes} different names, one per column of the probabilities. "
            f"Received: {len(names)}, {names[:5]}."
        )
    return names


def indices(y_true, names, n):
    """Returns labels, given as class indices or as names, as `n` class indices."""
    y = check_labels(y_true, n, "y_true")
    if y.dtype.kind == "i":
        return metrics.check_class_indices(y, len(names), n, "y_true")
    index = {name: k for k, name in enumerate(names)}
    unknown = [label for label in np.unique(y) if label not in index]
    if unknown:
        raise ValueError(
            f"`y_true` must hold class names of the model. Received: {str(unknown[0])!r}, which is none of "
            f"{names[:5]}{', …' * (len(names) > 5)}.{suggest(unknown[0], names)}"
        )
    return np.array([index[label] for label in y], dtype="int64")


def check_members(members, shape):
    """Returns the members' tables as arrays of the ensemble's `shape`, by name."""
    checked = {}
    for name, probabilities in members.items():
        p = metrics.check_probabilities(probabilities, shape[1], f"members[{name!r}]")
        if str(name) == "ensemble" or len(p) != shape[0]:
            raise ValueError(
                f"`members[{name!r}]` must hold {shape[0]} rows, as `probabilities`, and another name than "
                f"'ensemble'. Received: {len(p)} rows."
            )
        checked[str(name)] = p
    return checked


def check_pictures(images, n):
    """Returns images as an `ImageDataset` of `n`; `None` stays."""
    if images is None:
        return None
    dataset = as_dataset(images)
    if len(dataset) != n:
        raise ValueError(f"`images` must hold {n} images, a row of the probabilities each. Received: {len(dataset)}.")
    return dataset


def histories(history):
    """Returns training curves by member; those of one model, without a member's name, stand under `"model"`."""
    history = dict(history or {})
    one = any(not hasattr(curves, "keys") for curves in history.values())
    return {"model": history} if one else {name: curves for name, curves in history.items() if curves}

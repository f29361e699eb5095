"""Labels: classes in their order, and weights for rare ones."""

import numpy as np

from ensemble_keras._validation import check_choice, suggest


def with_class_indices(dataset):
    """Returns a dataset whose labels are 0 … num_classes − 1, and the classes in that order.

    Args:
        dataset: A labelled `ImageDataset`.

    Returns:
        The dataset, and an array `(num_classes,)` of class names, or of the labels where there are no names.

    Raises:
        ValueError: If there are no labels, fewer than two classes, or a class without images.
    """
    if dataset.labels is None:
        raise ValueError("Labels are needed. Received: images without labels. Give `y`, or a labelled ImageDataset.")
    if dataset.class_names is not None:
        classes, encoded = np.asarray(dataset.class_names), dataset.labels
    else:
        classes, encoded = np.unique(dataset.labels, return_inverse=True)
        dataset = dataset.with_labels(encoded)
    present = np.unique(encoded)
    if len(present) < 2:
        found = ", ".join(str(classes[index]) for index in present)
        raise ValueError(
            f"At least two classes with images are needed. Received: {len(encoded)} images, all of {found}."
        )
    if len(present) < len(classes):
        absent = [str(classes[index]) for index in np.setdiff1d(np.arange(len(classes)), present)]
        raise ValueError(
            f"Expected images of every class. Received: {len(encoded)} images of {len(present)} of {len(classes)} "
            f"classes, none of {', '.join(absent[:10])}{', …' if len(absent) > 10 else ''}. Add some, or leave the "
            "class out of `class_names`."
        )
    return dataset, classes


def class_weights(labels, classes, class_weight):
    """Returns the weight of each class's images, or `None` where all weigh the same.

    Args:
        labels: Int array `(n,)` of class indices.
        classes: Array `(num_classes,)`.
        class_weight: `None`; `"balanced"`: `n / (num_classes · count)`, as in scikit-learn; or a dict from class (as
            in `classes`) to a positive weight, 1 for those not named.

    Returns:
        A list of `num_classes` floats, or `None`.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        check_choice("class_weight", class_weight, ["balanced"])
        counts = np.bincount(labels, minlength=len(classes))
        return (len(labels) / (len(classes) * np.maximum(counts, 1))).tolist()
    known = {str(name): index for index, name in enumerate(classes)}
    weights = np.ones(len(classes))
    for name, weight in dict(class_weight).items():
        if str(name) not in known:
            listed = ", ".join(list(known)[:10])
            raise ValueError(
                f"`class_weight` names a class that is not there: {name!r}. Classes: {listed}.{suggest(name, known)}"
            )
        if not weight > 0:
            raise ValueError(f"`class_weight` must be above 0. Received: {weight!r} for {name!r}.")
        weights[known[str(name)]] = weight
    return weights.tolist()


def with_class_indices_of(dataset, classes):
    """Returns a dataset with its labels as indices into the classes of another one.

    Args:
        dataset: An `ImageDataset` whose labels are names, classes as in `classes`, or class indices.
        classes: Array `(num_classes,)`.

    Raises:
        ValueError: If there are no labels, or one is not a class.
    """
    labels = dataset.labels
    if labels is None:
        raise ValueError("Labels are needed. Received: images without labels. Give `y`, or a labelled ImageDataset.")
    if dataset.class_names is not None:
        labels = np.asarray(dataset.class_names)[labels]
    return dataset.with_labels(encode_labels(labels, classes))


def encode_labels(labels, classes):
    """Returns labels as indices into `classes`.

    Args:
        labels: Array `(n,)`: classes as in `classes`; or, where these are names, class indices. Ints that are all
            names (`"1"`, `"2"`) are read as these names, never as indices.
        classes: Array `(num_classes,)`.

    Raises:
        ValueError: If a label is not a class; it names those and the classes.
    """
    labels, known = np.asarray(labels), {str(name): index for index, name in enumerate(classes.tolist())}
    if labels.dtype.kind in "iu" and classes.dtype.kind == "U" and not known.keys() >= set(labels.astype(str)):
        known = {str(index): index for index in range(len(classes))}
    labels = labels.astype(str)
    unknown = [label for label in np.unique(labels).tolist() if label not in known]
    if unknown:
        raise ValueError(
            f"Labels that are not in the training data: {', '.join(map(str, unknown[:5]))}. "
            f"Classes: {', '.join(map(str, classes[:10]))}."
        )
    return np.array([known[label] for label in labels.tolist()], dtype="int64")

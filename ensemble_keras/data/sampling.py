"""Sampling: as many images of every class, by drawing rare classes again or leaving images of frequent ones out."""

import numpy as np

from ensemble_keras._validation import check_choice

SAMPLINGS = (None, "over", "under")


def resampled(dataset, sampling, seed=0):
    """Returns a dataset with as many images of each class.

    Resample training images only, after the split into folds: an image drawn twice must not be on both sides.

    Args:
        dataset: An `ImageDataset` with labels. Each image keeps its label and group.
        sampling: `"over"`: every class is drawn up to the largest; each image is there at least once, and no image
            more than once oftener than another one of its class. `"under"`: every class is drawn down to the smallest
            without repeats. `None`: the dataset as it is.
        seed: Int, 0 or above. The draw depends on it and the labels alone.

    Returns:
        A view of the dataset, in the order of the images; repeats follow one another.

    Raises:
        ValueError: If `sampling` is unknown, or the images have no labels.

    Example:

    >>> dataset = ek.ImageDataset.from_arrays(np.zeros((5, 8, 8, 3), "uint8"), [0, 0, 0, 1, 1])
    >>> [resampled(dataset, sampling).labels.tolist() for sampling in ("over", "under")]
    [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1]]
    """
    check_choice("sampling", sampling, SAMPLINGS)
    if sampling is None:
        return dataset
    if dataset.labels is None:
        raise ValueError("Sampling by class needs labels. Received: images without labels.")
    return dataset[_drawn(dataset.labels, sampling, np.random.default_rng(seed))]


def sampling_weights(labels, num_classes, sampling):
    """Returns the class weights that a sampling amounts to on average, for heads that are solved and not trained.

    Args:
        labels: Int array `(n,)` of classes in `0 … num_classes - 1`.
        num_classes: Int.
        sampling: `"over"`: largest count / count. `"under"`: smallest count / count. `None`.

    Returns:
        Float array `(num_classes,)`, 1 for a class without images; or `None` for `None`.

    Raises:
        ValueError: If `sampling` is unknown.

    Example:

    >>> sampling_weights([0, 0, 0, 1], 2, "over")
    array([1., 3.])
    """
    check_choice("sampling", sampling, SAMPLINGS)
    if sampling is None:
        return None
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts, _target(counts, sampling) / np.maximum(counts, 1), 1.0)


def combined_weights(class_weight, labels, num_classes, sampling):
    """Returns class weights times those that sampling amounts to, a list of floats, or `None` where all are equal.

    Args:
        class_weight: Sequence of `num_classes` floats, or `None`.
        labels: Int array `(n,)` of class indices.
        num_classes: Int.
        sampling: `None`, `"over"` or `"under"`.

    Example:

    >>> combined_weights([1.0, 4.0], [0, 0, 0, 1], 2, "over")
    [1.0, 12.0]
    """
    expected = sampling_weights(labels, num_classes, sampling)
    if expected is None:
        return None if class_weight is None else list(class_weight)
    return (np.asarray(expected) * (1.0 if class_weight is None else np.asarray(class_weight))).tolist()


def _drawn(labels, sampling, rng):
    classes, counts = np.unique(labels, return_counts=True)
    target, rows = _target(counts, sampling), []
    for label, count in zip(classes, counts, strict=True):
        own = np.flatnonzero(labels == label)
        # All of them as often as fits, then a part of them once more.
        rows += [np.repeat(own, target // count), rng.permutation(own)[: target % count]]
    return np.sort(np.concatenate(rows))


def _target(counts, sampling):
    counts = counts[counts > 0]
    return counts.max() if sampling == "over" else counts.min()

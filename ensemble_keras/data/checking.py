"""Checking: what is wrong with a data set, as a table."""

import collections

import pandas as pd

from ensemble_keras.data.decoding import BadImagesError


def find_problems(dataset):
    """Returns the problems of an `ImageDataset`, see `ImageDataset.check`."""
    try:
        dataset.verify()
        bad = {}
    except BadImagesError as error:
        bad = error.failures
    problems = [("bad image", name, reason) for name, reason in bad.items()]
    problems += _small_classes(dataset) + _identical(dataset, bad)
    return pd.DataFrame(problems, columns=["problem", "where", "detail"])


def _small_classes(dataset):
    problems = {0: "class without images", 1: "class with one image"}
    return [
        (problems[count], str(name), f"{count} of {len(dataset)} images")
        for name, count in dataset.class_counts().items()
        if count in problems
    ]


def _identical(dataset, bad):
    names = dataset.names
    readable = [i for i, name in enumerate(names) if name not in bad]
    copies = collections.defaultdict(list)
    for i, digest in zip(readable, dataset.digests(readable), strict=True):
        copies[digest].append(i)
    return [_described(dataset, names, rows) for rows in copies.values() if len(rows) > 1]


def _described(dataset, names, rows):
    where = ", ".join(names[row] for row in rows)
    labels = [] if dataset.labels is None else sorted({int(dataset.labels[row]) for row in rows})
    if len(labels) < 2:
        return "identical images", where, f"{len(rows)} files with the same bytes"
    classes = [str(label if dataset.class_names is None else dataset.class_names[label]) for label in labels]
    return "identical images, different labels", where, f"labelled {' and '.join(classes)}"

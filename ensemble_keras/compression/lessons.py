"""Lessons: images with their labels and what a teacher said of each view of them."""

import numpy as np

from ensemble_keras.features.extraction import extract
from ensemble_keras.measures.metrics import check_probabilities
from ensemble_keras.members.trainer import hold_decoded


def answers_of(teacher, dataset, *, image_size, store=None, views=None, verbose=1):
    """Returns what a teacher says of each view of each image.

    Args:
        teacher: A `keras.Model` from images to class probabilities.
        dataset: An `ImageDataset`.
        image_size: `(height, width)` at which the teacher sees the images.
        store: A `FeatureStore`, its path, or `None`: what is in it is not computed again.
        views: `Views`, or `None` for the images as they are.
        verbose: 0 shows no progress.

    Returns:
        Float32 array `(n, views, num_classes)`.

    Raises:
        BadImagesError: If images cannot be decoded; all of them are listed.
        MemoryError: If not even one image at a time fits.
        ValueError: If the answers are no probabilities.
    """
    options = {"image_size": image_size, "store": store, "views": views, "verbose": verbose}
    found = extract({teacher.name: teacher}, dataset, doing="Asking the ensemble", **options)
    for reason in found.skipped.values():
        raise MemoryError(reason)
    answers = found.features[teacher.name]
    rows = check_probabilities(answers.reshape(-1, answers.shape[-1]), name="the ensemble's predictions")
    return rows.reshape(len(dataset), -1, rows.shape[-1])


class Lessons:
    """Views of images with their labels and answers, a row for each view; the training loop takes it as images.

    Args:
        parts: List of `ImageDataset`s: the labelled images, then any without labels.
        answers: List of arrays `(n, views, num_classes)`, one for each part.
        views: `Views`, or `None` for the images as they are. What it does to an image must be what the teacher saw:
            the same seed.
        image_size: `(height, width)` of what `load` is asked for.

    Attributes:
        labels: Float32 array `(rows, 1 + num_classes)`: the class index, −1 of an image without a label, and the
            teacher's probabilities. One array, since the training loop hands on images and labels alone.
    """

    def __init__(self, parts, answers, *, views, image_size):
        self._views, self._count = views, 1 if views is None else views.count
        # Those of the images as they came: what is held decoded has others.
        self._digests = None if views is None else [digest for part in parts for digest in part.digests()]
        self._parts = [hold_decoded(part, image_size) for part in parts]
        self._ends = np.cumsum([len(part) for part in parts])
        labelled, *others = parts
        labels = np.concatenate([labelled.labels, np.full(sum(map(len, others)), -1)])
        self.labels = np.column_stack(
            [np.repeat(labels, self._count), np.concatenate(answers).reshape(-1, answers[0].shape[-1])]
        )
        self.labels = self.labels.astype("float32")

    def __len__(self):
        return len(self.labels)

    def load(self, rows, *, image_size):
        """Returns the images of rows, each in its view, `(n, height, width, 3)`."""
        images, views = np.divmod(rows, self._count)
        pixels = self._load(images, image_size)
        changed = np.flatnonzero(views)
        if len(changed):
            digests = [self._digests[image] for image in images[changed]]
            pixels[changed] = self._views.of(pixels[changed], digests, views[changed], batch_size=len(rows))
        return pixels

    def _load(self, images, image_size):
        numbers = np.searchsorted(self._ends, images, side="right")
        pixels = [None] * len(images)
        for number, (part, end) in enumerate(zip(self._parts, self._ends, strict=True)):
            places = np.flatnonzero(numbers == number)
            loaded = part.load(images[places] - (end - len(part)), image_size=image_size) if len(places) else ()
            for place, image in zip(places, loaded, strict=True):
                pixels[place] = image
        return np.stack(pixels)

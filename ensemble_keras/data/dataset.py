"""Dataset: labelled images from files, a zip, a table or arrays, read and decoded only when needed."""

import hashlib
import os

import numpy as np
import pandas as pd

from ensemble_keras._validation import check_choice, check_image_size, check_images, check_seed
from ensemble_keras.data.batches import ImageBatches
from ensemble_keras.data.checking import find_problems
from ensemble_keras.data.class_names import check_class_names, labels_and_names
from ensemble_keras.data.decoding import BadImagesError
from ensemble_keras.data.scanning import scan_class_folders
from ensemble_keras.data.sources import ArraySource, FileSource
from ensemble_keras.data.splits import check_groups, train_test_indices
from ensemble_keras.data.tables import read_table
from ensemble_keras.data.threads import for_each_in_threads


class ImageDataset:
    """Images with labels, indexable by index arrays, so that scikit-learn can split it.

    Made by `from_directory`, `from_dataframe`, `from_arrays` or `from_files`. Files are read in threads when they are
    needed; what is kept of an image is its name and the digest of its content.

    Attributes:
        labels: int64 array `(n,)` of indices into `class_names`; where these are `None`, the ints as given; `None`
            where the images are unlabelled.
        class_names: List of strings, or `None`.
        groups: String array `(n,)`, such as patients, or `None`.
        skipped: `pandas.DataFrame` with the columns `file` and `reason`: what `on_bad_image="skip"` left out.

    Example:

    >>> dataset = ek.ImageDataset.from_arrays(np.zeros((4, 8, 8, 3), "uint8"), ["cat", "dog", "cat", "dog"])
    >>> dataset[[0, 1]].labels.tolist(), dataset.class_names
    ([0, 1], ['cat', 'dog'])
    >>> dataset.load([3], image_size=16).shape
    (1, 16, 16, 3)
    """

    __iter__ = None  # By rows it would give datasets of one image; `batches` and `load` are meant.

    def __init__(self, source, labels=None, *, class_names=None, groups=None, skipped=()):
        self._source, self._rows = source, np.arange(len(source))
        # By row of the source, and shared with all views of it, so that each file is hashed once.
        self._digests = {}
        self.labels, self.class_names, self.groups = labels, class_names, groups
        self.skipped = pd.DataFrame(skipped, columns=["file", "reason"])

    @classmethod
    def from_directory(cls, directory, *, class_names=None, groups=None, on_bad_image="error"):
        """Takes images from a directory, or a zip of one, with one folder per class.

        Every file in a class folder, at any depth, is an image, except hidden ones and what operating systems leave.

        Args:
            directory: Path. One folder around the class folders is entered.
            class_names: List of folders in the wanted order of classes; others are not read. Defaults to all, sorted.
            groups: Function from a path (string relative to the directory, `"cat/tom_1.png"`) to a group, or a
                sequence in the order of `names`. Images of one group, such as a patient, stay together in splits.
            on_bad_image: `"error"`: what is no image by its name is refused now, by its content when it is read (or
                by `verify`). `"skip"`: all are read now, bad ones are left out and named in `skipped`. Defaults to
                `"error"`.

        Returns:
            An `ImageDataset`, sorted by class and path.

        Raises:
            ValueError: If the directory is missing, has no class folders or an empty one.
            BadImagesError: If files are no images by their suffix.
        """
        check_choice("on_bad_image", on_bad_image, ["error", "skip"])
        source, labels, class_names, skipped = scan_class_folders(directory, class_names, skip=on_bad_image == "skip")
        if callable(groups):
            groups = [groups(name) for name in source.names]
        groups = check_groups(groups, len(source))
        dataset = cls(source, labels, class_names=class_names, groups=groups, skipped=list(skipped.items()))
        return dataset._without_bad_images() if on_bad_image == "skip" else dataset

    @classmethod
    def from_dataframe(
        cls,
        frame,
        directory,
        *,
        filename_column,
        label_column,
        group_column=None,
        class_names=None,
        on_bad_image="error",
    ):
        """Takes images that a table names.

        Args:
            frame: `pandas.DataFrame`, a row per image.
            directory: Path of a directory or a zip.
            filename_column: Column of paths below the directory; bare names are looked for in all its folders.
            label_column: Column of labels. Their string forms become `class_names`, sorted (numbers by value).
            group_column: Column of groups, such as patients, or `None`.
            class_names: List of all labels in the wanted order of classes. Defaults to those of the table.
            on_bad_image: `"error"` or `"skip"`, see `from_directory`. Defaults to `"error"`.

        Returns:
            An `ImageDataset` in the order of the table.

        Raises:
            ValueError: If a column is missing, a label, a group or a file name is empty, or files are missing, stand
                in several folders or in several rows: all of a kind at once, counted and with the first names.
        """
        check_choice("on_bad_image", on_bad_image, ["error", "skip"])
        source, labels, class_names, groups = read_table(
            frame,
            directory,
            filename_column=filename_column,
            label_column=label_column,
            group_column=group_column,
            class_names=class_names,
        )
        dataset = cls(source, labels, class_names=class_names, groups=groups)
        return dataset._without_bad_images() if on_bad_image == "skip" else dataset

    @classmethod
    def from_arrays(cls, x, y=None, *, class_names=None, groups=None):
        """Takes images that are in memory.

        Args:
            x: Array `(n, height, width, 3)` with values in [0, 255]: uint8, or other numbers, which become float32.
            y: Labels `(n,)`, ints or strings, or `None`: unlabelled.
            class_names: List of strings. Ints in `y` are indices into it. Defaults to the sorted strings of `y`, and
                to `None` for ints.
            groups: Sequence `(n,)` or `None`.

        Returns:
            An `ImageDataset`.

        Raises:
            ValueError: If shapes, values or labels are not as described.
        """
        source = ArraySource(check_images(x))
        names = None if class_names is None else check_class_names(class_names)
        labels, class_names = (None, names) if y is None else labels_and_names(y, len(source), class_names)
        return cls(source, labels, class_names=class_names, groups=check_groups(groups, len(source)))

    @classmethod
    def from_files(cls, files):
        """Takes image files without labels, to predict them.

        Args:
            files: List of paths.

        Returns:
            An unlabelled `ImageDataset` in that order.
        """
        return cls(FileSource("", [os.fspath(file) for file in files]))

    @property
    def shape(self):
        """`(n,)`; scikit-learn would turn a dataset without a shape into a list."""
        return (len(self._rows),)

    @property
    def names(self):
        """List of strings: each image's path relative to the directory, or `"row 12"` of an array."""
        return [self._source.names[row] for row in self._rows]

    def __len__(self):
        return len(self._rows)

    def __repr__(self):
        if self.labels is None:
            return f"ImageDataset({len(self)} images, unlabelled)"
        counts = ", ".join(f"{name}: {count}" for name, count in self.class_counts().items())
        return f"ImageDataset({len(self)} images; {counts})"

    def __getitem__(self, indices):
        """Returns a view of some images: an index array, a list, a boolean mask or a slice."""
        if isinstance(indices, tuple) and len(indices) == 2 and indices[1] is Ellipsis:
            indices = indices[0]  # scikit-learn indexes so
        if isinstance(indices, int | np.integer | str):
            raise TypeError(
                "An ImageDataset is indexed by an index array, a list, a boolean mask or a slice. "
                f"Received: {indices!r}. For one image: `dataset[[i]]`, or `dataset.load([i], image_size=...)[0]`."
            )
        indices = indices if isinstance(indices, slice) else self._positions(indices)
        return self._like(
            rows=self._rows[indices],
            labels=None if self.labels is None else self.labels[indices],
            groups=None if self.groups is None else self.groups[indices],
        )

    def __getstate__(self):
        # Another process gets only the images of this view.
        if len(self._rows) == len(self._source) and (self._rows == np.arange(len(self._source))).all():
            return vars(self)
        digests = {i: self._digests[row] for i, row in enumerate(self._rows) if row in self._digests}
        rows = np.arange(len(self._rows))
        return {**vars(self), "_source": self._source.take(self._rows), "_rows": rows, "_digests": digests}

    def with_labels(self, labels, *, class_names=None):
        """Returns the same images with other labels: int64 `(n,)`, indices into `class_names` where given."""
        labels, class_names = labels_and_names(labels, len(self), class_names)
        return self._like(labels=labels, class_names=class_names)

    def with_groups(self, groups):
        """Returns the same images with other groups, a sequence `(n,)` or `None`."""
        return self._like(groups=check_groups(groups, len(self)))

    def split(self, test_size=0.2, *, seed=0):
        """Splits into a training and a test part: stratified, groups and byte-identical images on one side.

        Args:
            test_size: Float between 0 and 1. Share of test images. Defaults to 0.2.
            seed: Int. Defaults to 0.

        Returns:
            Two views, `(train, test)`, each in the order of this dataset.

        Raises:
            ValueError: If there are no labels, or a class would be on one side only.
        """
        if self.labels is None:
            raise ValueError("A stratified split needs labels. Received: unlabelled images.")
        check_seed(seed)
        train, test = train_test_indices(
            self.labels,
            groups=self.groups,
            digests=self.digests(),
            test_size=test_size,
            seed=seed,
            class_names=self.class_names,
        )
        return self[train], self[test]

    def read(self, index):
        """Reads one image without decoding it; any number of threads may.

        Args:
            index: Int.

        Returns:
            An `EncodedImage`, with `name`, `digest` and `decode(image_size)`.

        Raises:
            BadImageError: If the file cannot be opened.
        """
        row = int(self._rows[index])
        image = self._source.read(row)
        self._digests[row] = image.digest
        return image

    def digests(self, indices=None):
        """Returns the digests of images as a list of bytes, equal for byte-identical images.

        Files that were not read yet are read now, in threads.
        """
        positions = self._positions(indices)
        unknown = [i for i in positions if int(self._rows[i]) not in self._digests]
        for_each_in_threads(self.read, unknown)
        return [self._digests[int(self._rows[i])] for i in positions]

    def load(self, indices=None, *, image_size):
        """Reads, decodes and resizes images in threads.

        Args:
            indices: Index array, or `None` for all. All must fit in memory.
            image_size: Int or `(height, width)`, in pixels.

        Returns:
            uint8 array `(n, height, width, 3)`; float32 where the dataset was made of floats.

        Raises:
            BadImagesError: If images cannot be read; all of them are listed.
        """
        size, positions = check_image_size(image_size), self._positions(indices)
        images = np.empty((len(positions), *size, 3), self._source.dtype)

        def fill(place):
            images[place] = self.read(positions[place]).decode(size)

        for_each_in_threads(fill, range(len(positions)))
        return images

    def batches(self, *, image_size, batch_size, shuffle=False, seed=0):
        """Returns the images as a `keras.utils.PyDataset` of `(images, labels)`, loaded batch by batch.

        Args:
            image_size: Int or `(height, width)`, in pixels.
            batch_size: Int.
            shuffle: Boolean. Each epoch then has another order, which depends on `seed` and the epoch alone.
                Defaults to `False`.
            seed: Int. Defaults to 0.

        Returns:
            `ImageBatches`. Give `shuffle=False` to `model.fit`, which would mix the batches once more.
        """
        return ImageBatches(self, image_size=image_size, batch_size=batch_size, shuffle=shuffle, seed=seed)

    def verify(self):
        """Reads and decodes every image once, in threads and constant memory.

        Raises:
            BadImagesError: If some are truncated, empty or no images; all of them are listed.
        """
        for_each_in_threads(lambda index: self.read(index).decode(), range(len(self)))

    def check(self):
        """Looks for what is wrong with the data: reads and decodes every image once.

        Returns:
            `pandas.DataFrame` with the columns `problem`, `where` (files or a class) and `detail`; empty if all is
            well. Problems: `"bad image"`, `"class without images"`, `"class with one image"`, `"identical images"`
            and `"identical images, different labels"`.
        """
        return find_problems(self)

    def fingerprint(self):
        """Returns 32 hexadecimal digits that depend on the content and order of the images, labels and groups."""
        result = hashlib.blake2b(b"".join(self.digests()), digest_size=16)
        for part in (self.labels, self.groups, self.class_names):
            result.update(repr(None if part is None else list(map(str, part))).encode())
        return result.hexdigest()

    def class_counts(self):
        """Returns a dict from class name (or label, where there are no names) to its number of images."""
        if self.labels is None:
            return {}
        if self.class_names is None:
            return {int(label): int(n) for label, n in zip(*np.unique(self.labels, return_counts=True), strict=True)}
        return dict(
            zip(self.class_names, np.bincount(self.labels, minlength=len(self.class_names)).tolist(), strict=True)
        )

    def _positions(self, indices):
        everything = np.arange(len(self))
        if indices is None:
            return everything
        indices = np.asarray(indices)
        return np.atleast_1d(everything[indices if indices.size else indices.astype(int)])

    def _like(self, **changes):
        """Returns a dataset over the same source and digests, with some attributes changed."""
        view = object.__new__(type(self))
        names = {"rows": "_rows"}
        vars(view).update(vars(self) | {names.get(name, name): value for name, value in changes.items()})
        return view

    def _without_bad_images(self):
        try:
            self.verify()
            return self
        except BadImagesError as error:
            failures = error.failures
        kept = self[[i for i, name in enumerate(self.names) if name not in failures]]
        if not len(kept):
            raise BadImagesError(failures)
        bad = pd.DataFrame(list(failures.items()), columns=self.skipped.columns)
        return kept._like(skipped=pd.concat([self.skipped, bad], ignore_index=True))

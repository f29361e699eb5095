"""Images: those of a search, decoded once and held in memory, of any number of channels."""

import dataclasses
import hashlib
import warnings

import numpy as np

from ensemble_keras._terminal import without_retracing_warnings
from ensemble_keras._validation import check_images, check_labels
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.data.labels import encode_labels
from ensemble_keras.data.splits import train_test_indices
from ensemble_keras.features.extraction import predict_in_batches
from ensemble_keras.memory import with_smaller_batches
from ensemble_keras.runs import atomic_path

_BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True)
class SearchImages:
    """Images and their classes, as training takes them.

    Attributes:
        pixels: Array `(n, height, width, channels)` with values in [0, 255].
        labels: Int array `(n,)`, `0 … num_classes − 1`.
        file: Path of the file that holds the pixels, or `None`. With it, only the path goes to another process.
    """

    pixels: np.ndarray
    labels: np.ndarray
    file: str | None = None

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, rows):
        return SearchImages(self.pixels[rows], self.labels[rows])

    def __reduce__(self):
        if self.file is None:
            return SearchImages, (self.pixels, self.labels)
        return _opened, (self.file, self.labels)

    def load(self, rows, *, image_size):
        """Returns images by rows; all are of one size."""
        return self.pixels[rows]

    def predict(self, network):
        """Returns a network's probabilities `(n, num_classes)`."""

        def run(batch_size):
            return predict_in_batches(network, self.pixels, batch_size)

        with without_retracing_warnings():
            return with_smaller_batches(run, min(_BATCH_SIZE, len(self)), name=network.name)[0]

    def digests(self):
        """Returns the SHA-256 of each image, a list of strings."""
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in self.pixels]

    def stored(self, folder):
        """Returns the images with a file of theirs in a folder, which other processes here map into memory."""
        path = folder / f"{self.fingerprint()[:16]}.npy"
        if not path.exists():
            with atomic_path(path) as temporary:
                np.save(temporary, self.pixels, allow_pickle=False)
        return dataclasses.replace(self, file=str(path))

    def fingerprint(self):
        """Returns a SHA-256 of images and classes."""
        digest = hashlib.sha256(repr((self.pixels.shape, self.pixels.dtype.str)).encode())
        digest.update(np.ascontiguousarray(self.pixels))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()


def _opened(file, labels):
    return SearchImages(np.load(file, mmap_mode="r", allow_pickle=False), labels, file)


def search_images(x, y, *, input_shape, classes=None):
    """Returns images and labels, however given, as `SearchImages`, and the classes.

    Args:
        x: An `ImageDataset`, which is decoded at the size of the networks, or images of `input_shape` with values in
            [0, 255].
        y: Labels `(n,)`, ints or strings; not needed with a labelled dataset.
        input_shape: `(height, width, channels)`.
        classes: Array `(num_classes,)`; defaults to those of the labels.

    Raises:
        BadImagesError: If images of a dataset cannot be decoded.
        ValueError: If shapes, values or labels are not as described.
    """
    height, width, channels = input_shape
    names = None
    if isinstance(x, ImageDataset):
        if channels != 3:
            raise ValueError(
                f"An ImageDataset has images of three channels. Received: a space of {tuple(input_shape)}. Give the "
                "space three channels, or arrays."
            )
        if y is None:
            y, names = x.labels, x.class_names
        x = x.load(image_size=(height, width))
    pixels = check_images(x, channels=channels)
    if pixels.shape[1:] != tuple(input_shape):
        raise ValueError(
            f"`x` must hold images of the networks' input shape {tuple(input_shape)}. Received: shape "
            f"{pixels.shape}. Resize them, or give an ImageDataset, or the space another `input_shape`."
        )
    if y is None:
        raise ValueError("Labels are needed. Received: images without labels. Give `y`, or a labelled ImageDataset.")
    y = check_labels(y, len(pixels))
    if names is not None:
        y = np.asarray(names)[y]
    if classes is None:
        classes = np.asarray(names) if names is not None else np.unique(y)
    return SearchImages(pixels, np.asarray(encode_labels(y, classes))), np.asarray(classes)


@dataclasses.dataclass(frozen=True)
class SearchData:
    """The images of a search, by what they are for.

    Attributes:
        train: `SearchImages` that trials train on.
        selection: Those that choose epochs and trials.
        comparison: Those that only the comparison of ensembles sees.
        classes: Array `(num_classes,)`, what the labels stand for.
    """

    train: SearchImages
    selection: SearchImages
    comparison: SearchImages
    classes: np.ndarray

    def parts(self):
        """Returns the three by name."""
        return {"train": self.train, "selection": self.selection, "comparison": self.comparison}

    def fingerprints(self):
        """Returns a SHA-256 of each part, by name."""
        return {name: part.fingerprint() for name, part in self.parts().items()}

    def stored(self, folder):
        """Returns the data in files, which other processes on this machine map into memory."""
        return SearchData(**{name: part.stored(folder) for name, part in self.parts().items()}, classes=self.classes)


def search_data(x, y, validation_data, *, input_shape, shares, seed):
    """Returns images, labels and validation data, however given, as `SearchData`.

    Args:
        x: As in `search_images`.
        y: As in `search_images`.
        validation_data: `(x, y)`, an `ImageDataset`, or `None`: a share of the images.
        input_shape: `(height, width, channels)`.
        shares: Pair of floats in (0, 1): of the images that are for validation, where none are given; and of those
            for validation that are for comparison.
        seed: Int.

    Raises:
        BadImagesError: If images of a dataset cannot be decoded.
        ValueError: If the data are not as described, or too few to be divided.
    """
    train, classes = search_images(x, y, input_shape=input_shape)
    if validation_data is None:
        train, validation = divided(train, shares[0], seed, argument="validation_split")
    else:
        given = validation_data if isinstance(validation_data, tuple | list) else (validation_data, None)
        validation, _ = search_images(*given, input_shape=input_shape, classes=classes)
        _warn_of_leaks(train, validation)
    selection, comparison = divided(validation, shares[1], seed, every_class=False, argument="comparison_split")
    return SearchData(train, selection, comparison, classes)


def _warn_of_leaks(train, validation):
    seen = {*train.digests()}
    leaks = sum(digest in seen for digest in validation.digests())
    if leaks:
        warnings.warn(
            f"{leaks} of the {len(validation)} validation images are training images, too: figures on them say what "
            "a network remembers. Leave them out on one side.",
            stacklevel=5,
        )


def divided(images, share, seed, *, every_class=True, argument="test_size"):
    """Returns two parts, stratified, the same picture on one side; the second holds a share of the images."""
    rows, held = train_test_indices(
        images.labels,
        digests=images.digests(),
        test_size=share,
        seed=seed,
        every_class=every_class,
        argument=argument,
    )
    return images[rows], images[held]

"""Leaks: pictures and groups that are in both the training and the test data."""

import collections
import warnings

import numpy as np
import pandas as pd
from scipy.fft import dctn

from ensemble_keras._validation import check_choice
from ensemble_keras.data.decoding import BadImagesError
from ensemble_keras.data.inputs import as_dataset

_COLUMNS = ["train_file", "test_file", "train_index", "test_index", "kind", "distance"]

# Chosen on 3,207 x 313 chest X-rays (3,520 in all) and 20,000 x 4,000 CIFAR-10 images. Copies of an X-ray (JPEG at
# quality 30 to 75, 64 to 448 pixels, other proportions, brightness x 0.8 to 1.2, contrast x 1.2) are at most 4 bits
# away and correlate with it by .9957 or more. Different X-rays are so alike that the bits alone would give 3,500
# false pairs; but none of the 6 million pairs that are not byte-identical correlates by more than .98.
_NEAR_BITS = 10
_NEAR_CORRELATION = 0.99

_THUMBNAIL = 32
_LUMA = np.array([0.299, 0.587, 0.114], "float32")
_BLOCK = 1024


def find_leaks(train, test):
    """Finds pictures and groups that are on both sides.

    A pair is `"exact"` if the bytes are equal, and `"near"` if the perceptual hashes (64 bits: signs of the low
    frequencies of the cosine transform against their median, pHash, Zauner 2010) differ in at most 10 bits and the
    32 x 32 grey thumbnails correlate by at least .99: re-encoded, resized, slightly brighter or darker copies. Crops
    by more than a few pixels, turned and mirrored copies are not found. Where both sides have groups, each test image
    whose group is in the training data makes a `"group"` pair with the first training image of that group.

    Args:
        train: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        test: The same.

    Returns:
        `pandas.DataFrame`, a row per pair: `train_file`, `test_file`, `train_index`, `test_index`, `kind`, and
        `distance`, the differing bits of the hashes (0 if exact, NaN of a group). Exact ones first, by test image.

    Raises:
        BadImagesError: If images cannot be decoded; all of one side are listed.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")
    >>> ek.find_leaks(x[:3], x[2:])[["train_index", "test_index", "kind"]].values.tolist()
    [[2, 0, 'exact']]
    """
    train, test = as_dataset(train), as_dataset(test)
    exact = _exact_pairs(train.digests(), test.digests())
    near = [pair for pair in _near_pairs(_thumbnails(train), _thumbnails(test)) if pair[:2] not in exact]
    return _table(train, test, exact, near)


class SeenImages:
    """What is kept of training images to know them again: names, digests and groups, some bytes per image.

    Args:
        dataset: An `ImageDataset`.
    """

    def __init__(self, dataset):
        self.names, self.groups, self._digests = dataset.names, dataset.groups, dataset.digests()

    def check(self, test, *, leaks="warn"):
        """Does what `check_leaks` does, but for near-duplicates, which are known by the pixels alone."""
        return _say(_table(self, test, _exact_pairs(self._digests, test.digests()), []), leaks)


def _table(train, test, exact, near):
    pairs = [(i, j, "exact", 0.0) for i, j in exact] + [(i, j, "near", distance) for i, j, distance in near]
    pairs += [(i, j, "group", np.nan) for i, j in _group_pairs(train.groups, test.groups)]
    train_names, test_names = train.names, test.names
    rows = [(train_names[i], test_names[j], i, j, kind, distance) for i, j, kind, distance in pairs]
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"train_index": int, "test_index": int, "distance": float})


def check_leaks(train, test, *, leaks="warn"):
    """Warns of pictures and groups that are on both sides, or refuses them.

    Args:
        train: An `ImageDataset`.
        test: The same.
        leaks: `"warn"` or `"error"`. Defaults to `"warn"`.

    Returns:
        The table of `find_leaks`.

    Raises:
        ValueError: If there are leaks and `leaks="error"`.
    """
    check_choice("leaks", leaks, ["warn", "error"])
    return _say(find_leaks(train, test), leaks)


def _say(found, leaks):
    if not len(found):
        return found
    counts = ", ".join(f"{count} {kind}" for kind, count in found["kind"].value_counts(sort=False).items())
    shown = "".join(f"\n  {row.train_file} = {row.test_file} ({row.kind})" for row in found.head(10).itertuples())
    message = (
        f"{len(found)} pairs of images are in the training and the test data ({counts}), so figures on the test data "
        f"will be too good:{shown}" + ("\n  …" if len(found) > 10 else "") + "\n`find_leaks` gives all of them."
    )
    if leaks == "error":
        raise ValueError(message)
    warnings.warn(message, stacklevel=3)
    return found


def _exact_pairs(train_digests, test_digests):
    """Returns a dict with the pairs as keys: ordered, and quick to ask."""
    rows = collections.defaultdict(list)
    for i, digest in enumerate(train_digests):
        rows[digest].append(i)
    return {(i, j): None for j, digest in enumerate(test_digests) for i in rows.get(digest, ())}


def _group_pairs(train_groups, test_groups):
    if train_groups is None or test_groups is None:
        return []
    first = {group: i for i, group in reversed(list(enumerate(train_groups)))}
    return [(first[group], j) for j, group in enumerate(test_groups) if group in first]


def _thumbnails(dataset):
    """Returns the grey thumbnails, uint8 `(n, 32, 32)`: 1 KiB per image."""
    thumbnails = np.empty((len(dataset), _THUMBNAIL, _THUMBNAIL), "uint8")
    try:
        for start in range(0, len(dataset), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(dataset)))
            thumbnails[rows] = np.rint(dataset.load(rows, image_size=_THUMBNAIL) @ _LUMA)
    except BadImagesError:
        dataset.verify()  # lists those of the later blocks as well
        raise
    return thumbnails


def _near_pairs(train, test):
    """Returns sorted triples `(train index, test index, differing bits)` of two stacks of thumbnails."""
    pairs = []
    test_signs, test_units = _hash_signs(test), _units(test)
    for start in range(0, len(train), _BLOCK):
        block = train[start : start + _BLOCK]
        signs, units = _hash_signs(block), _units(block)
        for test_start in range(0, len(test), _BLOCK):
            beside = slice(test_start, test_start + _BLOCK)
            # Signs agree where their product is 1: a matrix product counts the bits.
            bits = (64 - signs @ test_signs[beside].T) / 2
            near = bits <= _NEAR_BITS
            if near.any():
                near &= units @ test_units[beside].T >= _NEAR_CORRELATION
            rows, columns = np.nonzero(near)
            pairs += zip((start + rows).tolist(), (test_start + columns).tolist(), bits[near].tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def _hash_signs(thumbnails):
    """Returns the perceptual hashes as float32 `(n, 64)` of -1 and 1, without the frequencies 0."""
    low = dctn(thumbnails.astype("float32"), axes=(1, 2), norm="ortho")[:, 1:9, 1:9].reshape(len(thumbnails), 64)
    return np.where(low > np.median(low, axis=1, keepdims=True), np.float32(1), np.float32(-1))


def _units(thumbnails):
    """Returns float32 `(n, 1024)`, centred and of length 1, so that products are correlations; 0 for one colour."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype("float32")
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

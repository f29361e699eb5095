"""Extraction: one pass over the images for all backbones; what is stored already is not computed again."""

import concurrent.futures
import dataclasses
import itertools
import time

import keras
import numpy as np

from ensemble_keras._progress import progress_bar
from ensemble_keras._terminal import without_retracing_warnings
from ensemble_keras._validation import check_at_least, check_image_size, check_seed
from ensemble_keras.backbones.folding import fold_batch_norms
from ensemble_keras.backbones.registry import backbone_label, build_backbone
from ensemble_keras.data.decoding import FILTER
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.features.keys import model_fingerprint, space_key
from ensemble_keras.features.reading import batches
from ensemble_keras.features.store import FeatureStore
from ensemble_keras.features.views import Views
from ensemble_keras.memory import with_smaller_batches

# Vectors are written at most this many seconds after they were computed: what a kill can cost.
_WRITE_EVERY = 2.0
# Backbones that run at a time. Their small operations leave cores idle; with two, 15 % less time in all was measured
# on two cores. More would hold the activations of more networks at once.
_AT_A_TIME = 2
# From so many images on a pass folds batch normalisations: that and the new graph cost a second or two a network, and
# a quarter of the time was saved on MobileNets, two cores.
_FOLD_FROM = 512


def extract_features(
    backbones,
    x,
    *,
    image_size,
    store=None,
    batch_size=64,
    weights="imagenet",
    views=1,
    augmentation="light",
    seed=0,
    verbose=1,
):
    """Computes the feature vectors of images with several frozen backbones, in one pass.

    Every image is read and decoded once for all backbones. With a `store`, vectors that are in it are taken from
    there, and new ones are written every two seconds, so an interrupted pass goes on where it stopped.

    With `views` above 1 augmented copies of each image are run, too. What is done to an image depends on its
    content, the number of the view and `seed` alone, so that an interrupted pass ends with the same vectors.

    Args:
        backbones: List of backbones: names (`"DenseNet121"`), names with options (`"MobileNetV2(alpha=0.35)"`) or
            `keras.Model`s from images in [0, 255] to features.
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        image_size: Int or `(height, width)`, in pixels: the size at which the backbones see the images.
        store: A `FeatureStore`, the path of one, or `None` to keep nothing. Defaults to `None`.
        batch_size: Int. Images per step; halved, and said once, where memory runs out. Defaults to 64.
        weights: `"imagenet"`, `None` (random) or a path, for backbones given by name. Defaults to `"imagenet"`.
        views: Int. Number of views of each image, of which the first is the image as it is. Defaults to 1.
        augmentation: What makes the other views, as in `build_augmentation`, without MixUp and CutMix. Defaults to
            `"light"`.
        seed: Int, of the views. Defaults to 0.
        verbose: 0 shows no progress. Defaults to 1.

    Returns:
        A dict from each backbone's label, as given, to a float32 array `(n, d)`, in the order of the images; with
        `views` above 1 `(n, views, d)`. Views of an image in training and test rows would be a leak: split by image.

    Raises:
        BadImagesError: If images cannot be decoded; all of them are listed.
        MemoryError: If a backbone cannot take even one image at a time; the others' vectors are stored.
        ValueError: If two backbones have one label, or an argument is not as described.

    Example:

    >>> images = np.zeros((2, 32, 32, 3), "uint8")
    >>> features = ek.extract_features(["CNN"], images, image_size=32, weights=None, verbose=0)
    >>> features["CNN"].shape
    (2, 128)
    """
    dataset = as_dataset(x)
    size = check_image_size(image_size)
    check_seed(seed)
    if isinstance(backbones, str | keras.Model):
        raise ValueError(f"`backbones` must be a list of backbones. Received: {backbones!r}. Put it into a list.")
    models = {}
    for backbone in backbones:
        label = backbone_label(backbone)
        if label in models:
            raise ValueError(f"Two backbones are called {label!r}. Give each another name.")
        models[label] = build_backbone(backbone, input_shape=(*size, 3), weights=weights)
    check_at_least("views", views, 1)
    made = Views(augmentation, views, seed) if views > 1 else None
    options = {"store": store, "batch_size": batch_size, "views": made, "verbose": verbose}
    result = extract(models, dataset, image_size=size, **options)
    for label, reason in result.skipped.items():
        raise MemoryError(f"No features of {label!r}: {reason}")
    return result.features


@dataclasses.dataclass
class Extraction:
    """What a pass gave.

    Attributes:
        features: Dict from label to float32 array `(n, d)`, or `(n, views, d)` where there are several views.
        skipped: Dict from label to the reason why there are no features.
        computed: Dict from label to the number of vectors computed now, not taken from the store.
        seconds: Dict from label to the seconds in which that backbone ran, a second one often beside it.
    """

    features: dict
    skipped: dict
    computed: dict
    seconds: dict


def extract(models, dataset, *, image_size, store=None, batch_size=64, views=None, verbose=1, doing=None):
    """Runs built backbones over a dataset, as `extract_features` does, and skips one that runs out of memory.

    Args:
        models: Dict from label to `keras.Model`, each from images of `image_size` to vectors.
        dataset: An `ImageDataset`.
        image_size: `(height, width)`.
        store: A `FeatureStore`, its path, or `None`.
        batch_size: Int.
        views: `Views`, or `None` for the images as they are.
        verbose: 0 shows no progress.
        doing: String, the text before the bar. Defaults to `"Running"` and what runs.

    Returns:
        An `Extraction`.
    """
    check_at_least("batch_size", batch_size, 1)
    if store is not None and not isinstance(store, FeatureStore):
        store = FeatureStore(store)
    batch_size = min(batch_size, max(len(dataset), 1))
    columns = [
        _Column(label, model, len(dataset), image_size, store, batch_size, views) for label, model in models.items()
    ]
    total = len(dataset) * (views.count if views is not None else 1)
    names = next(iter(models), "") if len(models) == 1 else f"{len(models)} backbones"
    try:
        with (
            progress_bar(doing or f"Running {names}", total, verbose=verbose and models) as advance,
            concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as workers,
            without_retracing_warnings(),
        ):
            for batch in batches(dataset, columns, image_size, batch_size, views):
                for column, stored in zip(columns, batch.stored, strict=True):
                    column.get_ready(batch, stored)
                taken = workers.map(_Column.take, columns, itertools.repeat(batch), batch.stored)
                for column, _ in zip(columns, taken, strict=True):
                    column.write_sometimes()
                advance(len(batch.rows))
    finally:
        # After an error or Ctrl-C, too: what was computed is kept.
        for column in columns:
            column.flush()
    return Extraction(
        features={c.label: c.vectors if views is not None else c.vectors[:, 0] for c in columns if c.failure is None},
        skipped={c.label: c.failure for c in columns if c.failure is not None},
        computed={c.label: c.computed for c in columns},
        seconds={c.label: c.seconds for c in columns},
    )


class _Column:
    """One backbone's vectors: filled from the store or by the backbone, written to the store from time to time."""

    def __init__(self, label, model, n, image_size, store, batch_size, views):
        self.label, self._model, self._store, self._batch_size = label, model, store, batch_size
        self._shape, self._network = model.output_shape[1:], None
        keys = [None] if views is None else [views.key(view) for view in range(views.count)]
        self.vectors = np.empty((n, len(keys), *self._shape), "float32")
        self.failure, self.computed, self.seconds = None, 0, 0.0
        self._unwritten, self._written_at = [], time.monotonic()
        if store is not None:
            fingerprint = model_fingerprint(model)
            described = {
                "backbone": label,
                "fingerprint": fingerprint,
                "image_size": list(image_size),
                "filter": FILTER,
                "precision": keras.config.dtype_policy().name,
            }
            # Of each view: its key in the store, and what a person is told of it.
            self._spaces = [
                (
                    space_key(fingerprint, image_size=image_size, image_filter=FILTER, view=key),
                    described if key is None else {**described, "view": key},
                )
                for key in keys
            ]

    def look_up(self, digests, view):
        return self._store.get(self._spaces[view][0], digests) if self._store is not None else {}

    def get_ready(self, batch, stored):
        """Makes the network that runs, before the first batch that needs it; in the main thread, as Keras expects."""
        if self._network is None and len(stored) < len(set(batch.digests)):
            many = len(self.vectors) >= _FOLD_FROM
            self._network = fold_batch_norms(self._model) if many else self._model

    def take(self, batch, stored):
        """Fills the rows of a batch, from what is stored and else from the backbone."""
        if self.failure is not None:
            return
        missing = [i for i, digest in enumerate(batch.digests) if digest not in stored]
        for i, digest in enumerate(batch.digests):
            if digest in stored:
                self.vectors[batch.rows[i], batch.view] = stored[digest].reshape(self._shape)
        if missing:
            self._compute(batch, missing)

    def _compute(self, batch, missing):
        start = time.perf_counter()
        pixels = batch.pixels[[batch.position[i] for i in missing]]
        try:
            vectors, self._batch_size = with_smaller_batches(
                lambda size: predict_in_batches(self._network, pixels, size), self._batch_size, name=self.label
            )
        except MemoryError as error:
            self.failure = str(error)
            return
        self.vectors[batch.rows[missing], batch.view] = vectors
        self.computed += len(missing)
        self.seconds += time.perf_counter() - start
        if self._store is not None:
            self._unwritten.append((batch.view, [batch.digests[i] for i in missing], vectors))

    def write_sometimes(self):
        """Writes what was computed, if the last time is long enough ago."""
        if time.monotonic() - self._written_at > _WRITE_EVERY:
            self.flush()

    def flush(self):
        """Writes the vectors that are not in the store yet."""
        for view in sorted({view for view, _, _ in self._unwritten}):
            parts = [(digests, vectors) for own, digests, vectors in self._unwritten if own == view]
            key, description = self._spaces[view]
            digests = [digest for part, _ in parts for digest in part]
            self._store.put(key, description, digests, np.concatenate([vectors for _, vectors in parts]))
        self._unwritten, self._written_at = [], time.monotonic()


def predict(model, dataset, *, image_size=None, batch_size=64, verbose=1):
    """Returns a model's outputs `(n, d)` for the images of a dataset, read and decoded as in `extract`.

    Args:
        model: `keras.Model` from images to vectors.
        dataset: An `ImageDataset`.
        image_size: `(height, width)`. Defaults to the model's own.
        batch_size: Int, halved where memory runs out.
        verbose: 0 shows no progress.

    Raises:
        BadImagesError: If images cannot be decoded; all of them are listed.
        MemoryError: If not even one image at a time fits.
    """
    size = image_size or model.input_shape[1:3]
    options = {"batch_size": batch_size, "verbose": verbose, "doing": "Predicting"}
    result = extract({model.name: model}, dataset, image_size=size, **options)
    for reason in result.skipped.values():
        raise MemoryError(reason)
    return result.features[model.name]


def predict_in_batches(model, pixels, batch_size):
    """Returns `model`'s outputs for images, `batch_size` at a time, as one float32 array.

    The last batch is filled up, since every other shape would be compiled anew.
    """
    parts = []
    for start in range(0, len(pixels), batch_size):
        part = pixels[start : start + batch_size]
        fill = np.zeros((batch_size - len(part), *part.shape[1:]), part.dtype)
        outputs = model.predict_on_batch(np.concatenate([part, fill]) if len(fill) else part)
        parts.append(np.asarray(outputs, "float32")[: len(part)])
    return np.concatenate(parts)

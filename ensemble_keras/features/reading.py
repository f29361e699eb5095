"""Reading: batches of images for a pass, read, looked up and decoded in threads, a few ahead of the backbones."""

import collections
import concurrent.futures
import dataclasses
import itertools
import os

import numpy as np

from ensemble_keras.data.decoding import BadImageError

_READ_AHEAD = 3


@dataclasses.dataclass
class Batch:
    """One view of some images.

    Attributes:
        rows: Int array, their places in the dataset.
        digests: List of bytes.
        view: Int, 0 for the images as they are.
        stored: For each column a dict from digest to vector.
        pixels: Array of the images that some column must compute, or `None` where there are none.
        position: Dict from a place in `rows` to one in `pixels`.
    """

    rows: np.ndarray
    digests: list
    view: int
    stored: list
    pixels: np.ndarray | None
    position: dict


def batches(dataset, columns, image_size, batch_size, views=None):
    """Yields the batches of a pass in order, all views of some images after one another.

    Every image is read once, and decoded once if some column lacks some view of it.

    Args:
        dataset: An `ImageDataset`.
        columns: List of objects with `look_up(digests, view)`, which gives a dict from digest to what is stored.
        image_size: `(height, width)`.
        batch_size: Int.
        views: `Views`, or `None` for the images as they are.

    Raises:
        BadImagesError: If images cannot be decoded; all of them are listed.
    """
    numbers = range(views.count if views is not None else 1)
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        concurrent.futures.ThreadPoolExecutor(1) as ahead,
    ):
        decoded = None

        def prepare(start, view):
            # One thread, in order: the views of a batch are made from what its view 0 left here.
            nonlocal decoded
            if view == 0:
                rows = np.arange(start, min(start + batch_size, len(dataset)))
                decoded = _Decoded(dataset, rows, columns, image_size, numbers, pool)
            return decoded.batch(view, views, batch_size)

        waiting = collections.deque()
        try:
            for start, view in itertools.product(range(0, len(dataset), batch_size), numbers):
                waiting.append(ahead.submit(prepare, start, view))
                if len(waiting) > _READ_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BadImageError:
            # One bad file means that there may be more: list them all at once.
            dataset.verify()
            raise
        finally:
            ahead.shutdown(cancel_futures=True)


class _Decoded:
    """Images that were read, what is stored of them, and the pixels of those of which something is not."""

    def __init__(self, dataset, rows, columns, image_size, numbers, pool):
        images = list(pool.map(dataset.read, rows))
        self._rows, self._digests = rows, [image.digest for image in images]
        self._stored = [[column.look_up(self._digests, view) for column in columns] for view in numbers]
        missing = [i for i in range(len(rows)) if any(self._lacks(i, view) for view in numbers)]
        pixels = list(pool.map(lambda i: images[i].decode(image_size), missing))
        self._pixels = dict(zip(missing, pixels, strict=True))

    def batch(self, view, views, batch_size):
        missing = [i for i in self._pixels if self._lacks(i, view)]
        pixels = np.stack([self._pixels[i] for i in missing]) if missing else None
        if view and missing:
            pixels = views.of(pixels, [self._digests[i] for i in missing], view, batch_size)
        position = {i: j for j, i in enumerate(missing)}
        return Batch(self._rows, self._digests, view, self._stored[view], pixels, position)

    def _lacks(self, i, view):
        return any(self._digests[i] not in found for found in self._stored[view])

"""Batches: a dataset as `keras.utils.PyDataset`, in an order that depends on seed and epoch alone."""

import keras
import numpy as np

from ensemble_keras._validation import check_at_least, check_seed


class ImageBatches(keras.utils.PyDataset):
    """Batches `(images, labels)` of an `ImageDataset`, or `(images,)` where it has no labels.

    Give `shuffle=False` to `model.fit`: by default it puts the batches in another order by Python's global random
    state. A run that goes on in epoch 7 sets `epoch`, and sees what it would have seen.

    Args:
        dataset: An `ImageDataset`.
        image_size: Int or `(height, width)`.
        batch_size: Int, at least 1.
        shuffle: Boolean. Whether each epoch has another order.
        seed: Int, 0 or above.

    Attributes:
        epoch: Int, from 0. Rises by one at the end of each epoch of `model.fit`.
    """

    def __init__(self, dataset, *, image_size, batch_size, shuffle=False, seed=0):
        super().__init__()
        self.dataset, self.image_size = dataset, image_size
        self.batch_size = check_at_least("batch_size", batch_size, 1)
        self.shuffle, self.seed, self.epoch = shuffle, check_seed(seed), 0
        self._order = (None, None)
        self._taken = None  # batches of the running epoch; None between epochs

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} batches. Received: index {index}.")
        if self._taken is not None:
            self._taken += 1
        start = index % len(self) * self.batch_size
        rows = self._rows(self.epoch)[start : start + self.batch_size]
        images = self.dataset.load(rows, image_size=self.image_size)
        return (images,) if self.dataset.labels is None else (images, self.dataset.labels[rows])

    def on_epoch_begin(self):
        """Starts to count the epoch's batches."""
        self._taken = 0

    def on_epoch_end(self):
        """Goes on to the next epoch's order, if there was an epoch.

        Keras also says that an epoch ended after it looked at a batch to build the model.
        """
        if self._taken is not None and self._taken >= min(2, len(self)):
            self.epoch += 1
        self._taken = None

    def _rows(self, epoch):
        if not self.shuffle:
            return np.arange(len(self.dataset))
        known, rows = self._order
        if known != epoch:
            rows = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
            self._order = (epoch, rows)
        return rows

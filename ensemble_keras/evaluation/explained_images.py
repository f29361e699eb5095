"""Explained images: images and classes to be explained, checked, and what a model predicts for them."""

import numpy as np

from ensemble_keras._validation import check_images
from ensemble_keras.combiners.inference import quietly_traced
from ensemble_keras.features.extraction import predict_in_batches
from ensemble_keras.measures.metrics import check_class_indices
from ensemble_keras.memory import with_smaller_batches


def check_pixels(model, images):
    """Returns images as an array that the model takes; refuses others, as `check_images` and of other sizes."""
    shape = getattr(model, "input_shape", None)
    taken = shape[1:] if isinstance(shape, tuple) and len(shape) == 4 else (None, None, 3)
    images = check_images(images, "images", channels=taken[-1])
    if any(side not in (None, own) for side, own in zip(taken, images.shape[1:], strict=True)):
        raise ValueError(f"`images` must be of the model's size, {taken[:2]}. Received: {images.shape[1:3]}.")
    return images


def check_classes(class_index, n, num_classes):
    """Returns int32 classes `(n,)`, -1 for the predicted one."""
    if class_index is None:
        return np.full(n, -1, "int32")
    classes = np.broadcast_to(class_index, n) if np.ndim(class_index) == 0 else class_index
    return check_class_indices(classes, num_classes, n, "class_index").astype("int32")


def predicted(model, images_at, count, batch_size):
    """Returns probabilities `(count, num_classes)` of the images that `images_at` gives for arrays of indices."""

    def run(size):
        parts = (images_at(np.arange(start, min(start + size, count))) for start in range(0, count, size))
        return np.concatenate([predict_in_batches(model, part, size) for part in parts])

    with quietly_traced():
        found, _ = with_smaller_batches(run, min(batch_size, count), name=f"Predictions of {model.name}")
    return np.hstack([1 - found, found]) if found.shape[1] == 1 else found

"""Training data: what a network learns from and is validated on, labelled as the network counts its classes."""

import keras
import numpy as np

from ensemble_keras._validation import check_seed, model_hint
from ensemble_keras.data.inputs import as_dataset, validation_dataset
from ensemble_keras.data.labels import class_weights, with_class_indices_of
from ensemble_keras.measures.metrics import check_class_indices, check_probabilities
from ensemble_keras.members.trainer import inner_split


def labelled_for(model, dataset):
    """Returns a dataset whose labels are 0 … num_classes − 1, as a model counts, and its classes.

    Args:
        model: A `keras.Model` to class probabilities.
        dataset: An `ImageDataset`: its labels are names, or class indices where it knows no names.

    Raises:
        ValueError: If there are no labels, or they are not of the model's classes.
    """
    if dataset.labels is None:
        raise ValueError("Labels are needed. Received: images without labels. Give `y`, or a labelled ImageDataset.")
    num_classes = max(model.output_shape[-1], 2)
    if dataset.class_names is None and dataset.labels.dtype.kind in "iu":
        labels = check_class_indices(dataset.labels, num_classes, len(dataset))
        return dataset.with_labels(labels), np.arange(num_classes)
    classes, labels = dataset.class_names, dataset.labels
    if classes is None:
        classes, labels = np.unique(labels, return_inverse=True)
    if len(classes) != num_classes:
        raise ValueError(
            f"The model has {num_classes} classes. Received: data with {len(classes)}: "
            f"{', '.join(map(str, classes[:10]))}."
        )
    return dataset.with_labels(labels), np.asarray(classes)


def check_gives_probabilities(model, image_size=None):
    """Raises `ValueError` if a model is not from images to one output, or says no probabilities of a black image.

    Args:
        model: A `keras.Model` from images.
        image_size: `(height, width)`. Defaults to `None`: the model's.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "Expected a model from images to class probabilities. "
            f"Received: {model.name!r} with {len(model.inputs)} inputs and {len(model.outputs)} outputs."
        )
    height, width = image_size or model.input_shape[1:3]
    black = keras.ops.zeros((1, height, width, model.input_shape[-1]))
    p = keras.ops.convert_to_numpy(model(black, training=False))
    check_probabilities(p.astype("float32"), name=f"the predictions of {model.name!r}")


def training_data(model, x, y, *, groups, validation_data, class_weight, settings, seed):
    """Returns the images to train on, those to validate on (`None`: too few), and the weight of each class.

    Args:
        model: A `keras.Model` to class probabilities.
        x: As in `fine_tune`.
        y: As in `fine_tune`.
        groups: As in `fine_tune`.
        validation_data: As in `fine_tune`.
        class_weight: As in `fine_tune`.
        settings: A `Training`; without validation data, its share of the images is split off.
        seed: Int, of the split.

    Returns:
        An `ImageDataset`; such a dataset or `None`; a list of floats `(num_classes,)` or `None`.
    """
    check_seed(seed)
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a `keras.Model`. Received: {model!r}.{model_hint(model)}")
    dataset, classes = labelled_for(model, as_dataset(x, y, groups=groups))
    weights = class_weights(dataset.labels, classes, class_weight)
    if validation_data is not None:
        return dataset, with_class_indices_of(validation_dataset(validation_data), classes), weights
    rows, held = inner_split(dataset, settings, seed)
    return dataset[rows], dataset[held] if len(held) else None, weights

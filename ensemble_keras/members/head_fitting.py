"""Head fitting: the head of a member on features of its backbone, solved where it is linear, else trained."""

import dataclasses

import numpy as np

from ensemble_keras.data.sampling import combined_weights
from ensemble_keras.features.extraction import extract
from ensemble_keras.features.views import stack_views
from ensemble_keras.members.heads import solve_linear_head
from ensemble_keras.members.member import backbone_of, hidden_units, set_head
from ensemble_keras.members.mlp import train_mlp_head
from ensemble_keras.members.trainer import folds_that_fit, separate_sets


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A head that fits the features of new images.

    Attributes:
        layers: List of `(kernel, bias)`, float32, as `set_head` takes them.
        out_of_fold: Float32 array `(n, num_classes)` of probabilities, each image as it is, by a head that did not
            see it.
        strength: Float, the chosen C of a linear head; `None` of one with hidden units.
        history: Dict of curves of one with hidden units; empty of a linear head.
    """

    layers: list
    out_of_fold: np.ndarray
    strength: float | None
    history: dict


def fit_head(features, y, folds, *, num_classes, units=(), sets=None, class_weight=None, seed=0):
    """Fits a head: solved to its optimum where it is linear, trained where it has hidden units.

    Args:
        features: Float array `(n, d)`; or `(n, views, d)`, of which view 0 is the image as it is: then the head
            learns from all views of an image, which share its fold, and predicts view 0 alone.
        y: Int array `(n,)` of class indices.
        folds: Int array `(n,)`, the fold that holds each image out.
        num_classes: Int.
        units: Tuple of ints, the hidden units of each layer; `()`: a linear head.
        sets: Int array `(n,)`: images with equal numbers are on one side where hidden units stop early. Defaults to
            `None`: each image by itself.
        class_weight: Sequence of `num_classes` floats, or `None`.
        seed: Int, for hidden units.

    Returns:
        A `FittedHead`.
    """
    views = features.shape[1] if features.ndim == 3 else 1
    sets = np.repeat(np.arange(len(features)) if sets is None else sets, views)
    if features.ndim == 3:
        features, y, folds = stack_views(features, y, folds)
    weights = None if class_weight is None else np.asarray(class_weight)
    common = {"num_classes": num_classes, "class_weight": weights}
    if not units:
        head = solve_linear_head(features, y, folds, **common)
        return FittedHead([(head.kernel, head.bias)], head.out_of_fold[::views], head.strength, {})
    head = train_mlp_head(features, y, folds, units=units, sets=sets, seed=seed, **common)
    return FittedHead(head.layers, head.out_of_fold[::views], None, head.history)


def solve_head(member, features, y, folds, *, sets=None, class_weight=None, sampling=None, seed=0):
    """Fits a member's head and sets it.

    Args:
        member: A model made by `build_member`.
        features: `(n, d)` of the frozen backbone, or `(n, views, d)`.
        y: Int array `(n,)` of class indices.
        folds: Int array `(n,)`, by which the L2 strength, or the number of epochs, is chosen.
        sets: As in `fit_head`.
        class_weight: Sequence of `num_classes` floats, or `None`.
        sampling: `None`, `"over"` or `"under"`: counts as the class weights that it amounts to.
        seed: Int.
    """
    num_classes = member.output_shape[-1]
    weights = combined_weights(class_weight, y, num_classes, sampling)
    options = {"num_classes": num_classes, "units": hidden_units(member), "class_weight": weights, "seed": seed}
    set_head(member, fit_head(features, y, folds, sets=sets, **options).layers)


def solve_probe(member, images, *, class_weight=None, sampling=None, views=None, store=None, seed=0, verbose=1):
    """Solves a member's head on the features of its backbone as it is (a linear probe).

    Args:
        member: A model made by `build_member`.
        images: An `ImageDataset` with labels `0 … num_classes − 1`.
        class_weight: As in `solve_head`.
        sampling: As in `solve_head`.
        views: `Views` of each image that the head learns from. Defaults to `None`: the images as they are.
        store: A `FeatureStore`, its path, or `None`.
        seed: Int. Of the folds, too, by which the head's strength is chosen.
        verbose: 0 shows no progress.

    Raises:
        MemoryError: If not even one image at a time fits.
    """
    trunk = {member.name: backbone_of(member)}
    found = extract(trunk, images, image_size=member.input_shape[1:3], store=store, views=views, verbose=verbose)
    for reason in found.skipped.values():
        raise MemoryError(reason)
    folds = folds_that_fit(images, seed)
    options = {"sets": separate_sets(images), "class_weight": class_weight, "sampling": sampling, "seed": seed}
    solve_head(member, found.features[member.name], images.labels, folds, **options)

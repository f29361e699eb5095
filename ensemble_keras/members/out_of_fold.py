"""Out-of-fold predictions: for every image, what a member says that did not train on it."""

from ensemble_keras import runs
from ensemble_keras._validation import check_choice, check_image_size, check_seed
from ensemble_keras.backbones.registry import (
    backbone_label,
    build_backbone,
    check_pretrained,
    default_size,
    has_pretrained_weights,
)
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.data.labels import class_weights, with_class_indices
from ensemble_keras.data.sampling import SAMPLINGS, combined_weights
from ensemble_keras.data.splits import make_folds
from ensemble_keras.devices import resolve_devices
from ensemble_keras.executors import check_executor
from ensemble_keras.features.extraction import extract_features
from ensemble_keras.features.views import check_views
from ensemble_keras.members.fitting import check_unfreezing, fit_frozen_member, fit_trained_member
from ensemble_keras.members.member import HEADS
from ensemble_keras.members.settings import as_fine_tuning, as_training
from ensemble_keras.members.trainer import hold_decoded, separate_sets


def out_of_fold_predictions(
    backbone,
    x,
    y=None,
    *,
    groups=None,
    cv=5,
    seed=0,
    image_size=None,
    weights="imagenet",
    head="linear",
    training=None,
    fine_tune=None,
    augmentation=None,
    views=1,
    class_weight=None,
    sampling=None,
    devices=None,
    store=None,
    executor=None,
    verbose=1,
):
    """Predicts every image by a member that was fitted without it.

    A frozen backbone is run once; its head is fitted once per fold, at the L2 strength with the lowest out-of-fold
    log loss. A backbone without pretrained weights is trained once per fold, and one that is fine-tuned, too.

    Args:
        backbone: A name, a name with options, or a `keras.Model` from images in [0, 255] to features.
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        y: Labels `(n,)`, ints or strings; not needed with a labelled `ImageDataset`.
        groups: Sequence `(n,)`: images of one group (a patient) share a fold. Defaults to the dataset's groups.
        cv: Int, the number of stratified folds, or a scikit-learn splitter that holds every image out once. Defaults
            to 5.
        seed: Int. Of the folds and of training. Defaults to 0.
        image_size: Int or `(height, width)`. Defaults to the backbone's own size.
        weights: `"imagenet"`, `None` or a path, for a backbone given by name. Defaults to `"imagenet"`.
        head: `"linear"` or `"mlp"`, of a frozen backbone. Defaults to `"linear"`.
        training: `Training` settings of a backbone without pretrained weights.
        fine_tune: `None`: a pretrained backbone stays frozen; or `True` or `FineTuning` settings.
        augmentation: Of training images, as in `build_augmentation`: of a backbone that is trained or fine-tuned, or,
            of a frozen one, what makes its `views`.
        views: Int. Number of views of each image that a frozen backbone's head learns from, of which the first is the
            image as it is. All of them share its fold, and predictions are of the first alone. Defaults to 1.
        class_weight: `None`, `"balanced"`, or a dict from class to weight.
        sampling: `None`, `"over"` or `"under"`, of training images, so that classes are even.
        devices: As in `fine_tune`.
        store: A `FeatureStore`, its path, or `None`.
        executor: Where the folds of what is trained or fine-tuned run, as in `EnsembleClassifier`.
        verbose: 0 shows no progress. Defaults to 1.

    Returns:
        Float32 array `(n, num_classes)`; column `j` is class `j` in the sorted order of labels, or in the order of
        the dataset's `class_names`.

    Raises:
        ValueError: If there are fewer classes than two, fewer images (or groups) of a class than folds, or an
            argument is not as described.
        TypeError: If `executor` is none.
    """
    check_choice("head", head, HEADS)
    check_choice("sampling", sampling, SAMPLINGS)
    check_seed(seed)
    resolve_devices(devices)
    check_executor(executor)
    settings = _settings(backbone, weights, as_training(training), as_fine_tuning(fine_tune))
    check_views(augmentation, views, seed, frozen=settings is None, trained=settings is not None)
    dataset, classes = with_class_indices(as_dataset(x, y, groups=groups))
    make_folds(dataset.labels, groups=dataset.groups, cv=cv, seed=seed, class_names=classes)
    size = check_image_size(default_size(backbone) if image_size is None else image_size)
    check_pretrained(backbone, weights)
    name, num_classes = backbone_label(backbone), len(classes)
    trunk = build_backbone(backbone, input_shape=(*size, 3), weights=weights_for(backbone, weights))
    if settings is not None:
        check_unfreezing(trunk, settings)
    weight = class_weights(dataset.labels, classes, class_weight)
    features = None
    if has_pretrained_weights(backbone, weights):
        options = {"store": store, "views": views, "augmentation": augmentation, "seed": seed, "verbose": verbose}
        features = extract_features([trunk], dataset, image_size=size, **options)[trunk.name]
    folds = make_folds(
        dataset.labels, groups=dataset.groups, digests=dataset.digests(), cv=cv, seed=seed, class_names=classes
    )
    common = {"num_classes": num_classes, "head": head, "seed": seed, "run": runs.Run(None, {})}
    if settings is None:
        weight = combined_weights(weight, dataset.labels, num_classes, sampling)
        options = {"sets": separate_sets(dataset), "class_weight": weight, **common}
        member = fit_frozen_member(name, trunk, features, dataset.labels, folds, **options)
        return member.out_of_fold
    options = {"augmentation": augmentation, "sampling": sampling, "devices": devices, "verbose": verbose}
    options["executor"] = executor
    held = hold_decoded(dataset, size)
    member = fit_trained_member(
        name, trunk, held, folds, settings, features=features, class_weight=weight, **options, **common
    )
    return member.out_of_fold


def _settings(backbone, weights, training, fine_tune):
    """Returns how the backbone is trained, or `None` where it stays frozen."""
    if has_pretrained_weights(backbone, weights):
        return fine_tune
    if fine_tune is not None:
        raise ValueError(
            f"`fine_tune` is of backbones with pretrained weights. Received: {backbone_label(backbone)}, which has "
            f"none with weights={weights!r}: `training` says how it is trained."
        )
    return training


def weights_for(backbone, weights):
    """Returns the weights to build a backbone with: `None` where it has no pretrained ones and is trained instead."""
    return weights if has_pretrained_weights(backbone, weights) else None

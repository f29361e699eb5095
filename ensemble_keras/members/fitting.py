"""Fitting: turns a backbone into a trained member, with predictions on images that it did not train on."""

import dataclasses
import time

import keras
import numpy as np

from ensemble_keras.features.keys import architecture_fingerprint, array_digest, model_fingerprint
from ensemble_keras.members.fold_training import FoldTraining, average_of
from ensemble_keras.members.head_fitting import fit_head
from ensemble_keras.members.member import HEADS, build_member, set_head
from ensemble_keras.members.trainer import Trainer, weights_of
from ensemble_keras.members.unfreezing import unfrozen
from ensemble_keras.members.unit_running import results_of


@dataclasses.dataclass
class FittedMember:
    """A trained member and what is known about it.

    Attributes:
        name: String, the backbone's label.
        model: `keras.Model` from images to probabilities.
        out_of_fold: `(n, num_classes)` probabilities, each row by a model that did not train on it.
        features: What a combiner of features learns from: `(n, d)` of a frozen backbone; `(folds, n, d)` of one
            trained per fold, since every fold's network has features of its own; or `None` if not asked for.
        final_features: `(n, d)` of `model`; the same array as `features` where the backbone is frozen.
        history: Dict of curves, of what trains by epochs; else empty.
        seconds: Float, of heads or training; not of the shared feature pass.
        note: String, what a reader must know, or `""`.
        details: Dict of settings found, such as the head's `strength`.
    """

    name: str
    model: keras.Model
    out_of_fold: np.ndarray
    features: np.ndarray | None
    final_features: np.ndarray | None
    history: dict
    seconds: float
    note: str
    details: dict


def fit_frozen_member(
    name, trunk, features, y, folds, *, num_classes, head="linear", sets=None, seed=0, class_weight=None, run
):
    """Fits a head on the features of a frozen backbone.

    Args:
        name: String, the member's name.
        trunk: `keras.Model`, the backbone.
        features: `(n, d)` of the images; or `(n, views, d)`, view 0 the image as it is: then the head learns from all
            views, and all else is of view 0.
        y: Int array `(n,)` of class indices.
        folds: Int array `(n,)`, the fold that holds each image out.
        num_classes: Int.
        head: `"linear"`, solved to its optimum, or `"mlp"`, trained.
        sets: Int array `(n,)`, for `"mlp"`: images with equal numbers are on one side where it stops early. Defaults
            to `None`: each image by itself.
        seed: Int, for `"mlp"`.
        class_weight: Array `(num_classes,)` or `None`.
        run: The `Run` that keeps the result.

    Returns:
        A `FittedMember`.
    """
    start = time.perf_counter()

    def fit():
        options = {"num_classes": num_classes, "class_weight": class_weight, "seed": seed}
        fitted = fit_head(features, y, folds, units=HEADS[head], sets=sets, **options)
        arrays = {"out_of_fold": fitted.out_of_fold, **_head_arrays(fitted.layers)}
        arrays |= {f"history_{key}": np.asarray(values) for key, values in fitted.history.items()}
        return arrays | ({} if fitted.strength is None else {"strength": np.float64(fitted.strength)})

    depends_on = {
        "features": array_digest(features),
        "y": array_digest(y),
        "folds": array_digest(folds),
        "head": head,
        "num_classes": num_classes,
    }
    depends_on |= {"class_weight": class_weight, "seed": seed if head == "mlp" else None}
    depends_on["sets"] = array_digest(sets) if head == "mlp" and sets is not None else None
    result, _ = run.unit(f"{name} head", depends_on, fit)
    model = build_member(trunk, num_classes, head=head)
    set_head(model, [(result[f"kernel_{i}"], result[f"bias_{i}"]) for i in range(_count(result, "kernel_"))])
    details = {"head": head, "trained": "head"}
    if "strength" in result:
        details["strength"] = float(result["strength"])
    if features.ndim == 3:
        details["views"] = features.shape[1]
        # A copy, so that the other views need not be kept.
        features = features[:, 0].copy()
    return FittedMember(
        name=name,
        model=model,
        out_of_fold=result["out_of_fold"],
        features=features,
        final_features=features,
        history=_history(result),
        seconds=time.perf_counter() - start,
        note="",
        details=details,
    )


def fit_trained_member(
    name,
    trunk,
    dataset,
    folds,
    settings,
    *,
    num_classes,
    features=None,
    validation=None,
    seed=0,
    class_weight=None,
    augmentation=None,
    sampling=None,
    head="linear",
    refit=True,
    devices=None,
    with_features=False,
    executor=None,
    run,
    verbose=1,
):
    """Trains a backbone and its head once per fold for honest predictions, then makes one member of it.

    From random weights, or, where `features` are given, from pretrained ones: then each training starts from a head
    solved on the features of its own training images, and keeps it where no epoch is better.

    Args:
        name: String, the member's name.
        trunk: `keras.Model`, the backbone. From scratch its weights are drawn anew for each training.
        dataset: An `ImageDataset` with labels `0 … num_classes − 1`.
        folds: Int array `(n,)`, the fold that holds each image out.
        settings: A `Training`; a `FineTuning` where `features` are given.
        num_classes: Int.
        features: `(n, d)` of the frozen backbone, or `None`: it is trained from random weights.
        validation: An `ImageDataset` for early stopping, or `None`: a part of each fold's training images.
        seed: Int.
        class_weight: List of `num_classes` floats, or `None`.
        augmentation: As in `build_augmentation`.
        sampling: `None`, `"over"` or `"under"`.
        head: `"linear"` or `"mlp"`, of a pretrained backbone.
        refit: Whether the member is trained once more on all images, for the mean of the folds' best epochs; else it
            is the average of the folds' networks, and costs as many times more to run.
        devices: As in `fine_tune`.
        with_features: Whether a combiner needs the members' features; only with `refit`.
        executor: Where the trainings run, as in `run_units`: the folds several at a time. Defaults to `None`: here.
        run: The `Run` that keeps each training's result, and its state after every epoch.
        verbose: 0 shows no progress.

    Returns:
        A `FittedMember`.
    """
    start = time.perf_counter()
    if features is not None:
        # The backbone may be a model of the user's, who wants to find it as it was.
        trunk, weights = keras.models.clone_model(trunk), trunk.get_weights()
        trunk.set_weights(weights)
    template = build_member(trunk, num_classes, name=trunk.name, head=head if features is not None else "linear")
    options = {"class_weight": class_weight, "augmentation": augmentation, "sampling": sampling, "devices": devices}
    trainer = Trainer(template, settings, **options, seed=seed, verbose=verbose)
    depends_on = {
        # From which the seeds are made, too.
        "name": name,
        "model": architecture_fingerprint(template) if features is None else model_fingerprint(trunk),
        "head": head if features is not None else "linear",
        "data": dataset.fingerprint(),
        "folds": array_digest(folds),
        "validation": validation and validation.fingerprint(),
        "seed": seed,
        **trainer.depends_on(),
    }
    depends_on |= _kept(run, f"{name} fold {folds.min()}", depends_on, with_features=with_features, refit=refit)
    training = FoldTraining(name, trainer, dataset, folds, features, validation, seed, depends_on)
    units = training.units()
    results = {
        unit.fold: result for unit, result in zip(units, results_of(training, units, run, executor), strict=True)
    }
    epochs = round(float(np.mean([result["best_epoch"] for result in results.values()])))
    if features is None:
        epochs = max(1, epochs)
    said = {f"fold {fold + 1}": result["note"] for fold, result in results.items()}
    if refit:
        (final,) = results_of(training, [training.final_unit(epochs)], run, executor)
        template.set_weights(weights_of(final))
        model, said["all images"] = template, final["note"]
    else:
        model = average_of(template, [weights_of(result) for result in results.values()])
    trainer.release()
    out_of_fold = np.empty((len(dataset), num_classes), "float32")
    for fold, result in results.items():
        out_of_fold[folds == fold] = result["out_of_fold"]
    return FittedMember(
        name=name,
        model=model,
        out_of_fold=out_of_fold,
        features=np.stack([r["features"] for r in results.values()]) if with_features else None,
        final_features=final["features"] if with_features else None,
        # The first fold's curves have a validation part; the last training has none.
        history=_history(results[folds.min()]),
        seconds=time.perf_counter() - start,
        note="; ".join(f"{which}: {note}" for which, note in said.items() if str(note)),
        details={
            "head": depends_on["head"],
            "trained": "end to end" if features is None else "fine-tuned",
            "epochs": epochs,
            "refit": refit,
        },
    )


def _kept(run, first_fold, depends_on, **wanted):
    """Returns what folds keep: what is wanted, or what an earlier run kept, where that is more and will do.

    One that kept features, too, has all that one without them needs, and so has one that kept each fold's weights.
    """
    richer = [wanted, {**wanted, "with_features": True}, {**wanted, "refit": False}]
    return next((kept for kept in richer if run.has(first_fold, {**depends_on, **kept})), wanted)


def check_unfreezing(trunk, settings):
    """Raises `ValueError` if settings name a layer to unfreeze, or a number of blocks, that a backbone has not."""
    with unfrozen(build_member(trunk, 2), settings):
        pass


def _head_arrays(layers):
    kernels = {f"kernel_{i}": kernel for i, (kernel, _) in enumerate(layers)}
    return kernels | {f"bias_{i}": bias for i, (_, bias) in enumerate(layers)}


def _count(arrays, prefix):
    return sum(key.startswith(prefix) for key in arrays)


def _history(arrays):
    return {key.removeprefix("history_"): v.tolist() for key, v in arrays.items() if key.startswith("history_")}

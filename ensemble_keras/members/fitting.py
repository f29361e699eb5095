"""Fitting: turns a backbone into a trained member, with predictions on images that it did not train on."""

import dataclasses
import time

import keras
import numpy as np

from ensemble_keras.data.splits import make_folds
from ensemble_keras.features.extraction import predict
from ensemble_keras.features.keys import architecture_fingerprint, array_digest, model_fingerprint
from ensemble_keras.members.head_fitting import fit_head, solve_head
from ensemble_keras.members.initialisation import reinitialised, set_state
from ensemble_keras.members.member import HEADS, build_member, set_head
from ensemble_keras.members.trainer import Trainer, inner_split, result_arrays, weight_arrays, weights_of
from ensemble_keras.members.unfreezing import unfrozen


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


def fit_frozen_member(name, trunk, features, y, folds, *, num_classes, head="linear", seed=0, class_weight=None, run):
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
        seed: Int, for `"mlp"`.
        class_weight: Array `(num_classes,)` or `None`.
        run: The `Run` that keeps the result.

    Returns:
        A `FittedMember`.
    """
    start = time.perf_counter()

    def fit():
        fitted = fit_head(
            features, y, folds, num_classes=num_classes, units=HEADS[head], class_weight=class_weight, seed=seed
        )
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
        "model": architecture_fingerprint(template) if features is None else model_fingerprint(trunk),
        "head": head if features is not None else "linear",
        "data": dataset.fingerprint(),
        "folds": array_digest(folds),
        "validation": validation and validation.fingerprint(),
        "seed": seed,
        **trainer.depends_on(),
    }
    # A run that kept the features, too, has all that one without them needs.
    first_fold = f"{name} fold {folds.min()}"
    with_features = with_features or run.has(first_fold, {**depends_on, "with_features": True, "refit": refit})
    depends_on |= {"with_features": with_features, "refit": refit}
    unit = _TrainingUnit(name, trainer, dataset, folds, features, validation, seed, with_features, run, depends_on)
    results = [unit.fold(fold, keep_weights=not refit) for fold in np.unique(folds)]
    epochs = round(float(np.mean([result["best_epoch"] for result in results])))
    if features is None:
        epochs = max(1, epochs)
    if refit:
        final = unit.final(epochs)
        template.set_weights(weights_of(final))
        model, last = template, [final]
    else:
        model, last = _average_of(template, [weights_of(result) for result in results]), []
    trainer.release()
    out_of_fold = np.empty((len(dataset), num_classes), "float32")
    for fold, result in zip(np.unique(folds), results, strict=True):
        out_of_fold[folds == fold] = result["out_of_fold"]
    notes = [str(result["note"]) for result in (*results, *last) if str(result["note"])]
    return FittedMember(
        name=name,
        model=model,
        out_of_fold=out_of_fold,
        features=np.stack([r["features"] for r in results]) if with_features else None,
        final_features=final["features"] if with_features else None,
        # The first fold's curves have a validation part; the last training has none.
        history=_history(results[0]),
        seconds=time.perf_counter() - start,
        note="; ".join(dict.fromkeys(notes)),
        details={
            "head": depends_on["head"],
            "trained": "end to end" if features is None else "fine-tuned",
            "epochs": epochs,
            "refit": refit,
        },
    )


@dataclasses.dataclass
class _TrainingUnit:
    """The trainings of a member with one network; the result of each is a dict of arrays."""

    name: str
    trainer: Trainer
    dataset: object
    folds: np.ndarray
    features: np.ndarray | None
    validation: object
    seed: int
    with_features: bool
    run: object
    depends_on: dict

    def __post_init__(self):
        self._start = [keras.ops.convert_to_numpy(variable) for variable in self.trainer.network.variables]

    def fold(self, fold, *, keep_weights):
        rest = np.flatnonzero(self.folds != fold)
        seed = self._seed(int(fold))
        unit = f"{self.name} fold {fold}"

        def compute():
            rows, validation = rest, self.validation
            if validation is None:
                kept, held = inner_split(self.dataset[rest], self.trainer.settings, seed)
                rows, validation = rest[kept], self.dataset[rest[held]] if len(held) else None
            self.trainer.name = f"{self.name}, fold {fold + 1} of {self.folds.max() + 1}"
            arrays = self._train(rows, validation, seed, None, self.run.checkpoint(unit, self.depends_on))
            held_out = self.dataset[np.flatnonzero(self.folds == fold)]
            arrays["out_of_fold"] = predict(self.trainer.network, held_out, verbose=0)
            return arrays | (weight_arrays(self.trainer.network) if keep_weights else {})

        return self.run.unit(unit, self.depends_on, compute)[0]

    def final(self, epochs):
        unit, depends_on = f"{self.name} final", {**self.depends_on, "epochs": epochs}

        def compute():
            self.trainer.name = f"{self.name}, all images"
            rows, checkpoint = np.arange(len(self.dataset)), self.run.checkpoint(unit, depends_on)
            arrays = self._train(rows, None, self._seed(-1), epochs, checkpoint)
            return arrays | weight_arrays(self.trainer.network)

        return self.run.unit(unit, depends_on, compute)[0]

    def _seed(self, number):
        # By name, not by position: another member in the list changes nothing here.
        entropy = [self.seed, number + 1, *self.name.encode()]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _train(self, rows, validation, seed, epochs, checkpoint):
        network = self.trainer.network
        if self.features is None:
            set_state(network, reinitialised(network, seed))
        else:
            for variable, value in zip(network.variables, self._start, strict=True):
                variable.assign(value)
            solve_head(
                network,
                self.features[rows],
                self.dataset.labels[rows],
                self._folds_of(rows),
                class_weight=self.trainer.class_weight,
                sampling=self.trainer.sampling,
                seed=seed,
            )
        arguments = {"seed": seed, "epochs": epochs, "checkpoint": checkpoint}
        arrays = result_arrays(self.trainer.run(self.dataset[rows], validation, **arguments))
        if self.with_features:
            trunk = keras.Model(network.inputs, network.get_layer("features").output)
            arrays["features"] = predict(trunk, self.dataset, verbose=0)
        return arrays

    def _folds_of(self, rows):
        """Folds of training images, by which a head's strength is chosen; halves where two folds leave but one."""
        folds = self.folds[rows]
        if len(np.unique(folds)) > 1:
            return folds
        groups, labels = self.dataset.groups, self.dataset.labels[rows]
        digests = self.dataset.digests()
        return make_folds(
            labels,
            groups=None if groups is None else groups[rows],
            digests=[digests[row] for row in rows],
            cv=2,
            seed=self.seed,
        )


def check_unfreezing(trunk, settings):
    """Raises `ValueError` if settings name a layer to unfreeze, or a number of blocks, that a backbone has not."""
    with unfrozen(build_member(trunk, 2), settings):
        pass


def _average_of(template, weights):
    """Returns one model that averages the probabilities of the folds' networks."""
    networks = []
    for number, values in enumerate(weights, start=1):
        network = keras.models.clone_model(template)
        network.name = f"{template.name}_fold_{number}"
        network.set_weights(values)
        networks.append(network)
    images = keras.Input(template.input_shape[1:], name="images")
    outputs = keras.layers.Average(name="predictions")([network(images) for network in networks])
    return keras.Model(images, outputs, name=template.name)


def _head_arrays(layers):
    kernels = {f"kernel_{i}": kernel for i, (kernel, _) in enumerate(layers)}
    return kernels | {f"bias_{i}": bias for i, (_, bias) in enumerate(layers)}


def _count(arrays, prefix):
    return sum(key.startswith(prefix) for key in arrays)


def _history(arrays):
    return {key.removeprefix("history_"): v.tolist() for key, v in arrays.items() if key.startswith("history_")}

"""Fitting: turns a backbone into a trained member, with predictions on images that it did not train on."""

import dataclasses
import time

import keras
import numpy as np

from ensemble_keras import memory
from ensemble_keras.features.extraction import predict
from ensemble_keras.features.keys import architecture_fingerprint, array_digest
from ensemble_keras.members.heads import solve_linear_head
from ensemble_keras.members.member import build_member, set_head
from ensemble_keras.members.training import inner_split, reinitialised, set_state, train_member


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
        features: `(n, d)` of the images.
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
    weights = None if class_weight is None else np.asarray(class_weight)

    def fit():
        if head == "linear":
            solved = solve_linear_head(features, y, folds, num_classes=num_classes, class_weight=weights)
            return {
                "out_of_fold": solved.out_of_fold,
                "strength": np.float64(solved.strength),
                **_head_arrays([(solved.kernel, solved.bias)]),
            }
        from ensemble_keras.members.mlp import train_mlp_head

        trained = train_mlp_head(features, y, folds, num_classes=num_classes, seed=seed, class_weight=weights)
        history = {f"history_{key}": np.asarray(values) for key, values in trained.history.items()}
        return {"out_of_fold": trained.out_of_fold, **history, **_head_arrays(trained.layers)}

    depends_on = {
        "features": array_digest(features),
        "y": array_digest(y),
        "folds": array_digest(folds),
        "head": head,
    }
    depends_on |= {"class_weight": class_weight, "seed": seed if head == "mlp" else None}
    result, _ = run.unit(f"{name} head", depends_on, fit)
    model = build_member(trunk, num_classes, head=head)
    set_head(model, [(result[f"kernel_{i}"], result[f"bias_{i}"]) for i in range(_count(result, "kernel_"))])
    details = {"head": head, "trained": "head"}
    if "strength" in result:
        details["strength"] = float(result["strength"])
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
    validation=None,
    seed=0,
    class_weight=None,
    with_features=False,
    run,
    verbose=1,
):
    """Trains a backbone and its head end to end: once per fold for honest predictions, then on all images.

    The last training runs for the mean of the folds' best epochs, so that no image is kept from it.

    Args:
        name: String, the member's name.
        trunk: `keras.Model`, the backbone; its weights are drawn anew from `seed` for each training.
        dataset: An `ImageDataset` with labels `0 … num_classes − 1`.
        folds: Int array `(n,)`, the fold that holds each image out.
        settings: A `Training`.
        num_classes: Int.
        validation: An `ImageDataset` for early stopping, or `None`: a part of each fold's training images.
        seed: Int.
        class_weight: Array `(num_classes,)` or `None`.
        with_features: Whether a combiner needs the members' features.
        run: The `Run` that keeps each training's result.
        verbose: 0 shows no progress.

    Returns:
        A `FittedMember`.
    """
    start = time.perf_counter()
    template = build_member(trunk, num_classes, name=trunk.name)
    depends_on = {
        "architecture": architecture_fingerprint(template),
        "data": dataset.fingerprint(),
        "folds": array_digest(folds),
        "validation": validation and validation.fingerprint(),
        "settings": dataclasses.asdict(settings),
        "seed": seed,
        "class_weight": class_weight,
    }
    # A run that kept the features, too, has all that one without them needs.
    with_features = with_features or run.has(f"{name} fold {folds[0]}", {**depends_on, "with_features": True})
    depends_on["with_features"] = with_features
    unit = _TrainingUnit(name, template, dataset, settings, validation, seed, class_weight, with_features, verbose)
    results = []
    for fold in np.unique(folds):
        results.append(run.unit(f"{name} fold {fold}", depends_on, lambda fold=fold: unit.fold(folds, fold))[0])
    epochs = max(1, round(float(np.mean([result["best_epoch"] for result in results]))))
    final, _ = run.unit(f"{name} final", {**depends_on, "epochs": epochs}, lambda: unit.final(epochs))
    template.set_weights([final[f"weight_{i}"] for i in range(_count(final, "weight_"))])
    out_of_fold = np.empty((len(dataset), num_classes), "float32")
    for fold, result in zip(np.unique(folds), results, strict=True):
        out_of_fold[folds == fold] = result["out_of_fold"]
    notes = [str(result["note"]) for result in (*results, final) if str(result["note"])]
    return FittedMember(
        name=name,
        model=template,
        out_of_fold=out_of_fold,
        features=np.stack([r["features"] for r in results]) if with_features else None,
        final_features=final["features"] if with_features else None,
        # The first fold's curves have a validation part; the last training has none.
        history=_history(results[0]),
        seconds=time.perf_counter() - start,
        note="; ".join(dict.fromkeys(notes)),
        details={"head": "linear", "trained": "end to end", "epochs": epochs},
    )


@dataclasses.dataclass
class _TrainingUnit:
    """The trainings of a member, with one compiled model; the result of each is a dict of arrays."""

    name: str
    template: keras.Model
    dataset: object
    settings: object
    validation: object
    seed: int
    class_weight: object
    with_features: bool
    verbose: int
    model: keras.Model | None = None

    def fold(self, folds, fold):
        held_out = folds == fold
        rest = self.dataset[np.flatnonzero(~held_out)]
        seed = self._seed(int(fold))
        train, validation = (rest, self.validation) if self.validation else inner_split(rest, self.settings, seed)
        name = f"{self.name}, fold {fold + 1} of {folds.max() + 1}"
        model, result = self._train(train, validation, seed, None, name)
        held = self.dataset[np.flatnonzero(held_out)]
        return {"out_of_fold": predict(model, held, verbose=0), **self._result(model, result)}

    def final(self, epochs):
        model, result = self._train(self.dataset, None, self._seed(-1), epochs, f"{self.name}, all images")
        weights = {f"weight_{i}": value for i, value in enumerate(model.get_weights())}
        return {**weights, **self._result(model, result)}

    def _seed(self, number):
        # By name, not by position: another member in the list changes nothing here.
        entropy = [self.seed, number + 1, *self.name.encode()]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _train(self, train, validation, seed, epochs, name):
        weights = None if self.class_weight is None else dict(enumerate(self.class_weight))

        def step(batch_size):
            fresh = reinitialised(self.template, seed)
            if self.model is None:
                self.model = fresh
            else:
                set_state(self.model, fresh)
            settings = dataclasses.replace(self.settings, batch_size=batch_size)
            arguments = {"seed": seed, "epochs": epochs, "class_weight": weights, "name": name}
            result = train_member(self.model, train, validation, settings, verbose=self.verbose, **arguments)
            return self.model, result

        return memory.with_smaller_batches(step, self.settings.batch_size, name=self.name)[0]

    def _result(self, model, result):
        arrays = {"best_epoch": np.int64(result.best_epoch), "note": np.str_(result.note)}
        arrays |= {f"history_{key}": np.asarray(values) for key, values in result.history.items()}
        if self.with_features:
            trunk = keras.Model(model.inputs, model.get_layer("features").output)
            arrays["features"] = predict(trunk, self.dataset, verbose=0)
        return arrays


def _head_arrays(layers):
    kernels = {f"kernel_{i}": kernel for i, (kernel, _) in enumerate(layers)}
    return kernels | {f"bias_{i}": bias for i, (_, bias) in enumerate(layers)}


def _count(arrays, prefix):
    return sum(key.startswith(prefix) for key in arrays)


def _history(arrays):
    return {key.removeprefix("history_"): v.tolist() for key, v in arrays.items() if key.startswith("history_")}

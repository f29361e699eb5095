"""Tuning: searches the hyperparameters of a member, on cached features where its backbone is frozen."""

import dataclasses
import pathlib
import time

import keras
import numpy as np
import pandas as pd

from ensemble_keras import runs
from ensemble_keras._progress import progress_bar
from ensemble_keras._validation import check_at_least, check_choice, check_image_size, check_seed
from ensemble_keras.backbones.registry import (
    backbone_label,
    build_backbone,
    check_pretrained,
    default_size,
    has_pretrained_weights,
)
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.data.labels import class_weights, with_class_indices
from ensemble_keras.data.splits import make_folds, train_test_indices
from ensemble_keras.features.extraction import extract_features
from ensemble_keras.members.curves import DIRECTIONS
from ensemble_keras.members.settings import Training, as_training
from ensemble_keras.members.tuning_oracles import TUNERS, build_oracle, run_trials
from ensemble_keras.members.tuning_space import keras_tuner_space, search_space
from ensemble_keras.members.tuning_targets import HeadTarget, NetworkTarget


@dataclasses.dataclass(frozen=True)
class TunedMember:
    """The best member found, and how.

    Attributes:
        member: `keras.Model` from raw images `(batch, height, width, 3)` with values in [0, 255] to probabilities
            `(batch, num_classes)`, built as by `build_member` and trained on all images.
        hyperparameters: Dict of its hyperparameters.
        trials: `pandas.DataFrame`, a row per trial, the best first: `trial` (from 1; 0 is the solved linear head),
            hyperparameters, figures on the held-out images at the best epoch, `best_epoch`, `seconds` and `note`.
        settings: `Training` with the tuned values, to hand on to `EnsembleClassifier(training=...)`; of a frozen
            backbone those of its head's training. For a solved head, the defaults.
        note: String: what the best trial gained.
    """

    member: keras.Model
    hyperparameters: dict
    trials: pd.DataFrame
    settings: Training
    note: str


def tune_member(
    backbone,
    x,
    y=None,
    *,
    hyperparameters=None,
    max_trials=50,
    tuner="bayesian",
    objective="val_loss",
    groups=None,
    validation_split=0.2,
    cv=None,
    image_size=None,
    weights="imagenet",
    class_weight=None,
    settings=None,
    store=None,
    directory=None,
    seed=0,
    verbose=1,
):
    """Searches good hyperparameters of a member and trains it with them, by KerasTuner's methods.

    A backbone with pretrained weights stays frozen: one pass gives the features, and every trial trains a head on
    them. `head` (`"linear"`, or `"mlp"` with `units`), `epochs`, `batch_size`, `learning_rate`, `weight_decay` and
    `dropout` are searched. The linear head that is solved to its optimum competes as trial 0; where no trial beats
    it, it is the member's. A backbone without pretrained weights is trained end to end in every trial:
    `learning_rate`, `weight_decay`, `batch_size`, `dropout`, `augmentation` and `augmentation_strength` (see
    `build_augmentation`) are searched, and any other field of `Training` that is given in `hyperparameters`.

    The figure of the best of many trials is too good: it was chosen by these very images. Judge the member by others.

    Args:
        backbone: A name, a name with options, or a `keras.Model` from images in [0, 255] to features.
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        y: Labels `(n,)`, ints or strings; not needed with a labelled `ImageDataset`.
        hyperparameters: Dict that narrows or fixes the search: from a name to a list of choices or a pair
            `(low, high)`, such as `{"head": ["mlp"], "learning_rate": (1e-4, 1e-3)}`. Defaults to the whole space.
        max_trials: Int. Trials in all, those of earlier runs in `directory` counted. Fewer where the choices run out.
            Defaults to 50.
        tuner: `"bayesian"` (a Gaussian process, after ten trials at random), `"random"`, or `"hyperband"`, in which
            most trials get few epochs and the best go on; the epochs are then not searched, and their upper end is
            what the last ones get. Defaults to `"bayesian"`.
        objective: `"val_loss"` (log loss), `"val_accuracy"` or `"val_auc"` on the held-out images. Defaults to
            `"val_loss"`.
        groups: Sequence `(n,)`: images of one group (a patient) are on one side. Defaults to the dataset's groups.
        validation_split: Float in (0, 1), the share of images held out, stratified. Defaults to 0.2.
        cv: Int or a scikit-learn splitter: every trial is trained once per fold and judged by the mean over the
            folds, instead of one held-out part. Defaults to `None`.
        image_size: Int or `(height, width)`. Defaults to the backbone's own size.
        weights: `"imagenet"`, `None` or a path, for a backbone given by name. Defaults to `"imagenet"`.
        class_weight: `None`, `"balanced"`, or a dict from class to weight.
        settings: `Training`: what is not tuned of end-to-end training. Defaults to `Training()`.
        store: A `FeatureStore`, its path, or `None`: the one in `directory`, or none.
        directory: Folder that keeps features and finished trials (a KerasTuner project), so that the same command
            goes on after a kill, and one with more trials adds to them. Defaults to `None`: nothing is kept.
        seed: Int. Of the held-out part, the trials and all training. Defaults to 0.
        verbose: 0 shows no progress. Defaults to 1.

    Returns:
        A `TunedMember`.

    Raises:
        ValueError: If an argument, a hyperparameter, an image or a label is not as described; before any trial.

    Example:

    >>> x, y = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8"), np.arange(40) % 2
    >>> frozen = ek.build_backbone("CNN", input_shape=(32, 32, 3), weights=None)
    >>> tuned = ek.tune_member(frozen, x, y, hyperparameters={"epochs": [2]}, max_trials=3, tuner="random", verbose=0)
    >>> len(tuned.trials), tuned.member.output_shape
    (4, (None, 2))
    """
    check_pretrained(backbone, weights)
    frozen = has_pretrained_weights(backbone, weights)
    space = search_space(hyperparameters, end_to_end=not frozen)
    check_choice("tuner", tuner, TUNERS)
    check_choice("objective", objective, DIRECTIONS)
    check_seed(seed)
    training = as_training(settings, "settings")
    check_at_least("max_trials", max_trials, 1)
    if frozen and settings is not None:
        raise ValueError(
            "`settings` are of end-to-end training, and this backbone is frozen. Fix what is not to be tuned by "
            "`hyperparameters`, such as {'epochs': [20]}."
        )
    dataset, classes = with_class_indices(as_dataset(x, y, groups=groups))
    size = check_image_size(default_size(backbone) if image_size is None else image_size)
    name = backbone_label(backbone)
    trunk = build_backbone(backbone, input_shape=(*size, 3), weights=weights if frozen else None)
    options = {
        "parts": _parts(dataset, classes, validation_split, cv, seed),
        "num_classes": len(classes),
        "class_weight": class_weights(dataset.labels, classes, class_weight),
        "objective": objective,
        "seed": seed,
    }
    described = {"backbone": name, "image_size": size, "weights": weights, "tuner": tuner, "space": space}
    with runs.Run(directory, {**described, "objective": objective, "cv": str(cv), "seed": seed}) as run:
        if frozen:
            if store is None and directory is not None:
                store = pathlib.Path(directory) / "features.sqlite"
            features = extract_features([trunk], dataset, image_size=size, store=store, verbose=verbose)[trunk.name]
            target = HeadTarget(name, trunk, features, dataset, run, **options)
        else:
            target = NetworkTarget(name, trunk, dataset, run, settings=training, **options)
        trials = _search(target, space, tuner=tuner, objective=objective, max_trials=max_trials, verbose=verbose)
        best = trials[0]
        member, values = target.fit(best.values, int(best.figures["best_epoch"]), verbose)
    note = _note(trials, objective)
    if verbose:
        print(note)
    return TunedMember(member, values, _table(trials), target.settings_of(best.values), note)


@dataclasses.dataclass(frozen=True)
class _Trial:
    """A finished trial; number 0 is no trial but what competes with them."""

    number: int
    values: dict
    figures: dict
    note: str


def _parts(dataset, classes, validation_split, cv, seed):
    """Returns pairs of row arrays, what a trial trains on and what it is judged by."""
    arguments = {"groups": dataset.groups, "digests": dataset.digests(), "seed": seed, "class_names": classes}
    if cv is None:
        return [train_test_indices(dataset.labels, test_size=validation_split, **arguments)]
    folds = make_folds(dataset.labels, cv=cv, **arguments)
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]


def _search(target, space, *, tuner, objective, max_trials, verbose):
    """Runs what is left of the trials; returns all of them, the best first."""
    max_epochs = max(space.get("epochs", [target.epochs]))
    if tuner == "hyperband":
        # They are what it deals out.
        space = {name: values for name, values in space.items() if name != "epochs"}
    declared = keras_tuner_space(space)
    depends_on = {
        **target.depends_on,
        "space": declared.get_config()["space"],
        "tuner": [tuner, max_epochs, max_trials] if tuner == "hyperband" else tuner,
    }
    oracle = build_oracle(
        tuner,
        declared,
        objective=objective,
        max_trials=max_trials,
        max_epochs=max_epochs,
        seed=target.seed,
        folder=target.run_of.directory and target.run_of.directory / f"trials-{runs.fingerprint(depends_on)[:16]}",
    )

    def timed(proposed):
        start = time.perf_counter()
        figures, note = target.run(_values(proposed))
        return figures | {"seconds": time.perf_counter() - start}, note

    with progress_bar(f"Tuning {target.name}", max_trials, unit="trials", verbose=verbose) as advance:
        run_trials(oracle, timed, advance)
    trials = [_Trial(0, *competitor) for competitor in target.competitors()]
    trials += [_finished(number, trial) for number, trial in enumerate(oracle.trials.values(), start=1)]
    sign = 1 if DIRECTIONS[objective] == "min" else -1
    return sorted(trials, key=lambda trial: (sign * trial.figures[objective], trial.number))


def _finished(number, trial):
    metrics = trial.metrics.metrics
    figures = {name: float(metrics[name].get_last_value()) for name in metrics}
    return _Trial(number, _values(trial.hyperparameters.values), figures, trial.message or "")


def _values(proposed):
    """Returns hyperparameters by our names; Hyperband gives the epochs under one of its own."""
    epochs = {"epochs": proposed["tuner/epochs"]} if "tuner/epochs" in proposed else {}
    return {name: value for name, value in proposed.items() if not name.startswith("tuner/")} | epochs


def _table(trials):
    rows = [{"trial": t.number, **t.values, **t.figures, "note": t.note} for t in trials]
    table = pd.DataFrame(rows)
    for name in ("units", "epochs", "batch_size", "best_epoch"):
        if name in table:
            # A solved head has none of them, a linear one no units.
            table[name] = table[name].astype("Int64")
    last = ["best_epoch", "seconds", "note"]
    figures = [name for name in DIRECTIONS if name in table]
    return table[[name for name in table if name not in (*last, *figures)] + figures + last]


def _note(trials, objective):
    best, figure = trials[0], f"held-out {objective.removeprefix('val_')}"
    own = [trial for trial in trials if trial.number]
    solved = [trial for trial in trials if not trial.number]
    if not best.number:
        return (
            f"None of {len(own)} trials beat the solved linear head: {figure} {best.figures[objective]:.4f}, "
            f"the next {own[0].figures[objective]:.4f}."
        )
    against = f", the solved linear head {solved[0].figures[objective]:.4f}" if solved else ""
    return (
        f"The best of {len(own)} trials, number {best.number}: {figure} {best.figures[objective]:.4f}{against}. "
        "Chosen among so many, this is too good: judge the member by other images."
    )

"""Experiments: the arguments of one training, checked up front, and what it predicts when it is run."""

import dataclasses
import hashlib
import pathlib
import time

import keras
import numpy as np

from ensemble_keras import memory
from ensemble_keras._validation import check_at_least, check_choice, check_image_size, suggest
from ensemble_keras.backbones.registry import backbone_label, build_backbone, default_size, has_pretrained_weights
from ensemble_keras.backbones.weights import is_weights_file
from ensemble_keras.data.labels import class_weights
from ensemble_keras.data.sampling import SAMPLINGS
from ensemble_keras.features.extraction import predict
from ensemble_keras.features.keys import architecture_fingerprint, augmentation_key, model_fingerprint
from ensemble_keras.features.views import Views
from ensemble_keras.members.head_fitting import solve_probe
from ensemble_keras.members.initialisation import reinitialised, set_state
from ensemble_keras.members.member import HEADS, backbone_of, build_member
from ensemble_keras.members.settings import FineTuning, Training
from ensemble_keras.members.trainer import Trainer, inner_split

# What an experiment is where nothing is given: the first network of a tutorial, from random weights.
DEFAULTS = {
    "backbone": "CNN",
    "weights": None,
    "image_size": None,
    "resize_to": None,
    "interpolation": "bilinear",
    "head": "linear",
    "dropout": 0.0,
    "fine_tune": True,
    "augmentation": None,
    "views": 1,
    "sampling": None,
    "class_weight": None,
}
_SETTINGS = [field.name for field in dataclasses.fields(FineTuning)]
_OF_TRAINING = {field.name for field in dataclasses.fields(Training)}


def check_names(arguments, where):
    """Raises `ValueError` for an argument that no experiment has."""
    known = [*DEFAULTS, *_SETTINGS]
    for name in arguments:
        if name not in known:
            raise ValueError(
                f"{where} sets an unknown argument {name!r}.{suggest(name, known)} Known: {', '.join(known)}."
            )


def changed(arguments, change):
    """Returns arguments with a change applied: `"+name"` adds to the augmentation, all else replaces."""
    result = {**arguments, **change}
    if "augmentation" in change:
        result["augmentation"] = _extended(arguments.get("augmentation"), change["augmentation"])
    return result


def _extended(before, value):
    parts = list(value) if isinstance(value, list | tuple) else [value]
    added = [isinstance(part, str) and part.startswith("+") for part in parts]
    if not any(added):
        return value
    if not all(added):
        raise ValueError(f"An augmentation either adds ('+name' throughout) or replaces. Received: {value!r}.")
    before = list(before) if isinstance(before, list | tuple) else [] if before is None else [before]
    return before + [part[1:] for part in parts]


class Experiment:
    """One training on some data.

    Args:
        arguments: Dict; those of `DEFAULTS` and the fields of `Training` and `FineTuning`.
        dataset: The training images, an `ImageDataset` with labels `0 … num_classes − 1`.
        classes: Array `(num_classes,)`.

    Attributes:
        depends_on: JSON values that determine the result, besides data and seed; an argument without effect is not
            among them.

    Raises:
        ValueError: If an argument is unknown or out of its range.
    """

    def __init__(self, arguments, dataset, classes):
        check_names(arguments, "The experiment")
        given = {**DEFAULTS, **arguments}
        self._backbone, self._weights = given["backbone"], given["weights"]
        size = default_size(self._backbone) if given["image_size"] is None else given["image_size"]
        self.image_size = check_image_size(size)
        resize_to = None if given["resize_to"] is None else check_image_size(given["resize_to"])
        self._resizing = {"resize_to": resize_to, "interpolation": given["interpolation"]}
        self._head, self._dropout = check_choice("head", given["head"], HEADS), given["dropout"]
        self._augmentation, self._sampling = (
            given["augmentation"],
            check_choice("sampling", given["sampling"], SAMPLINGS),
        )
        self._class_weight = class_weights(dataset.labels, classes, given["class_weight"])
        self._num_classes = len(classes)
        pretrained = has_pretrained_weights(self._backbone, self._weights)
        self._kind = "scratch" if not pretrained else "fine-tuned" if given["fine_tune"] else "frozen"
        settings = {name: value for name, value in arguments.items() if name in _SETTINGS}
        # Checked all the same where they are of no use to this one.
        fine_tuning = FineTuning(**settings)
        training = Training(**{name: value for name, value in settings.items() if name in _OF_TRAINING})
        self._settings = fine_tuning if pretrained else training
        check_at_least("views", given["views"], 1)
        self._views = given["views"] if self._kind == "frozen" else 1
        if self._views > 1:
            Views(self._augmentation, self._views, seed=0)  # one that makes no views: said before the long work
        self.depends_on = self._describe(augmentation_key(self._augmentation))

    def _describe(self, augmentation):
        resized = self._resizing["resize_to"] not in (None, self.image_size)
        described = {
            "kind": self._kind,
            "backbone": _described_backbone(self._backbone, self._weights),
            "image_size": list(self.image_size),
            "resizing": [list(self._resizing["resize_to"]), self._resizing["interpolation"]] if resized else None,
            "head": self._head,
            "sampling": self._sampling,
            "class_weight": self._class_weight,
            "precision": keras.config.dtype_policy().name,
        }
        if self._kind == "frozen":
            return {**described, "views": [self._views, augmentation] if self._views > 1 else None}
        return {
            **described,
            "dropout": self._dropout,
            "augmentation": augmentation,
            "settings": self._settings.config(),
        }

    @property
    def label(self):
        """The backbone's name."""
        return backbone_label(self._backbone)

    @property
    def structure(self):
        """A text that is equal where `check` would look at the same."""
        names = ("kind", "backbone", "image_size", "resizing", "head")
        return repr([self.depends_on[name] for name in names] + [getattr(self._settings, "unfreeze", None)])

    def check(self):
        """Builds the network.

        Returns:
            A fingerprint of its backbone as it is built now: what a name stands for changes with `register_backbone`
            and with a weights file.

        Raises:
            ValueError: If it cannot be built or unfrozen as asked for.
            OSError: If its weights are not to be had.
        """
        member = self._build()
        if self._kind != "frozen":
            self._trainer(member)
        fingerprint = architecture_fingerprint if self._kind == "scratch" else model_fingerprint
        return fingerprint(backbone_of(member))

    def _build(self):
        trunk = build_backbone(
            self._backbone, input_shape=(*self.image_size, 3), weights=self._weights, **self._resizing
        )
        return build_member(trunk, self._num_classes, head=self._head, dropout=self._dropout)

    def run(self, train, test, *, store, checkpoint, seed, name, verbose):
        """Trains on one set and predicts both.

        Args:
            train: An `ImageDataset`.
            test: Another one.
            store: A `FeatureStore`, its path, or `None`.
            checkpoint: Path of the file that keeps the state of training on the way, or `None`.
            seed: Int.
            name: String, what the progress bar shows.
            verbose: 0 shows no progress.

        Returns:
            Dict of arrays: `train` and `test`, probabilities `(n, num_classes)`; `epochs`, those behind the weights;
            `seconds` of training; `note`.
        """
        start, member = time.perf_counter(), self._build()
        epochs, note = self._train(member, train, store, checkpoint, seed, name, verbose)
        seconds = time.perf_counter() - start
        tables = {key: predict(member, data, verbose=0) for key, data in (("train", train), ("test", test))}
        del member
        memory.free()
        return {**tables, "epochs": np.int64(epochs), "seconds": np.float64(seconds), "note": np.str_(note)}

    def _train(self, member, dataset, store, checkpoint, seed, name, verbose):
        if self._kind == "frozen":
            views = Views(self._augmentation, self._views, seed) if self._views > 1 else None
            self._solve(member, dataset, store, seed, verbose, views)
            return 0, ""
        rows, held = inner_split(dataset, self._settings, seed)
        images, validation = dataset[rows], dataset[held] if len(held) else None
        if self._kind == "scratch":
            set_state(member, reinitialised(member, seed))
        else:
            self._solve(member, images, store, seed, verbose)
        trainer = self._trainer(member, name=name, seed=seed, verbose=verbose)
        result = trainer.run(images, validation, seed=seed, checkpoint=checkpoint)
        return result.best_epoch, result.note

    def _trainer(self, member, **options):
        return Trainer(
            member,
            self._settings,
            augmentation=self._augmentation,
            class_weight=self._class_weight,
            sampling=self._sampling,
            **options,
        )

    def _solve(self, member, dataset, store, seed, verbose, views=None):
        """Solves the head on the features of the frozen backbone."""
        options = {"class_weight": self._class_weight, "sampling": self._sampling, "views": views}
        solve_probe(member, dataset, store=store, seed=seed, verbose=verbose, **options)


def _described_backbone(backbone, weights):
    if isinstance(backbone, keras.Model):
        return model_fingerprint(backbone)
    if is_weights_file(weights) and pathlib.Path(weights).is_file():
        weights = hashlib.blake2b(pathlib.Path(weights).read_bytes(), digest_size=16).hexdigest()
    return [backbone_label(backbone), weights]

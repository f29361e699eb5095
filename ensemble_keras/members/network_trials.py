"""Network trials: a backbone without pretrained weights trained end to end, once for each trial."""

import dataclasses

import numpy as np

from ensemble_keras import memory
from ensemble_keras.members.curves import DIRECTIONS, best_epoch, mean_curve
from ensemble_keras.members.initialisation import reinitialised
from ensemble_keras.members.member import build_member
from ensemble_keras.members.trainer import Trainer


class NetworkTrials:
    """Trains networks on one set of images; every trial begins with the same weights.

    Args:
        trunk: `keras.Model`, the backbone.
        dataset: An `ImageDataset` with labels `0 … num_classes − 1`.
        parts: List of pairs of row arrays, what a trial trains on and what it is judged by.
        settings: A `Training`: what is not tuned.
        num_classes: Int.
        class_weight: List of floats `(num_classes,)`, or `None`.
        objective: `"val_loss"`, `"val_accuracy"` or `"val_auc"`.
        seed: Int.
    """

    def __init__(self, trunk, dataset, parts, *, settings, num_classes, class_weight, objective, seed):
        self._trunk, self._dataset, self._parts, self._num_classes = trunk, dataset, parts, num_classes
        self._settings = dataclasses.replace(settings, monitor=objective)
        self._class_weight, self._objective, self._seed = class_weight, objective, seed

    def run(self, values, checkpoint=None):
        """Trains with a trial's values on each part; returns what `HeadTrials.run` does.

        Args:
            values: Dict of hyperparameters.
            checkpoint: Path of the file that keeps the state on the way, or `None`; it is removed at the end.
        """
        curves, notes = [], []
        for number, (train, held) in enumerate(self._parts):
            # Of several parts only the first goes on within itself: the file says nothing of the part it is of.
            path = checkpoint if number == 0 else None
            try:
                _, result = self._train(values, self._dataset[train], self._dataset[held], checkpoint=path)
            except MemoryError as error:
                return {**self._untrained(), "best_epoch": 0.0}, str(error)
            curves.append(_curve(result))
            notes.append(result.note)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        trained = any(curves)
        curve = mean_curve([curve or [self._untrained()] for curve in curves], [len(held) for _, held in self._parts])
        best = best_epoch(curve, self._objective)
        note = "; ".join(dict.fromkeys(filter(None, notes)))
        return {**curve[best], "best_epoch": float(best + 1 if trained else 0)}, note

    def fit(self, values, epochs, checkpoint=None, verbose=1):
        """Trains on all images, for so many epochs of a trial's schedule, at least one; returns the network."""
        return self._train(
            values, self._dataset, None, epochs=max(1, epochs), checkpoint=checkpoint, verbose=verbose
        )[0]

    def settings_of(self, values):
        """Returns the `Training` of a trial."""
        fields = {field.name for field in dataclasses.fields(self._settings)}
        return dataclasses.replace(self._settings, **{k: v for k, v in values.items() if k in fields})

    def _train(self, values, images, validation, *, epochs=None, checkpoint=None, verbose=0):
        member = build_member(self._trunk, self._num_classes, dropout=values["dropout"], name=self._trunk.name)
        network = reinitialised(member, self._seed)
        trainer = Trainer(
            network,
            self.settings_of(values),
            augmentation=augmentation_of(values),
            class_weight=self._class_weight,
            seed=self._seed,
            verbose=verbose,
        )
        result = trainer.run(images, validation, seed=self._seed, epochs=epochs, checkpoint=checkpoint)
        memory.free()
        return network, result

    def _untrained(self):
        """The figures of a network that gives all classes alike: what a trial counts as that trained for no epoch."""
        chance = 1 / self._num_classes
        return {"val_loss": float(-np.log(chance)), "val_accuracy": chance, "val_auc": 0.5}


def augmentation_of(values):
    """Returns the augmentation of a trial, with its strength where it has one of its own."""
    strength = values.get("augmentation_strength")
    return values["augmentation"] if strength is None else f"{values['augmentation']}(strength={strength!r})"


def _curve(result):
    """Returns the validation figures after each epoch, as far as they are numbers."""
    history = [result.history.get(name, []) for name in DIRECTIONS]
    epochs = [dict(zip(DIRECTIONS, map(float, row), strict=True)) for row in zip(*history, strict=True)]
    return [figures for figures in epochs if np.isfinite(list(figures.values())).all()]

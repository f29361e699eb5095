"""Fold training: a network trained once per fold and once on all images, each a unit of work."""

import dataclasses

import keras
import numpy as np

from ensemble_keras.data.splits import make_folds
from ensemble_keras.features.extraction import predict
from ensemble_keras.members.head_fitting import solve_head
from ensemble_keras.members.initialisation import reinitialised, set_state
from ensemble_keras.members.trainer import Trainer, inner_split, result_arrays, separate_sets, weight_arrays


@dataclasses.dataclass(frozen=True)
class Unit:
    """One training of a member.

    Attributes:
        name: String, unique among all units of a run.
        depends_on: JSON values that determine the result.
        fold: Int, the fold that it goes without; `None`: it takes all images.
        epochs: Int, how long it goes on; `None`: as the settings say.
    """

    name: str
    depends_on: dict
    fold: int | None = None
    epochs: int | None = None


@dataclasses.dataclass
class FoldTraining:
    """The trainings of a member with one network; the result of each is a dict of arrays. It may be pickled.

    Attributes:
        name: String, the member's name.
        trainer: `Trainer` of the member.
        dataset: An `ImageDataset` with labels `0 … num_classes − 1`.
        folds: Int array `(n,)`, the fold that holds each image out.
        features: `(n, d)` of the frozen backbone, on which each training's head is solved, or `None`: from scratch.
        validation: An `ImageDataset` for early stopping, or `None`: a part of each fold's training images.
        seed: Int.
        depends_on: JSON values that determine the results; with `"with_features"`, they hold features of all images,
            without `"refit"` the weights of each fold.
    """

    name: str
    trainer: Trainer
    dataset: object
    folds: np.ndarray
    features: np.ndarray | None
    validation: object
    seed: int
    depends_on: dict

    def __post_init__(self):
        self._start = [keras.ops.convert_to_numpy(variable) for variable in self.trainer.network.variables]

    def units(self):
        """Returns the unit of each fold, in the order of the folds."""
        folds = [int(fold) for fold in np.unique(self.folds)]
        return [Unit(f"{self.name} fold {fold}", self.depends_on, fold=fold) for fold in folds]

    def final_unit(self, epochs):
        """Returns the unit that trains on all images for so many epochs."""
        return Unit(f"{self.name} final", {**self.depends_on, "epochs": epochs}, epochs=epochs)

    def compute(self, unit, checkpoint=None):
        """Does a unit's training.

        Args:
            unit: A `Unit`.
            checkpoint: Path of the file that keeps its state after each epoch, or `None`.

        Returns:
            The training's result, with predictions of the fold as `"out_of_fold"`, or with the weights.

        Raises:
            MemoryError: If not even one image at a time fits.
        """
        return self._final(unit, checkpoint) if unit.fold is None else self._fold(unit, checkpoint)

    def _fold(self, unit, checkpoint):
        rows, validation = np.flatnonzero(self.folds != unit.fold), self.validation
        seed = self._seed(unit.fold)
        if validation is None:
            kept, held = inner_split(self.dataset[rows], self.trainer.settings, seed)
            rows, validation = rows[kept], self.dataset[rows[held]] if len(held) else None
        self.trainer.name = f"{self.name}, fold {unit.fold + 1} of {self.folds.max() + 1}"
        arrays = self._train(rows, validation, seed, None, checkpoint)
        held_out = self.dataset[np.flatnonzero(self.folds == unit.fold)]
        arrays["out_of_fold"] = predict(self.trainer.network, held_out, verbose=0)
        return arrays | (weight_arrays(self.trainer.network) if not self.depends_on["refit"] else {})

    def _final(self, unit, checkpoint):
        self.trainer.name = f"{self.name}, all images"
        arrays = self._train(np.arange(len(self.dataset)), None, self._seed(-1), unit.epochs, checkpoint)
        return arrays | weight_arrays(self.trainer.network)

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
                sets=separate_sets(self.dataset)[rows],
                class_weight=self.trainer.class_weight,
                sampling=self.trainer.sampling,
                seed=seed,
            )
        arguments = {"seed": seed, "epochs": epochs, "checkpoint": checkpoint}
        arrays = result_arrays(self.trainer.run(self.dataset[rows], validation, **arguments))
        if self.depends_on["with_features"]:
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


def average_of(template, weights):
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

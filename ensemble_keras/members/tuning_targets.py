"""Targets: what is tuned, a head on the features of a frozen backbone or a whole network."""

import time

import keras
import numpy as np

from ensemble_keras.features.keys import architecture_fingerprint, array_digest
from ensemble_keras.members.curves import mean_curve
from ensemble_keras.members.head_trials import HeadTrials
from ensemble_keras.members.heads import solve_linear_head
from ensemble_keras.members.member import build_member, set_head
from ensemble_keras.members.network_trials import NetworkTrials
from ensemble_keras.members.settings import Training
from ensemble_keras.members.trainer import folds_that_fit, hold_decoded


class HeadTarget:
    """A head on features.

    Args:
        name: String, the member's name.
        trunk: `keras.Model`, the frozen backbone.
        features: Float array `(n, d)`.
        dataset: An `ImageDataset` with labels `0 … num_classes − 1`.
        run_of: The `Run` that keeps results.
        parts, num_classes, class_weight, objective, seed: As in `HeadTrials`.

    Attributes:
        depends_on: JSON values that determine a trial, besides its hyperparameters.
        run: Function from a trial's hyperparameters to its figures and a note.
        epochs: Int, the epochs of a trial that has none of its own.
    """

    def __init__(self, name, trunk, features, dataset, run_of, *, parts, num_classes, class_weight, objective, seed):
        self.name, self.run_of, self.seed, self.epochs = name, run_of, seed, None
        self._trunk, self._features, self._dataset, self._parts = trunk, features, dataset, parts
        self._num_classes, self._class_weight, self._objective = num_classes, class_weight, objective
        options = {"num_classes": num_classes, "class_weight": class_weight, "objective": objective, "seed": seed}
        self._trials = HeadTrials(features, dataset.labels, parts, **options)
        self.run = self._trials.run
        self.depends_on = {
            "features": array_digest(features),
            # Groups and identical images, too, settle the folds of the solved head.
            "data": dataset.fingerprint(),
            "parts": _digests_of(parts),
            **options,
        }

    def competitors(self):
        """Returns the solved linear head's hyperparameters, figures and note.

        It is solved on what the trials train on, its strength chosen by folds of that, and judged as they are.
        """

        def compute():
            start = time.perf_counter()
            curves = [[self._figures(self._solved(train), held)] for train, held in self._parts]
            figures = mean_curve(curves, [len(held) for _, held in self._parts])[0]
            figures |= {"best_epoch": 0, "seconds": time.perf_counter() - start}
            return {name: np.float64(value) for name, value in figures.items()}

        arrays, _ = self.run_of.unit(f"{self.name} solved head", self.depends_on, compute)
        return [({"head": "solved"}, {name: float(value) for name, value in arrays.items()}, "")]

    def fit(self, values, epochs, verbose):
        """Trains or solves the head on all images.

        Returns:
            The member, and its hyperparameters: those given, and of a solved head its strength.
        """

        def compute():
            if values["head"] == "solved":
                head = self._solved(np.arange(len(self._dataset)))
                return {"kernel_0": head.kernel, "bias_0": head.bias, "strength": np.float64(head.strength)}
            layers = self._trials.fit(values, epochs)
            kernels = {f"kernel_{i}": kernel for i, (kernel, _) in enumerate(layers)}
            return kernels | {f"bias_{i}": bias for i, (_, bias) in enumerate(layers)}

        depends_on = {**self.depends_on, "values": values, "epochs": epochs}
        arrays, _ = self.run_of.unit(f"{self.name} tuned head", depends_on, compute)
        if "strength" in arrays:
            values = {**values, "strength": float(arrays.pop("strength"))}
        member = _member(self._trunk, self._num_classes, values)
        set_head(member, [(arrays[f"kernel_{i}"], arrays[f"bias_{i}"]) for i in range(len(arrays) // 2)])
        return member, values

    def settings_of(self, values):
        """Returns the `Training` of a head."""
        names = ("epochs", "batch_size", "learning_rate", "weight_decay")
        return Training(**{name: values[name] for name in names if name in values}, monitor=self._objective)

    def _solved(self, rows):
        folds = folds_that_fit(self._dataset[rows], self.seed)
        arguments = {"num_classes": self._num_classes, "class_weight": self._class_weight}
        return solve_linear_head(self._features[rows], self._dataset.labels[rows], folds, **arguments)

    def _figures(self, head, rows):
        logits = self._features[rows].astype("float64") @ head.kernel + head.bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return self._trials.figures(p / p.sum(axis=1, keepdims=True), rows)


class NetworkTarget:
    """A backbone without pretrained weights, trained end to end; arguments and attributes as of `HeadTarget`.

    Args:
        settings: A `Training`: what is not tuned.
    """

    def __init__(self, name, trunk, dataset, run_of, *, parts, settings, num_classes, class_weight, objective, seed):
        self.name, self.run_of, self.seed, self.epochs = name, run_of, seed, settings.epochs
        self._trunk, self._num_classes = trunk, num_classes
        options = {"num_classes": num_classes, "class_weight": class_weight, "objective": objective, "seed": seed}
        held = hold_decoded(dataset, trunk.input_shape[1:3])
        self._trials = NetworkTrials(trunk, held, parts, settings=settings, **options)
        self.settings_of = self._trials.settings_of
        self.depends_on = {
            "architecture": architecture_fingerprint(trunk),
            "data": dataset.fingerprint(),
            "parts": _digests_of(parts),
            "settings": settings.config(),
            **options,
        }

    def run(self, values):
        """Trains with a trial's hyperparameters; returns its figures and a note."""
        checkpoint = self.run_of.checkpoint(f"{self.name} trial", {**self.depends_on, "values": values})
        return self._trials.run(values, checkpoint)

    def competitors(self):
        """Returns nothing: no network is solved."""
        return []

    def fit(self, values, epochs, verbose):
        """Trains the network on all images; returns the member and its hyperparameters."""
        name, depends_on = f"{self.name} tuned", {**self.depends_on, "values": values, "epochs": epochs}

        def compute():
            network = self._trials.fit(values, epochs, self.run_of.checkpoint(name, depends_on), verbose)
            return {f"weight_{i}": value for i, value in enumerate(network.get_weights())}

        arrays, _ = self.run_of.unit(name, depends_on, compute)
        member = build_member(self._trunk, self._num_classes, dropout=values["dropout"], name=self._trunk.name)
        member.set_weights([arrays[f"weight_{i}"] for i in range(len(arrays))])
        return member, values


def _member(trunk, num_classes, values):
    """Returns a member as `build_member` makes it, with as many hidden units as were found best."""
    dropout = values.get("dropout", 0.0)
    member = build_member(trunk, num_classes, dropout=dropout)
    if values["head"] != "mlp":
        return member
    x = member.get_layer("dropout" if dropout else "features").output
    x = keras.layers.Dense(values["units"], activation="relu", name="hidden_1")(x)
    outputs = keras.layers.Dense(num_classes, activation="softmax", dtype="float32", name="predictions")(x)
    return keras.Model(member.inputs, outputs, name=member.name)


def _digests_of(parts):
    return [[array_digest(rows) for rows in part] for part in parts]

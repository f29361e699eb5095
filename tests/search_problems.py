"""Search problems without training: a tabulated landscape, a space with conditions, and a loop that runs a search."""

import itertools

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus


class Killed(BaseException):
    """Stands for a kill: nothing of the program reacts to it."""


def nk_space(genes=12, values=4):
    """A space of genes without conditions."""
    space = keras_tuner.HyperParameters()
    for number in range(genes):
        space.Choice(f"gene{number}", list(range(values)))
    return space


def nk_landscape(seed=0, *, genes=12, values=4, k=3):
    """Kauffman's NK landscape: the mean of one tabulated number per gene, which depends on it and the k after it.

    Returns a function from a dict of the values of `nk_space` to a float in [0, 1].
    """
    table = np.random.default_rng(seed).random((genes, *[values] * (k + 1)))

    def fitness(genome):
        numbers = [genome[f"gene{number}"] for number in range(genes)]
        places = [tuple(numbers[(gene + step) % genes] for step in range(k + 1)) for gene in range(genes)]
        return float(np.mean([table[gene][place] for gene, place in enumerate(places)]))

    return fitness


def family_space():
    """A space with every kind of hyperparameter and conditions: 2 families, one of which has a nested condition."""
    space = keras_tuner.HyperParameters()
    space.Choice("family", ["cnn", "vgg"])
    with space.conditional_scope("family", ["cnn"]):
        space.Choice("cnn/filters", [8, 16, 32])
        space.Boolean("cnn/norm")
        with space.conditional_scope("cnn/norm", [True]):
            space.Float("cnn/momentum", 0.5, 0.99)
    with space.conditional_scope("family", ["vgg"]):
        space.Int("vgg/blocks", 1, 4)
        space.Int("vgg/width", 8, 64, step=2, sampling="log")
    space.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    space.Fixed("optimizer", "adamw")
    return space


def family_fitness(values):
    """A made-up accuracy for `family_space`."""
    rate = 1 - abs(np.log10(values["learning_rate"]) + 3) / 2
    if values["family"] == "cnn":
        return float(0.4 * rate + values["cnn/filters"] / 80 + values.get("cnn/momentum", 0) / 20)
    return float(0.5 * rate + values["vgg/blocks"] / 20 + values["vgg/width"] / 800)


def trials(oracle, fitness):
    """Runs a search, one trial after another, and yields each when it has ended.

    Args:
        oracle: A `SearchOracle`.
        fitness: Function from a dict of values to a float, or to a dict of metrics. An arithmetic or memory error of
            it fails the trial.
    """
    while (trial := oracle.create_trial("tuner0")).status != TrialStatus.STOPPED:
        try:
            metrics = fitness(trial.hyperparameters.values)
        except (ArithmeticError, MemoryError) as error:
            trial.status, trial.message = TrialStatus.FAILED, repr(error)
        else:
            metrics = metrics if isinstance(metrics, dict) else {"val_accuracy": metrics}
            oracle.update_trial(trial.trial_id, metrics)
            trial.status = TrialStatus.COMPLETED
        oracle.end_trial(trial)
        yield trial


def run(oracle, fitness, *, killed_in=None):
    """Runs a search to its end, or into a kill in the trial `killed_in`, counted from 0; returns the oracle."""
    left = itertools.repeat(True) if killed_in is None else iter([True] * killed_in)

    def or_killed(values):
        if not next(left, False):
            raise Killed
        return fitness(values)

    for _ in trials(oracle, or_killed):
        pass
    return oracle


def history(oracle):
    """What a search did: ids in order, values, origins, scores."""
    return [
        (name, oracle.trials[name].hyperparameters.values, oracle.trials[name].origin, oracle.trials[name].score)
        for name in oracle.end_order
    ]

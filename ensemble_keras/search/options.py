"""Options: what a search is told, checked before it begins."""

import dataclasses

import keras_tuner

from ensemble_keras._validation import check_choice, suggest
from ensemble_keras.members.curves import DIRECTIONS
from ensemble_keras.members.settings import Training
from ensemble_keras.search.baselines import BayesianOracle, HyperbandOracle, RandomOracle
from ensemble_keras.search.genetic import GeneticOracle
from ensemble_keras.search.halving import SuccessiveHalving
from ensemble_keras.search.local import LocalOracle

ALGORITHMS = {
    "genetic": GeneticOracle,
    "local": LocalOracle,
    "random": RandomOracle,
    "bayesian": BayesianOracle,
    "hyperband": HyperbandOracle,
}
# Arguments of KerasTuner's tuner that say how it trains.
_HOW_TO_TRAIN = ("optimizer", "loss", "metrics", "max_model_size", "distribution_strategy", "executions_per_trial")
# Fields of `Training` that `search` sets by other arguments, or that nothing here goes by.
_SET_OTHERWISE = ("epochs", "batch_size", "monitor", "validation_split")
# What a trial reports besides the figures of its images.
COSTS = ("parameters", "macs")


def objectives_of(objective):
    """Returns the objective or objectives as KerasTuner's, and the name of the first."""
    names = list(objective) if isinstance(objective, list | tuple) else [objective]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"`objective` must be a name or a list of names. Received: {objective!r}.")
    check_choice("objective", names[0] if names else None, DIRECTIONS)
    for name in names[1:]:
        check_choice("objective", name, (*DIRECTIONS, *COSTS))
    found = [keras_tuner.Objective(name, DIRECTIONS.get(name, "min")) for name in names]
    return (found[0] if len(found) == 1 else found), names[0]


def build_oracle(algorithm, given, options):
    """Returns the oracle of an algorithm, with what the search gives it and the further options."""
    if twice := [name for name in (*given, "folder") if name in options]:
        raise ValueError(
            f"`oracle_options` must hold what the search does not give by itself. Received: {', '.join(twice)}. "
            "Take the argument of the search, or of its space."
        )
    return ALGORITHMS[algorithm](**given, **options)


def check_not_of_training(tuner_options):
    """Raises `ValueError` if KerasTuner is told how to train: a `HyperImageClassifier` has its own way."""
    foreign = [name for name in _HOW_TO_TRAIN if name in tuner_options]
    if foreign:
        raise ValueError(
            f"{', '.join(map(repr, foreign))} belong to a hypermodel of your own. For a HyperImageClassifier "
            "give its `training` or `max_parameters`, or `settings` and `class_weight` of `search`."
        )


def halving_of(halving):
    """Returns a `SuccessiveHalving` or `None`."""
    if not isinstance(halving, SuccessiveHalving | bool | None):
        raise ValueError(f"`halving` must be a SuccessiveHalving, True or None. Received: {halving!r}.")
    return SuccessiveHalving() if halving is True else halving or None


def shared_settings(settings, *, searched, monitor, epochs, batch_size):
    """Returns the fields of `Training` that all trials of a search have in common.

    Args:
        settings: Dict of fields, as in `ArchitectureSearch.search`.
        searched: Collection of the settings that the space searches.
        monitor: String, the figure by which epochs and trials are chosen.
        epochs: Int.
        batch_size: Int, where the space does not search it.

    Raises:
        ValueError: If a field is unknown, out of its range, searched, or set by another argument.
    """
    known = [field.name for field in dataclasses.fields(Training) if field.name not in _SET_OTHERWISE]
    for name in settings:
        if name in searched:
            raise ValueError(
                f"`settings` must not hold {name!r}, which the space searches. Give the space "
                f"`training={{{name!r}: [{settings[name]!r}]}}`."
            )
        if name not in known:
            raise ValueError(
                f"`settings` must hold fields of Training that no other argument sets. Received: {name!r}."
                f"{suggest(name, known)}"
            )
    shared = {"patience": epochs, **settings, "monitor": monitor}
    shared |= {} if "batch_size" in searched else {"batch_size": batch_size}
    # Says what is out of its range before a trial is spent.
    Training(epochs=epochs, **shared)
    return shared

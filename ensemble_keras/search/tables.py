"""Trials: those of a search as a table, and the log of who came from whom."""

import json

import pandas as pd
from keras_tuner.engine.trial import TrialStatus

from ensemble_keras.search.genome import active_values
from ensemble_keras.search.halving import STOPPED_EARLY

# Integers among the figures, missing where a trial failed.
_WHOLE = ("parameters", "macs", "best_epoch", "epochs")
_FIGURES = ("score", "val_accuracy", "val_loss", "val_auc", *_WHOLE, "seconds")


def trials_table(oracle, further=()):
    """Returns the ended trials of an oracle, in the order in which they ended.

    Args:
        oracle: A `SearchOracle`.
        further: Sequence of names of further figures that trials report.

    Returns:
        A `pandas.DataFrame`, a row per trial: `trial` (number, from 1, in the order of their start), `genome` (its
        SHA-256), `family`, `score`, the figures on the validation images at the best epoch, `parameters`, `macs`,
        `best_epoch`, `epochs`, `seconds`, the further figures, `status` (`"COMPLETED"`, `"STOPPED"`: early, or
        `"FAILED"`), `reason`, `origin` (`"random"`, `"crossover"`, `"mutation"`, …), `parents` (tuple of trial
        numbers), and the hyperparameters.
    """
    numbers = {trial_id: number for number, trial_id in enumerate(oracle.start_order, start=1)}
    rows = [_row(oracle, oracle.trials[trial_id], numbers) for trial_id in oracle.end_order]
    names = ["trial", "genome", "family", *_FIGURES, *further, "status", "reason", "origin", "parents"]
    hyperparameters = [gene.name for gene in oracle.get_space().space if gene.name != "family"]
    table = pd.DataFrame(rows, columns=[*names, *hyperparameters])
    return table.astype(dict.fromkeys(_WHOLE, "Int64"))


def lineage_text(table):
    """Returns the lineage log, a JSON object per line: trial, genome, origin, parents and score of each."""
    columns = ["trial", "genome", "family", "origin", "parents", "score", "status"]
    records = json.loads(table[columns].to_json(orient="records"))
    return "".join(json.dumps(record) + "\n" for record in records)


def _row(oracle, trial, numbers):
    genome = active_values(oracle.get_space(), trial.hyperparameters.values)
    figures = {name: trial.metrics.get_best_value(name) for name in trial.metrics.metrics}
    failed, note = trial.status != TrialStatus.COMPLETED, trial.message or ""
    status = "FAILED" if failed else "STOPPED" if note.startswith(STOPPED_EARLY) else "COMPLETED"
    return {
        **genome,
        **figures,
        "trial": numbers[trial.trial_id],
        "genome": trial.genome_id,
        "score": None if failed else trial.score,
        "status": status,
        "reason": note,
        "origin": trial.origin["kind"],
        "parents": tuple(numbers[parent] for parent in trial.origin["parents"] if parent in numbers),
    }

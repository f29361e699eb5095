"""Pool: the trials of a search become an ensemble, which is compared with the best single one."""

import dataclasses

import keras
import numpy as np
import pandas as pd

from ensemble_keras._validation import check_at_least, check_choice
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.fitting import fit_combiner
from ensemble_keras.combiners.gating import ArchitectureGate
from ensemble_keras.combiners.voting import SoftVoting
from ensemble_keras.measures.architecture import describe_architecture
from ensemble_keras.measures.metrics import log_losses
from ensemble_keras.measures.significance import compare
from ensemble_keras.search.images import divided, search_images
from ensemble_keras.search.team import MOST_CANDIDATES, greedy_team, true_class_probabilities

COMBINERS = ("greedy", "gated", "top")


@dataclasses.dataclass(frozen=True)
class SearchEnsemble:
    """An ensemble of a search's trials, and what it is worth.

    Attributes:
        model: `keras.Model` from raw images to probabilities `(batch, num_classes)`, as `build_ensemble` makes it.
        members: `pandas.DataFrame`, a row per member, by weight: `trial` (its number in the leaderboard), `family`,
            `weight`, `accuracy` (on the images for comparison), `parameters`, `macs`.
        comparison: `pandas.DataFrame`, on images that chose neither trials nor members, a row for `"best single"`
            (the best trial of the search), `"top"` (the mean of as many best trials as the team has members),
            `"greedy"` (the team, by its weights) and `"gated"` (the team, weighed for each image by an
            `ArchitectureGate`; left out where a class has but one of the images that choose): `members`, `accuracy`,
            `log_loss`, `difference` (of accuracy to the best single one) and its 95 % interval, `low` and `high`.
        verdict: String: what the ensemble gains, or that it gains nothing.
    """

    model: keras.Model
    members: pd.DataFrame
    comparison: pd.DataFrame
    verdict: str

    @classmethod
    def from_search(cls, tuner, x=None, y=None, *, size=5, combiner="greedy", seed=0):
        """Chooses, joins and compares; see `ensemble_from_search` for arguments and errors."""
        check_choice("combiner", combiner, COMBINERS)
        check_at_least("size", size, 1)
        trials, chosen_by, compared_on = _pool(tuner, x, y, seed)
        (predictions, labels), (held, held_labels) = chosen_by, compared_on
        weights = greedy_team([true_class_probabilities(table, labels) for table in predictions], size=size)
        # By weight; of equal ones the better trial first.
        team = [int(i) for i in np.argsort(-weights, kind="stable") if weights[i] > 0]
        top = list(range(len(team)))
        # The gate is told of each member what it is, which takes the networks.
        networks = {i: tuner.load_model(trials[i]) for i in {*team, *(top if combiner == "top" else ())}}
        layers = {"top": SoftVoting(), "greedy": SoftVoting(weights=weights[team].tolist())}
        said = {
            "best single": ([0], held[0]),
            "top": (top, np.mean([held[i] for i in top], axis=0)),
            "greedy": (team, np.average([held[i] for i in team], axis=0, weights=weights[team])),
        }
        if combiner == "gated" or np.bincount(labels, minlength=held[0].shape[1]).min() > 1:
            gate = _fitted_gate([networks[i] for i in team], [predictions[i] for i in team], labels, seed)
            said["gated"], layers["gated"] = (team, _applied(gate, [held[i] for i in team])), gate
        table = pd.DataFrame([_row(name, *one, held[0], held_labels) for name, one in said.items()])
        members = said[combiner][0]
        model = build_ensemble([networks[i] for i in members], layers[combiner])
        shares = np.full(len(top), 1 / len(top)) if combiner == "top" else weights[team]
        rows = [
            _member(tuner, trials[i], share, held[i], held_labels) for i, share in zip(members, shares, strict=True)
        ]
        chosen = next(row for _, row in table.iterrows() if row["name"] == combiner)
        verdict = _verdict(chosen, table.iloc[0], len(held_labels))
        return cls(model, pd.DataFrame(rows), table, verdict)


def ensemble_from_search(tuner, x=None, y=None, *, size=5, combiner="greedy", seed=0, verbose=1):
    """Builds an ensemble of the trials of a search that are best together.

    Members are chosen greedily, with replacement, by the log loss of their vote (Caruana et al., 2004): often others
    than the best ones, which resemble each other. Half of the images choose; the other half, which nothing was chosen
    by, says what it gained. `SearchEnsemble.from_search` returns that comparison, too.

    Args:
        tuner: An `ArchitectureSearch` after `search`.
        x: Images that no trial trained on, an `ImageDataset` or an array. Of the search's own validation images the
            predictions of all trials are known; for others, the trials whose weights are kept predict. Before
            `search` in this process nobody can tell whether a trial trained on them. Defaults to `None`: the
            search's validation images.
        y: Labels `(n,)`; not needed with a labelled `ImageDataset`.
        size: Int, at least 1: the most members. Defaults to 5.
        combiner: `"greedy"`: a vote by weights; `"gated"`: an `ArchitectureGate` over the same members, fitted to the
            images that chose them; or `"top"`: the plain mean of as many best trials. Defaults to `"greedy"`.
        seed: Int, of the halves of other images and of the gate. Defaults to 0.
        verbose: 0 prints nothing; 1 prints the verdict. Defaults to 1.

    Returns:
        A `keras.Model` from raw images with values in [0, 255] to probabilities `(batch, num_classes)`.

    Raises:
        RuntimeError: If the weights of a member are not kept and the data to train it again are not known.
        ValueError: If there is no completed trial, images were trained on or a part of them chose the trials, a class
            is missing among those that are to fit the gate, or an argument is not as described.

    Example:

    ```python
    model = ek.search.ensemble_from_search(tuner, size=3)
    ```
    """
    found = SearchEnsemble.from_search(tuner, x, y, size=size, combiner=combiner, seed=seed)
    if verbose:
        print(found.verdict)
    return found.model


def _pool(tuner, x, y, seed):
    """Returns the trials, the best first, and twice their predictions and labels: to choose by, and to compare on."""
    trials = tuner.completed_trials()
    if not trials:
        raise ValueError("The search has no completed trial. Run `search` first; `tuner.leaderboard()` says why.")
    if x is None:
        return _own(tuner, trials, slice(None), slice(None))
    classes = None if tuner.data is None else tuner.data.classes
    images, found = search_images(x, y, input_shape=tuner.hypermodel.input_shape, classes=classes)
    if len(found) != tuner.hypermodel.num_classes:
        raise ValueError(f"Expected images of {tuner.hypermodel.num_classes} classes. Received: {len(found)}.")
    if tuner.data is not None:
        own = _own_rows(tuner.data, images.digests())
        if own is not None:
            return _own(tuner, trials, *own)
    trials = [trial for trial in trials if tuner.has_weights(trial)][:MOST_CANDIDATES]
    if not trials:
        raise RuntimeError("No trial's weights are kept. Call `search` with the arguments that it had.")
    parts = divided(images, 0.5, seed)
    networks = [tuner.load_model(trial) for trial in trials]
    return trials, *(([part.predict(network) for network in networks], part.labels) for part in parts)


def _own(tuner, trials, selection, comparison):
    trials = trials[:MOST_CANDIDATES]
    chosen, held = tuner.predictions(trials)
    return (
        trials,
        ([table[selection] for table in chosen], tuner.data.selection.labels[selection]),
        ([table[comparison] for table in held], tuner.data.comparison.labels[comparison]),
    )


def _own_rows(data, digests):
    """Returns the rows of the search's parts that are these images, or `None` where they are others."""
    trained_on = {*data.train.digests()} & {*digests}
    if trained_on:
        raise ValueError(
            f"Expected images that no trial trained on. Received: {len(trained_on)} of the training images, of which "
            "the networks know what they were taught."
        )
    places = [
        {digest: row for row, digest in enumerate(part.digests())} for part in (data.selection, data.comparison)
    ]
    rows = [[place[digest] for digest in digests if digest in place] for place in places]
    if sum(map(len, rows)) == len(digests) and all(rows):
        return rows
    if rows[0]:
        raise ValueError(
            f"Expected images that chose no trial. Received: {len(rows[0])} that did, beside {len(digests)} in all. "
            "Give others; or none, and the search's own halves of its validation images are taken."
        )
    return None


def _fitted_gate(networks, predictions, labels, seed):
    skills = [float(np.mean(table.argmax(axis=1) == labels)) for table in predictions]
    descriptors = [describe_architecture(n, skill=skill) for n, skill in zip(networks, skills, strict=True)]
    return fit_combiner(ArchitectureGate(descriptors), np.stack(predictions, axis=1), labels, seed=seed)


def _applied(combiner, tables):
    return keras.ops.convert_to_numpy(combiner([keras.ops.convert_to_tensor(table) for table in tables]))


def _row(name, members, probabilities, best, labels):
    difference = compare(probabilities, best, labels)
    return {
        "name": name,
        "members": len(members),
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "log_loss": float(log_losses(labels, probabilities).mean()),
        "difference": difference.difference,
        "low": difference.low,
        "high": difference.high,
    }


def _member(tuner, trial, weight, probabilities, labels):
    return {
        "trial": 1 + tuner.oracle.start_order.index(trial.trial_id),
        "family": trial.hyperparameters.values["family"],
        "weight": float(weight),
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        **tuner.costs(trial),
    }


def _verdict(row, single, count):
    interval = f"95 % interval {100 * row.low:+.1f} to {100 * row.high:+.1f}"
    members = "1 member" if row.members == 1 else f"{row.members} members"
    text = (
        f"{row['name']} of {members}: {100 * row.difference:+.1f} points over the best single network "
        f"({single.accuracy:.4f}), {interval}, on {count:,} images that chose neither."
    )
    if row.members == 1:
        return f"One model would do: nothing improves on a single network. {text.capitalize()}"
    return text.capitalize() if row.low > 0 else f"One model would do: {text}"

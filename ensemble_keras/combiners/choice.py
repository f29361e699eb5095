"""Choice: combiners by name, compared on out-of-fold predictions."""

import dataclasses
import itertools
import re
import time

import keras
import numpy as np

from ensemble_keras._validation import suggest
from ensemble_keras.combiners.base import takes_of
from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.fitting import combine, fit_combiner, fit_out_of_fold
from ensemble_keras.combiners.gating import ArchitectureGate
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting, HardVoting, SoftVoting
from ensemble_keras.combiners.weighting import with_weights
from ensemble_keras.measures.architecture import describe_architecture
from ensemble_keras.measures.macs import count_macs
from ensemble_keras.measures.metrics import roc_auc
from ensemble_keras.measures.significance import compare

_MAKERS = {
    "best_member": lambda num_classes: SoftVoting(weights="best"),
    "soft_voting": lambda num_classes: SoftVoting(),
    "weighted_voting": lambda num_classes: SoftVoting(weights="log_loss"),
    "greedy": lambda num_classes: SoftVoting(weights="greedy"),
    "hard_voting": lambda num_classes: HardVoting(),
    "geometric_voting": lambda num_classes: GeometricVoting(),
    "stacking": StackedMetaLearner,
    "concatenate": ConcatenateDense,
    "gated": lambda num_classes: ArchitectureGate(None),
}
# What "auto" compares, the simplest first.
_COMPARED = ("best_member", "soft_voting", "weighted_voting", "greedy", "stacking", "concatenate", "gated")


@dataclasses.dataclass
class Candidate:
    """A combiner that was tried.

    Attributes:
        name: String.
        combiner: The layer as given.
        fitted: The layer of `joined` members, fitted on all rows; `None` where that needs their final features.
        out_of_fold: `(n, num_classes)` probabilities of the combined members; each row by members and a combiner
            that did not see it. Single numbers are chosen on all rows: the L2 strength of a linear combiner, and each
            member's temperature and the skill that a gate is told of it.
        seconds: Float.
        used: List of ints, the members that it asks: a vote leaves out those of weight 0.
        joined: List of ints, the members that the layer takes; `None`: all.
    """

    name: str
    combiner: keras.layers.Layer
    fitted: keras.layers.Layer | None
    out_of_fold: np.ndarray
    seconds: float
    used: list
    joined: list | None = None


def named_combiners(combiner, num_classes):
    """Returns the layers that a `combiner` argument asks for, a dict from name to layer.

    Args:
        combiner: A name, `"auto"`, a combiner layer, or a list of names and layers to compare, the simplest first.
        num_classes: Int.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(combiner, list | tuple):
        return _several(combiner, num_classes)
    if isinstance(combiner, str) and combiner == "auto":
        return named_combiners(_COMPARED, num_classes)
    if isinstance(combiner, keras.layers.Layer):
        takes_of(combiner)
        # A copy: what the user gave is theirs.
        return {combiner.name: _copied(combiner)}
    if not isinstance(combiner, str) or combiner not in _MAKERS:
        known = [*_MAKERS, "auto"]
        hint = (
            f" Give an instance: `{combiner.__name__}()`." if isinstance(combiner, type) else suggest(combiner, known)
        )
        raise ValueError(f"Unknown combiner {combiner!r}. Known: {', '.join(known)}, or a layer.{hint}")
    return {combiner: _MAKERS[combiner](num_classes)}


def _copied(combiner):
    try:
        return type(combiner).from_config(combiner.get_config())
    except TypeError as error:
        kind = type(combiner).__name__
        raise TypeError(
            f"The combiner {combiner.name!r} cannot be built again from its config. `{kind}.__init__` must take what "
            f"`{kind}.get_config` returns, and pass `**kwargs` on to `keras.layers.Layer`. Keras says: {error}"
        ) from error


def check_combiners(combiners, widths, num_classes):
    """Raises `ValueError` if a combiner does not fit its members, before there are any: it joins tiny ones.

    Args:
        combiners: Dict from name to layer; they are not changed.
        widths: Dict from the name of each member's layer to the width of its features.
        num_classes: Int.
    """
    for name, combiner in combiners.items():
        try:
            _join_stand_ins(combiner, widths, num_classes)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The combiner {name!r} does not fit {len(widths)} members of {num_classes} classes with features "
                f"of the widths {list(widths.values())}. {_own_message(error)}"
            ) from error


def own_cost(combiner, widths, num_classes):
    """Tells what a combiner costs itself, beside its members, for one image.

    Args:
        combiner: A combiner layer.
        widths: As in `check_combiners`.
        num_classes: Int.

    Returns:
        A `MacCount`'s `total`, `parameters` and `unknown`. Heads that a combiner of features leaves out are not
        deducted.
    """
    joined, members = _join_stand_ins(combiner, widths, num_classes)
    if takes_of(combiner) == "features":
        members = [keras.Model(member.inputs, member.get_layer("features").output) for member in members]
    whole, parts = count_macs(joined), [count_macs(member) for member in members]
    parameters = whole.parameters - sum(part.parameters for part in parts)
    return whole.total - sum(part.total for part in parts), parameters, whole.unknown


def try_combiner(name, combiner, predictions, y, folds, *, features=None, class_weight=None, seed=0, selection=None):
    """Fits a combiner, and combines out-of-fold predictions (and features) so that every row stays out of fold.

    Args:
        name: String.
        combiner: A combiner layer.
        predictions: `(n, members, num_classes)`, out-of-fold.
        y: Int array `(n,)`.
        folds: Int array `(n,)`.
        features: List, a member each: `(n, d)`; or `(folds, n, d)` where every fold has a network of its own.
        class_weight: List of `num_classes` floats or `None`.
        seed: Int.
        selection: The `Selection` within a budget, or `None`: all members are joined.

    Returns:
        A `Candidate`.
    """
    start = time.perf_counter()
    arguments = {"class_weight": class_weight, "seed": seed}
    everyone = list(range(predictions.shape[1]))
    asked, joined = _asked_together(combiner, everyone), everyone
    by_fold = takes_of(combiner) != "predictions" and any(part.ndim == 3 for part in features)
    if selection is not None and not selection.fits(asked):
        joined, sets = selection.of(asked), [selection.of(asked, without=fold) for fold in np.unique(folds)]
        combined = _by_fold(combiner, predictions, y, folds, features, sets, arguments)
        fitted = None if by_fold else fit_joined(combiner, joined, predictions, y, folds, features, **arguments)
    elif by_fold:
        sets = [everyone] * len(np.unique(folds))
        fitted, combined = None, _by_fold(combiner, predictions, y, folds, features, sets, arguments)
    else:
        fitted, combined = fit_out_of_fold(combiner, predictions, y, folds, features=features, **arguments)
    weights = getattr(fitted, "member_weights", None)
    used = [i for place, i in enumerate(joined) if weights is None or weights[place] > 0]
    return Candidate(name, combiner, fitted, combined, time.perf_counter() - start, used, joined)


def fit_joined(combiner, joined, predictions, y, folds, features, **arguments):
    """Fits a combiner of some of the members on all rows.

    Args:
        combiner: A combiner layer of all members.
        joined: List of ints, the members that the fitted layer takes.
        predictions: As in `try_combiner`.
        y: As in `try_combiner`.
        folds: As in `try_combiner`.
        features: List, a member each: `(n, d)`; not looked at where the combiner takes predictions alone.
        **arguments: `class_weight` and `seed`.

    Returns:
        A combiner layer.
    """
    parts = None if takes_of(combiner) == "predictions" else [features[i] for i in joined]
    options = {"features": parts, "folds": folds, **arguments}
    return fit_combiner(restricted(combiner, joined), predictions[:, joined], y, **options)


def restricted(combiner, members):
    """Returns a combiner for some of its members, a list of places: its weights and descriptors are theirs."""
    if isinstance(combiner, ArchitectureGate) and combiner.descriptors is not None:
        return combiner.with_descriptors([combiner.descriptors[i] for i in members])
    weights = getattr(combiner, "member_weights", None)
    if weights is None or isinstance(weights, str):
        return combiner
    return with_weights(combiner, [weights[i] for i in members])


def choose(candidates, y, *, groups=None, seed=0):
    """Returns the simplest candidate that is not worse than the best one beyond chance.

    That is judged by accuracy, and with two classes by the area under the ROC curve, too: where one class is rare,
    accuracy alone tells little. The interval is that of `compare`, 95 %.

    Args:
        candidates: List of `Candidate`s, the simplest first.
        y: Int array `(n,)`.
        groups: Sequence `(n,)` or `None`, for the paired bootstrap.
        seed: Int.

    Returns:
        A `Candidate`; the most accurate one where none is as good by every measure.
    """
    left = candidates
    measures = {"accuracy": lambda p: np.mean(p.argmax(axis=1) == y)}
    if candidates[0].out_of_fold.shape[1] == 2:
        measures["roc_auc"] = lambda p: roc_auc(y, p)
    for metric, measure in measures.items():
        best = max(candidates, key=lambda candidate: measure(candidate.out_of_fold))
        options = {"metric": metric, "groups": groups, "seed": seed}
        left = [c for c in left if c is best or compare(best.out_of_fold, c.out_of_fold, y, **options).low <= 0]
    return left[0] if left else max(candidates, key=lambda candidate: measures["accuracy"](candidate.out_of_fold))


def describe_members(combiner, members, skills):
    """Returns a gate that has no descriptors with those of the members; any other combiner as it is.

    Args:
        combiner: A combiner layer.
        members: List of `keras.Model`s.
        skills: List of floats, their out-of-fold accuracies.
    """
    if not _lacks_descriptors(combiner):
        return combiner
    described = [describe_architecture(m, skill=skill) for m, skill in zip(members, skills, strict=True)]
    return combiner.with_descriptors(described)


def _asked_together(combiner, members):
    """Returns the members that a combiner may ask about one image."""
    weights = getattr(combiner, "member_weights", None)
    if isinstance(weights, str):
        # Of single members any one fits.
        return members[:1] if weights == "best" else members
    return members if weights is None else [i for i in members if weights[i] > 0]


def _lacks_descriptors(combiner):
    return isinstance(combiner, ArchitectureGate) and combiner.descriptors is None


def _callable(combiner, members):
    """Returns a copy that can be called: with weights and descriptors, where these are still to be found."""
    if _lacks_descriptors(combiner):
        return combiner.with_descriptors([{"skill": 1.0}] * members)
    if isinstance(getattr(combiner, "member_weights", None), str):
        return with_weights(combiner, None)
    return type(combiner).from_config(combiner.get_config())


def _several(combiners, num_classes):
    """Returns the layers of a list; Keras numbers its layers, so one's own may have the name of another."""
    found, given = {}, []
    for one in combiners:
        part = named_combiners(one, num_classes)
        given += [id(one)] if isinstance(one, keras.layers.Layer) else part
        found |= {_free_name(name, found): layer for name, layer in part.items()}
    if not found or len(set(given)) < len(given):
        raise ValueError(f"A list of combiners must hold different ones, at least one. Received: {combiners!r}.")
    return found


def _free_name(name, taken):
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return name if name not in taken else next(free for free in numbered if free not in taken)


def _own_message(error):
    """Returns what a layer said, without what Keras says around it: the layer's words are in bold type or last."""
    bold = re.search("\x1b\\[1m(.*?)\x1b\\[0m", str(error), re.DOTALL)
    return (bold[1] if bold else str(error)).rpartition("Error encountered:")[2].strip()


def _join_stand_ins(combiner, widths, num_classes):
    """Returns a model of tiny members with such features, joined by a combiner, and the members."""
    members = [_stand_in(name, width, num_classes) for name, width in widths.items()]
    return build_ensemble(members, _callable(combiner, len(members))), members


def _stand_in(name, width, num_classes):
    images = keras.Input((1, 1, 3), name="images")
    features = keras.layers.Dense(width, name="features")(keras.layers.Flatten()(images))
    predictions = keras.layers.Dense(num_classes, "softmax", dtype="float32", name="predictions")(features)
    return keras.Model(images, predictions, name=name)


def _by_fold(combiner, predictions, y, folds, features, sets, arguments):
    """Fits the combiner of each fold's own set of members on the other folds, and applies it to the fold."""
    combined = np.empty((len(y), predictions.shape[-1]), "float32")
    for number, (fold, members) in enumerate(zip(np.unique(folds), sets, strict=True)):
        held, parts = folds == fold, None
        if takes_of(combiner) != "predictions":
            parts = [part if part.ndim == 2 else part[number] for part in (features[i] for i in members)]
        rest = fit_combiner(
            restricted(combiner, members),
            predictions[~held][:, members],
            y[~held],
            features=parts and [part[~held] for part in parts],
            folds=folds[~held],
            **arguments,
        )
        combined[held] = combine(rest, predictions[held][:, members], parts and [part[held] for part in parts])
    return combined

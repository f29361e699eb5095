"""Pipeline: the steps of a fit in their order, from a checked plan to the finished model and its card."""

import dataclasses
import datetime

import keras
import numpy as np
import pandas as pd

from ensemble_keras.backbones.spec import layer_name
from ensemble_keras.combiners.base import takes_of
from ensemble_keras.combiners.budget import Selection, measure, with_own_cost
from ensemble_keras.combiners.calibration import calibrated, cross_calibrated, fit_temperature, fit_temperatures
from ensemble_keras.combiners.choice import (
    check_combiners,
    choose,
    describe_members,
    fit_joined,
    own_cost,
    restricted,
    try_combiner,
)
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.views import view_names, views_of
from ensemble_keras.combiners.weighting import with_weights
from ensemble_keras.data.decoding import FILTER
from ensemble_keras.data.leaks import check_leaks
from ensemble_keras.data.sampling import combined_weights
from ensemble_keras.data.splits import make_folds
from ensemble_keras.evaluation.leaderboard import leaderboard, verdict
from ensemble_keras.evaluation.validation import validate
from ensemble_keras.executors import opened
from ensemble_keras.features.extraction import Extraction, extract
from ensemble_keras.features.views import Views
from ensemble_keras.measures.macs import count_macs
from ensemble_keras.measures.metrics import metric_summary
from ensemble_keras.measures.significance import design_effect
from ensemble_keras.members.fitting import check_unfreezing, fit_frozen_member, fit_trained_member
from ensemble_keras.members.member import build_member
from ensemble_keras.members.settings import Training
from ensemble_keras.members.trainer import hold_decoded, separate_sets


@dataclasses.dataclass
class Plan:
    """What a fit is made of; every part has been checked. The arguments are those of `EnsembleClassifier`."""

    trunks: dict  # name -> keras.Model, the backbones
    frozen: set  # names of those with pretrained weights
    dataset: object  # labels are class indices
    validation: object
    classes: np.ndarray
    image_size: tuple
    combiners: dict  # name -> layer; of several, the simplest first
    cv: object
    head: str
    training: Training
    fine_tune: dict  # name -> FineTuning, of the pretrained ones that do not stay frozen
    augmentation: object
    views: Views | None  # what the heads of frozen ones learn from, else the images as they are
    sampling: str | None
    refit: bool
    devices: object
    executor: object
    test_time_augmentation: tuple | None
    calibrate: bool
    limits: dict  # of what the ensemble may cost, from `check_limits`
    class_weight: list | None
    store: object
    leaks: str
    seed: int
    verbose: int


@dataclasses.dataclass
class Fitted:
    """What a fit gives: the fitted attributes of `EnsembleClassifier`, without the trailing underscore."""

    model: keras.Model
    members: list
    combiner: keras.layers.Layer
    out_of_fold: np.ndarray
    ensemble_out_of_fold: np.ndarray
    leaderboard: pd.DataFrame
    verdict: str
    history: dict
    card: dict


def fit(plan, run):
    """Runs a plan.

    Args:
        plan: A `Plan`.
        run: The `Run` that keeps finished work.

    Returns:
        A `Fitted`.
    """
    _check_refit(plan)
    for name, settings in plan.fine_tune.items():
        check_unfreezing(plan.trunks[name], settings)
    views_of(keras.Input((*plan.image_size, 3)), plan.test_time_augmentation)  # a slip: said before the long work
    check_combiners(plan.combiners, _widths(plan), len(plan.classes))
    _folds(plan)  # Too few images of a class: said before the long work.
    plan, budgets, too_costly = _within_budget(plan)
    extraction = _extract(plan)
    if len(plan.frozen) < len(plan.trunks):
        plan.dataset.verify()
    leaks = [] if plan.validation is None else _leaks(plan)
    folds = _folds(plan, plan.dataset.digests())
    with opened(plan.executor) as executor:
        members = _fit_members(plan, run, extraction, folds, executor)
    if not members:
        raise MemoryError(f"No member could be fitted: {extraction.skipped}")
    return _join(plan, members, {**too_costly, **extraction.skipped}, folds, leaks, budgets)


def _widths(plan):
    return {layer_name(name): trunk.output_shape[-1] for name, trunk in plan.trunks.items()}


def _within_budget(plan):
    """Leaves out what cannot be within the budget, before the long work.

    Returns:
        The plan without members, and without combiners, that cost too much with any member; a dict from each combiner
        left to its `Budget`, empty without limits; and a dict from each member left out to the reason.
    """
    if not plan.limits:
        return plan, {}, {}
    members = {
        name: build_member(trunk, len(plan.classes), head=plan.head if name in plan.frozen else "linear")
        for name, trunk in plan.trunks.items()
    }
    trained = [name for name in plan.trunks if name not in plan.frozen or name in plan.fine_tune]
    copies = {} if plan.refit else dict.fromkeys(trained, len(np.unique(_folds(plan))))
    budget = measure(members, plan.limits, copies=copies, views=_view_count(plan))
    budget.check()
    kept = {name: member for name, member in members.items() if budget.fits([name])}
    places = [list(members).index(name) for name in kept]
    smaller = dataclasses.replace(
        plan,
        trunks={name: plan.trunks[name] for name in kept},
        frozen=plan.frozen & set(kept),
        fine_tune={name: settings for name, settings in plan.fine_tune.items() if name in kept},
        combiners={name: restricted(layer, places) for name, layer in plan.combiners.items()},
    )
    budgets = _budgets_of_combiners(smaller, budget, list(kept.values()))
    smaller.combiners = {name: smaller.combiners[name] for name in budgets}
    costs = {name: budget.text([name]) for name in members if name not in kept}
    return smaller, budgets, {name: f"left out: too costly with {cost}" for name, cost in costs.items()}


def _budgets_of_combiners(plan, budget, members):
    """Returns the `Budget` of each combiner, less what it costs itself, for which some member is left."""
    budgets = {}
    for name, layer in plan.combiners.items():
        cost = own_cost(describe_members(layer, members, [1.0] * len(members)), _widths(plan), len(plan.classes))
        budgets[name] = with_own_cost(budget, name, cost, views=_view_count(plan))
    fitting = {name: own for name, own in budgets.items() if own.fits_any()}
    if not fitting:
        next(iter(budgets.values())).check()
    return fitting


def _view_count(plan):
    return 1 + len(view_names(plan.test_time_augmentation))


def _extract(plan):
    """Features of all pretrained backbones; those to be fine-tuned see the images as they are alone."""
    frozen = {name: plan.trunks[name] for name in plan.trunks if name in plan.frozen}
    options = {"image_size": plan.image_size, "store": plan.store, "verbose": plan.verbose}
    if plan.views is None:
        return extract(frozen, plan.dataset, **options)
    tuned = {name: frozen.pop(name) for name in plan.fine_tune}
    parts = [extract(frozen, plan.dataset, views=plan.views, **options)]
    if tuned:
        parts.append(extract(tuned, plan.dataset, **options))
    return Extraction(
        **{
            field.name: {name: value for part in parts for name, value in getattr(part, field.name).items()}
            for field in dataclasses.fields(Extraction)
        }
    )


def _check_refit(plan):
    trained = [name for name in plan.trunks if name not in plan.frozen or name in plan.fine_tune]
    takers = [name for name, combiner in plan.combiners.items() if takes_of(combiner) != "predictions"]
    if trained and takers and not plan.refit:
        raise ValueError(
            f"{takers[0]!r} takes features, and a member kept as the average of its folds has none of its own. "
            f"Received: refit=False with {trained[0]!r}. Take refit=True or a combiner of predictions."
        )


def _leaks(plan):
    """Pairs of images, or of groups, in both the training and the validation data; said at once, or refused."""
    found = check_leaks(plan.dataset, plan.validation, leaks=plan.leaks)
    return found[["train_file", "test_file", "kind"]].to_dict("records")


def _folds(plan, digests=None):
    arguments = {"groups": plan.dataset.groups, "cv": plan.cv, "seed": plan.seed, "class_names": plan.classes}
    return make_folds(plan.dataset.labels, digests=digests, **arguments)


def _fit_members(plan, run, extraction, folds, executor):
    common = {"num_classes": len(plan.classes), "seed": plan.seed, "head": plan.head, "run": run}
    training = {
        "validation": plan.validation,
        "class_weight": plan.class_weight,
        "augmentation": plan.augmentation,
        "sampling": plan.sampling,
        "refit": plan.refit,
        "devices": plan.devices,
        "executor": executor,
        "verbose": plan.verbose,
    }
    weights = _solved_weights(plan)
    with_features = any(takes_of(combiner) != "predictions" for combiner in plan.combiners.values())
    members, held, sets = [], None, separate_sets(plan.dataset)
    for name, trunk in plan.trunks.items():
        features = extraction.features.get(name)
        if name in plan.frozen and features is None:
            continue
        if name in plan.frozen and name not in plan.fine_tune:
            options = {"sets": sets, "class_weight": weights, **common}
            member = fit_frozen_member(name, trunk, features, plan.dataset.labels, folds, **options)
        else:
            held = held or hold_decoded(plan.dataset, plan.image_size)
            settings = plan.fine_tune.get(name, plan.training)
            options = {"features": features, "with_features": with_features, **training, **common}
            try:
                member = fit_trained_member(name, trunk, held, folds, settings, **options)
            except MemoryError as error:
                extraction.skipped[name] = str(error)
                continue
        member.seconds += extraction.seconds.get(name, 0.0)
        members.append(member)
    return members


def _solved_weights(plan):
    """Returns the class weights of what is not trained image by image: solved heads, and combiners.

    A combiner without them would give up what sampling did for the members; one of features knows nothing of it.
    """
    return combined_weights(plan.class_weight, plan.dataset.labels, len(plan.classes), plan.sampling)


def _join(plan, members, skipped, folds, leaks, budgets):
    y, groups = plan.dataset.labels, plan.dataset.groups
    out_of_fold = np.stack([member.out_of_fold for member in members], axis=1)
    temperatures = fit_temperatures(out_of_fold, y) if plan.calibrate else None
    predictions = out_of_fold if temperatures is None else calibrated(out_of_fold, temperatures)
    weights = _solved_weights(plan)
    arguments = {"class_weight": weights, "seed": plan.seed}
    features = [member.features for member in members]
    names = [member.name for member in members]
    # Combiners that cost the same join the same members: these are selected once.
    selections = {
        budget.own: Selection(budget, names, predictions, y, folds, class_weight=weights)
        for budget in budgets.values()
    }
    skills = np.mean(out_of_fold.argmax(axis=2) == y[:, None], axis=0)
    candidates = [
        try_combiner(
            name,
            describe_members(layer, [member.model for member in members], skills),
            predictions,
            y,
            folds,
            features=features,
            selection=selections[budgets[name].own] if budgets else None,
            **arguments,
        )
        for name, layer in plan.combiners.items()
    ]
    chosen = choose(candidates, y, groups=groups, seed=plan.seed)
    combiner = chosen.fitted
    if combiner is None:
        final_features = [member.final_features for member in members]
        combiner = fit_joined(chosen.combiner, chosen.joined, predictions, y, folds, final_features, **arguments)
    used, kept = [members[i] for i in chosen.used], combiner
    if len(used) < len(chosen.joined):
        kept = with_weights(combiner, [weight for weight in combiner.member_weights if weight > 0])
    calibration = {}
    if plan.calibrate:
        calibration = _calibration(chosen, temperatures, y)
        # What is told of them is what they are worth as the model gives them.
        for candidate in candidates:
            candidate.out_of_fold = cross_calibrated(candidate.out_of_fold, y, folds)
    model = build_ensemble(
        [m.model for m in used], kept, test_time_augmentation=plan.test_time_augmentation, **calibration
    )
    statistics = {**_costs(members), "groups": groups, "seed": plan.seed}
    validation = None
    if plan.validation is not None:
        fitted = {c.name: combiner if c is chosen else c.fitted for c in candidates}
        fitted = {name: layer for name, layer in fitted.items() if layer is not None}
        named = {member.name: member.model for member in members}
        joined = {c.name: c.joined for c in candidates}
        options = {"joined": joined, "temperatures": temperatures, "verbose": plan.verbose}
        validation = validate(named, fitted, plan.validation, **options)
    budget = budgets.get(chosen.name)
    found = {"skipped": skipped, "validation": validation, "latencies": budget and budget.column("max_latency_ms")}
    table = leaderboard(members, candidates, chosen, y, **found, **statistics)
    sentence = verdict(chosen, candidates, members, y, **statistics)
    if budget:
        cost = measure({model.name: model}, plan.limits).text([model.name])
        sentence = f"{sentence} {budget.sentence(cost)}"
    return Fitted(
        model=model,
        members=[member.model for member in members],
        combiner=kept,
        out_of_fold=out_of_fold,
        ensemble_out_of_fold=chosen.out_of_fold,
        leaderboard=table,
        verdict=sentence,
        history={member.name: member.history for member in members if member.history},
        card=_card(plan, members, chosen, kept, sentence, leaks, validation, calibration),
    )


def _calibration(chosen, temperatures, y):
    """The temperatures of the members, where the combiner sees their predictions, and that of the ensemble."""
    found = {"temperature": fit_temperature(chosen.out_of_fold, y)}
    if takes_of(chosen.combiner) != "features":
        found["member_temperatures"] = [float(temperatures[i]) for i in chosen.used]
    return found


def _costs(members):
    """Parameters and multiply-accumulates by member; the latter `None` where those of a layer are not known."""
    counts = {member.name: count_macs(member.model) for member in members}
    known = not any(count.unknown for count in counts.values())
    return {
        "parameters": {name: count.parameters for name, count in counts.items()},
        "macs": {name: count.total for name, count in counts.items()} if known else None,
    }


def _card(plan, members, chosen, combiner, sentence, leaks, validation, calibration):
    """What the saved file says of itself."""
    y = plan.dataset.labels
    figures = metric_summary(y, chosen.out_of_fold)
    # What later accuracies are compared with: images of a group tell less than as many of their own.
    figures |= {"n": len(y), "design_effect": design_effect(chosen.out_of_fold.argmax(1) == y, plan.dataset.groups)}
    of_members, of_ensembles = (validation[kind] if validation else {} for kind in ("member", "ensemble"))
    return {
        "class_names": [str(name) for name in plan.classes],
        "image_size": list(plan.image_size),
        "filter": FILTER,
        "members": [
            {
                "name": member.name,
                **member.details,
                "parameters": member.model.count_params(),
                "out_of_fold": metric_summary(y, member.out_of_fold),
                "validation_accuracy": of_members.get(member.name),
                "note": member.note,
            }
            for member in (members[i] for i in chosen.used)
        ],
        "left_out": [member.name for i, member in enumerate(members) if i not in chosen.used],
        "combiner": {"name": chosen.name, "class": type(combiner).__name__, "config": combiner.get_config()},
        "weights": getattr(combiner, "member_weights", None),
        "member_temperatures": calibration.get("member_temperatures"),
        "temperature": calibration.get("temperature"),
        "suggested_temperature": None if calibration else fit_temperature(chosen.out_of_fold, y),
        "test_time_augmentation": view_names(plan.test_time_augmentation),
        "limits": plan.limits or None,
        "data": {
            "images": len(plan.dataset),
            "per_class": np.bincount(y, minlength=len(plan.classes)).tolist(),
            "groups": None if plan.dataset.groups is None else len(set(plan.dataset.groups)),
            "fingerprint": plan.dataset.fingerprint(),
            "skipped": plan.dataset.skipped.to_dict("records"),
            # Where there are no validation data, nobody looked.
            "leaks": None if plan.validation is None else leaks,
        },
        "validation": {
            "out_of_fold": figures,
            "validation_data": {"accuracy": of_ensembles.get(chosen.name), "n": len(plan.validation)}
            if validation
            else None,
        },
        "verdict": sentence,
        "seed": plan.seed,
        "created": datetime.date.today().isoformat(),
    }

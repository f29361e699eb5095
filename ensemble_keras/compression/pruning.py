"""Pruning: train with a penalty that empties channels, rebuild the network without them, and fine-tune it."""

import dataclasses

import numpy as np

from ensemble_keras._validation import check_choice, check_number, check_seed
from ensemble_keras.compression.channels import channel_groups, trace_channels
from ensemble_keras.compression.guided import GuidedTrainer
from ensemble_keras.compression.importance import Widths, channel_importance, channels_below
from ensemble_keras.compression.penalties import Penalty
from ensemble_keras.compression.savings import Savings
from ensemble_keras.compression.slicing import remove_channels
from ensemble_keras.data.sampling import SAMPLINGS
from ensemble_keras.features.keys import model_fingerprint
from ensemble_keras.measures.macs import count_macs
from ensemble_keras.members.fine_tuning import as_history
from ensemble_keras.members.settings import FineTuning, as_training
from ensemble_keras.members.trainer import Trainer, result_arrays, weight_arrays, weights_of
from ensemble_keras.members.training_data import check_gives_probabilities, training_data
from ensemble_keras.runs import Run

# λ of each penalty where none is given; benchmarks/pruning.py compares them with these. A twentieth of slimming's
# left all channels as they were.
_STRENGTHS = {"slimming": 2e-2, "l1": 1e-3, "group_lasso": 1e-3}

# Mixes of what channels save that are tried: the weight of the multiply-accumulates against that of the parameters.
_MIXES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# Keeps divisors above 0.
_TINY = 1e-30


def prune_model(
    model,
    x,
    y=None,
    *,
    penalty="group_lasso",
    strength=None,
    warmup_epochs=1.0,
    remove_macs=0.5,
    remove_parameters=0.0,
    floor=0.1,
    round_to=8,
    settings=None,
    fine_tuning=None,
    temperature=2.0,
    alpha=0.1,
    validation_data=None,
    augmentation=None,
    class_weight=None,
    groups=None,
    sampling=None,
    directory=None,
    devices=None,
    callbacks=(),
    seed=0,
    verbose=1,
):
    """Makes a trained network narrower: fewer filters, units and heads, not masked ones.

    A copy trains on under a penalty that makes whole channels small. One threshold over all layers, on what a
    channel counts for what it costs, then says which go, so that layers lose as many as they can spare
    (`least_important`); a floor keeps each of them alive. The network is rebuilt without them, what they gave as
    constants is absorbed (`remove_channels`), and it is fine-tuned on the labels and on what `model` says of the same
    augmented images: `alpha · loss(label) + (1 − alpha) · T² · KL(model at T ‖ narrow network at T)`, distillation as
    in `distill`.

    Args:
        model: A functional `keras.Model` from images `(batch, height, width, 3)` with values in [0, 255] to class
            probabilities, trained: a member, a pretrained one, too, or a built ensemble as a whole. It is left as it
            is.
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        y: Labels `(n,)`: class indices, or names, whose sorted order is the model's. Not needed with a labelled
            `ImageDataset`.
        penalty: `"group_lasso"`: the norm of all weights that make a channel (Wen et al., 2016, 1608.03665), for any
            network; `"l1"`: L1 on all weights; `"slimming"`: L1 on the scales of batch normalisations (Liu et al.,
            2017, 1708.06519), for channels that pass one. See `Penalty`. Defaults to `"group_lasso"`.
        strength: Float above 0, λ. Defaults to 0.001 (`"group_lasso"`, `"l1"`) or 0.02 (`"slimming"`).
        warmup_epochs: Float, epochs over which λ rises from 0. Defaults to 1.
        remove_macs: Float in [0, 1): share of the multiply-accumulates that goes at least. Defaults to 0.5.
        remove_parameters: Float in [0, 1): share of the parameters that goes at least. Defaults to 0.
        floor: Float in (0, 1]: share of the channels of each group that stays in any case. Defaults to 0.1.
        round_to: Int. Widths are multiples of it. Defaults to 8.
        settings: `Training` or `FineTuning` of the training with the penalty; its last epoch counts. Defaults to
            `FineTuning(train_batch_norm=True)`.
        fine_tuning: Such settings for the training after it, whose best epoch is kept. Defaults to those of
            `settings`.
        temperature: Float above 0, T, by which logits are divided before the fine-tuned network's are compared with
            `model`'s. Defaults to 2.
        alpha: Float in [0, 1], the weight of the labels in the fine-tuning. 1: `model` is not asked, which saves one
            forward pass of it in each step. Defaults to 0.1.
        validation_data: `(x, y)` or an `ImageDataset`, by which the best epoch is chosen. Defaults to `None`: a
            stratified part of the training images, whole groups.
        augmentation: As in `fine_tune`, in both trainings.
        class_weight: As in `fine_tune`.
        groups: As in `fine_tune`.
        sampling: As in `fine_tune`.
        directory: Folder that keeps the state after every epoch, so that the same call goes on after a kill. Defaults
            to `None`: nothing is kept.
        devices: As in `fine_tune`.
        callbacks: As in `fine_tune`, in both trainings.
        seed: Int. Of the split, the order of images, augmentation. Defaults to 0.
        verbose: 0 shows nothing. Defaults to 1: progress, and what it cost before and after.

    Returns:
        A new, narrower `keras.Model` with the names of `model`, not compiled. Its attribute `history` is what
        `fine_tune` returns, of the training after it was rebuilt.

    Raises:
        ValueError: If an argument, image or label is not as described, no channel can be removed, or not as many as
            asked for; before anything is trained.

    Example:

    >>> member = ek.build_member("CNN(filters=(16, 16))", 2, image_size=16, weights=None)
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), "uint8")
    >>> one = ek.FineTuning(epochs=1, train_batch_norm=True)
    >>> narrow = ek.prune_model(member, x, np.arange(40) % 2, settings=one, verbose=0)
    >>> ek.count_macs(narrow).total <= 0.5 * ek.count_macs(member).total
    True
    """
    check_choice("sampling", sampling, SAMPLINGS)
    check_seed(seed)
    settings = as_training(settings or FineTuning(train_batch_norm=True), "settings")
    fine_tuning = as_training(fine_tuning or settings, "fine_tuning")
    check_choice("penalty", penalty, _STRENGTHS)
    check_number("temperature", temperature, "above 0", lambda number: number > 0)
    check_number("alpha", alpha, "in [0, 1]", lambda share: 0 <= share <= 1)
    term = Penalty(penalty, _STRENGTHS[penalty] if strength is None else strength, warmup_epochs)
    widths = Widths(floor, round_to)
    target = _checked_target(macs=remove_macs, parameters=remove_parameters)
    # What cannot be had is said before the long work.
    least_important(model, penalty, target, widths)
    check_gives_probabilities(model)
    images, validation, weights = training_data(
        model,
        x,
        y,
        groups=groups,
        validation_data=validation_data,
        class_weight=class_weight,
        settings=fine_tuning,
        seed=seed,
    )
    options = {
        "augmentation": augmentation,
        "class_weight": weights,
        "sampling": sampling,
        "devices": devices,
        "callbacks": callbacks,
        "seed": seed,
        "verbose": verbose,
    }
    sparse = Trainer(remove_channels(model, {}), settings, penalty=term, **options)
    # Layers to unfreeze have the same names in the narrow network.
    Trainer(sparse.network, fine_tuning, **options)
    start = {"model": model_fingerprint(model), "data": images.fingerprint(), "seed": seed, **sparse.depends_on()}
    with Run(directory, {"model": model.name, "seed": seed, **sparse.depends_on(), "target": target}) as run:
        before = _trained(run, f"{model.name} sparse", sparse, images, None, start)
        narrow = remove_channels(sparse.network, least_important(sparse.network, penalty, target, widths))
        tuned = _tuner(narrow, model, fine_tuning, temperature, alpha, options)
        depends_on = {
            "sparse": start,
            "target": target,
            "widths": dataclasses.asdict(widths),
            "validation": validation and validation.fingerprint(),
            **tuned.depends_on(),
        }
        narrow.history = _trained(run, f"{model.name} narrow", tuned, images, validation, depends_on)
        notes = [before.note and f"with the penalty: {before.note}", narrow.history.note]
        narrow.history.note = "; ".join(note for note in notes if note)
    if verbose:
        print(_told(model, narrow))
    return narrow


def _tuner(narrow, model, settings, temperature, alpha, options):
    """Returns what fine-tunes the narrow network."""
    if alpha == 1:
        return Trainer(narrow, settings, **options)
    teacher = remove_channels(model, {})
    return GuidedTrainer(narrow, settings, teacher=teacher, temperature=temperature, alpha=alpha, **options)


def _trained(run, name, trainer, images, validation, depends_on):
    """Trains a network, or gives it the weights that the run has kept; returns the `History`."""

    def compute():
        result = trainer.run(images, validation, seed=trainer.seed, checkpoint=run.checkpoint(name, depends_on))
        return result_arrays(result) | weight_arrays(trainer.network)

    arrays, _ = run.unit(name, depends_on, compute)
    trainer.release()
    trainer.network.set_weights(weights_of(arrays))
    return as_history(arrays)


def least_important(model, kind, target, widths):
    """Returns the channels of a network that go: what saves enough, at the least loss of importance.

    What a channel's removal loses is its share of the importance that is still in its group when the less important
    ones are gone: so layers of larger and smaller weights compare, and none is emptied (LAMP, Lee et al., 2021,
    2010.07611, has it of squared weights). What saves more may lose more: those go whose loss for what they save is
    at most one threshold over all layers, the lowest that saves enough (so divides Group Fisher pruning, Liu et al.,
    2021, 2108.00708). Where both parameters and multiply-accumulates are to go, a channel saves a mix of both; of
    several mixes the one that loses least is taken.

    Args:
        model: A functional `keras.Model`, trained with a penalty.
        kind: Of the penalty, by which channels are judged; see `channel_importance`.
        target: Dict with `"macs"`, `"parameters"` or both: the shares that are to go at least.
        widths: `Widths`.

    Returns:
        Dict from a group's name to an int array, for `remove_channels`.

    Raises:
        ValueError: If not so many can go, or none.
    """
    groups = channel_groups(model)
    importance = channel_importance(groups, kind)
    if not importance:
        raise ValueError(_nothing_to_prune(model, kind, groups))
    savings = Savings(model, groups)
    most = savings.shares(channels_below(importance, np.inf, widths))
    if any(most[name] < share for name, share in target.items()):
        raise ValueError(
            f"No more than {_percent(most)} of {model.name!r} can go. Asked for: {_percent(target)}. Ask for less, "
            f"or lower `floor` ({widths.floor:g}) or `round_to` ({widths.round_to})"
            f"{'; under slimming, channels without a batch normalisation stay' if kind == 'slimming' else ''}."
        )
    losses = {name: _losses(values) for name, values in importance.items()}
    saved = {name: savings.shares({name: np.arange(1)}) for name in losses}
    found = []
    for mix in _MIXES if all(target.values()) else [float(target["macs"] > 0)]:
        costs = {name: mix * one["macs"] + (1 - mix) * one["parameters"] for name, one in saved.items()}
        scores = {name: values / max(costs[name], _TINY) for name, values in losses.items()}
        found.append(_lowest_that_saves(scores, savings, target, widths))
    return min(found, key=lambda channels: sum(losses[name][gone].sum() for name, gone in channels.items()))


def _losses(importance):
    """Returns each channel's share of what is there when all less important ones of its group are gone."""
    order = np.argsort(importance, kind="stable")
    there = np.cumsum(importance[order][::-1])[::-1]
    losses = np.empty(len(order))
    losses[order] = importance[order] / np.maximum(there, _TINY)
    return losses


def _lowest_that_saves(scores, savings, target, widths):
    """Returns the channels below the lowest threshold that saves enough."""

    def enough(threshold):
        shares = savings.shares(channels_below(scores, threshold, widths))
        return all(shares[name] >= share for name, share in target.items())

    thresholds = np.unique(np.concatenate(list(scores.values())))
    low, high = -1, len(thresholds) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(thresholds[middle]) else (middle, high)
    return channels_below(scores, thresholds[high], widths)


def _checked_target(**shares):
    for name, share in shares.items():
        check_number(f"remove_{name}", share, "in [0, 1)", lambda share: 0 <= share < 1)
    if not any(shares.values()):
        raise ValueError("`remove_macs` or `remove_parameters` must be above 0. Received: 0 for both.")
    return shares


def _nothing_to_prune(model, kind, groups):
    if groups:
        return (
            f"penalty={kind!r} needs channels that pass a batch normalisation with scales. Received: {model.name!r}, "
            "which has none. Take penalty='group_lasso'."
        )
    trace = trace_channels(model)
    reasons = {place.path: trace.reason(place.channels[0]) for place in trace.axes if place.is_source}
    named = "; ".join(f"of {path!r}: {reason}" for path, reason in list(reasons.items())[:5])
    return f"No channel of {model.name!r} can be removed. Channels {named}."


def _percent(shares):
    names = {"macs": "multiply-accumulates", "parameters": "parameters"}
    return " and ".join(f"{100 * shares[name]:.1f} % of the {names[name]}" for name in shares)


def _told(model, narrow):
    before, after = count_macs(model), count_macs(narrow)
    note = f" Note: {narrow.history.note}." if narrow.history.note else ""
    return (
        f"Pruned {model.name!r}: {before.parameters:,} parameters, now {after.parameters:,} "
        f"({after.parameters / before.parameters - 1:+.0%}); {before.total:,} multiply-accumulates per image, now "
        f"{after.total:,} ({after.total / before.total - 1:+.0%}).{note}"
    )

"""One architecture: ensembles whose members differ by their training alone, to compare other ensembles with."""

import dataclasses
import functools
import warnings

import keras
import numpy as np

from ensemble_keras._validation import check_at_least, check_choice, check_seed
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.data.labels import class_weights
from ensemble_keras.data.sampling import SAMPLINGS
from ensemble_keras.features.keys import architecture_fingerprint, model_fingerprint
from ensemble_keras.members.head_fitting import solve_probe
from ensemble_keras.members.initialisation import reinitialised, renamed_copy, set_state
from ensemble_keras.members.member import backbone_of, is_member
from ensemble_keras.members.settings import FineTuning, as_training
from ensemble_keras.members.trainer import Trainer, hold_decoded, result_arrays, weight_arrays, weights_of
from ensemble_keras.members.training_data import labelled_for, training_data
from ensemble_keras.runs import Run


def deep_ensemble(
    member,
    x,
    y=None,
    *,
    size=5,
    settings=None,
    augmentation=None,
    validation_data=None,
    class_weight=None,
    groups=None,
    sampling=None,
    probe=False,
    store=None,
    directory=None,
    devices=None,
    callbacks=(),
    seed=0,
    verbose=1,
):
    """Trains one network several times, each time with another seed (Lakshminarayanan et al., 2017).

    Under `Training` settings all weights are drawn anew for each member, pretrained ones, too. Under `FineTuning`
    settings each member starts with the backbone's weights as they are and a new random head. Every member sees the
    images in an order of its own, and so changed otherwise by augmentation and dropout.

    Args:
        member: A functional `keras.Model` from images `(batch, height, width, 3)` with values in [0, 255] to class
            probabilities; for `FineTuning` one made by `build_member`. It is not changed.
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        y: Labels `(n,)`: class indices, or names, whose sorted order is the model's. Not needed with a labelled
            `ImageDataset`.
        size: Int, the number of members. Of a larger ensemble with the same seed, the first members are the same.
            Defaults to 5.
        settings: `Training` or `FineTuning`. Defaults to `Training()`.
        augmentation: As in `fine_tune`.
        validation_data: As in `fine_tune`; without any, the same part of the images is held out from all members.
        class_weight: `None`, `"balanced"`, or a dict from class to the weight of its images.
        groups: Sequence `(n,)`, such as patients: a group is on one side of the split. Defaults to the dataset's.
        sampling: `None`, `"over"` or `"under"`: training images are drawn so that classes are even.
        probe: Whether each head is solved on the backbone's features before fine-tuning, as in `fine_tune`. All
            members then start from one point, differ less, and may be averaged by `soup`. Defaults to `False`.
        store: A `FeatureStore`, its path, or `None`; the probe's features are taken from it.
        directory: Folder that keeps each finished member, and the state of the running one after every epoch, so that
            the same call goes on after a kill. Defaults to `None`: nothing is kept.
        devices: As in `fine_tune`.
        callbacks: As in `fine_tune`.
        seed: Int. Of the split, and of the members' seeds. Defaults to 0.
        verbose: 0 shows no progress. Defaults to 1.

    Returns:
        A list of `size` `keras.Model`s, named after `member` with `_1`, `_2`, … at the end, as `build_ensemble` takes
        them.

    Raises:
        ValueError: If an argument, image or label is not as described; before anything is trained.

    Example:

    >>> member = ek.build_member("CNN", 2, image_size=32, weights=None)
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8")
    >>> members = ek.deep_ensemble(member, x, np.arange(40) % 2, size=2, settings=ek.Training(epochs=1), verbose=0)
    >>> ek.build_ensemble(members, ek.SoftVoting()).output_shape
    (None, 2)
    """
    check_at_least("size", size, 1)
    settings = _check_arguments(member, settings, probe, sampling, seed)
    images, validation, weights = training_data(
        member,
        x,
        y,
        groups=groups,
        validation_data=validation_data,
        class_weight=class_weight,
        settings=settings,
        seed=seed,
    )
    trainer = Trainer(
        renamed_copy(member, member.name),
        settings,
        augmentation=augmentation,
        class_weight=weights,
        sampling=sampling,
        devices=devices,
        callbacks=callbacks,
        seed=seed,
        verbose=verbose,
    )
    arguments = {"model": member.name, "size": size, "seed": seed, "probe": probe, **trainer.depends_on()}
    members = []
    with Run(directory, arguments) as run:
        series = _Series(member, trainer, images, validation, probe=probe, store=store, run=run, verbose=verbose)
        for i, own in enumerate(_seeds(seed, size)):
            members.append(series.train(f"{member.name}_{i + 1}", seed=own))
    return members


def snapshot_ensemble(
    member,
    x,
    y=None,
    *,
    cycles=5,
    settings=None,
    augmentation=None,
    class_weight=None,
    groups=None,
    sampling=None,
    probe=False,
    store=None,
    directory=None,
    devices=None,
    callbacks=(),
    seed=0,
    verbose=1,
):
    """Trains one network once and keeps it at the end of every cycle of its learning rate (Huang et al., 2017).

    The cosine schedule, its warm-up and the optimizer start anew every `settings.epochs / cycles` epochs, from the
    weights that the cycle before ended with. So there are several members at the cost of one; they are more alike
    than those of `deep_ensemble`, and the first ones are weaker, since they are trained for less: `members[-3:]` may
    be better than all. The first cycle starts like the first member of `deep_ensemble` with the same seed.

    A snapshot is what its last epoch gave: nothing is held out for early stopping, and `settings.monitor`, `patience`
    and `validation_split` are not used.

    Args:
        member: As in `deep_ensemble`.
        x: As in `deep_ensemble`.
        y: As in `deep_ensemble`.
        cycles: Int, the number of members. Defaults to 5.
        settings: `Training` or `FineTuning`, whose `epochs`, of all cycles together, are a multiple of `cycles`, and
            whose `optimizer` is a name. Defaults to `Training()`.
        augmentation: As in `deep_ensemble`.
        class_weight: As in `deep_ensemble`.
        groups: As in `deep_ensemble`.
        sampling: As in `deep_ensemble`.
        probe: As in `deep_ensemble`.
        store: As in `deep_ensemble`.
        directory: Folder that keeps each finished cycle, and the state of the running one after every epoch, so that
            the same call goes on after a kill. Defaults to `None`: nothing is kept.
        devices: As in `deep_ensemble`.
        callbacks: As in `deep_ensemble`.
        seed: As in `deep_ensemble`.
        verbose: As in `deep_ensemble`.

    Returns:
        A list of `cycles` `keras.Model`s in the order of the cycles, named after `member` with `_snapshot_1`,
        `_snapshot_2`, … at the end, as `build_ensemble` takes them.

    Raises:
        ValueError: If an argument, image or label is not as described; before anything is trained.

    Example:

    >>> member = ek.build_member("CNN", 2, image_size=32, weights=None)
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8")
    >>> members = ek.snapshot_ensemble(
    ...     member, x, np.arange(40) % 2, cycles=2, settings=ek.Training(epochs=2), verbose=0)
    >>> [member.name for member in members]
    ['CNN_snapshot_1', 'CNN_snapshot_2']
    """
    check_at_least("cycles", cycles, 1)
    settings = _of_one_cycle(_check_arguments(member, settings, probe, sampling, seed), cycles)
    images, classes = labelled_for(member, as_dataset(x, y, groups=groups))
    trainer = Trainer(
        renamed_copy(member, member.name),
        settings,
        augmentation=augmentation,
        class_weight=class_weights(images.labels, classes, class_weight),
        sampling=sampling,
        devices=devices,
        callbacks=callbacks,
        seed=seed,
        verbose=verbose,
    )
    arguments = {"model": member.name, "cycles": cycles, "seed": seed, "probe": probe, **trainer.depends_on()}
    members = []
    with Run(directory, arguments) as run:
        series = _Series(member, trainer, images, None, probe=probe, store=store, run=run, verbose=verbose)
        for i, own in enumerate(_seeds(seed, cycles)):
            before = members[-1] if members else None
            members.append(series.train(f"{member.name}_snapshot_{i + 1}", seed=own, before=before))
    return members


class _Series:
    """Trains one network again and again; each training is a unit of work, and what was compiled is used again.

    Args:
        member: The user's network, which stays as it is.
        trainer: `Trainer` of a copy.
        images: An `ImageDataset` with labels `0 … num_classes − 1`.
        validation: Such a dataset, or `None`.
        probe: Whether heads are solved first.
        store: As in `deep_ensemble`.
        run: The `Run` that keeps results and checkpoints.
        verbose: 0 shows no progress.
    """

    def __init__(self, member, trainer, images, validation, *, probe, store, run, verbose):
        self._member, self._trainer, self._images, self._validation = member, trainer, images, validation
        self._probe, self._store, self._run, self._verbose = probe, store, run, verbose
        self._fine_tuned = isinstance(trainer.settings, FineTuning)
        self._depends_on = {
            "model": [architecture_fingerprint(member), *self._pretrained()],
            "data": images.fingerprint(),
            "validation": validation and validation.fingerprint(),
            # The folds by which the head's strength is chosen.
            "probe": trainer.seed if probe else None,
            **trainer.depends_on(),
        }

    def train(self, name, *, seed, before=None):
        """Returns a trained network of this name.

        Args:
            name: String.
            seed: Int, of the first weights, the order of the images, augmentation and dropout.
            before: `keras.Model` whose weights training starts from. Defaults to `None`, new weights.
        """
        # What came before is known by its weights alone.
        depends_on = {**self._depends_on, "seed": seed, "before": before and model_fingerprint(before)}
        network = self._trainer.network

        def compute():
            if before is None:
                self._start(seed)
            else:
                network.set_weights(before.get_weights())
            self._trainer.name = name
            checkpoint = self._run.checkpoint(name, depends_on)
            result = self._trainer.run(self._held, self._validation, seed=seed, checkpoint=checkpoint)
            return result_arrays(result) | weight_arrays(network)

        arrays, _ = self._run.unit(name, depends_on, compute)
        if str(arrays["note"]):
            warnings.warn(f"{name}: {arrays['note']}.", stacklevel=3)
        return renamed_copy(self._member, name, weights_of(arrays))

    @functools.cached_property
    def _held(self):
        return hold_decoded(self._images, self._member.input_shape[1:3])

    @functools.cached_property
    def _probed(self):
        """The weights with the solved head, the same for every training."""
        trainer, probed = self._trainer, renamed_copy(self._member, self._member.name)
        options = {"class_weight": trainer.class_weight, "sampling": trainer.sampling, "seed": trainer.seed}
        solve_probe(probed, self._held, store=self._store, verbose=self._verbose, **options)
        return probed.get_weights()

    def _pretrained(self):
        """What of the given weights the members depend on: a list of no or one digest."""
        return [model_fingerprint(backbone_of(self._member))] if self._fine_tuned else []

    def _start(self, seed):
        network, fresh = self._trainer.network, reinitialised(self._member, seed)
        if self._fine_tuned:
            backbone_of(fresh).set_weights(backbone_of(self._member).get_weights())
        set_state(network, fresh)
        if self._probe:
            network.set_weights(self._probed)


def _check_arguments(member, settings, probe, sampling, seed):
    """Returns the settings, or raises `ValueError`."""
    settings = as_training(settings, "settings")
    check_choice("sampling", sampling, SAMPLINGS)
    check_seed(seed)
    if isinstance(settings, FineTuning) and not is_member(member):
        raise ValueError(
            "FineTuning settings draw a new head on the backbone's weights: `member` must be made by `build_member`. "
            f"Received: the model {member.name!r}. Take Training settings to draw all weights anew."
        )
    if probe and not isinstance(settings, FineTuning):
        raise ValueError(
            "`probe=True` solves a head on pretrained features, which Training settings draw anew. "
            "Give FineTuning settings."
        )
    return settings


def _of_one_cycle(settings, cycles):
    if isinstance(settings.optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            "`settings.optimizer` must be a name: an optimizer's own learning rate would not start anew with each "
            f"cycle. Received: {settings.optimizer!r}."
        )
    if settings.epochs % cycles:
        nearest = max(cycles, cycles * round(settings.epochs / cycles))
        raise ValueError(
            f"`settings.epochs` must be a multiple of `cycles`. Received: {settings.epochs} epochs, {cycles} cycles. "
            f"Take {nearest} epochs."
        )
    return dataclasses.replace(settings, epochs=settings.epochs // cycles)


def _seeds(seed, count):
    # By number, so that a longer series goes on where a shorter one ended.
    return [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(count)]

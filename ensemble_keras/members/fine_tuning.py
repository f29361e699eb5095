"""Fine-tuning: trains a pretrained member, or a whole ensemble, from its solved heads on."""

import json

import keras

from ensemble_keras._validation import check_choice
from ensemble_keras.data.sampling import SAMPLINGS
from ensemble_keras.features.keys import architecture_fingerprint, model_fingerprint
from ensemble_keras.members.head_fitting import solve_probe
from ensemble_keras.members.member import backbone_of, is_member
from ensemble_keras.members.settings import FineTuning
from ensemble_keras.members.trainer import Trainer, result_arrays, weight_arrays, weights_of
from ensemble_keras.members.training_data import training_data
from ensemble_keras.runs import Run


def fine_tune(
    model,
    x,
    y=None,
    *,
    validation_data=None,
    settings=None,
    augmentation=None,
    class_weight=None,
    groups=None,
    sampling=None,
    store=None,
    directory=None,
    devices=None,
    callbacks=(),
    probe=True,
    seed=0,
    verbose=1,
):
    """Trains a member, or a built ensemble, in place by gradient descent, from pretrained weights.

    A member first gets its head, solved on the features of the frozen backbone (a linear probe), so that random
    gradients of a new head do not wreck what the backbone knows (Kumar et al., 2022). An ensemble starts as it is,
    and members and combiner train together. Then layers are unfrozen as `settings` say. The weights of the best
    epoch are kept; where none is better than the start on the validation images, the start is, and `note` says so.

    Where only the top trains and nothing is augmented, the activations below the cut are computed once; dropout below
    it is off.

    Args:
        model: A member (`build_member`), an ensemble (`build_ensemble`), or another functional `keras.Model` from
            images `(batch, height, width, 3)` with values in [0, 255] to class probabilities.
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        y: Labels `(n,)`: class indices, or names, whose sorted order is the model's. Not needed with a labelled
            `ImageDataset`.
        validation_data: `(x, y)` or an `ImageDataset` with the same classes, for early stopping and the choice of the
            best epoch; nothing is augmented there. Defaults to `None`: a stratified part of the training images
            (`settings.validation_split`), whole groups.
        settings: `FineTuning`. Defaults to `FineTuning()`.
        augmentation: Name of a policy, a Keras layer or a list of such; see `build_augmentation`. Only training
            images are changed; nothing of it is in the model.
        class_weight: `None`, `"balanced"`, or a dict from class to the weight of its images.
        groups: Sequence `(n,)`, such as patients: a group is on one side of the split. Defaults to the dataset's.
        sampling: `None`, `"over"` or `"under"`: training images are drawn so that classes are even.
        store: A `FeatureStore`, its path, or `None`; the probe's features are taken from it.
        directory: Folder that keeps the state after every epoch, so that the same call goes on after a kill, and ends
            with the same weights on a CPU. Defaults to `None`: nothing is kept.
        devices: `None` (one), an int, `"all"`, or a list of names as in `keras.distribution.list_devices()`: every
            batch is divided among them. JAX backend.
        callbacks: Sequence of `keras.callbacks.Callback`s (TensorBoard, ...). Their `model` holds the given one as
            `network`, and is no file's: a `ModelCheckpoint` takes `save_weights_only=True`. Defaults to `()`.
        probe: Whether a member's head is solved first. If not, the start must not have seen the validation images: it
            would look better than it is, and be kept. Defaults to `True`.
        seed: Int. Of the split, the order of images, augmentation. Defaults to 0.
        verbose: 0 shows no progress. Defaults to 1.

    Returns:
        A `keras.callbacks.History` with lists of `"loss"`, `"accuracy"`, `"val_loss"`, `"val_accuracy"`, `"val_auc"`
        in `history`, and further attributes: `best_epoch` (from 1; 0: the start was kept), `start` (validation
        figures of it) and `note` (what a reader must know, or `""`).

    Raises:
        ValueError: If an argument, image or label is not as described; before anything is trained.

    Example:

    >>> member = ek.build_member("CNN", 2, image_size=32, weights=None)
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8")
    >>> history = ek.fine_tune(member, x, np.arange(40) % 2, settings=ek.FineTuning(epochs=2), verbose=0)
    >>> len(history.history["val_loss"])
    2
    """
    settings = FineTuning() if settings is None else settings
    if not isinstance(settings, FineTuning):
        raise ValueError(f"`settings` must be None or FineTuning settings. Received: {settings!r}.")
    check_choice("sampling", sampling, SAMPLINGS)
    images, validation, weights = training_data(
        model,
        x,
        y,
        groups=groups,
        validation_data=validation_data,
        class_weight=class_weight,
        settings=settings,
        seed=seed,
    )
    trainer = Trainer(
        model,
        settings,
        augmentation=augmentation,
        class_weight=weights,
        sampling=sampling,
        devices=devices,
        callbacks=callbacks,
        seed=seed,
        verbose=verbose,
    )
    probe = probe and is_member(model)
    depends_on = {
        # The probe replaces the head, whose random weights no other process has.
        "model": [architecture_fingerprint(model), model_fingerprint(backbone_of(model) if probe else model)],
        "data": images.fingerprint(),
        "validation": validation and validation.fingerprint(),
        "probe": probe,
        "seed": seed,
        **trainer.depends_on(),
    }

    def compute():
        if probe:
            options = {"class_weight": weights, "sampling": sampling, "seed": seed}
            solve_probe(model, images, store=store, verbose=verbose, **options)
        result = trainer.run(images, validation, seed=seed, checkpoint=run.checkpoint(name, depends_on))
        return result_arrays(result) | weight_arrays(model)

    name = f"{model.name} fine-tuning"
    with Run(directory, {"model": model.name, "seed": seed, **trainer.depends_on()}) as run:
        arrays, _ = run.unit(name, depends_on, compute)
    trainer.release()
    model.set_weights(weights_of(arrays))
    if verbose and str(arrays["note"]):
        print(str(arrays["note"]))
    return as_history(arrays)


def as_history(arrays):
    """Returns the arrays of a `TrainingResult` (`result_arrays`) as a `History`, see `fine_tune`."""
    history = keras.callbacks.History()
    history.history = {k.removeprefix("history_"): v.tolist() for k, v in arrays.items() if k.startswith("history_")}
    history.epoch = list(range(len(history.history.get("loss", []))))
    history.best_epoch, history.note = int(arrays["best_epoch"]), str(arrays["note"])
    history.start = json.loads(str(arrays["start"]))
    return history

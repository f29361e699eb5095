"""Distillation: an ensemble teaches one network, by answers that it gives once."""

import pathlib

import keras

from ensemble_keras._validation import check_at_least, check_number, check_seed, model_hint
from ensemble_keras.backbones.registry import check_pretrained
from ensemble_keras.backbones.spec import read_spec
from ensemble_keras.compression.guided import Guided
from ensemble_keras.compression.lessons import Lessons, answers_of
from ensemble_keras.data.augmentation import build_augmentation
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.features.keys import model_fingerprint
from ensemble_keras.features.views import Views
from ensemble_keras.members.fine_tuning import as_history
from ensemble_keras.members.head_fitting import solve_probe
from ensemble_keras.members.initialisation import reinitialised, renamed_copy
from ensemble_keras.members.member import backbone_of, build_member
from ensemble_keras.members.out_of_fold import weights_for
from ensemble_keras.members.settings import FineTuning, as_training
from ensemble_keras.members.trainer import Trainer, result_arrays, weight_arrays, weights_of
from ensemble_keras.members.training_data import check_gives_probabilities, training_data
from ensemble_keras.runs import Run


def distill(
    ensemble,
    student,
    x,
    y=None,
    *,
    temperature=2.0,
    alpha=0.1,
    settings=None,
    views=1,
    augmentation="light",
    unlabelled=None,
    validation_data=None,
    groups=None,
    image_size=None,
    weights="imagenet",
    store=None,
    directory=None,
    devices=None,
    callbacks=(),
    seed=0,
    verbose=1,
):
    """Trains one network, the student, on what an ensemble says of the images (Hinton et al., 2015, 1503.02531).

    The student learns `alpha · loss(label) + (1 − alpha) · T² · KL(ensemble at T ‖ student at T)`, where `at T` means
    that logits are divided by the temperature; the second term is `keras.distillation.LogitsDistillation`.
    `keras.distillation.Distiller` itself is not used: it runs the teacher in every step. Here the ensemble answers
    once for each view of each image, and the answers are kept (as in TinyViT, Wu et al., 2022, 2207.10666). Teacher
    and student see the same view (Beyer et al., 2022, 2106.05237): with `views` above 1 the augmented copies are a
    function of image, view and seed, made anew where they are needed. The student may take images of another size.

    What the ensemble says of images that it was trained on is surer than what it says of new ones: `unlabelled`
    images help more than their number tells.

    Args:
        ensemble: A `keras.Model` from images `(batch, height, width, 3)` with values in [0, 255] to class
            probabilities, such as `build_ensemble` or `load_ensemble` gives.
        student: What learns. A backbone as in `build_member`: a name, a name with options
            (`"MobileNetV2(alpha=0.35)"`) or a `keras.Model` from images to features; it gets a new linear head. Or a
            `keras.Model` with class probabilities (a member, a search's champion, a pruned network), which starts
            with its own weights. A given model is left as it is; a copy learns.
        x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
        y: Labels `(n,)`: class indices, or names, whose sorted order is the ensemble's. Not needed with a labelled
            `ImageDataset`.
        temperature: Float above 0, T. Defaults to 2.
        alpha: Float in [0, 1], the weight of the labels; unlabelled images have none. Defaults to 0.1.
        settings: `Training`, or `FineTuning`, under which a new head is first solved on the frozen backbone. An epoch
            goes over all views of all images. Defaults to `Training()`.
        views: Int. Number of views of each image, of which the first is the image as it is. Defaults to 1.
        augmentation: What makes the other views, as in `build_augmentation`, without MixUp and CutMix. Defaults to
            `"light"`.
        unlabelled: Further images to learn from, an array or an `ImageDataset`, whose labels are not looked at, or
            `None`.
        validation_data: `(x, y)` or an `ImageDataset`, labelled, for early stopping and the choice of the best epoch.
            Defaults to `None`: a stratified part of the images (`settings.validation_split`), whole groups.
        groups: Sequence `(n,)`, such as patients: a group is on one side of the split. Defaults to the dataset's.
        image_size: Int or `(height, width)`, of the images that a backbone takes. Defaults to the size of the given
            `keras.Model`, or the ensemble's where it has none.
        weights: `"imagenet"`, `None` (random, by `seed`) or a path, for a backbone given by name; one that has no
            pretrained weights, such as `"CNN"`, starts from random ones. Defaults to `"imagenet"`.
        store: A `FeatureStore`, its path, or `None`; the ensemble's answers are kept in it, by image, view and
            ensemble. Defaults to `None`: in the `directory`, where there is one.
        directory: Folder that keeps the answers, and the student's state after every epoch, so that the same call
            goes on after a kill. Defaults to `None`: nothing is kept.
        devices: As in `fine_tune`.
        callbacks: As in `fine_tune`.
        seed: Int. Of new weights, the split, the views, the order of images. Defaults to 0.
        verbose: 0 shows no progress. Defaults to 1.

    Returns:
        The student, a `keras.Model` to class probabilities, as `build_ensemble` and `save_ensemble` take it. Its
        attribute `history` is what `fine_tune` returns.

    Raises:
        MemoryError: If not even one image at a time fits.
        ValueError: If an argument, image or label is not as described, or the ensemble gives no probabilities.

    Example:

    >>> x, y = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8"), np.arange(40) % 2
    >>> members = [ek.build_member("CNN", 2, image_size=32, weights=None, name=name) for name in "ab"]
    >>> ensemble = ek.build_ensemble(members, ek.SoftVoting())
    >>> student = ek.distill(
    ...     ensemble, "CNN(filters=(4, 8))", x, y, weights=None, settings=ek.Training(epochs=1), verbose=0)
    >>> table = ek.compare_sizes({"ensemble": ensemble, "student": student}, x, y)
    >>> bool(table["parameters"]["student"] < table["parameters"]["ensemble"])
    True
    """
    settings = as_training(settings, "settings")
    _check_arguments(temperature, alpha, views, seed)
    # Said also where no view needs it.
    build_augmentation(augmentation)
    num_classes, teacher_size = _check_teacher(ensemble)
    network, is_new = _student(student, num_classes, image_size, teacher_size, weights, seed)
    teacher_size = teacher_size or network.input_shape[1:3]
    check_gives_probabilities(ensemble, teacher_size)
    images, validation, _ = training_data(
        network,
        x,
        y,
        groups=groups,
        validation_data=validation_data,
        class_weight=None,
        settings=settings,
        seed=seed,
    )
    parts = [images] if unlabelled is None else [images, as_dataset(unlabelled)]
    trainer = _Teaching(
        network, settings, temperature=temperature, alpha=alpha, devices=devices, callbacks=callbacks, verbose=verbose
    )
    probed = is_new and isinstance(settings, FineTuning)
    seen = [Views(augmentation, views, seed) if views > 1 else None for _ in ("ensemble", "student")]
    depends_on = {
        "ensemble": model_fingerprint(ensemble),
        "student": model_fingerprint(network),
        "data": [part.fingerprint() for part in parts],
        "validation": validation and validation.fingerprint(),
        "views": [seen[0].key(view) for view in range(views)] if seen[0] else None,
        "probed": probed,
        "seed": seed,
        **trainer.depends_on(),
    }

    def compute():
        kept = store if store is not None or directory is None else pathlib.Path(directory) / "answers.sqlite"
        options = {"image_size": teacher_size, "store": kept, "views": seen[0]}
        answers = [answers_of(ensemble, part, verbose=verbose, **options) for part in parts]
        if probed:
            solve_probe(network, images, seed=seed, verbose=verbose)
        lessons = Lessons(parts, answers, views=seen[1], image_size=network.input_shape[1:3])
        result = trainer.run(lessons, validation, seed=seed, checkpoint=run.checkpoint(name, depends_on))
        return result_arrays(result) | weight_arrays(network)

    name = f"{network.name} distilled"
    with Run(directory, {"student": network.name, "seed": seed, "views": views, **trainer.depends_on()}) as run:
        arrays, _ = run.unit(name, depends_on, compute)
    trainer.release()
    network.set_weights(weights_of(arrays))
    network.history = as_history(arrays)
    if verbose and network.history.note:
        print(network.history.note)
    return network


class _Teaching(Trainer):
    """Trains a network on lessons: images with labels and a teacher's answers."""

    def __init__(self, network, settings, *, temperature, alpha, **options):
        super().__init__(network, settings, **options)
        self._temperature, self._alpha = temperature, alpha

    def depends_on(self):
        """As in `Trainer`."""
        return {**super().depends_on(), "temperature": self._temperature, "alpha": self._alpha}

    def new_trainee(self, network, settings):
        """As in `Trainer`."""
        return _Student(network, settings, temperature=self._temperature, alpha=self._alpha)

    def cut(self, network, images, validation):
        """Nothing is cut: lessons are of images."""
        return network, images, validation


class _Student(Guided):
    """A network in training, which is given rows of `Lessons.labels` as labels: the teacher is not asked again."""

    def call(self, inputs, training=False):
        """Returns the probabilities, the labels, all 0 of an image without one, and the answers."""
        labels, answers = inputs["labels"][:, 0], inputs["labels"][:, 1:]
        labelled = {"images": inputs["images"], "labels": keras.ops.cast(labels, "int32")}
        return {**super().call(labelled, training=training), "answers": answers}

    def loss_of_labels(self, y_pred):
        """As in `Guided`; an image without a label adds nothing."""
        labels = y_pred["labels"]
        return keras.ops.mean(self._loss_of_rows(labels, y_pred["predictions"]) * keras.ops.sum(labels, axis=-1))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Counts the accuracy; of an image without a label, the agreement with the teacher."""
        labels, answers = y[:, 0], y[:, 1:]
        said = keras.ops.cast(keras.ops.argmax(answers, axis=-1), labels.dtype)
        return super().compute_metrics(x, keras.ops.where(labels < 0, said, labels), y_pred, sample_weight)


def _student(student, num_classes, image_size, teacher_size, weights, seed):
    """Returns the network that learns, and whether its head is new."""
    if isinstance(student, keras.Model) and _gives_probabilities(student):
        own = max(student.output_shape[-1], 2)
        if own != num_classes:
            raise ValueError(
                f"The student must have the ensemble's {num_classes} classes. Received: {student.name!r} with {own}. "
                "Give its backbone, which gets a new head."
            )
        return renamed_copy(student, student.name), False
    is_model = isinstance(student, keras.Model)
    if image_size is None and not (is_model and None not in student.input_shape[1:3]):
        image_size = teacher_size
    check_pretrained(student, weights)
    weights = weights_for(student, weights)
    member = build_member(student, num_classes, image_size=image_size, weights=weights)
    network = reinitialised(member, seed)
    if is_model or read_spec(student)[1].get("weights", weights) is not None:
        backbone_of(network).set_weights(backbone_of(member).get_weights())
    return network, True


def _gives_probabilities(model):
    last = model.layers[-1]
    units = (keras.activations.softmax, keras.activations.sigmoid)
    kinds = (keras.layers.Softmax,)
    return last.name == "predictions" or isinstance(last, kinds) or getattr(last, "activation", None) in units


def _check_teacher(ensemble):
    """Returns an ensemble's number of classes and the size of its images; `None` where it takes any."""
    inputs, outputs = getattr(ensemble, "inputs", None) or [], getattr(ensemble, "outputs", None) or []
    if len(inputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise ValueError(
            "`ensemble` must be a functional `keras.Model` from images to class probabilities. "
            f"Received: {ensemble!r}.{model_hint(ensemble)}"
        )
    size = tuple(ensemble.input_shape[1:3])
    return max(ensemble.output_shape[-1], 2), None if None in size else size


def _check_arguments(temperature, alpha, views, seed):
    check_number("temperature", temperature, "a number above 0", lambda number: number > 0)
    check_number("alpha", alpha, "a number in [0, 1]", lambda share: 0 <= share <= 1)
    check_at_least("views", views, 1)
    check_seed(seed)

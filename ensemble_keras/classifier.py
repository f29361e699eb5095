"""The whole pipeline as a scikit-learn classifier: images and labels in, one Keras model out."""

import dataclasses
import numbers
import pathlib
import textwrap

import keras
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ensemble_keras import artifact, pipeline
from ensemble_keras._validation import check_choice, check_image_size, check_seed
from ensemble_keras.backbones.assembly import warn_of_own_layers
from ensemble_keras.backbones.registry import (
    backbone_label,
    build_backbone,
    check_pretrained,
    has_pretrained_weights,
)
from ensemble_keras.backbones.spec import layer_name
from ensemble_keras.combiners.budget import check_limits
from ensemble_keras.combiners.cascade import Cascade
from ensemble_keras.combiners.cascade_fitting import fit_cascade
from ensemble_keras.combiners.choice import named_combiners
from ensemble_keras.combiners.inference import compiled
from ensemble_keras.combiners.parts import member_tensors
from ensemble_keras.combiners.selection import check_costs
from ensemble_keras.data.augmentation import augmentation_text
from ensemble_keras.data.inputs import as_dataset, validation_dataset
from ensemble_keras.data.labels import class_weights, with_class_indices, with_class_indices_of
from ensemble_keras.data.leaks import SeenImages
from ensemble_keras.data.sampling import SAMPLINGS
from ensemble_keras.devices import resolve_devices
from ensemble_keras.evaluation.leaderboard import leaderboard_text
from ensemble_keras.evaluation.report import EvaluationReport
from ensemble_keras.executors import check_executor
from ensemble_keras.features.extraction import predict
from ensemble_keras.features.views import check_views
from ensemble_keras.measures.conformal import ConformalSets, fit_conformal
from ensemble_keras.measures.cost import member_costs
from ensemble_keras.measures.operating_point import OperatingPoint, choose_operating_point
from ensemble_keras.measures.uncertainty import abstention_threshold
from ensemble_keras.members.member import HEADS
from ensemble_keras.members.out_of_fold import weights_for
from ensemble_keras.members.settings import as_fine_tuning, as_training
from ensemble_keras.runs import Run

# Layers of a member, or of the ensemble beside its members, have these names.
_TAKEN = ("images", "features", "predictions", "views", "dropout", "hidden_1")


class EnsembleClassifier(ClassifierMixin, BaseEstimator):
    """Fits several backbones as members, joins them, and gives back one `keras.Model`.

    Backbones with pretrained weights stay frozen: one pass over the images gives all their features, and a linear
    head is solved on each. Backbones without (`"CNN"`, `"Darknet19"`, or `weights=None`) are trained end to end. What
    the combiner learns from, and every figure of the leaderboard, are predictions on images that the member did not
    train on.

    Args:
        backbones: List of names (`"DenseNet121"`), names with options (`"MobileNetV2(alpha=0.35)"`) or `keras.Model`s
            from images in [0, 255] to features. `list_backbones()` gives the names.
        combiner: `"soft_voting"`, `"hard_voting"`, `"geometric_voting"`, `"weighted_voting"` (the weights of the
            lowest log loss), `"greedy"` (weights by `select_members`), `"best_member"`, `"stacking"`,
            `"concatenate"`, `"gated"` (an `ArchitectureGate`); `"auto"`, which compares the best member, soft,
            weighted and greedy voting, stacking, concatenation and the gate on out-of-fold predictions and takes the
            simplest that is not worse than the best beyond chance; a list of combiners to compare so, the simplest
            first; or a combiner layer (rebuilt from its config, never changed). Members of weight 0 are left out of
            the model. Defaults to `"soft_voting"`.
        image_size: Int or `(height, width)`, in pixels, of the images that the model takes. Defaults to 224.
        weights: `"imagenet"`, or `None`: all backbones given by name are trained from scratch. Defaults to
            `"imagenet"`.
        cv: Int, the number of folds, stratified and by group; or a scikit-learn splitter. Byte-identical images share
            a fold. Defaults to 5.
        head: `"linear"`, solved to its optimum, or `"mlp"`, of frozen backbones. Defaults to `"linear"`.
        training: `Training` settings of backbones that are trained end to end. Defaults to `Training()`.
        fine_tune: `None`: pretrained backbones stay frozen; `True` or `FineTuning` settings: all are trained on from
            their solved heads, once per fold; or a dict from a backbone, as in the list, to either.
        augmentation: What changes training images of what is trained or fine-tuned, and makes the `views` of what
            stays frozen; see `build_augmentation`.
        views: Int. Number of views of each image that the heads of frozen backbones learn from, of which the first is
            the image as it is, and the others are made by `augmentation`. All views of an image share its fold, and
            out-of-fold predictions are of the first alone. The features cost so many times more. Defaults to 1.
        class_weight: `None`, `"balanced"`, or a dict from class to the weight of its images.
        sampling: `None`, `"over"` or `"under"`: training images are drawn so that classes are even. Solved heads and
            combiners take the class weights that this amounts to.
        refit: Whether what is trained or fine-tuned is trained once more on all images after the folds; else the
            member is the average of its folds' networks. Heads of frozen backbones always are that average, which
            is one head. Defaults to `True`.
        devices: Devices among which training divides each batch, as in `fine_tune`.
        test_time_augmentation: Tuple of views that the built model averages over, as in `build_ensemble`. The
            out-of-fold figures are without it.
        calibrate: Whether members are brought to their temperature before they are combined, and the ensemble to its
            own, both fitted on out-of-fold predictions and part of the model's graph: so that of the images that are
            given 80 %, 80 % are right. The most probable class of a member stays what it is. Defaults to `False`.
        max_macs: The most multiply-accumulates that the ensemble may cost for one image, or `None`. A backbone that
            costs more is not fitted. Where the others do not fit together, every combiner joins those that
            `select_members` picks within the budget; what is predicted out of fold, by members picked without the
            fold. Every view of `test_time_augmentation` is counted, and what the combiner costs itself. Defaults to
            `None`.
        max_parameters: The most parameters that the ensemble may have, or `None`.
        max_latency_ms: The most milliseconds that the members may take together, one after another, for one image at
            a time on this machine, as `measure_latency` finds it before the fit; or `None`. One model of several
            members takes less.
        store: A `FeatureStore`, the path of one, or `None`: the one in `directory`, or none.
        directory: Folder that keeps the features and all finished work, so that the same command goes on after a kill
            or a lost connection. Defaults to `None`: nothing is kept.
        executor: Where what is trained or fine-tuned trains its folds, several at a time: an int, the number of
            processes, each with a GPU and a part of the CPU cores of its own; a `concurrent.futures.Executor`; or a
            Dask client, best with one thread a worker. The images are sent to each, those in files as their paths.
            The results are the same. A training whose worker dies is tried once more. A script needs
            `if __name__ == "__main__":`, and `clone` an int. Defaults to `None`: here, one after another.
        leaks: `"warn"` or `"error"`: what happens when an image or a group is in the training and validation data.
            Defaults to `"warn"`.
        seed: Int. Of the folds and of all training. Defaults to 0.
        verbose: 0 shows no progress. Defaults to 1.

    Attributes:
        model_: The `keras.Model`: raw images `(batch, height, width, 3)` to probabilities `(batch, num_classes)`.
        classes_: Array of class names, or of the labels where there are no names.
        members_: List of `keras.Model`s, also of those that the combiner leaves out of the model.
        combiner_: The fitted combiner layer.
        out_of_fold_: Float32 array `(n, members, num_classes)`.
        ensemble_out_of_fold_: Array `(n, num_classes)`: what the combiner makes of them, fitted without each row.
        leaderboard_: `pandas.DataFrame`, a row for each member and each combiner compared: out-of-fold accuracy, log
            loss and ROC AUC, the difference in accuracy to the best member with its 95 % interval, seconds,
            parameters; with validation data `validation_accuracy`, too.
        verdict_: String: whether the ensemble is worth it.
        history_: Dict from member to its curves, of what trains by epochs.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8")
    >>> y = np.repeat(["cat", "dog"], 20)
    >>> classifier = ek.EnsembleClassifier(["CNN", "AlexNet(width=0.125)"], image_size=32, cv=2, verbose=0,
    ...                                    training=ek.Training(epochs=1))
    >>> classifier.fit(x, y).predict_proba(x).shape
    (40, 2)
    """

    def __init__(
        self,
        backbones,
        *,
        combiner="soft_voting",
        image_size=224,
        weights="imagenet",
        cv=5,
        head="linear",
        training=None,
        fine_tune=None,
        augmentation=None,
        views=1,
        class_weight=None,
        sampling=None,
        refit=True,
        devices=None,
        test_time_augmentation=None,
        calibrate=False,
        max_macs=None,
        max_parameters=None,
        max_latency_ms=None,
        store=None,
        directory=None,
        executor=None,
        leaks="warn",
        seed=0,
        verbose=1,
    ):
        self.backbones = backbones
        self.combiner = combiner
        self.image_size = image_size
        self.weights = weights
        self.cv = cv
        self.head = head
        self.training = training
        self.fine_tune = fine_tune
        self.augmentation = augmentation
        self.views = views
        self.class_weight = class_weight
        self.sampling = sampling
        self.refit = refit
        self.devices = devices
        self.test_time_augmentation = test_time_augmentation
        self.calibrate = calibrate
        self.max_macs = max_macs
        self.max_parameters = max_parameters
        self.max_latency_ms = max_latency_ms
        self.store = store
        self.directory = directory
        self.executor = executor
        self.leaks = leaks
        self.seed = seed
        self.verbose = verbose

    def fit(self, x, y=None, *, groups=None, validation_data=None):
        """Fits members and combiner.

        Args:
            x: An `ImageDataset`, or images of shape `(n, height, width, 3)` with values in [0, 255].
            y: Labels `(n,)`, ints or strings; not needed with a labelled `ImageDataset`.
            groups: Sequence `(n,)`, such as patients: images of one group share a fold. Defaults to the dataset's.
            validation_data: `(x, y)` or an `ImageDataset` with the same classes: early stopping of what trains by
                epochs looks at it, and the leaderboard gives the accuracy on it. Nothing else is chosen by it.

        Returns:
            self.

        Raises:
            ValueError: If an argument, an image or a label is not as described; before anything is trained.
        """
        size, names = self._check_arguments()
        dataset, classes = with_class_indices(as_dataset(x, y, groups=groups))
        combiners = named_combiners(self.combiner, len(classes))
        plan = pipeline.Plan(
            trunks=self._trunks(size, names),
            frozen=set(self._pretrained(names)),
            dataset=dataset,
            validation=_validation_data(validation_data, classes),
            classes=classes,
            image_size=size,
            combiners=combiners,
            cv=self.cv,
            head=self.head,
            training=as_training(self.training),
            fine_tune=self._fine_tuning(names),
            augmentation=self.augmentation,
            views=self._views(names),
            sampling=self.sampling,
            refit=self.refit,
            devices=self.devices,
            executor=self.executor,
            test_time_augmentation=self.test_time_augmentation,
            calibrate=self.calibrate,
            limits=self._limits(),
            class_weight=class_weights(dataset.labels, classes, self.class_weight),
            store=self._store(),
            leaks=self.leaks,
            seed=self.seed,
            verbose=self.verbose,
        )
        with Run(self.directory, self._settings(names)) as run:
            fitted = pipeline.fit(plan, run)
        fitted.card["settings"] = {**run.settings, "combiners": [*combiners], "calibrate": self.calibrate}
        # All together and only now: a fit that fails leaves the last one's attributes as they were.
        self.classes_, self._seen = classes, SeenImages(dataset)
        self._labels, self._groups = dataset.labels, dataset.groups
        for name, value in vars(fitted).items():
            setattr(self, f"{name}_", value)
        if self.verbose:
            print(f"\n{leaderboard_text(self.leaderboard_)}\n\n{textwrap.fill(self.verdict_, 80)}\n")
        return self

    def predict_proba(self, x):
        """Returns the probabilities of the classes, float32 `(n, num_classes)`, in the order of `classes_`."""
        check_is_fitted(self, "model_")
        return predict(self.model_, as_dataset(x), verbose=self.verbose)

    def predict(self, x, *, abstain=None, operating_point=False):
        """Returns the class of each image, `(n,)`: names where there are any, else labels.

        Args:
            x: An `ImageDataset` or images, as in `fit`.
            abstain: When "not sure" is the answer, which is `None` (`pandas.isna` finds it). A float: where the most
                probable class is less probable than this. `{"accuracy": 0.99}`: where it is less probable than it has
                to be for so many answers to be right; `{"coverage": 0.9}`: for so many images to be answered, both
                as out-of-fold predictions tell. `"conformal"`: where the set of `predict_set` is not of one class.
                Defaults to `None`: all images are answered.
            operating_point: Whether the point of `choose_operating_point` decides between the two classes. Defaults
                to `False`: the most probable class is taken.

        Returns:
            Array `(n,)`, of objects where it may hold `None`.

        Raises:
            ValueError: If `abstain` is none of these, or goes with an operating point, or what it needs was not
                fitted.
        """
        check_is_fitted(self, "model_")
        if operating_point and abstain is not None:
            raise ValueError("Give `abstain` or `operating_point`, not both: either moves the line of the other.")
        # What was not fitted is said before the images are read.
        point, is_sure = self._operating_point() if operating_point else None, self._is_sure(abstain)
        probabilities = self.predict_proba(x)
        indices = probabilities.argmax(axis=1) if point is None else point.predict(probabilities)
        predicted = self.classes_[indices]
        return predicted if abstain is None else np.where(is_sure(probabilities), predicted.astype(object), None)

    def predict_set(self, x):
        """Returns the classes that each image may be of, bool `(n, num_classes)`, in the order of `classes_`.

        The set of an image from the distribution of the training images holds its class with the probability that
        was promised in `conformalize`.

        Raises:
            ValueError: If `conformalize` was not called.
        """
        check_is_fitted(self, "model_")
        conformal = self._conformal()
        return conformal.predict(self.predict_proba(x))

    def conformalize(self, x=None, y=None, *, coverage=0.9, method="lac", per_class=False):
        """Fits the prediction sets of `predict_set`, which hold the true class as often as is promised.

        The card keeps them, as `"conformal"`: `ConformalSets(**card["conformal"]).predict(probabilities)` are the
        sets of a saved model.

        Args:
            x: Calibration images, which were not used in `fit`: an `ImageDataset`, or images as in `fit`. Defaults to
                `None`: the out-of-fold predictions, which cost no images; the promise is then an approximation, as
                told in `fit_conformal`. Groups of either are taken as such.
            y: Labels, as names or as class indices. Defaults to the dataset's.
            coverage: As in `fit_conformal`.
            method: As in `fit_conformal`.
            per_class: As in `fit_conformal`.

        Returns:
            self.

        Raises:
            ValueError: As `fit_conformal`; or if labels are missing or unknown, or with `leaks="error"`, if there are
                training images among the calibration images.
        """
        check_is_fitted(self, "model_")
        if x is None:
            probabilities, labels, groups = self.ensemble_out_of_fold_, self._labels, self._groups
        else:
            dataset = with_class_indices_of(as_dataset(x, y), self.classes_)
            self._seen.check(dataset, leaks=self.leaks)
            probabilities, labels, groups = self.predict_proba(dataset), dataset.labels, dataset.groups
        options = {"coverage": coverage, "method": method, "per_class": per_class, "groups": groups}
        self.card_["conformal"] = dataclasses.asdict(fit_conformal(probabilities, labels, **options))
        return self

    def choose_operating_point(self, *, min_sensitivity=None, min_specificity=None, confidence=None, positive=None):
        """Chooses, on out-of-fold predictions, from which probability on an image is of the positive of two classes.

        The card keeps it, as `"operating_point"`; `predict(x, operating_point=True)` takes it, and the report of
        `evaluate` tells what it is worth on other images.

        Args:
            min_sensitivity: As in `ensemble_keras.choose_operating_point`.
            min_specificity: As there. Without either, Youden's index decides.
            confidence: As there.
            positive: The positive class, as in `classes_`. Defaults to the second of them.

        Returns:
            An `OperatingPoint`.

        Raises:
            ValueError: If there are more classes than two, or an argument is not as described.
        """
        check_is_fitted(self, "model_")
        if len(self.classes_) != 2:
            raise ValueError(f"An operating point is of two classes. Received: {len(self.classes_)} classes.")
        classes = self.classes_.tolist()
        index = 1 if positive is None else classes.index(check_choice("positive", positive, classes))
        point = choose_operating_point(
            self.ensemble_out_of_fold_,
            self._labels,
            min_sensitivity=min_sensitivity,
            min_specificity=min_specificity,
            confidence=confidence,
            positive=index,
        )
        self.card_["operating_point"] = dataclasses.asdict(point)
        return point

    def fit_cascade(self, *, max_loss=0.001, costs=None):
        """Finds, on out-of-fold predictions, when the model may stop asking members (`ensemble_keras.fit_cascade`).

        The card keeps it, as `"cascade"`: `Cascade(*load_ensemble(path))` is that of a saved model. What it is
        expected to lose and to cost on new images stands under `card_["cascade"]["expected"]`. Votes of members on
        the way count equally.

        Args:
            max_loss: Float of at least 0: how much accuracy may be lost against the model. Defaults to 0.001, 0.1
                points.
            costs: Array `(members,)`, what an image costs each of `members_`: milliseconds or multiply-accumulates.
                Defaults to `None`: the time that each takes on this machine, of 32 images.

        Returns:
            A `Cascade` of the model.

        Raises:
            ValueError: If the model does not join the predictions of at least two members, has test-time
                augmentation, or an argument is not as described.
        """
        check_is_fitted(self, "model_")
        asked = member_tensors(self.model_)
        indices = [i for i, member in enumerate(self.members_) if member.name in asked]
        if not indices:
            raise ValueError(
                "A cascade asks two or more members for their predictions, one after another. This model joins none: "
                "it is of one member, or its combiner takes features alone. Fit with combiner='soft_voting', say."
            )
        if costs is None:
            members = [compiled(self.members_[i]).model for i in indices]
            costs = member_costs(members, batch_size=32)["latency_ms"]
        else:
            costs = check_costs(costs, len(self.members_))[indices]
        settings = fit_cascade(
            self.out_of_fold_[:, indices],
            self._labels,
            costs,
            names=[self.members_[i].name for i in indices],
            max_loss=max_loss,
            combined=self.ensemble_out_of_fold_,
            groups=self._groups,
            seed=self.seed,
        )
        cascade = Cascade(self.model_, {**self.card_, "cascade": settings})
        self.card_["cascade"] = settings
        return cascade

    def score(self, x, y=None, sample_weight=None):
        """Returns the accuracy.

        Args:
            x: An `ImageDataset` or images, as in `fit`.
            y: Labels, as names or as class indices. Defaults to the dataset's.
            sample_weight: Array `(n,)`, or `None`.
        """
        check_is_fitted(self, "model_")
        labels = with_class_indices_of(as_dataset(x, y), self.classes_).labels
        return float(np.average(self.predict_proba(x).argmax(axis=1) == labels, weights=sample_weight))

    def evaluate(self, x, y=None):
        """Returns an `EvaluationReport` on images that were not used in `fit`.

        It tells of the members, too. A combiner that takes their features alone, as `"concatenate"` does, leaves
        their heads out of the model: the images then pass `members_` once more.

        Images whose bytes, or whose group, were among the training images are said in a warning and on top of the
        report, or refused with `leaks="error"`. `find_leaks(train, test)` finds near-duplicates, too: set it as the
        report's `leaks`.

        Raises:
            ValueError: If labels are missing or unknown; with `leaks="error"`, if there are training images.
        """
        check_is_fitted(self, "model_")
        dataset = with_class_indices_of(as_dataset(x, y), self.classes_)
        seen = self._seen.check(dataset, leaks=self.leaks)
        return EvaluationReport.from_model(
            self.model_,
            dataset,
            class_names=[str(name) for name in self.classes_],
            member_names=artifact.member_names(self.card_),
            verbose=self.verbose,
            verdict=self.verdict_,
            leaderboard=self.leaderboard_,
            history=self.history_,
            out_of_fold=self.card_["validation"]["out_of_fold"],
            operating_point=self.card_.get("operating_point"),
            conformal=self.card_.get("conformal"),
            details=self.card_,
            leaks=seen,
            members_beside=self._members_beside(),
        )

    def save(self, path):
        """Saves the model with its card as one `.keras` file, which opens with Keras alone."""
        check_is_fitted(self, "model_")
        artifact.save_ensemble(self.model_, path, card=self.card_, verbose=self.verbose)

    def _members_beside(self):
        """Returns the members by the names to show, where the model holds several of them without their heads."""
        names = artifact.member_names(self.card_)
        if len(names) < 2 or member_tensors(self.model_):
            return {}
        return {names[member.name]: member for member in self.members_ if member.name in names}

    def _is_sure(self, abstain):
        """Returns the function from probabilities to which images are answered, bool `(n,)`."""
        if isinstance(abstain, str) and abstain == "conformal":
            conformal = self._conformal()
            return lambda p: conformal.predict(p).sum(axis=1) == 1
        threshold = abstain
        if isinstance(abstain, dict):
            threshold = abstention_threshold(self.ensemble_out_of_fold_, self._labels, **abstain)
        elif abstain is not None and (not isinstance(abstain, numbers.Real) or not 0 <= abstain <= 1):
            raise ValueError(
                "`abstain` must be a confidence in [0, 1], {'accuracy': share}, {'coverage': share}, 'conformal' or "
                f"None. Received: {abstain!r}."
            )
        return lambda p: p.max(axis=1) >= threshold

    def _conformal(self):
        if "conformal" not in self.card_:
            raise ValueError("There are no prediction sets yet. Fit them: `classifier.conformalize(coverage=0.9)`.")
        return ConformalSets(**self.card_["conformal"])

    def _operating_point(self):
        if "operating_point" not in self.card_:
            raise ValueError(
                "There is no operating point yet. Choose one: "
                "`classifier.choose_operating_point(min_sensitivity=0.95)`."
            )
        return OperatingPoint(**self.card_["operating_point"])

    def _trunks(self, size, names):
        """Returns the backbones by name."""
        trunks = {}
        for name, backbone in zip(names, self.backbones, strict=True):
            weights = weights_for(backbone, self.weights)
            trunks[name] = build_backbone(backbone, input_shape=(*size, 3), weights=weights)
            warn_of_own_layers(trunks[name], name)
        return trunks

    def _check_arguments(self):
        size = check_image_size(self.image_size)
        if isinstance(self.backbones, str | keras.Model) or not len(self.backbones):
            is_name = isinstance(self.backbones, str) and self.backbones
            hint = f" Put it into one: [{self.backbones!r}]." if is_name else ""
            raise ValueError(
                f"`backbones` must be a list of at least one backbone. Received: {self.backbones!r}.{hint}"
            )
        names = [backbone_label(backbone) for backbone in self.backbones]
        _check_names(names)
        # A slip here would train every backbone from scratch.
        if self.weights not in (None, "imagenet") and not any(
            has_pretrained_weights(backbone, self.weights) for backbone in self.backbones
        ):
            raise ValueError(
                f"`weights` must be 'imagenet', None, or what one of the backbones knows. Received: {self.weights!r}."
            )
        for backbone in self.backbones:
            check_pretrained(backbone, self.weights)
        check_choice("head", self.head, HEADS)
        check_choice("leaks", self.leaks, ["warn", "error"])
        check_choice("sampling", self.sampling, SAMPLINGS)
        check_choice("refit", self.refit, [True, False])
        check_seed(self.seed)
        resolve_devices(self.devices)
        check_executor(self.executor)
        self._views(names)
        self._limits()
        return size, names

    def _limits(self):
        return check_limits(
            max_macs=self.max_macs, max_parameters=self.max_parameters, max_latency_ms=self.max_latency_ms
        )

    def _pretrained(self, names):
        return [n for n, b in zip(names, self.backbones, strict=True) if has_pretrained_weights(b, self.weights)]

    def _fine_tuning(self, names):
        """Returns a dict from the name of each pretrained backbone that is fine-tuned to its settings."""
        pretrained, given = self._pretrained(names), self.fine_tune
        if not isinstance(given, dict):
            if as_fine_tuning(given) is not None and not pretrained:
                raise ValueError(
                    "`fine_tune` is of backbones with pretrained weights. Received: "
                    f"{', '.join(names)}, weights={self.weights!r}: `training` says how they are trained."
                )
            given = dict.fromkeys(pretrained, given)
        # A text may spell options otherwise than its label; a model goes by its name.
        given = {n if n in names else backbone_label(n): settings for n, settings in given.items()}
        found = {
            check_choice("fine_tune", name, pretrained): as_fine_tuning(settings) for name, settings in given.items()
        }
        return {name: settings for name, settings in found.items() if settings is not None}

    def _views(self, names):
        tuned = self._fine_tuning(names)
        frozen = [name for name in self._pretrained(names) if name not in tuned]
        return check_views(
            self.augmentation, self.views, self.seed, frozen=bool(frozen), trained=len(frozen) < len(names)
        )

    def _store(self):
        if self.store is None and self.directory is not None:
            return pathlib.Path(self.directory) / "features.sqlite"
        return self.store

    def _settings(self, names):
        training = {
            "training": _changed(as_training(self.training)),
            "fine_tune": {name: _changed(settings) for name, settings in self._fine_tuning(names).items()},
            "augmentation": augmentation_text(self.augmentation),
            "views": self.views,
            "sampling": self.sampling,
            "refit": self.refit,
        }
        settings = {key: getattr(self, key) for key in ("image_size", "weights", "head", "class_weight", "seed")}
        if isinstance(self.class_weight, dict):
            # Keys may be ints of NumPy, of which JSON knows nothing.
            settings["class_weight"] = {str(name): weight for name, weight in self.class_weight.items()}
        # Not the combiner: another one takes up all that is there, and its own fit takes seconds.
        return {**settings, "backbones": names, "cv": str(self.cv), **training}


def _changed(settings):
    """Returns those of `Training` or `FineTuning` settings that are not the defaults."""
    defaults = type(settings)().config()
    return {name: value for name, value in settings.config().items() if value != defaults[name]}


def _check_names(names):
    layers = {}
    for name in names:
        layer = layer_name(name)
        if layer in layers:
            other = layers[layer]
            same = f"are called {name!r}" if name == other else f"{other!r} and {name!r} would be layers {layer!r}"
            raise ValueError(f"Two backbones {same}. Give each another name or other options.")
        if layer in _TAKEN:
            raise ValueError(
                f"A backbone may not be called {name!r}: another layer of the model is. Give it another name."
            )
        layers[layer] = name


def _validation_data(validation_data, classes):
    if validation_data is None:
        return None
    return with_class_indices_of(validation_dataset(validation_data), classes)

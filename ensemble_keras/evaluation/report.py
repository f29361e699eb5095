"""Report: what a model is worth on a set of images, as figures, tables, plots and one page."""

import dataclasses
import functools

import keras
import numpy as np
import pandas as pd
from sklearn import metrics as sk

from ensemble_keras._validation import check_choice, model_hint
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.evaluation import inputs
from ensemble_keras.evaluation.prediction import input_size, predict_each, predict_with_members
from ensemble_keras.measures import metrics, significance
from ensemble_keras.measures.conformal import ConformalSets, set_figures
from ensemble_keras.measures.intervals import metric_interval, metric_intervals
from ensemble_keras.measures.operating_point import OperatingPoint
from ensemble_keras.measures.uncertainty import predictive_entropy, risk_coverage, uncertainty

# A drop from out-of-fold accuracy is said when chance would make it in one of a hundred reports.
_DROP_LEVEL = 0.01


@dataclasses.dataclass(frozen=True)
class ExplainedModel:
    """The model of a report, as heat maps and the picture of the ensemble need it.

    Attributes:
        model: The `keras.Model`.
        member_names: Dict from the name of a member's layer to the name that is shown.
        image_size: `(height, width)` of the images that it takes.
        members_beside: Dict from the name that is shown to a member, a `keras.Model`, where the model holds none.
    """

    model: keras.Model
    member_names: dict
    image_size: tuple
    members_beside: dict


class EvaluationReport:
    """What a model is worth on images it did not train on. Made by `from_model` or `from_predictions`.

    Attributes:
        y_true: Class indices of shape `(n,)`.
        probabilities: Array of shape `(n, num_classes)`.
        member_probabilities: Dict from a member's name to such an array; empty where members are not known.
        class_names: List of strings, in the order of the columns.
        verdict: One or two sentences: is the ensemble worth it? What was found when it was fitted, or else `gain`.
        gain: Sentence: how much better the ensemble is than its best member on these images; empty where members are
            not known.
        notes: List of sentences on what to be careful with: training images among these, classes without images, a
            drop from out-of-fold figures, prediction sets that do not keep their promise.
        summary: Dict of the figures of `metric_summary`, with `images`, `classes`, the 95 % interval of accuracy
            (`accuracy_low`, `accuracy_high`) and, where accuracy fell below the out-of-fold one beyond chance, the
            sentence `distribution_shift`.
        per_class: `DataFrame` with one row per class: `class`, `precision`, `recall`, `f1`, `support` (images).
        confusion: `DataFrame` of counts; rows are true classes, columns predicted ones.
        members: `DataFrame` with one row per member and the last for `"ensemble"`: `accuracy` with its 95 % interval
            (`accuracy_low`, `accuracy_high`), `log_loss`, `roc_auc`, and the ensemble's gain in accuracy over the
            member, `difference`, with its paired 95 % interval (`difference_low`, `difference_high`), `p_value`, and
            `p_holm`, which holds for all members together (Holm's correction).
        intervals: `DataFrame` with one row per metric: `value`, and its 95 % interval, `low` and `high`; see
            `metric_intervals`. Of two classes the second is the positive one.
        operating_point: `DataFrame` of sensitivity, specificity and predictive values at the chosen operating point,
            see `OperatingPoint.figures`; `None` where none was chosen.
        chosen_point: That `OperatingPoint`, or `None`.
        prediction_sets: `DataFrame` of how often prediction sets hold the true class, of all images and of each
            class, see `set_figures`; `None` where none were fitted.
        uncertainty: `DataFrame` with one row per image: `confidence` and `entropy` of the prediction, and where
            members are known their `member_entropy`, `mutual_information` and `disagreement`; see
            `ensemble_keras.uncertainty`.
        risk_coverage: `DataFrame`: the accuracy of the images that are answered, the surest first; see
            `ensemble_keras.risk_coverage`.
        groups: Group of each image, or `None`.
        leaks: `DataFrame` of pairs of a training image and one of these, as `find_leaks` gives; `None` where nobody
            looked. It may be set.
        images: The `ImageDataset`, of which the page shows some; `None` where it was not given.
        explained: `ExplainedModel`, what heat maps are made of; `None` where the report was made `from_predictions`.
    """

    def __init__(
        self,
        y_true,
        probabilities,
        class_names,
        *,
        members,
        groups,
        history,
        verdict,
        leaderboard,
        out_of_fold,
        operating_point,
        conformal,
        details,
        images=None,
        leaks=None,
    ):
        self.y_true, self.probabilities, self.class_names = y_true, probabilities, class_names
        self.history, self.leaderboard, self.details = history, leaderboard, details
        self.member_probabilities, self.groups, self._out_of_fold = members, groups, out_of_fold
        self.images, self.leaks, self.explained = images, leaks, None
        self._operating_point, self._conformal = operating_point, conformal
        self.verdict = verdict or self.gain

    @classmethod
    def from_model(
        cls,
        model,
        x,
        y=None,
        *,
        class_names=None,
        member_names=None,
        members_beside=None,
        batch_size=32,
        image_size=None,
        verbose=0,
        **options,
    ):
        """Evaluates a model, and the members inside it if it is an ensemble, in one pass over the images.

        Args:
            model: A `keras.Model` from images with values in [0, 255] to class probabilities
                `(batch, num_classes)`, or to p of class 1, `(batch, 1)`.
            x: An `ImageDataset`, or images of shape `(n, height, width, 3)`; the model must not have seen them.
            y: Labels of shape `(n,)`, where `x` is an array.
            class_names: Names in the order of the model's outputs. Defaults to `None`: the dataset's.
            member_names: Dict from the name of a member's layer to the name to show. Defaults to `None`: as they are.
            members_beside: Dict from the name to show to a member, a `keras.Model`, for an ensemble without its
                members' heads, as where it joins their features. Defaults to `None`: those that the model holds.
            batch_size: Images per step. Defaults to 32.
            image_size: Int or `(height, width)`. Defaults to `None`: the model's input size.
            verbose: 1 shows a progress bar. Defaults to 0.
            **options: Further arguments of `from_predictions`. `groups` defaults to the dataset's.

        Returns:
            An `EvaluationReport`.

        Raises:
            ValueError: If the classes of the data are not those of the model, or its outputs no probabilities.
        """
        if not isinstance(model, keras.Model):
            raise ValueError(f"`model` must be a `keras.Model`. Received: {model!r}.{model_hint(model)}")
        dataset = as_dataset(x, y)
        y_true, class_names = inputs.in_class_order(dataset, class_names)
        probabilities, members = predict_with_members(
            model, dataset, image_size=image_size, batch_size=batch_size, verbose=verbose
        )
        members = {(member_names or {}).get(name, name): p for name, p in members.items()}
        if members_beside:
            found = predict_each([*members_beside.values()], dataset, verbose=verbose)
            members |= dict(zip(members_beside, found, strict=True))
        options = {"groups": dataset.groups, "members": members, "images": dataset} | options
        report = cls.from_predictions(y_true, probabilities, class_names=class_names, **options)
        size = input_size(model, image_size)
        report.explained = ExplainedModel(model, member_names or {}, size, members_beside or {})
        return report

    @classmethod
    def from_predictions(
        cls,
        y_true,
        probabilities,
        *,
        class_names=None,
        members=None,
        groups=None,
        history=None,
        verdict=None,
        leaderboard=None,
        out_of_fold=None,
        operating_point=None,
        conformal=None,
        details=None,
        images=None,
        leaks=None,
    ):
        """Makes a report of predictions.

        Args:
            y_true: Class indices or class names, shape `(n,)`.
            probabilities: Array of shape `(n, num_classes)`, or p of class 1, `(n,)`.
            class_names: Names in the order of the columns. Defaults to `None`: "0", "1", ...
            members: Dict from a member's name to its probabilities of the same images. Defaults to `None`.
            groups: Group of each image, shape `(n,)`: intervals and tests draw groups whole. Defaults to `None`.
            history: Dict from a member's name to its training curves, `{"loss": [...], "val_loss": [...], ...}`;
                or the curves of one model. Defaults to `None`.
            verdict: What was found when the ensemble was fitted. Defaults to `None`: `gain`.
            leaderboard: `DataFrame` to be shown on the page. Defaults to `None`.
            out_of_fold: Dict with the out-of-fold `"accuracy"` and `"n"`, the number of its images. If accuracy here
                is lower beyond chance (Fisher's exact test, one-sided, p < 0.01; binomial without `"n"`), the report
                says so. Where images come in groups, numbers are divided by their `design_effect`; that of the
                out-of-fold ones is `"design_effect"`, 1 unless told. Defaults to `None`.
            operating_point: An `OperatingPoint`, of two classes, chosen on other images; or what a card keeps of it.
                Defaults to `None`.
            conformal: `ConformalSets`, fitted on other images, or what a card keeps of them. If they hold the true
                class less often than promised, beyond chance, the report says so. Defaults to `None`.
            details: Dict from a heading to what stands under it on the page: a dict, a list, a `DataFrame` or a
                text, such as settings, versions, skipped files; what a model's card holds stands in its place.
                Defaults to `None`.
            images: The images themselves, an `ImageDataset` or an array `(n, height, width, 3)` with values in
                [0, 255]: the page shows some of them. Defaults to `None`: it shows none.
            leaks: `DataFrame`, what `find_leaks(train, test)` gives: the report says which of these images were in
                training, and what accuracy is without them. Defaults to `None`: nobody looked.

        Returns:
            An `EvaluationReport`.

        Raises:
            ValueError: If a table, a label or a class name is wrong; the message names the member and the rows.

        Example:
        >>> EvaluationReport.from_predictions(["cat", "dog"], [[0.9, 0.1], [0.2, 0.8]], class_names=["cat", "dog"])
        EvaluationReport(2 images, 2 classes: accuracy 1.000, roc_auc 1.000, log_loss 0.164)
        """
        p = metrics.check_probabilities(probabilities)
        names = inputs.check_class_names(class_names, p.shape[1])
        images = inputs.check_pictures(images, len(p))
        return cls(
            inputs.indices(y_true, names, len(p)),
            p,
            names,
            members=inputs.check_members(members or {}, p.shape),
            groups=groups,
            history=inputs.histories(history),
            verdict=verdict,
            leaderboard=leaderboard,
            out_of_fold=out_of_fold or {},
            operating_point=OperatingPoint(**operating_point)
            if isinstance(operating_point, dict)
            else operating_point,
            conformal=ConformalSets(**conformal) if isinstance(conformal, dict) else conformal,
            details=details or {},
            images=images,
            leaks=leaks,
        )

    @property
    def notes(self):  # noqa: D102 (described with the class, as the others below)
        found = (self._leak_note(), self._absent_note(), self._drop_note(), self._coverage_note())
        return [note for note in found if note]

    @functools.cached_property
    def gain(self):  # noqa: D102
        if not self.member_probabilities:
            return ""
        best = self.members.drop(index="ensemble")["accuracy"].idxmax()
        gain = significance.compare(
            self.probabilities, self.member_probabilities[best], self.y_true, groups=self.groups
        )
        # The exact test decides: of few images the interval may leave 0 out sooner.
        found = "beyond chance" if gain.p_value < 0.05 else "no difference beyond chance"
        return f"The ensemble against its best member on these images, {best}: {gain}; {found}."

    @functools.cached_property
    def summary(self):  # noqa: D102
        accuracy, low, high = metric_interval(self.probabilities, self.y_true, groups=self.groups)
        figures = {"images": len(self.y_true), "classes": len(self.class_names), "accuracy": accuracy}
        figures |= {"accuracy_low": low, "accuracy_high": high}
        figures |= metrics.metric_summary(self.y_true, self.probabilities)
        drop = self._drop_note()
        return figures | ({"distribution_shift": drop} if drop else {})

    @functools.cached_property
    def per_class(self):  # noqa: D102
        labels = range(len(self.class_names))
        columns = sk.precision_recall_fscore_support(self.y_true, self._predicted, labels=labels, zero_division=0)
        named = zip(("precision", "recall", "f1", "support"), columns, strict=True)
        return pd.DataFrame({"class": self.class_names, **dict(named)})

    def changes_per_class(self, baseline):
        """Returns what changed per class against another report, by class weights or fine-tuning, say.

        Args:
            baseline: An `EvaluationReport` of the same classes, best on the same images.

        Returns:
            `DataFrame` with one row per class: `class`, `support`, and for `recall`, `precision` and `f1` the value
            of the baseline (`recall_before`), the value here (`recall`) and the change (`recall_change`).

        Raises:
            ValueError: If the two have other classes or other images' labels.
        """
        if self.class_names != baseline.class_names or not np.array_equal(self.y_true, baseline.y_true):
            raise ValueError(
                f"`baseline` must be a report on the same images and classes. Received: {baseline!r} beside {self!r}."
            )
        before, after = baseline.per_class, self.per_class
        table = after[["class", "support"]].copy()
        for name in ("recall", "precision", "f1"):
            table[f"{name}_before"], table[name] = before[name], after[name]
            table[f"{name}_change"] = after[name] - before[name]
        return table

    @functools.cached_property
    def confusion(self):  # noqa: D102
        counts = sk.confusion_matrix(self.y_true, self._predicted, labels=range(len(self.class_names)))
        index, columns = (pd.Index(self.class_names, name=name) for name in ("true", "predicted"))
        return pd.DataFrame(counts, index=index, columns=columns)

    @functools.cached_property
    def members(self):  # noqa: D102
        tables = self.member_probabilities | {"ensemble": self.probabilities}
        rows = {name: self._member_row(p) for name, p in tables.items()}
        rows["ensemble"] |= dict.fromkeys(("difference", "difference_low", "difference_high", "p_value"), np.nan)
        frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("member")
        return frame.assign(p_holm=significance.holm(frame["p_value"]))

    @functools.cached_property
    def intervals(self):  # noqa: D102
        return metric_intervals(self.probabilities, self.y_true, groups=self.groups)

    @functools.cached_property
    def operating_point(self):  # noqa: D102
        if self._operating_point is None:
            return None
        return self._operating_point.figures(self.probabilities, self.y_true, groups=self.groups)

    @property
    def chosen_point(self):  # noqa: D102
        return self._operating_point

    @functools.cached_property
    def prediction_sets(self):  # noqa: D102
        if self._conformal is None:
            return None
        sets = self._conformal.predict(self.probabilities)
        return set_figures(sets, self.y_true, groups=self.groups).rename(dict(enumerate(self.class_names)))

    @functools.cached_property
    def uncertainty(self):  # noqa: D102
        p = self.probabilities
        own = pd.DataFrame({"confidence": p.max(axis=1), "entropy": predictive_entropy(p)})
        if not self.member_probabilities:
            return own
        of_members = uncertainty(np.stack(list(self.member_probabilities.values()), axis=1))
        return own.join(of_members[["member_entropy", "mutual_information", "disagreement"]])

    @functools.cached_property
    def risk_coverage(self):  # noqa: D102
        return risk_coverage(self.probabilities, self.y_true)

    def plot_confusion(self, ax=None, *, normalize=False):
        """Draws the confusion matrix and returns its axes; see `plot_confusion`."""
        return _plots().plot_confusion(self.confusion, ax, normalize=normalize)

    def plot_roc(self, ax=None):
        """Draws the ROC curves and returns their axes; see `plot_roc`."""
        return _plots().plot_roc(self.probabilities, self.y_true, ax, class_names=self.class_names)

    def plot_precision_recall(self, ax=None):
        """Draws the precision-recall curves and returns their axes; see `plot_precision_recall`."""
        return _class_plots().plot_precision_recall(self.probabilities, self.y_true, ax, class_names=self.class_names)

    def plot_class_scores(self, ax=None, *, score="f1"):
        """Draws what members and ensemble make of each class and returns the axes.

        Args:
            ax: Matplotlib axes. Defaults to `None`: axes of a new figure.
            score: `"precision"`, `"recall"` or `"f1"`. Defaults to `"f1"`.

        Raises:
            ValueError: If the score is unknown.
        """
        name = "ensemble" if self.member_probabilities else "model"
        tables = {**self.member_probabilities, name: self.probabilities}
        return _class_plots().plot_class_scores(tables, self.y_true, ax, class_names=self.class_names, score=score)

    def plot_history(self, member=None, metric="accuracy", ax=None):
        """Draws the training and validation curves of a member and returns their axes.

        Args:
            member: Name of a member in `history`. Defaults to `None`: the only one.
            metric: `"accuracy"` or `"loss"`, say. Defaults to `"accuracy"`.
            ax: Matplotlib axes. Defaults to `None`: axes of a new figure.

        Raises:
            ValueError: If no such curves were kept, or there are several members and none is named.
        """
        if not self.history:
            raise ValueError("There are no training curves: give `history`, where members were trained by epochs.")
        only = next(iter(self.history)) if len(self.history) == 1 else None
        member = check_choice("member", only if member is None else member, list(self.history))
        return _plots().plot_history(self.history[member], ax, metric=metric)

    def plot_members(self, ax=None):
        """Draws the accuracy of members and ensemble with intervals and returns the axes."""
        return _plots().plot_members(self.members, ax)

    def plot_risk_coverage(self, ax=None):
        """Draws the accuracy of what is answered over its share and returns the axes; see `plot_risk_coverage`."""
        return _uncertainty_plots().plot_risk_coverage(self.probabilities, self.y_true, ax)

    def plot_set_sizes(self, ax=None):
        """Draws how large the prediction sets are and returns the axes; see `plot_set_sizes`.

        Raises:
            ValueError: If no prediction sets were fitted.
        """
        if self._conformal is None:
            raise ValueError("There are no prediction sets: give `conformal`, from `fit_conformal`.")
        return _uncertainty_plots().plot_set_sizes(self._conformal.predict(self.probabilities), self.y_true, ax)

    def to_html(self, path, *, baseline=None, heat_maps=True):
        """Writes the report as one HTML page that needs nothing else: no network, no files beside it.

        Args:
            path: Path of the file; missing folders are made. A page of that name is replaced in one step.
            baseline: An `EvaluationReport` on the same images: the page shows what changed per class. Defaults to
                `None`.
            heat_maps: Whether the images that are shown large get Grad-CAM's maps, where the report was made
                `from_model`; a model that has none is said on the page. Defaults to `True`.
        """
        _page().write(self, path, baseline, heat_maps)

    def __repr__(self):
        shown = ", ".join(f"{name} {self.summary[name]:.3f}" for name in ("accuracy", "roc_auc", "log_loss"))
        return f"EvaluationReport({len(self.y_true)} images, {len(self.class_names)} classes: {shown})"

    def _repr_html_(self):
        return _page().fragment(self)

    @property
    def _predicted(self):
        return self.probabilities.argmax(axis=1)

    def _member_row(self, p):
        accuracy, low, high = metric_interval(p, self.y_true, groups=self.groups)
        gain = significance.compare(self.probabilities, p, self.y_true, groups=self.groups)
        return {
            "accuracy": accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "log_loss": float(metrics.log_losses(self.y_true, p).mean()),
            "roc_auc": metrics.roc_auc(self.y_true, p),
            "difference": gain.difference,
            "difference_low": gain.low,
            "difference_high": gain.high,
            "p_value": gain.p_value,
        }

    def _leak_note(self):
        if self.leaks is None or not len(self.leaks):
            return ""
        seen = self.leaks["test_index"].unique()
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.leaks["kind"].value_counts(sort=False).items())
        others = np.delete(self._predicted == self.y_true, seen)
        rest = f" On the other {len(others):,} images accuracy is {others.mean():.3f}." if len(others) else ""
        return (
            f"Training images, copies of them or of their groups: {len(seen):,} of these {len(self.y_true):,} images "
            f"(pairs: {kinds}). The figures here are too good.{rest}"
        )

    def _absent_note(self):
        absent = metrics.absent_classes(self.y_true, len(self.class_names))
        if not len(absent):
            return ""
        listed = ", ".join(self.class_names[k] for k in absent[:5]) + (", …" if len(absent) > 5 else "")
        return f"No image here is of class {listed}: ROC AUC is not defined."

    def _drop_note(self):
        before = self._out_of_fold.get("accuracy")
        if before is None:
            return ""
        right = self._predicted == self.y_true
        # As many independent images as tell as much.
        n = int(len(right) / significance.design_effect(right, self.groups))
        n_before = self._out_of_fold.get("n")
        if n_before is not None:
            n_before = int(n_before / self._out_of_fold.get("design_effect", 1))
        p_value = significance.drop_p_value(round(right.mean() * n), n, before, n_before)
        if p_value >= _DROP_LEVEL:
            return ""
        return (
            f"Out-of-fold accuracy {before:.3f}, here {right.mean():.3f} ({significance.p_text(p_value)}): the "
            "data's distribution probably moved between training and these images."
        )

    def _coverage_note(self):
        if self._conformal is None:
            return ""
        found = self.prediction_sets.loc["all"]
        if found["high"] >= self._conformal.coverage:
            return ""
        promised, coverage, low, high = (
            f"{100 * share:.1f} %" for share in (self._conformal.coverage, *found[["coverage", "low", "high"]])
        )
        return (
            f"Prediction sets promised to hold the true class of {promised} of the images, and hold it of {coverage} "
            f"here (95 % interval {low} to {high}): the promise is for images from the distribution that they were "
            "fitted on."
        )


# matplotlib and Jinja are loaded when something is drawn: whoever only fits or predicts does not wait for them.
def _plots():
    from ensemble_keras.evaluation import plots

    return plots


def _uncertainty_plots():
    from ensemble_keras.evaluation import uncertainty_plots

    return uncertainty_plots


def _class_plots():
    from ensemble_keras.evaluation import class_plots

    return class_plots


def _page():
    from ensemble_keras.evaluation import page

    return page

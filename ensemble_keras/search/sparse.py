"""Sparse search: trials train under a sparsity penalty, and the channels that survive are the architecture found."""

import dataclasses
import functools
import math
import numbers
import time

import keras
import numpy as np

from ensemble_keras import memory
from ensemble_keras._validation import check_at_least, check_choice, check_number
from ensemble_keras.compression.channels import channel_groups
from ensemble_keras.compression.importance import IMPORTANCES, Widths, channel_importance, channels_below
from ensemble_keras.compression.penalties import Penalty
from ensemble_keras.compression.slicing import remove_channels
from ensemble_keras.measures.macs import count_macs
from ensemble_keras.members.curves import DIRECTIONS
from ensemble_keras.members.initialisation import reinitialised
from ensemble_keras.members.settings import FineTuning
from ensemble_keras.members.trainer import Trainer
from ensemble_keras.search.evaluation import Clock, Evaluation, evaluate, one_at_a_time
from ensemble_keras.search.family import hyperparameter
from ensemble_keras.search.source import to_source
from ensemble_keras.search.space import HyperImageClassifier
from ensemble_keras.search.tuner import ArchitectureSearch

# What a narrow network is trained from.
WAYS = ("pruned", "scratch")


@dataclasses.dataclass(frozen=True)
class SparseEvaluation(Evaluation):
    """What the evaluation of a sparse trial gave: an `Evaluation` of its narrow network, but for the history.

    Attributes:
        history: Of the wide network, which trained under the penalty.
        found: Dict with `"architecture"` (the narrow network as Keras' JSON), `"costs"` (its parameters and
            multiply-accumulates), `"way"` (`"pruned"` or `"scratch"`: where its weights come from), and, by way,
            `"figures"` (empty where no epoch gave a number) and `"curves"`; or `None` for a trial that was stopped
            early, whose network stays wide.
    """

    found: dict | None = None

    _PLAIN = (*Evaluation._PLAIN, "found")

    def figures(self):
        """Returns the figures of the narrow network, and those by which it was chosen."""
        wide = {"wide_val_accuracy": self.history["val_accuracy"][-1]}
        if self.found is None:
            return super().figures() | wide
        figures = self.found["figures"]
        by_way = {f"{way}_val_accuracy": own["val_accuracy"] for way, own in figures.items() if own}
        return figures[self.found["way"]] | wide | by_way


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """How networks become narrow.

    Attributes:
        penalty: String, the kind of a `Penalty`.
        warmup_epochs: Float, as of a `Penalty`.
        threshold: Float in (0, 1): channels go whose importance is at most this share of the greatest in their group.
        widths: `Widths`, how many stay in any case.
        fine_tuning_epochs: Int, or `None`: half of the epochs.
    """

    penalty: str
    warmup_epochs: float
    threshold: float
    widths: Widths
    fine_tuning_epochs: int | None

    def __post_init__(self):
        Penalty(self.penalty, 1.0, self.warmup_epochs)
        check_number("threshold", self.threshold, "in (0, 1)", lambda share: 0 < share < 1)
        if self.fine_tuning_epochs is not None:
            check_at_least("fine_tuning_epochs", self.fine_tuning_epochs, 1)

    def penalty_of(self, values):
        """Returns the `Penalty` of a genome."""
        return Penalty(self.penalty, values["strength"], self.warmup_epochs)

    def small_channels(self, network):
        """Returns the channels that have become small: a dict from the name of a group to their numbers."""
        importance = channel_importance(channel_groups(network), self.penalty)
        shares = {name: values / max(values.max(), 1e-30) for name, values in importance.items()}
        return channels_below(shares, self.threshold, self.widths)

    def fine_tuning(self, settings):
        """Returns how the pruned network trains on: as before, from a high learning rate down again."""
        epochs = self.fine_tuning_epochs or math.ceil(settings.epochs / 2)
        warmup = min(settings.warmup_epochs, epochs / 2)
        given = vars(settings) | {"epochs": epochs, "warmup_epochs": warmup, "train_batch_norm": True}
        return FineTuning(**given)


@one_at_a_time
def evaluate_sparse(job, sparsity):
    """Trains the network of a genome under the penalty, removes what became small, and trains what is left.

    Args:
        job: A `Job`, whose genome has a value for `"strength"`.
        sparsity: A `Sparsity`.

    Returns:
        A `SparseEvaluation`.

    Raises:
        FloatingPointError: If the loss became NaN.
        MemoryError: If not even one image at a time fits.
        TrialTimeoutError: If it took longer than `max_seconds`.
        ValueError: If the network has layers that are not Keras' own, or nothing that the penalty makes small.
    """
    start = time.perf_counter()
    wide = evaluate(job, penalty=sparsity.penalty_of(job.values))
    if len(wide.history["loss"]) < job.settings.epochs:  # stopped early: it is not worth more time
        return SparseEvaluation(**vars(wide))
    try:
        narrow = _narrowed(job, wide.weights, sparsity)
        anew = reinitialised(narrow, job.seed)
        anew.name = narrow.name
        results = {
            "pruned": _trained(narrow, sparsity.fine_tuning(job.settings), job, "pruned", start),
            "scratch": _trained(anew, job.settings, job, "scratch", start),
        }
        return _evaluation(wide, results, job.settings.monitor, time.perf_counter() - start)
    finally:
        narrow = anew = results = None
        memory.free()


def _narrowed(job, weights, sparsity):
    """Returns the network of a genome without the channels that have become small."""
    network = job.hypermodel.network(job.values)
    network.set_weights(weights)
    return remove_channels(network, sparsity.small_channels(network))


@dataclasses.dataclass(frozen=True)
class _Result:
    """What the training of a narrow network gave."""

    network: object
    best_epoch: int
    figures: dict
    curves: dict
    predictions: np.ndarray


def _trained(network, settings, job, way, start):
    clock = [] if job.max_seconds is None else [Clock(job.max_seconds, start)]
    trainer = Trainer(
        network,
        settings,
        augmentation=job.augmentation,
        class_weight=job.class_weight,
        callbacks=[*job.callbacks, *clock],
        seed=job.seed,
        verbose=0,
    )
    checkpoint = job.checkpoint and job.checkpoint.with_stem(f"{job.checkpoint.stem}-{way}")
    result = trainer.run(job.train, job.selection, seed=job.seed, checkpoint=checkpoint)
    curves, best = result.history, int(result.best_epoch)
    # Fine-tuning may end where it began.
    figures = {name: curves[name][best - 1] for name in DIRECTIONS} if best else result.start
    predictions = np.concatenate([images.predict(network) for images in (job.selection, job.comparison)])
    return _Result(network, best, figures, curves, predictions)


def _better(results, figure):
    """Returns by which way the network became better, on the images that choose."""
    values = {way: result.figures.get(figure, np.nan) for way, result in results.items()}
    values = {way: value for way, value in values.items() if np.isfinite(value)}
    if not values:
        raise FloatingPointError("no epoch of the narrow network gave a finite figure")
    return (min if DIRECTIONS[figure] == "min" else max)(values, key=values.get)


def _evaluation(wide, results, figure, seconds):
    """Returns the `SparseEvaluation` of the better one of two results."""
    way = _better(results, figure)
    best, counted = results[way], count_macs(results[way].network)
    found = {
        "architecture": best.network.to_json(),
        "costs": {"parameters": counted.parameters, "macs": counted.total},
        "way": way,
        "figures": {name: result.figures for name, result in results.items()},
        "curves": {name: result.curves for name, result in results.items()},
    }
    return SparseEvaluation(
        wide.history,
        best.best_epoch,
        seconds,
        wide.note,
        best.predictions,
        to_source(best.network),
        best.network.get_weights(),
        found,
    )


class SparseSpace(HyperImageClassifier):
    """A space whose genomes have a further gene, `"strength"`: λ of the penalty.

    Args:
        space: A `HyperImageClassifier`.
        strengths: Sequence of floats above 0.
    """

    def __init__(self, space, strengths):
        self._wide, self._strengths = space, tuple(dict.fromkeys(map(float, strengths)))
        super().__init__(
            space.num_classes,
            space.input_shape,
            families=list(space.families.values()),
            training=space.training,
            max_parameters=space.max_parameters,
            max_macs=space.max_macs,
        )

    def __reduce__(self):
        return SparseSpace, (self._wide, self._strengths)

    def _declared(self):
        space = super()._declared()
        space.merge([hyperparameter("strength", self._strengths)])
        return space


class SparseSearch(ArchitectureSearch):
    """Searches narrow networks: what training under a sparsity penalty leaves of wide ones.

    A trial trains the network of a genome with the L1 norm of all its weights in the loss,
    `min L(D, θ) + λ Σ|w|`, which is equation 1 of the PicturePerfect paper and the idea of its SparseNAS. The rest is
    ours: the channels that have become small are removed, so that layers and weights are smaller, not masked; what is
    left is trained twice, from the weights that it has (pruned and fine-tuned, Han et al., 2015, with the learning
    rate rewound, Renda et al., 2020, 2003.02389) and from new ones (Liu et al., 2019, 1810.05270, found that this is
    often as good); the better of both is the trial's network, whose accuracy and multiply-accumulates count. λ is a
    gene beside those of the architecture, and trials are compared by dominance. Both results are in the leaderboard:
    `pruned_val_accuracy` and `scratch_val_accuracy`, beside `wide_val_accuracy`, `wide_parameters` and `wide_macs` of
    the network before.

    Everything else is as in `ArchitectureSearch`: it resumes; `load_model`, `get_best_models`, `champion.py` and
    `ensemble_from_search` have the narrow networks. A trial that is stopped early, on its way under the penalty, is
    not made narrow.

    Args:
        hypermodel: A `HyperImageClassifier`, a space of wide networks. Its limits are theirs.
        strength: Float above 0, λ; or a sequence of such, from which the search chooses. Defaults to
            `(3e-4, 1e-3, 3e-3)`.
        penalty: `"l1"`, `"slimming"` or `"group_lasso"`, see `ensemble_keras.compression.penalties.Penalty`; other
            penalties than the first want other strengths. Defaults to `"l1"`.
        warmup_epochs: Float, epochs over which λ rises from 0. Defaults to 1.
        threshold: Float in (0, 1). Channels go whose importance (see
            `ensemble_keras.compression.importance.channel_importance`) is at most this share of the greatest in their
            group. Defaults to 0.3.
        floor: Float in (0, 1], the share of each group's channels that stays in any case. Defaults to 0.1.
        round_to: Int, of which the widths that are left are multiples, as fast kernels like them. Defaults to 8.
        fine_tuning_epochs: Int, of the pruned network. Defaults to `None`: half of the `epochs` of `search`.
        objective: As in `ArchitectureSearch`. Defaults to `("val_accuracy", "macs")`.
        halving: As in `ArchitectureSearch`; judged is the wide network under the penalty. Defaults to `True`.
        **options: Further ones of `ArchitectureSearch`, such as `algorithm`, `max_trials`, `directory`, `seed`.

    Raises:
        ValueError: If an option is not as described.

    Example:

    >>> space = HyperImageClassifier(2, (8, 8, 1), families={"cnn": {"norm": ["batch"]}})
    >>> x, y = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), "uint8"), np.arange(60) % 2
    >>> tuner = SparseSearch(space, max_trials=1, strength=1e-4, directory=getfixture("tmp_path"))
    >>> tuner.search(x, y, epochs=1, verbose=0)
    >>> bool((tuner.leaderboard()["macs"] <= tuner.leaderboard()["wide_macs"]).all())
    True
    """

    _kind = SparseEvaluation
    _further = (*(f"{way}_val_accuracy" for way in ("wide", *WAYS)), "wide_parameters", "wide_macs")

    def __init__(
        self,
        hypermodel,
        *,
        strength=(3e-4, 1e-3, 3e-3),
        penalty="l1",
        warmup_epochs=1.0,
        threshold=0.3,
        floor=0.1,
        round_to=8,
        fine_tuning_epochs=None,
        objective=("val_accuracy", "macs"),
        halving=True,
        **options,
    ):
        if not isinstance(hypermodel, HyperImageClassifier):
            raise ValueError(f"`hypermodel` must be a HyperImageClassifier. Received: {hypermodel!r}.")
        check_choice("penalty", penalty, IMPORTANCES)
        strengths = [strength] if isinstance(strength, numbers.Real | str) else list(strength)
        if not strengths:
            raise ValueError("`strength` must hold one value or more. Received: none.")
        for value in strengths:
            Penalty(penalty, value)
        self.sparsity = Sparsity(penalty, warmup_epochs, threshold, Widths(floor, round_to), fine_tuning_epochs)
        objective = objective if isinstance(objective, str) else list(objective)
        super().__init__(SparseSpace(hypermodel, strengths), objective=objective, halving=halving, **options)

    def _depends_on(self):
        return {"sparsity": dataclasses.asdict(self.sparsity)}

    def _work(self):
        return functools.partial(evaluate_sparse, sparsity=self.sparsity)

    def _network(self, trial):
        found = self._evaluation(trial).found
        return super()._network(trial) if found is None else keras.models.model_from_json(found["architecture"])

    def _measured(self, trial, evaluation):
        wide = super()._measured(trial, evaluation)
        narrow = wide if evaluation.found is None else evaluation.found["costs"]
        return narrow | {f"wide_{name}": value for name, value in wide.items()}

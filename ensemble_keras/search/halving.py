"""Halving: poor trials stop early, by asynchronous successive halving."""

import dataclasses

from ensemble_keras._validation import check_at_least, check_choice
from ensemble_keras.members.curves import DIRECTIONS

# How the note of a trial begins that was stopped early.
STOPPED_EARLY = "stopped early"


@dataclasses.dataclass(frozen=True)
class SuccessiveHalving:
    """Stops a trial that is not among the best share of those that came as far (ASHA, Li et al., 2018, 1810.05934).

    After `min_epochs` epochs, and then `reduction_factor` times as many each time, a trial goes on only if its figure
    is among the best `1 / reduction_factor` of all that were noted there before it. Nobody is waited for, and a trial
    that once went on is not called back: the variant in which trials stop, not that in which they are promoted.

    Attributes:
        min_epochs: Int, the epochs that every trial has. Defaults to 1.
        reduction_factor: Int, at least 2. Defaults to 3.
    """

    min_epochs: int = 1
    reduction_factor: int = 3

    def __post_init__(self):
        for name, least in (("min_epochs", 1), ("reduction_factor", 2)):
            check_at_least(name, getattr(self, name), least)

    def rungs(self, epochs):
        """Returns the numbers of epochs after which a trial of so many is judged, a list of ints.

        Example:

        >>> SuccessiveHalving().rungs(30)
        [1, 3, 9, 27]
        """
        rungs, rung = [], self.min_epochs
        while rung < epochs:
            rungs.append(rung)
            rung *= self.reduction_factor
        return rungs

    def bounds(self, curves, epochs, objective):
        """Returns what a further trial must reach to go on.

        Args:
            curves: List of the trials so far, each a list of its figures after each epoch.
            epochs: Int, how long a trial lasts that does not stop.
            objective: `"val_accuracy"`, `"val_loss"` or `"val_auc"`.

        Returns:
            Dict from a number of epochs to the figure; without those that too few trials have come to.

        Example:

        >>> SuccessiveHalving().bounds([[0.2, 0.4], [0.3, 0.5], [0.1, 0.2]], 9, "val_accuracy")
        {1: 0.3}
        """
        check_choice("objective", objective, DIRECTIONS)
        bounds = {}
        for rung in self.rungs(epochs):
            noted = sorted(curve[rung - 1] for curve in curves if len(curve) >= rung)
            go_on = (len(noted) + 1) // self.reduction_factor
            if go_on:
                bounds[rung] = noted[go_on - 1] if DIRECTIONS[objective] == "min" else noted[-go_on]
        return bounds


@dataclasses.dataclass(frozen=True)
class Judge:
    """Tells after an epoch why a trial stops; what `train` takes as `stop`.

    Attributes:
        objective: String, the figure.
        bounds: Dict from a number of epochs to what the figure must reach.
    """

    objective: str
    bounds: dict

    def __call__(self, epoch, logs):
        """Returns the reason to stop after this epoch, or `None`."""
        bound, value = self.bounds.get(epoch), logs[self.objective]
        if bound is None or (value <= bound if DIRECTIONS[self.objective] == "min" else value >= bound):
            return None
        return f"{STOPPED_EARLY}: {self.objective} {value:.4f} after {epoch} epochs, {bound:.4f} was needed to go on"

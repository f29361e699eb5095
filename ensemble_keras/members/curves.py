"""Curves: figures on held-out images after each epoch, their mean over several parts, and the best epoch."""

import numpy as np

# What a monitored figure is when it is better.
DIRECTIONS = {"val_loss": "min", "val_accuracy": "max", "val_auc": "max"}


def best_epoch(curve, objective):
    """Returns where in a curve the best figures stand first.

    Args:
        curve: List of dicts of floats, one an epoch.
        objective: `"val_loss"`, `"val_accuracy"` or `"val_auc"`.
    """
    sign = 1 if DIRECTIONS[objective] == "min" else -1
    return int(np.argmin([sign * figures[objective] for figures in curve]))


def mean_curve(curves, sizes):
    """Returns the mean of curves, as long as the longest.

    A part whose training stopped did not get better: its last figures stand for the epochs that it did not run.

    Args:
        curves: List of curves, as in `best_epoch`.
        sizes: Weight of each curve, its number of images.
    """
    longest = max(map(len, curves))
    padded = [curve + curve[-1:] * (longest - len(curve)) for curve in curves]
    return [
        {name: float(np.average([figures[name] for figures in epoch], weights=sizes)) for name in epoch[0]}
        for epoch in zip(*padded, strict=True)
    ]

"""Sparse search beside the same search without sparsity, on CIFAR-10: the two Pareto fronts at one budget.

    python benchmarks/sparse_search.py --shared ../shared

Both search the same space by the same algorithm. `SparseSearch` runs its trials; the plain search then gets one trial
after another until its trainings have taken as many multiply-accumulates, which is the same on any machine. Fronts
are of the images that choose trials, and their accuracy is told on others, which chose nothing.
"""

import argparse
import math
import tempfile

import _cifar10 as cifar10
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _tables import RESULTS, save_table

import ensemble_keras as ek

FAMILIES = {
    "cnn": {
        "blocks": [2, 3],
        "filters": [8, 16, 24, 32],
        "kernel_size": [3],
        "norm": ["batch"],
        "pooling": ["max"],
        "dropout": [0.0],
    },
    "vgg": {
        "blocks": [2],
        "convolutions": [1, 2],
        "filters": [8, 16, 24],
        "norm": ["batch"],
        "dropout": [0.0],
        "top": ["average"],
    },
}
# So few steps need a strong penalty.
STRENGTHS = [1e-3, 3e-3, 1e-2]
TRAINING = {"learning_rate": [3e-3, 1e-2], "weight_decay": [1e-4], "dropout": [0.0], "batch_size": [32]}
# Multiply-accumulates of an image, which a user may be able to afford.
LIMITS = (0.5e6, 1e6, 2e6, 4e6, 8e6, 16e6)
HEADER = [
    "at most so many MACs",
    "sparse: MACs",
    "accuracy on images that chose nothing",
    "plain: MACs",
    "accuracy on images that chose nothing",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10")
    parser.add_argument("--name", default="sparse_search", help="of the saved table (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=16, help="of the sparse search (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--images", type=int, default=5000, help="training images (default: %(default)s)")
    parser.add_argument("--held", type=int, default=2000, help="validation images (default: %(default)s)")
    parser.add_argument("--output", help="folder for the searches, kept (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sparse, plain = search(options, options.output or folder)
    tables = {"sparse": found(sparse), "plain": found(plain)}
    rows = [row(limit, tables) for limit in LIMITS]
    title = "Sparse search and the same search without sparsity, CIFAR-10"
    save_table(options.name, title, HEADER, rows, notes=notes(options, tables))
    draw(tables, RESULTS / f"{options.name}.png")


def search(options, folder):
    """Returns both searches, which took as much work."""
    (x, y), _, _ = cifar10.load(options.shared)
    images, held = x[: options.images], x[-options.held :]
    data = {"validation_data": (held, y[-options.held :]), "epochs": options.epochs}
    space = ek.search.HyperImageClassifier(cifar10.CLASSES, (32, 32, 3), families=FAMILIES, training=TRAINING)
    shared = {"objective": ["val_accuracy", "macs"], "halving": None, "directory": folder}
    sparse = ek.search.SparseSearch(
        space, strength=STRENGTHS, max_trials=options.trials, project_name="sparse", **shared
    )
    sparse.search(images, y[: options.images], **data)
    budget, trials = work(sparse.leaderboard(), options.epochs), 0
    while True:
        trials += 1
        plain = ek.search.ArchitectureSearch(space, max_trials=trials, project_name="plain", **shared)
        plain.search(images, y[: options.images], **data, verbose=0)
        table = plain.leaderboard()
        if work(table, options.epochs) >= budget:
            return sparse, plain
        if len(table) < trials:
            raise SystemExit(f"The space has only {len(table)} networks, too few for that budget: widen FAMILIES.")


def work(table, epochs):
    """Returns the multiply-accumulates of all epochs of all trials, for one image in each."""
    done = epochs * (table["wide_macs"] if "wide_macs" in table else table["macs"]).sum()
    # Pruned and fine-tuned for half of the epochs, and trained from scratch.
    return done + (math.ceil(epochs / 2) + epochs) * table["macs"].sum() if "wide_macs" in table else done


def found(tuner):
    """Returns the trials of a search with their accuracy on the images that chose nothing, `held`."""
    table = tuner.leaderboard().set_index("genome")
    trials = tuner.completed_trials()
    _, predictions = tuner.predictions(trials)
    labels = tuner.data.comparison.labels
    right = {t.genome_id: np.mean(p.argmax(axis=1) == labels) for t, p in zip(trials, predictions, strict=True)}
    return table.assign(held=pd.Series(right)).sort_values("macs")


def front(table):
    """Returns the trials that no other one betters in accuracy, on the images that choose, and cost."""
    best = table["val_accuracy"].cummax()
    return table[(table["val_accuracy"] == best) & ~best.duplicated()]


def row(limit, tables):
    cells = [f"{limit / 1e6:g} M"]
    for table in tables.values():
        affordable = front(table).query("macs <= @limit")
        best = affordable.iloc[-1] if len(affordable) else None
        cells += ["none", "–"] if best is None else [f"{best['macs'] / 1e6:.2f} M", f"{best['held']:.3f}"]
    return cells


def notes(options, tables):
    sparse, plain = tables["sparse"], tables["plain"]
    narrow = sparse.dropna(subset=["pruned_val_accuracy", "scratch_val_accuracy"])
    share = (narrow["macs"] / narrow["wide_macs"]).astype("float64")
    gains = 100 * (narrow["scratch_val_accuracy"] - narrow["pruned_val_accuracy"])
    losses = 100 * (narrow["val_accuracy"] - narrow["wide_val_accuracy"])
    error = 50 / (options.held // 2) ** 0.5
    return [
        f"{options.images:,} training images, {options.epochs} epochs, one run; {options.held // 2:,} images choose, "
        f"as many others tell the accuracy: a standard error of it is {error:.1f} points at most",
        f"sparse: {len(sparse)} trials, {work(sparse, options.epochs) / 1e9:.2f} G multiply-accumulates of training "
        f"for each image; plain: {len(plain)} trials, {work(plain, options.epochs) / 1e9:.2f} G",
        f"of the wide networks' multiply-accumulates {100 * share.median():.0f} % were left (median; "
        f"{100 * share.min():.0f} to {100 * share.max():.0f} %)",
        f"trained from scratch against pruned and fine-tuned: {gains.mean():+.1f} points on average "
        f"({gains.min():+.1f} to {gains.max():+.1f}); from scratch was better in {(gains > 0).sum()} of {len(gains)}",
        f"the better of both against the wide network under the penalty: {losses.mean():+.1f} points on average",
        f"the fronts: {options.name}.png",
    ]


def draw(tables, path):
    figure, ax = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    names = {"sparse": "sparse search", "plain": "the same space without sparsity"}
    last = max(table["macs"].max() for table in tables.values()) / 1e6
    for place, (name, table) in enumerate(tables.items()):
        best = front(table)
        macs, accuracies = table["macs"].astype("float64") / 1e6, 100 * table["val_accuracy"]
        ax.plot(macs, accuracies, "os"[place], color=f"C{place}", alpha=0.4, markeredgewidth=0)
        costs = [*best["macs"] / 1e6, last]
        heights = [*100 * best["val_accuracy"], 100 * best["val_accuracy"].max()]
        ax.step(costs, heights, where="post", color=f"C{place}", label=names[name])
    ax.set(xscale="log", xlabel="multiply-accumulates of an image, millions", ylabel="validation accuracy in %")
    ax.legend(loc="lower right", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

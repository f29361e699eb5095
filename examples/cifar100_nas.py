"""EnsembleNet on CIFAR-100: a search over nine families of networks, which ends in one model of the best team.

    python examples/cifar100_nas.py --output nas                     # a night on a GPU; Keras downloads the images
    python examples/cifar100_nas.py --output nas --resume            # goes on after a kill, or with more --trials
    python examples/cifar100_nas.py --data digits --output nas       # minutes on two cores, without a network

A genetic search proposes networks of different families and trains them; poor ones stop early. Of all of them a
team is chosen that is best together, and joined three ways, one of them a gate that sees the members' architectures.
The test images are looked at once, at the end. Measured: see benchmarks/results/cifar100_nas.md.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _images import load

import ensemble_keras as ek

# By data: trials, epochs of each, and images of a batch.
SIZES = {"digits": (16, 12, 64)}
LARGE = (200, 30, 128)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar100", help="cifar100, cifar10, digits or an .npz file (%(default)s)")
    parser.add_argument(
        "--output", default="nas", help="folder for the search and what it finds (default: %(default)s)"
    )
    parser.add_argument("--trials", type=int, help="networks to train")
    parser.add_argument("--epochs", type=int, help="epochs of a network that does not stop early")
    parser.add_argument("--families", nargs="+", help="families to search (default: all)")
    parser.add_argument("--max-macs", type=float, help="most multiply-accumulates of a network")
    parser.add_argument("--augmentation", default="none", help="a policy such as cifar (default: %(default)s)")
    parser.add_argument("--parents", choices=["population", "ensemble"], default="population")
    parser.add_argument("--members", type=int, default=5, help="most members of the ensemble (default: %(default)s)")
    parser.add_argument("--images", type=int, help="training images to use (default: all)")
    parser.add_argument("--processes", type=int, help="train so many networks at a time")
    parser.add_argument("--resume", action="store_true", help="go on with the search in --output")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    output = pathlib.Path(options.output)
    if (output / "search").exists() and not options.resume:
        parser.error(f"{output} holds a search: --resume goes on with it, another --output begins a new one.")
    start = time.perf_counter()

    (x, y), (x_test, y_test) = load(options.data)
    x, y = x[: options.images], y[: options.images]
    trials, epochs, batch_size = SIZES.get(options.data, LARGE)
    trials, epochs = options.trials or trials, options.epochs or epochs
    space = ek.search.HyperImageClassifier(
        len(np.unique(y)), x.shape[1:], families=options.families, max_macs=options.max_macs and int(options.max_macs)
    )
    tuner = ek.search.GeneticSearch(
        space,
        max_trials=trials,
        # A quarter of the epochs for all: those that learn slowly are no worse members. Then the better half.
        halving=ek.search.SuccessiveHalving(min_epochs=max(1, epochs // 4), reduction_factor=2),
        parents=options.parents,
        ensemble_size=options.members,
        seed=options.seed,
        directory=output,
        project_name="search",
    )
    tuner.search(
        x,
        y,
        epochs=epochs,
        batch_size=batch_size,
        augmentation=options.augmentation,
        executor=options.processes,
    )
    print(
        tuner.leaderboard().head(10)[["trial", "family", "val_accuracy", "parameters", "macs", "epochs"]].to_string()
    )
    draw(tuner, output)

    joined = {name: join(tuner, options, name) for name in ("greedy", "top", "gated")}
    greedy = joined["greedy"]
    print(f"\nThe team:\n{greedy.members.round(4).to_string(index=False)}\n\n{greedy.verdict}\n")
    table = on_test_images(tuner, joined, x_test, y_test)
    print(table.to_string())
    save(greedy, [str(name) for name in tuner.data.classes], x_test, y_test, output)
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")
    return tuner, greedy, table


def join(tuner, options, combiner):
    return ek.search.SearchEnsemble.from_search(tuner, size=options.members, combiner=combiner, seed=options.seed)


def on_test_images(tuner, joined, x_test, y_test):
    """Returns accuracy and log loss of the best single network and of each ensemble, beside that network."""
    models = {"best single": tuner.get_best_models()[0]} | {name: found.model for name, found in joined.items()}
    said = {name: model.predict(x_test, batch_size=256, verbose=0) for name, model in models.items()}
    rows = {}
    for name, probabilities in said.items():
        difference = ek.compare(probabilities, said["best single"], y_test)
        rows[name] = {
            "accuracy": np.mean(probabilities.argmax(axis=1) == y_test),
            "log_loss": -np.log(np.maximum(probabilities[np.arange(len(y_test)), y_test], 1e-7)).mean(),
            "points": 100 * difference.difference,
            "low": 100 * difference.low,
            "high": 100 * difference.high,
        }
    return pd.DataFrame(rows).T.round(4)


def draw(tuner, output):
    """Draws the search: progress, families, front and lineage."""
    trials = tuner.leaderboard().sort_values("trial")
    figure, axes = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
    ek.plot_search_progress(trials, ax=axes[0, 0])
    ek.plot_family_shares(trials, ax=axes[0, 1])
    ek.plot_search_front(trials, ax=axes[1, 0])
    ek.plot_lineage(trials, ax=axes[1, 1])
    figure.savefig(output / "search.png", dpi=110)
    plt.close(figure)


def save(found, class_names, x_test, y_test, output):
    """Saves the model and its report."""
    card = {"class_names": class_names, "filter": "bilinear", "verdict": found.verdict}
    ek.save_ensemble(found.model, output / "ensemble.keras", card=card, verbose=0)
    report = ek.EvaluationReport.from_model(
        found.model, x_test, y_test, class_names=class_names, verdict=found.verdict, verbose=0
    )
    report.to_html(output / "report.html")
    print(
        f"The model is in {output / 'ensemble.keras'}, the report in {output / 'report.html'}, the best single "
        f"network in {output / 'search' / 'champion.py'}."
    )


if __name__ == "__main__":
    main()

"""Pruning on CIFAR-10: how much of a small VGG-like network can go, and what that costs and saves.

    python benchmarks/pruning.py --shared ../shared

A network is trained from scratch until its learning rate is 0, pruned (a penalty, one threshold over all layers,
rebuilt narrower, fine-tuned), and compared with itself: accuracy on the test images, parameters,
multiply-accumulates, and latency at batch 1 and 32. Since pruning trains on, the network is also trained on for as
many epochs without anything being removed.
"""

import argparse
import os
import statistics

import _cifar10 as cifar10
import keras
import numpy as np
from _tables import save_table

import ensemble_keras as ek
from ensemble_keras.compression.slicing import remove_channels
from ensemble_keras.features.extraction import predict
from ensemble_keras.measures.cost import measure_latencies
from ensemble_keras.search.family import get_family

GENES = {"blocks": 4, "convolutions": 2, "norm": "batch", "dropout": 0.0, "top": "average"}
MACS, PARAMETERS = 0.45, 0.7
HEADER = ["seed", "what", "test accuracy", "parameters", "multiply-accumulates", "batch 1, ms", "batch 32, ms"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10")
    parser.add_argument("--name", default="pruning", help="of the saved table (default: %(default)s)")
    parser.add_argument("--images", type=int, default=6000, help="training images (default: %(default)s)")
    parser.add_argument("--tests", type=int, default=10000, help="test images (default: %(default)s)")
    parser.add_argument("--filters", type=int, default=16, help="of the first block (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="of the network (default: %(default)s)")
    parser.add_argument("--sparse-epochs", type=int, default=8, help="with the penalty (default: %(default)s)")
    parser.add_argument("--tuning-epochs", type=int, default=16, help="of the narrow network (default: %(default)s)")
    parser.add_argument("--penalties", nargs="+", default=["group_lasso"], help="as in prune_model (default: one)")
    parser.add_argument("--strength", type=float, help="λ; defaults to prune_model's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few images, one seed, few epochs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.tests, options.seeds = 300, 300, 1
        options.epochs, options.sparse_epochs, options.tuning_epochs = 2, 1, 1
    sets = data(options)
    runs = []
    for seed in range(options.seeds):
        runs.append(run(sets, options, seed))
        save(runs, sets, options)


def save(runs, sets, options):
    rows = [[seed, *row] for seed, figures in enumerate(runs) for row in rows_of(figures)]
    save_table(
        f"{options.name}{'_quick' if options.quick else ''}",
        "Pruning a small network, CIFAR-10",
        HEADER,
        rows,
        notes=[
            f"filters of the convolutions: {runs[0]['network']['filters']}",
            *(note for penalty in options.penalties for note in summary(runs, penalty)),
            f"VGG-like: {GENES}, filters {options.filters}; {len(sets['train'])} training images, {options.epochs} "
            f"epochs; then {options.sparse_epochs} with the penalty and {options.tuning_epochs} of "
            f"fine-tuning; trained on: as many without a penalty, with nothing removed; asked for {MACS:.0%} of the "
            f"multiply-accumulates and {PARAMETERS:.0%} of the parameters",
            f"{len(sets['test'])} test images; {len(sets['held out'])} others choose the epoch; latency of "
            "`predict_on_batch`, median of 30 calls of each network in turns; threads of an operation: "
            f"{os.environ.get('TF_NUM_INTRAOP_THREADS', 'all')}",
        ],
    )


def data(options):
    (x, y), (x_test, y_test), names = cifar10.load(options.shared)
    held = slice(-200 if options.quick else -1000, None)
    parts = {
        "train": (x[: options.images], y[: options.images]),
        "held out": (x[held], y[held]),
        "test": (x_test[: options.tests], y_test[: options.tests]),
    }
    return {name: ek.ImageDataset.from_arrays(*part, class_names=names) for name, part in parts.items()}


def run(sets, options, seed):
    """Returns the networks of one seed with their figures: a dict from what they are to a dict."""
    keras.utils.set_random_seed(seed)
    network = vgg(options.filters)
    train(network, sets, options.epochs, seed)
    further = remove_channels(network, {})
    train(further, sets, options.sparse_epochs + options.tuning_epochs, seed)
    models = {"network": network, "trained on": further}
    for penalty in options.penalties:
        models[pruned(penalty)] = ek.prune_model(
            network,
            sets["train"],
            validation_data=sets["held out"],
            penalty=penalty,
            strength=options.strength,
            remove_macs=MACS,
            remove_parameters=PARAMETERS,
            settings=settings(options.sparse_epochs),
            fine_tuning=settings(options.tuning_epochs),
            augmentation="cifar",
            seed=seed,
            verbose=0,
        )
    latencies = [measure_latencies(list(models.values()), batch_size=size) for size in (1, 32)]
    figures = {}
    for place, (name, model) in enumerate(models.items()):
        figures[name] = {
            "accuracy": float(np.mean(predict(model, sets["test"], verbose=0).argmax(axis=1) == sets["test"].labels)),
            "parameters": model.count_params(),
            "macs": ek.count_macs(model).total,
            "batch 1": latencies[0][place],
            "batch 32": latencies[1][place],
            "filters": ", ".join(str(layer.filters) for layer in model.layers if hasattr(layer, "filters")),
        }
        print(f"seed {seed}, {name}: {figures[name]}", flush=True)
    return figures


def pruned(penalty):
    return f"pruned, {penalty}"


def vgg(filters):
    """Builds a VGG-like network of the searched family."""
    images = keras.Input((32, 32, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scaled")(images)
    x = get_family("vgg").build(x, {**GENES, "filters": filters})
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    outputs = keras.layers.Dense(cifar10.CLASSES, activation="softmax", name="predictions")(x)
    return keras.Model(images, outputs, name="vgg")


def settings(epochs):
    return ek.FineTuning(
        epochs=epochs,
        batch_size=64,
        learning_rate=2e-3,
        train_batch_norm=True,
        monitor="val_accuracy",
        patience=epochs,
    )


def train(network, sets, epochs, seed):
    ek.fine_tune(
        network,
        sets["train"],
        validation_data=sets["held out"],
        settings=settings(epochs),
        augmentation="cifar",
        probe=False,
        seed=seed,
        verbose=0,
    )


def rows_of(figures):
    return [
        [
            name,
            f"{run['accuracy']:.4f}",
            f"{run['parameters']:,}",
            f"{run['macs']:,}",
            f"{run['batch 1']:.2f}",
            f"{run['batch 32']:.2f}",
        ]
        for name, run in figures.items()
    ]


def summary(runs, penalty):
    """Returns what pruning under a penalty saves and costs, in the mean over the seeds, and what it left."""
    narrow = pruned(penalty)

    def mean(function):
        values = [function(figures) for figures in runs]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.2f}{spread}"

    def gone(name):
        return mean(lambda run: 100 * (1 - run[narrow][name] / run["network"][name]))

    def points(name):
        return mean(lambda run: 100 * (run[narrow]["accuracy"] - run[name]["accuracy"]))

    def faster(name):
        return mean(lambda run: run["network"][name] / run[narrow][name])

    notes = [
        f"gone: {gone('parameters')} % of the parameters (target ≥ 70), {gone('macs')} % of the multiply-accumulates "
        "(target ≥ 45)",
        f"accuracy, pruned − network: {points('network')} points (target ≥ −0.5); pruned − network trained on: "
        f"{points('trained on')} points",
        f"latency, network ÷ pruned: {faster('batch 1')} at batch 1, {faster('batch 32')} at batch 32",
        f"filters of the convolutions, by seed: {'; '.join(figures[narrow]['filters'] for figures in runs)}",
    ]
    return [f"{penalty}: {note}" for note in notes]


if __name__ == "__main__":
    main()

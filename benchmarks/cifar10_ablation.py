"""The ablation table of a CIFAR-10 project: one change on top of the other, from random weights to transfer learning.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/cifar10_ablation.py --shared ../shared --images 2000

With `--directory` finished rows and epochs are kept: start the same command again after a kill, and it goes on.
"""

import argparse
import time

import _cifar10 as cifar10
import numpy as np
from _tables import save_table

import ensemble_keras as ek

# What all rows begin with. All that transfer learning would otherwise change by its defaults is set here.
BASE = {
    "backbone": "CNN",
    "weights": None,
    "image_size": 32,
    "resize_to": 64,
    "interpolation": "nearest",
    "epochs": 4,
    "batch_size": 16,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "warmup_epochs": 0.5,
    "global_clipnorm": 1.0,
    "patience": 10,
    # With 200 images set apart, the loss is lowest epochs before the accuracy is highest.
    "monitor": "val_accuracy",
}
CHANGES = {
    "more epochs": {"epochs": 10},
    "bicubic": {"interpolation": "bicubic"},
    "rotation": {"augmentation": "+rotation"},
    "blur": {"augmentation": "+blur"},
    "transfer learning": {"backbone": "MobileNetV2(alpha=0.35)", "weights": "imagenet"},
    "lower learning rate": {"learning_rate": 3e-4},
    "larger batch": {"batch_size": 32},
    "AdamW": {"optimizer": "adamw", "weight_decay": 0.05},
    "class weights": {"class_weight": {"airplane": 1.5, "bird": 1.5, "cat": 1.5, "dog": 1.5}},
    "shifts and flips": {"augmentation": ["+crop", "+flip"]},
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder that holds data/cifar10")
    parser.add_argument("--images", type=int, default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--test-images", type=int, default=2000, help="test images (default: %(default)s)")
    parser.add_argument("--mode", default="cumulative", choices=["cumulative", "leave_one_out"])
    parser.add_argument("--rows", type=int, default=len(CHANGES), help="only the first so many changes")
    parser.add_argument("--epochs", type=int, help="of all rows, for a quick look")
    parser.add_argument("--directory", help="folder that keeps finished work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="cifar10_ablation", help="of the saved table (default: %(default)s)")
    options = parser.parse_args(arguments)
    changes = dict(list(CHANGES.items())[: options.rows])
    base = dict(BASE)
    if options.epochs:
        base["epochs"] = options.epochs
        changes.pop("more epochs", None)
    train, test = load(options)
    start = time.perf_counter()
    result = ek.ablation(
        changes, train, test, base=base, mode=options.mode, directory=options.directory, seed=options.seed
    )
    report(result, changes, base, options, time.perf_counter() - start)


def load(options):
    """Returns training and test images, drawn at random."""
    *parts, names = cifar10.load(options.shared)
    datasets = []
    for (x, y), count in zip(parts, (options.images, options.test_images), strict=True):
        rows = np.sort(np.random.default_rng(0).permutation(len(x))[:count])
        datasets.append(ek.ImageDataset.from_arrays(x[rows], y[rows], class_names=names))
    return datasets


def report(result, changes, base, options, seconds):
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in result.to_markdown().splitlines()
    ]
    settings = ", ".join(f"{name} {value}" for name, value in base.items())
    of_rows = result.table["seconds"].sum()
    notes = [
        f"{options.images} training and {options.test_images} test images, seed {options.seed}. Base: {settings}",
        *(
            f"{name}: {', '.join(f'{key} {value}' for key, value in change.items())}"
            for name, change in changes.items()
        ),
        f"seconds are those of training a row; {of_rows:.0f} in all, this command took {seconds:.0f} s",
        *(f"{row['experiment']}: {row['note']}" for row in result.table.to_dict("records") if row["note"]),
        "the interval is that of a paired bootstrap of these test images; it says nothing of other seeds",
    ]
    save_table(options.name, f"CIFAR-10, ablation ({options.mode})", header, rows, notes=notes)


if __name__ == "__main__":
    main()

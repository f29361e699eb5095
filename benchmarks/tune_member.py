"""Tuning a head on CIFAR-10 features: how long the trials take, and what they gain over the solved linear head.

KERAS_HOME=copy-of-shared/keras_home python benchmarks/tune_member.py --shared ../shared
"""

import argparse

import _cifar10 as cifar10
import numpy as np
from _tables import save_table

import ensemble_keras as ek
from ensemble_keras.measures.metrics import metric_summary

BACKBONE = "MobileNetV2(alpha=0.35)"
HEADER = [
    "tuner",
    "trials",
    "seconds",
    "head",
    "held-out loss",
    "solved",
    "test loss",
    "solved",
    "test accuracy",
    "solved",
]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10")
    parser.add_argument("--images", type=int, default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--test-images", type=int, default=5000, help="test images (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--tuners", nargs="+", default=["bayesian", "random", "hyperband"])
    parser.add_argument("--store", help="feature store to use (default: none)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="tune_member", help="of the saved table (default: %(default)s)")
    options = parser.parse_args(arguments)
    train, test = load(options)
    # One trial, whose values cannot win: what is left is the solved head.
    solved = tune(train, options, "random", 1, hyperparameters={"epochs": [1], "learning_rate": [1e-6]})
    baseline = ek.EvaluationReport.from_model(solved.member, test, class_names=train.class_names)
    rows, notes = [], []
    for tuner in options.tuners:
        tuned = tune(train, options, tuner, options.trials)
        report = ek.EvaluationReport.from_model(tuned.member, test, class_names=train.class_names)
        gain = ek.compare(report.probabilities, baseline.probabilities, test.labels, metric="log_loss")
        rows.append(row(tuner, tuned, report, baseline, test))
        notes.append(f"{tuner}: {tuned.hyperparameters}; against the solved head on the test images {gain}")
    setting = (
        f"{BACKBONE}, {options.images} training images at {options.image_size} px, a fifth of them held out, "
        f"{options.test_images} test images, seed {options.seed}; seconds are the sum of the trials'"
    )
    save_table(options.name, "Tuning a head on cached features", HEADER, rows, notes=[setting, *notes])


def load(options):
    *parts, names = cifar10.load(options.shared)
    datasets = []
    for seed, ((x, y), count) in enumerate(zip(parts, (options.images, options.test_images), strict=True)):
        rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:count])
        datasets.append(ek.ImageDataset.from_arrays(x[rows], y[rows], class_names=names))
    return datasets


def tune(train, options, tuner, trials, **arguments):
    given = {"image_size": options.image_size, "store": options.store, "seed": options.seed, **arguments}
    return ek.tune_member(BACKBONE, train, tuner=tuner, max_trials=trials, **given)


def row(tuner, tuned, report, baseline, test):
    trials = tuned.trials.set_index("trial")
    figures = [metric_summary(test.labels, each.probabilities) for each in (report, baseline)]
    return [
        tuner,
        len(trials) - 1,
        f"{trials['seconds'].drop(0).sum():.0f}",
        tuned.hyperparameters["head"],
        f"{trials['val_loss'].min():.4f}",
        f"{trials['val_loss'][0]:.4f}",
        *(f"{each['log_loss']:.4f}" for each in figures),
        *(f"{each['accuracy']:.4f}" for each in figures),
    ]


if __name__ == "__main__":
    main()

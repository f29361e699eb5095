"""Whether prediction sets hold the true class as often as promised, on images that nothing was fitted on.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/conformal.py --shared ../shared

CIFAR-10 with three frozen members at 112 pixels, whose test images are drawn like its training images, and chest
X-rays with four at 224 pixels, whose test folder comes from another distribution. Sets are fitted on out-of-fold
predictions and judged by all test images; or fitted on a random half of the test images and judged by the other half,
many times anew, with patients in one half and weighing alike.
"""

import argparse
import tempfile

import numpy as np
from _tables import save_table
from combiners import SETS, solve

import ensemble_keras as ek
from ensemble_keras.combiners.choice import named_combiners, try_combiner
from ensemble_keras.combiners.fitting import combine
from ensemble_keras.measures.conformal import set_figures
from ensemble_keras.measures.uncertainty import abstention_threshold

COMBINERS = ["soft_voting", "concatenate"]
KINDS = [
    *({"method": "lac", "coverage": coverage} for coverage in (0.8, 0.9, 0.95)),
    {"method": "lac", "coverage": 0.9, "per_class": True},
    {"method": "aps", "coverage": 0.9},
    {"method": "raps", "coverage": 0.9},
]
HEADER = [
    "images",
    "combiner",
    "sets",
    "promised",
    "coverage, out-of-fold fit, 95 % interval",
    "coverage, calibration set, mean ± deviation",
    "lowest class",
    "classes in a set",
    "sets of one class",
    "empty sets",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10, chest_xray, models")
    parser.add_argument("--images", type=int, default=10000, help="CIFAR training images (default: %(default)s)")
    parser.add_argument("--splits", type=int, default=100, help="halvings of the test images (default: %(default)s)")
    parser.add_argument("--sets", nargs="+", choices=["cifar10", "chest_xray"], default=["cifar10", "chest_xray"])
    parser.add_argument("--store", help="path of a feature store to keep")
    parser.add_argument("--quick", action="store_true", help="few images; saved under another name")
    options = parser.parse_args()
    if options.quick:
        options.images, options.splits = 1500, 5
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            train, test, size, backbones = SETS[name](options)
            problem = solve(train, test, size, backbones, options.store or f"{folder}/features.sqlite")
            notes.append(f"{name}: {len(train)} training and {len(test)} test images at {size} px, 5 folds")
            for combiner in COMBINERS:
                out_of_fold, tested = predictions(problem, combiner)
                rows += [row(name, combiner, problem, out_of_fold, tested, kind, options.splits) for kind in KINDS]
                notes.append(f"{name}, {combiner}: {answers(problem, out_of_fold, tested)}")
    title = "Prediction sets with a promised coverage"
    save_table(f"conformal{'_quick' if options.quick else ''}", title, HEADER, rows, notes=notes)


def predictions(problem, combiner):
    """Returns what a combiner says out of fold, and of the test images."""
    [layer] = named_combiners(combiner, problem.num_classes).values()
    tried = try_combiner(combiner, layer, problem.predictions, problem.y, problem.folds, features=problem.features)
    return tried.out_of_fold, combine(tried.fitted, problem.test_predictions, problem.test_features)


def row(name, combiner, problem, out_of_fold, tested, arguments, splits):
    sets = ek.fit_conformal(out_of_fold, problem.y, groups=problem.groups, **arguments).predict(tested)
    figures = set_figures(sets, problem.y_test, groups=problem.test_groups)
    of_all = figures.loc["all"]
    halves = halved(problem, tested, arguments, splits)
    return [
        name,
        combiner,
        f"{arguments['method']}{', per class' * arguments.get('per_class', False)}",
        f"{arguments['coverage']:.0%}",
        f"{of_all['coverage']:.2%} ({of_all['low']:.2%} to {of_all['high']:.2%})",
        f"{np.mean(halves):.2%} ± {np.std(halves):.2%}",
        f"{figures['coverage'].drop('all').min():.1%}",
        f"{of_all['size']:.2f}",
        f"{of_all['single']:.1%}",
        f"{of_all['empty']:.1%}",
    ]


def halved(problem, tested, arguments, splits):
    """Returns the coverage of a random half of the test images by sets that were fitted on the other, often anew."""
    rng, n = np.random.default_rng(0), len(tested)
    units = np.arange(n) if problem.test_groups is None else np.unique(problem.test_groups, return_inverse=True)[1]
    found = []
    for _ in range(splits):
        first = rng.permutation(units.max() + 1)[units] <= units.max() // 2
        groups = None if problem.test_groups is None else units[first]
        conformal = ek.fit_conformal(tested[first], problem.y_test[first], groups=groups, **arguments)
        sets = conformal.predict(tested[~first])
        covered = sets[np.arange(len(sets)), problem.y_test[~first]]
        # The promise is of a new patient, however many images there are of them.
        of_unit = np.bincount(units[~first])
        found.append(np.mean(np.bincount(units[~first], covered)[of_unit > 0] / of_unit[of_unit > 0]))
    return found


def answers(problem, out_of_fold, tested):
    """Says what is answered of the test images where out-of-fold predictions promise an accuracy of 95 %."""
    threshold = abstention_threshold(out_of_fold, problem.y, accuracy=0.95)
    right = tested.argmax(axis=1) == problem.y_test
    answered = tested.max(axis=1) >= threshold
    expected = (out_of_fold.max(axis=1) >= threshold).mean()
    return (
        f"accuracy {right.mean():.2%} of all; of the {answered.mean():.1%} with a confidence of at least "
        f"{threshold:.3f} ({expected:.1%} out of fold), which promises 95 %, {right[answered].mean():.2%}"
    )


if __name__ == "__main__":
    main()

"""Every combiner on real data, on images that nothing was fitted on, and whether "auto" chooses well.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/combiners.py --shared ../shared

(1) Chest X-rays with four pretrained members at 224 pixels, folds by patient; the test folder comes from another
    distribution; (2) CIFAR-10 and (3) CIFAR-100, three members at 112 pixels.

Members are frozen backbones with solved heads. What a combiner learns from are out-of-fold predictions; the fitted
combiners see the test images once. Then the choice and its verdict are made anew on resampled out-of-fold rows,
and held against the sign of the difference on the test images.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time

import numpy as np
from _tables import save_table
from chest_xray import register_squeezenet
from sklearn.metrics import roc_auc_score

import ensemble_keras as ek
from ensemble_keras.combiners.choice import choose, named_combiners, try_combiner
from ensemble_keras.combiners.fitting import combine
from ensemble_keras.data.splits import make_folds
from ensemble_keras.features.extraction import extract
from ensemble_keras.measures.calibration import expected_calibration_error
from ensemble_keras.measures.metrics import log_losses
from ensemble_keras.members.fitting import fit_frozen_member
from ensemble_keras.runs import Run

BACKBONES = ["MobileNetV2", "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"]
COMBINERS = [
    "best_member",
    "soft_voting",
    "hard_voting",
    "geometric_voting",
    "weighted_voting",
    "greedy",
    "stacking",
    "concatenate",
    "gated",
]
# What "auto" compares, the simplest first.
AUTO = [name for name in COMBINERS if name not in ("hard_voting", "geometric_voting")]
HEADER = [
    "combiner",
    "members",
    "out-of-fold accuracy",
    "test accuracy",
    "test log loss",
    "calibration error",
    "difference to the best member, 95 % interval",
    "cost ÷ best member's",
    "seconds",
]


@dataclasses.dataclass
class Problem:
    """Members' predictions and features of training images (out of fold) and test images.

    Attributes:
        names: List of member names.
        predictions, test_predictions: Arrays `(n, members, num_classes)`.
        features, test_features: Lists of arrays `(n, d)`.
        y, y_test, folds, groups: Arrays `(n,)`.
        macs: List of multiply-accumulates.
        descriptors: List of what `describe_architecture` says.
    """

    names: list
    predictions: np.ndarray
    test_predictions: np.ndarray
    features: list
    test_features: list
    y: np.ndarray
    y_test: np.ndarray
    folds: np.ndarray
    groups: np.ndarray | None
    test_groups: np.ndarray | None
    macs: list
    descriptors: list

    @property
    def num_classes(self):
        """Number of classes."""
        return self.predictions.shape[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shared", default="../shared", help="folder with data/cifar10, cifar100, chest_xray, models"
    )
    parser.add_argument("--images", type=int, default=10000, help="CIFAR training images (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--store", help="path of a feature store to keep")
    parser.add_argument("--quick", action="store_true", help="few images; saved under another name")
    options = parser.parse_args()
    if options.quick:
        options.images, options.resamples = 1500, 3
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or f"{folder}/features.sqlite"
        for name in options.sets:
            train, test, size, backbones = SETS[name](options)
            problem = solve(train, test, size, backbones, store)
            start = time.perf_counter()
            found, tested = candidates_of(problem)
            print(f"{name}: combiners fitted in {time.perf_counter() - start:.0f} s", flush=True)
            rows, notes = compare_all(problem, found, tested)
            notes.append(contradictions(problem, found, tested, options))
            save_table(
                f"combiners_{name}{'_quick' if options.quick else ''}",
                f"Combiners on {name}",
                HEADER,
                rows,
                notes=[f"{len(train)} training and {len(test)} test images at {size} px, 5 folds", *notes],
            )


def cifar(name):
    def sets(options):
        folder = pathlib.Path(options.shared) / "data"
        sys.path.insert(0, str(folder))
        from shared_data import load_cifar

        (x, y), (x_test, y_test), names = load_cifar(name)
        tests = 300 if options.quick else None
        train = ek.ImageDataset.from_arrays(x[: options.images], y[: options.images], class_names=names)
        test = ek.ImageDataset.from_arrays(x_test[:tests], y_test[:tests], class_names=names)
        return train, test, 112, BACKBONES

    return sets


def xray(options):
    data = pathlib.Path(options.shared) / "data"
    train, test = (
        ek.ImageDataset.from_directory(
            data / "chest_xray" / part, groups=lambda path: pathlib.Path(path).stem.split("_")[0]
        )
        for part in ("train", "test")
    )
    if options.quick:
        train = train[np.random.default_rng(0).permutation(len(train))[:400]]
    register_squeezenet(data / "models" / "squeezenet1.1_imagenet.keras")
    return train, test, 224, [*BACKBONES, "SqueezeNet"]


SETS = {"chest_xray": xray, "cifar10": cifar("cifar10"), "cifar100": cifar("cifar100")}


def solve(train, test, size, backbones, store):
    """Solves the heads of frozen members; returns the `Problem`."""
    trunks = {name: ek.build_backbone(name, input_shape=(size, size, 3)) for name in backbones}
    options = {"image_size": (size, size), "store": store}
    features, test_features = (extract(trunks, part, **options).features for part in (train, test))
    folds = make_folds(train.labels, groups=train.groups, cv=5, seed=0, digests=train.digests())
    num_classes = len(train.class_names)
    with Run(None, {}) as run:
        members = [
            fit_frozen_member(
                name,
                trunk,
                features[name],
                train.labels,
                folds,
                num_classes=num_classes,
                seed=0,
                head="linear",
                run=run,
            )
            for name, trunk in trunks.items()
        ]
    return Problem(
        names=backbones,
        predictions=np.stack([m.out_of_fold for m in members], axis=1),
        test_predictions=np.stack([head(m.model, test_features[m.name]) for m in members], axis=1),
        features=list(features.values()),
        test_features=list(test_features.values()),
        y=train.labels,
        y_test=test.labels,
        folds=folds,
        groups=None if train.groups is None else np.asarray(train.groups),
        test_groups=None if test.groups is None else np.asarray(test.groups),
        macs=[ek.count_macs(m.model).total for m in members],
        descriptors=[
            ek.describe_architecture(m.model, skill=float(np.mean(m.out_of_fold.argmax(axis=1) == train.labels)))
            for m in members
        ],
    )


def head(member, features):
    """Returns what a member's head gives for features."""
    kernel, bias = member.get_layer("predictions").get_weights()
    logits = features.astype("float64") @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)).astype("float32")


def candidates_of(problem):
    """Returns `Candidate`s, and each one's probabilities of the test images."""
    found, tested = [], []
    for name in COMBINERS:
        if name == "gated":
            layer = ek.ArchitectureGate(problem.descriptors)
        else:
            [layer] = named_combiners(name, problem.num_classes).values()
        candidate = try_combiner(
            name, layer, problem.predictions, problem.y, problem.folds, features=problem.features
        )
        found.append(candidate)
        tested.append(combine(candidate.fitted, problem.test_predictions, problem.test_features))
    return found, tested


def best_member(problem):
    """The member that is best out of fold."""
    return int(np.argmax([np.mean(p.argmax(axis=1) == problem.y) for p in problem.predictions.swapaxes(0, 1)]))


def compare_all(problem, found, tested):
    """Returns the rows of the table, and what is to be said of `"auto"`."""
    best = best_member(problem)
    alone = problem.test_predictions[:, best]
    chosen = choose([c for c in found if c.name in AUTO], problem.y, groups=problem.groups)
    rows = []
    for member, name in enumerate(problem.names):
        p = problem.test_predictions[:, member]
        out_of_fold = problem.predictions[:, member]
        rows.append(row(f"{name} alone", 1, out_of_fold, p, alone, problem, problem.macs[member], best, ""))
    for candidate, p in zip(found, tested, strict=True):
        name = f"{candidate.name} (auto)" if candidate is chosen else candidate.name
        cost = sum(problem.macs[i] for i in candidate.used)
        text = f"{candidate.seconds:.1f}"
        rows.append(row(name, len(candidate.used), candidate.out_of_fold, p, alone, problem, cost, best, text))
    of_auto = tested[found.index(chosen)]
    accuracies = [np.mean(p.argmax(axis=1) == problem.y_test) for p in tested]
    top = tested[int(np.argmax(accuracies))]
    lag = ek.compare(of_auto, top, problem.y_test, groups=problem.test_groups)
    notes = [
        f'"auto" chose {chosen.name}; on the test images against the best combiner there, '
        f"{COMBINERS[int(np.argmax(accuracies))]}: {lag}",
    ]
    if problem.num_classes == 2:
        aucs = [roc_auc_score(problem.y_test, p[:, 1]) for p in tested]
        top = tested[int(np.argmax(aucs))]
        lag = ek.compare(of_auto, top, problem.y_test, metric="roc_auc", groups=problem.test_groups)
        listed = ", ".join(f"{c.name} {auc:.4f}" for c, auc in zip(found, aucs, strict=True))
        notes.append(f"test ROC AUC: {listed}; of auto against {COMBINERS[int(np.argmax(aucs))]}: {lag}")
    return rows, notes


def row(name, count, out_of_fold, p, alone, problem, cost, best, seconds):
    difference = ek.compare(p, alone, problem.y_test, groups=problem.test_groups)
    return [
        name,
        count,
        f"{np.mean(out_of_fold.argmax(axis=1) == problem.y):.4f}",
        f"{np.mean(p.argmax(axis=1) == problem.y_test):.4f}",
        f"{log_losses(problem.y_test, p).mean():.4f}",
        f"{expected_calibration_error(p, problem.y_test):.4f}",
        f"{100 * difference.difference:+.2f} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})",
        f"{cost / problem.macs[best]:.2f}",
        seconds,
    ]


def contradictions(problem, found, tested, options):
    """Chooses on resampled out-of-fold rows; counts verdicts whose interval excludes the sign on the test images."""
    rng = np.random.default_rng(0)
    wrong, claims, names = 0, 0, []
    test_right = {c.name: p.argmax(axis=1) == problem.y_test for c, p in zip(found, tested, strict=True)}
    members_right = problem.test_predictions.argmax(axis=2) == problem.y_test[:, None]
    for _ in range(options.resamples):
        train = rng.choice(len(problem.y), len(problem.y))
        y, predictions = problem.y[train], problem.predictions[train]
        groups = None if problem.groups is None else problem.groups[train]
        candidates = [dataclasses.replace(c, out_of_fold=c.out_of_fold[train]) for c in found if c.name in AUTO]
        chosen = choose(candidates, y, groups=groups)
        names.append(chosen.name)
        best = int(np.argmax(np.mean(predictions.argmax(axis=2) == y[:, None], axis=0)))
        said = ek.compare(chosen.out_of_fold, predictions[:, best], y, groups=groups)
        sign = np.mean(test_right[chosen.name]) - np.mean(members_right[:, best])
        claims += said.low > 0
        wrong += (said.low > 0 and sign < 0) or (said.high < 0 and sign > 0)
    counts = ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names)))
    return (
        f"chosen anew on {options.resamples} resamples of the out-of-fold rows: the verdict's interval excluded the "
        f"sign of the difference on the test images {wrong} times (a gain was claimed {claims} times); "
        f"chosen: {counts}"
    )


if __name__ == "__main__":
    main()

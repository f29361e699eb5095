"""What solved linear heads cost beside the forward pass, and beside scikit-learn's fits one after another.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/linear_heads.py --shared ../shared

(1) CIFAR-100, 100 classes: a pass of MobileNetV2 over the images at 112 pixels (bicubic, inside the model) and the
    heads of 5 folds with their strength chosen, in turn; then scikit-learn's fits at the chosen strength.
(2) Chest X-rays, two classes, three backbones: 5 folds and 6 strengths, ours and scikit-learn's fits in turn.

Both sides get the same features, standardised in the same way, the same folds and the same strengths.
"""

import argparse
import pathlib
import statistics
import sys
import time

import numpy as np
from _tables import save_table
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

import ensemble_keras as ek
from ensemble_keras.members.heads import solve_linear_head
from ensemble_keras.members.standardisation import Standardisation

BACKBONES = ["MobileNetV2", "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"]
STRENGTHS = np.geomspace(1e-4, 0.3, 6).tolist()
FOLDS = 5
HEADER = ["measure", "target", "found", "seconds", "detail"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar100 and data/chest_xray")
    parser.add_argument("--repeats", type=int, default=3, help="of which the median counts (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few images, nothing saved under the usual name")
    arguments = parser.parse_args()
    data = pathlib.Path(arguments.shared) / "data"
    repeats = 1 if arguments.quick else arguments.repeats
    rows = [
        *many_classes(data, repeats, 30 if arguments.quick else 150),
        *two_classes(data, repeats, 400 if arguments.quick else None),
    ]
    save_table(
        "linear_heads_quick" if arguments.quick else "linear_heads",
        "Linear heads, solved",
        HEADER,
        rows,
        notes=[
            f"medians of {repeats} runs, ours and the other side in turn",
            "scikit-learn: `LogisticRegression` (lbfgs, at most 1,000 iterations), with its default tolerance 1e-4 "
            "for the times, 1e-6 for the log losses",
        ],
    )


def many_classes(data, repeats, images_per_class):
    """CIFAR-100: heads against the forward pass, and their log loss against scikit-learn's."""
    x, y = cifar100(data, images_per_class)
    folds = stratified_folds(y)
    backbone = ek.build_backbone("MobileNetV2", input_shape=(32, 32, 3), resize_to=112, interpolation="bicubic")
    backbone.predict(x[:256], batch_size=64, verbose=0)
    passes, solves = [], []
    for repeat in range(repeats):
        seconds, features = timed(lambda: backbone.predict(x, batch_size=64, verbose=0))
        passes.append(seconds)
        seconds, head = timed(lambda features=features: solve_linear_head(features, y, folds, num_classes=100))
        solves.append(seconds)
        print(f"CIFAR-100, {repeat + 1}: pass {passes[-1]:.1f} s, heads {solves[-1]:.1f} s", flush=True)
    converged, seconds, _ = one_by_one(features, y, folds, [head.strength], tol=1e-6)
    accuracy = np.mean(head.out_of_fold.argmax(axis=1) == y)
    shape = f"{len(y):,} x {features.shape[1]:,}, 100 classes, {FOLDS} folds"
    times = f"{statistics.median(solves):.1f} / {statistics.median(passes):.1f}"
    ratio = statistics.median(a / b for a, b in zip(solves, passes, strict=True))
    difference = head.log_loss - converged[head.strength]
    return [
        ["CIFAR-100: heads ÷ forward pass", "≤ 0.25", f"{ratio:.3f}", times, shape],
        ["CIFAR-100: out-of-fold log loss", "≤ 1.42", f"{head.log_loss:.4f}", "", f"accuracy {accuracy:.4f}"],
        [
            "CIFAR-100: log loss − scikit-learn's",
            "within .002",
            f"{difference:+.4f}",
            f"{seconds:.1f} for its {FOLDS} fits",
            f"at C = {head.strength:.3g}, strength not searched by scikit-learn",
        ],
    ]


def two_classes(data, repeats, count):
    """Chest X-rays: heads against scikit-learn's fits one after another, for three backbones."""
    train = ek.ImageDataset.from_directory(data / "chest_xray" / "train")
    if count is not None:
        train = train[np.sort(np.random.default_rng(0).permutation(len(train))[:count])]
    features = ek.extract_features(BACKBONES, train, image_size=224, verbose=0)
    folds = stratified_folds(train.labels)
    rows, ours, theirs = [], np.zeros(repeats), np.zeros(repeats)
    for name, vectors in features.items():
        for repeat in range(repeats):
            seconds, head = timed(lambda vectors=vectors: solve(vectors, train.labels, folds))
            ours[repeat] += seconds
            losses, seconds, _ = one_by_one(vectors, train.labels, folds, STRENGTHS, tol=1e-4)
            theirs[repeat] += seconds
        rows.append(row_of_losses(name, head, vectors, train.labels, folds, losses))
    fits = f"{len(features)} backbones x {FOLDS} folds x {len(STRENGTHS)} strengths, {len(train):,} images"
    times = f"{np.median(theirs):.1f} / {np.median(ours):.2f}"
    return [["X-rays: scikit-learn's fits ÷ ours", "≥ 8", f"{np.median(theirs / ours):.1f}", times, fits], *rows]


def solve(features, y, folds):
    return solve_linear_head(features, y, folds, num_classes=2, strengths=STRENGTHS)


def row_of_losses(name, head, features, y, folds, losses):
    """Compares the log losses at the strength that we chose, scikit-learn converged."""
    converged, _, accuracy = one_by_one(features, y, folds, [head.strength], tol=1e-6)
    theirs = min(losses, key=losses.get)
    ours = np.mean(head.out_of_fold.argmax(axis=1) == y)
    detail = f"C = {head.strength:.3g} (scikit-learn's choice {theirs:.3g}); log loss {head.log_loss:.4f}"
    accuracies = f"accuracy {ours:.4f}, scikit-learn's {accuracy:.4f}"
    difference = head.log_loss - converged[head.strength]
    return [f"{name}: log loss − scikit-learn's", "within .002", f"{difference:+.5f}", "", f"{detail}; {accuracies}"]


def one_by_one(features, y, folds, strengths, *, tol):
    """Returns scikit-learn's out-of-fold log losses, the seconds of its fits, and the last accuracy."""
    start = time.perf_counter()
    x = Standardisation(features).apply(features, np.arange(len(y)))
    losses = {}
    for strength in strengths:
        probabilities = np.zeros((len(y), y.max() + 1))
        for fold in range(FOLDS):
            held_out = folds == fold
            model = LogisticRegression(C=strength, tol=tol, max_iter=1000).fit(x[~held_out], y[~held_out])
            probabilities[held_out] = model.predict_proba(x[held_out])
        losses[strength] = -np.mean(np.log(probabilities[np.arange(len(y)), y]))
    return losses, time.perf_counter() - start, np.mean(probabilities.argmax(axis=1) == y)


def cifar100(data, images_per_class):
    sys.path.insert(0, str(data))
    from shared_data import load_cifar

    (x, y), _, _ = load_cifar("cifar100")
    rows = np.sort(np.concatenate([np.flatnonzero(y == k)[:images_per_class] for k in range(100)]))
    return x[rows], y[rows]


def stratified_folds(y):
    folds = np.empty(len(y), int)
    for fold, (_, held_out) in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(y, y)):
        folds[held_out] = fold
    return folds


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()

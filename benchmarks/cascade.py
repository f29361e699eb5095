"""What a cascade saves, and what it loses, on CIFAR-10: by the clock, on images that nothing was fitted on.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/cascade.py --shared ../shared

Three frozen members at 112 pixels with solved heads, joined by soft voting. Thresholds come from out-of-fold
predictions, for a promised loss of accuracy; the full ensemble and the cascade then predict the test images in turns,
both compiled.
"""

import argparse
import statistics
import tempfile
import time

import _cifar10 as cifar10
import numpy as np
from _tables import save_table

import ensemble_keras as ek

BACKBONES = ["MobileNet(alpha=0.25)", "MobileNetV2(alpha=0.35)", "MobileNetV2"]
LOSSES = {0.001: "≥ 1.9", 0.005: "≥ 2.2"}
SIZE = 112
HEADER = [
    "promised loss, points",
    "throughput ÷ full ensemble's, by the clock",
    "target",
    "expected by out-of-fold predictions",
    "members asked",
    "accuracy on the test images, full / cascade",
    "real loss, points, 95 % interval",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10")
    parser.add_argument("--images", type=int, default=10000, help="training images (default: %(default)s)")
    parser.add_argument("--tests", type=int, default=10000, help="test images (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="of timed runs, in turns (default: %(default)s)")
    parser.add_argument("--store", help="path of a feature store to keep")
    options = parser.parse_args()
    (x, y), (x_test, y_test), names = cifar10.load(options.shared)
    train = ek.ImageDataset.from_arrays(x[: options.images], y[: options.images], class_names=names)
    test = ek.ImageDataset.from_arrays(x_test[: options.tests], y_test[: options.tests], class_names=names)
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or f"{folder}/features.sqlite"
        fitted = ek.EnsembleClassifier(BACKBONES, image_size=SIZE, store=store, verbose=0).fit(train)
    # What will run: each member with its batch normalisations folded.
    costs = ek.member_costs([ek.compiled(member).model for member in fitted.members_], batch_size=256, repeats=10)
    tables = (fitted.out_of_fold_, train.labels, costs["latency_ms"].to_numpy())
    layers = [member.name for member in fitted.members_]
    pixels = test.load(image_size=SIZE)
    rows = [row(fitted, tables, layers, max_loss, pixels, test.labels, options.pairs) for max_loss in LOSSES]
    curve = ek.cascade_curve(*tables, names=layers)
    points = ", ".join(
        f"{100 * p.max_loss:g}: {p.throughput:.2f} (loss {100 * p.loss:+.2f}, "
        f"{100 * p.low:+.2f} to {100 * p.high:+.2f})"
        for p in curve.itertuples()
    )
    shares = ", ".join(f"{n} {ms:.0f} ms" for n, ms in zip(BACKBONES, tables[2], strict=True))
    notes = [
        f"{len(train)} training and {len(test)} test images at {SIZE} px; batches of 256: {shares}",
        f"the whole curve, expected out of fold, throughput by promised loss in points: {points}",
        f"median of {options.pairs} pairs",
    ]
    save_table("cascade", "A cascade beside its full ensemble", HEADER, rows, notes=notes)


def row(fitted, tables, layers, max_loss, pixels, labels, pairs):
    """Returns what one promised loss gives."""
    settings = ek.fit_cascade(*tables, names=layers, max_loss=max_loss)
    cascade = ek.Cascade(fitted.model_, {**fitted.card_, "cascade": settings})
    full = ek.compiled(fitted.model_)
    # Every number of images that will occur is compiled before the clock starts.
    full(pixels), cascade.predict(pixels)
    ratios = []
    for _ in range(pairs):
        whole, all_said = timed(lambda: full(pixels))
        part, (said, asked) = timed(lambda: cascade.predict(pixels, return_members=True))
        ratios.append(whole / part)
        print(f"{max_loss}: full {whole:.1f} s, cascade {part:.1f} s", flush=True)
    loss = ek.compare(all_said, said, labels)
    accuracies = [np.mean(p.argmax(axis=1) == labels) for p in (all_said, said)]
    return [
        f"{100 * max_loss:g}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        LOSSES[max_loss],
        f"{1 / settings['expected']['cost']:.2f}",
        f"{asked.mean():.2f} of {len(layers)}",
        " / ".join(f"{a:.4f}" for a in accuracies),
        f"{100 * loss.difference:+.2f} ({100 * loss.low:+.2f} to {100 * loss.high:+.2f})",
    ]


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()

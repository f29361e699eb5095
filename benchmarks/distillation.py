"""What one small network learns from an ensemble of frozen backbones, on CIFAR-10.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/distillation.py --shared ../shared

The ensemble: three frozen members at 112 pixels with solved heads, joined by concatenated features, fitted on the
labelled images. The student: MobileNetV2(alpha=0.35) at fewer pixels, from ImageNet weights, fine-tuned as a whole on
the labels alone; on the ensemble's answers for the same images; and on its answers for more images, whose labels
nobody looks at. All take about as many steps. The share of the gap that is closed is (distilled − alone) ÷
(ensemble − alone), in accuracy on the test images, which nothing was chosen by.
"""

import argparse
import pathlib
import tempfile
import time

import _cifar10 as cifar10
import numpy as np
from _tables import save_table

import ensemble_keras as ek

BACKBONES = ["MobileNetV2", "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"]
STUDENT = "MobileNetV2(alpha=0.35)"
SIZE = 112
# Name -> weight of the labels, and whether the unlabelled images are there.
LESSONS = {"alone": (1.0, False), "distilled": (0.1, False), "distilled, unlabelled images": (0.1, True)}
HEADER = ["model", "seeds", "test accuracy, mean ± sd", "test log loss", "gap closed, %", "per seed, %", "minutes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.quick:
        make_quick(options)
        options.seeds = 1
    with tempfile.TemporaryDirectory() as folder:
        options.directory = options.directory or folder
        run(options)


def add_arguments(parser):
    """Adds what says how the ensemble and the student are made."""
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10")
    parser.add_argument("--images", type=int, default=5000, help="labelled images (default: %(default)s)")
    parser.add_argument("--unlabelled", type=int, default=15000, help="further images (default: %(default)s)")
    parser.add_argument("--tests", type=int, default=5000, help="test images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="the student's pixels (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="over the labelled images (default: %(default)s)")
    parser.add_argument("--store", help="path of a feature store to keep")
    parser.add_argument("--directory", help="folder that keeps what is trained, to go on from")
    parser.add_argument("--quick", action="store_true", help="few images; saved under another name")


def make_quick(options):
    """Sets what makes a run short."""
    options.images, options.unlabelled, options.tests, options.epochs = 1000, 1000, 500, 2


def data(options):
    """Returns the labelled, the unlabelled and the test images."""
    (x, y), (x_test, y_test), names = cifar10.load(options.shared)
    end = options.images + options.unlabelled
    return (
        ek.ImageDataset.from_arrays(x[: options.images], y[: options.images], class_names=names),
        ek.ImageDataset.from_arrays(x[options.images : end]),
        ek.ImageDataset.from_arrays(x_test[: options.tests], y_test[: options.tests], class_names=names),
    )


def fitted_ensemble(train, options):
    """Returns the fitted `EnsembleClassifier`."""
    store = options.store or pathlib.Path(options.directory) / "features.sqlite"
    return ek.EnsembleClassifier(BACKBONES, combiner="concatenate", image_size=SIZE, store=store, verbose=0).fit(
        train
    )


def taught(ensemble, train, unlabelled, seed, lesson, options, student=STUDENT):
    """Returns a trained student."""
    alpha, more = LESSONS[lesson]
    # A tenth of the labelled images is held out. About as many steps, and of warm-up, whatever the number of images.
    share = 1 + options.unlabelled / (0.9 * options.images) if more else 1
    settings = ek.FineTuning(
        epochs=max(1, round(options.epochs / share)),
        warmup_epochs=0.5 / share,
        learning_rate=1e-3,
        batch_size=64,
    )
    folder = lesson.replace(", ", "_").replace(" ", "_") + ("" if student == STUDENT else "_pruned")
    return ek.distill(
        ensemble,
        student,
        train,
        alpha=alpha,
        settings=settings,
        unlabelled=unlabelled if more else None,
        image_size=options.size if student == STUDENT else None,
        store=options.store or pathlib.Path(options.directory) / "features.sqlite",
        directory=pathlib.Path(options.directory) / f"{folder}_{seed}",
        seed=seed,
        verbose=0,
    )


def run(options):
    """Makes the table."""
    train, unlabelled, test = data(options)
    ensemble = fitted_ensemble(train, options).model_
    teacher = figures(ensemble, test)
    found, minutes, students = {lesson: [] for lesson in LESSONS}, dict.fromkeys(LESSONS, 0.0), {}
    for seed in range(options.seeds):
        for lesson in LESSONS:
            start = time.perf_counter()
            students[lesson] = taught(ensemble, train, unlabelled, seed, lesson, options)
            minutes[lesson] += (time.perf_counter() - start) / 60
            found[lesson].append(figures(students[lesson], test))
            print(f"seed {seed}, {lesson}: accuracy {found[lesson][-1][0]:.4f}", flush=True)
    sizes = ek.compare_sizes({"ensemble": ensemble, "student": students["distilled"]}, test[:1000])
    rows = [["ensemble", "", f"{teacher[0]:.4f}", f"{teacher[1]:.4f}", "", "", ""]]
    rows += [row(lesson, found, teacher, minutes[lesson]) for lesson in LESSONS]
    save_table(
        f"distillation{'_quick' if options.quick else ''}",
        "One student of an ensemble",
        HEADER,
        rows,
        notes=[
            f"{len(train)} labelled, {len(unlabelled)} unlabelled, {len(test)} test images; the ensemble at {SIZE} "
            f"px, {STUDENT} at {options.size} px, steps of {options.epochs} epochs over the labelled images, "
            "temperature 2, weight of the labels 0.1; minutes of all seeds",
            ratio("throughput of the student ÷ the ensemble's, batch 32", sizes["throughput"]),
            ratio("time of one image, the student's ÷ the ensemble's", sizes["latency_ms"]),
            ratio("multiply-accumulates, the student's ÷ the ensemble's", sizes["macs"]),
            ratio("parameters, the student's ÷ the ensemble's", sizes["parameters"]),
        ],
    )


def figures(model, test):
    """Accuracy and log loss."""
    summary = ek.EvaluationReport.from_model(model, test).summary
    return summary["accuracy"], summary["log_loss"]


def row(lesson, found, teacher, minutes):
    """A row of the table."""
    accuracies, losses = np.array(found[lesson]).T
    alone = np.array(found["alone"])[:, 0]
    closed = (accuracies.mean() - alone.mean()) / (teacher[0] - alone.mean())
    each = ", ".join(f"{100 * share:.0f}" for share in (accuracies - alone) / (teacher[0] - alone))
    spread = f" ± {accuracies.std(ddof=1):.4f}" if len(accuracies) > 1 else ""
    is_alone = lesson == "alone"
    return [
        f"student, {lesson}",
        len(accuracies),
        f"{accuracies.mean():.4f}{spread}",
        f"{losses.mean():.4f}",
        "" if is_alone else f"{100 * closed:.0f}",
        "" if is_alone else each,
        f"{minutes:.1f}",
    ]


def ratio(what, column):
    return (
        f"{what}: {column['student'] / column['ensemble']:.3g} ({column['student']:,.4g} / {column['ensemble']:,.4g})"
    )


if __name__ == "__main__":
    main()

"""What models of one problem cost and what they are worth: members, ensemble, cascade, student, pruned, quantised.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/sizes.py --shared ../shared

CIFAR-10, the ensemble and the student of `distillation.py` (with its `--directory`, that run's student); all are
timed in turns. The pruned student is the student with half of its multiply-accumulates, at least, taken away; the
ensemble has taught it once more.
"""

import argparse
import pathlib
import tempfile

import distillation
import numpy as np
from _tables import RESULTS, save_table
from matplotlib.figure import Figure

import ensemble_keras as ek

HEADER = [
    "model",
    "test accuracy",
    "parameters",
    "multiply-accumulates",
    "file, MB",
    "ms, one image",
    "images per second, 32 at a time",
]
PLOTTED = ["macs", "parameters", "file_bytes", "latency_ms", "throughput"]
LESSON = "distilled, unlabelled images"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    distillation.add_arguments(parser)
    options = parser.parse_args()
    if options.quick:
        distillation.make_quick(options)
    with tempfile.TemporaryDirectory() as folder:
        options.directory = options.directory or folder
        train, unlabelled, test = distillation.data(options)
        fitted = distillation.fitted_ensemble(train, options)
        student = distillation.taught(fitted.model_, train, unlabelled, 0, LESSON, options)
        pruned = taught_again(student, train, unlabelled, fitted.model_, options)
        models = subjects(fitted, train, student, pruned, pathlib.Path(folder))
        table = ek.compare_sizes(models, test)
    name = f"sizes{'_quick' if options.quick else ''}"
    save_table(
        name, "What models cost and what they are worth", HEADER, rows(table), notes=notes(table, test, options)
    )
    figure = Figure(figsize=(15, 9), facecolor="white", layout="constrained")
    for place, x in enumerate(PLOTTED, start=1):
        ax = ek.plot_sizes(table, figure.add_subplot(2, 3, place), x=x)
        ax.get_legend().remove()
    shared = figure.add_subplot(2, 3, 6)
    shared.legend(*ax.get_legend_handles_labels(), loc="center", frameon=False)
    shared.axis("off")
    figure.savefig(RESULTS / f"{name}.png", dpi=90)


def subjects(fitted, train, student, pruned, folder):
    """Returns the models by name."""
    card = {"class_names": train.class_names, "filter": "bilinear"}
    for name, model in {"ensemble": fitted.model_, "student": student}.items():
        ek.save_ensemble(model, folder / f"{name}.keras", card=card, weights_dtype="float16", verbose=0)
    return {
        **dict(zip(distillation.BACKBONES, fitted.members_, strict=True)),
        "ensemble, concatenated": fitted.model_,
        **votes(fitted, train.labels, card),
        "student, distilled": student,
        "student, pruned": pruned,
        "ensemble, float16 file": folder / "ensemble.keras",
        "student, float16 file": folder / "student.keras",
        "ensemble, int8": ek.quantize_model(fitted.model_),
        "student, int8": ek.quantize_model(student),
    }


def taught_again(student, train, unlabelled, ensemble, options):
    """Returns the student with fewer channels, which the ensemble has taught once more."""
    settings = ek.FineTuning(epochs=options.epochs, learning_rate=1e-3, batch_size=64, train_batch_norm=True)
    pruned = ek.prune_model(student, train, penalty="slimming", remove_macs=0.5, settings=settings, verbose=0)
    return distillation.taught(ensemble, train, unlabelled, 0, LESSON, options, student=pruned)


def votes(fitted, y, card):
    """Returns the soft vote of the members, and the cascade of it that may lose half a point out of fold."""
    names = [member.name for member in fitted.members_]
    model = ek.build_ensemble(fitted.members_, ek.SoftVoting())
    costs = np.array([ek.count_macs(member).total for member in fitted.members_], float)
    settings = ek.fit_cascade(fitted.out_of_fold_, y, costs, names=names, max_loss=0.005)
    return {"ensemble, soft vote": model, "cascade of the vote": ek.Cascade(model, {**card, "cascade": settings})}


def rows(table):
    """Returns the rows as text."""
    return [
        [
            row.Index,
            f"{row.accuracy:.4f}",
            f"{row.parameters:,}",
            f"{row.macs / 1e6:.1f} M",
            f"{row.file_bytes / 1e6:.2f}",
            f"{row.latency_ms:.1f}",
            f"{row.throughput:.0f}",
        ]
        for row in table.itertuples()
    ]


def notes(table, test, options):
    """Returns what is said below the table."""
    changes = [
        f"{name}: accuracy {100 * (table.accuracy[name] - table.accuracy[of]):+.2f} points, file × "
        f"{table.file_bytes[name] / table.file_bytes[of]:.2f}, one image × "
        f"{table.latency_ms[name] / table.latency_ms[of]:.2f}, throughput × "
        f"{table.throughput[name] / table.throughput[of]:.2f}"
        for whole, of in (("ensemble", "ensemble, concatenated"), ("student", "student, distilled"))
        for name in (f"{whole}, float16 file", f"{whole}, int8")
    ]
    where = f"{len(test)} test images; members at {distillation.SIZE} px, the student at {options.size} px"
    return [where, "what became of the one that it was made of:", *changes]


if __name__ == "__main__":
    main()

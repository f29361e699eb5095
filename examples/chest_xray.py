"""Pneumonia on chest X-rays: nine members, one model (the CoronaHack job).

    python examples/chest_xray.py --data xrays

`--data` is a folder with `train/CLASS` and `test/CLASS`, or the Kaggle folder of the CoronaHack set with its table
(`--metadata xrays/Chest_xray_Corona_Metadata.csv`; the images are found by their names). Patients share a fold. Each
combiner is fitted on the same features, so that the second and third cost seconds.

Measured: see benchmarks/results/chest_xray.md.
"""

import argparse
import pathlib
import re

import numpy as np
import pandas as pd

import ensemble_keras as ek

BACKBONES = [
    "VGG19", "ResNet152V2", "MobileNet", "InceptionV3", "InceptionResNetV2", "Xception", "DenseNet201", "CNN",
    "Darknet19",
]  # fmt: skip
COMBINERS = ["concatenate", "soft_voting", "stacking"]


def main(arguments=None):
    options = parse(arguments)
    train, test = load(options)
    print(f"{len(train)} training and {len(test)} test images of {', '.join(train.class_names)}")
    leaks = ek.find_leaks(train, test)
    if len(leaks):
        print(f"{len(leaks)} pairs of training and test images show the same picture:\n{leaks.head().to_string()}")
    others = [name for name in COMBINERS if name != options.combiner]
    chosen = fit(options, options.combiner, train)
    reports = {options.combiner: chosen.evaluate(test)}
    for combiner in [] if options.only else others:
        reports[combiner] = fit(options, combiner, train, verbose=0).evaluate(test)
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    chosen.save(output / "chest_xray.keras")
    reports[options.combiner].to_html(output / "report.html")
    print("\nOut of fold, on the training images:")
    print(chosen.leaderboard_.drop(columns="note").round(4).to_string(index=False))
    print("\nOn the test images:")
    table = compare_on_test(reports, test)
    print(table.to_string(index=False))
    table.to_csv(output / "test.csv", index=False)
    print(f"\nModel, report and tables in {output}")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--metadata", help="table with X_ray_image_name, Label, Dataset_type; default: class folders")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, metavar="NAME")
    parser.add_argument("--combiner", default="concatenate", choices=[*COMBINERS, "hard_voting", "geometric_voting"])
    parser.add_argument("--only", action="store_true", help="do not fit the other combiners for comparison")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--weights", default="imagenet", choices=["imagenet", "none"])
    parser.add_argument("--class-weight", choices=["balanced"])
    parser.add_argument("--cv", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help="of members without pretrained weights")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of members without pretrained weights")
    parser.add_argument("--output", default="chest_xray", help="also keeps features and finished work")
    return parser.parse_args(arguments)


def load(options):
    if options.metadata is None:
        folder = pathlib.Path(options.data)
        train = ek.ImageDataset.from_directory(folder / "train", groups=patient)
        return train, ek.ImageDataset.from_directory(folder / "test", class_names=train.class_names)
    table = pd.read_csv(options.metadata)
    table["patient"] = table["X_ray_image_name"].map(patient)
    train, test = (
        ek.ImageDataset.from_dataframe(
            table[table["Dataset_type"] == part],
            options.data,
            filename_column="X_ray_image_name",
            label_column="Label",
            group_column=group_column,
        )
        for part, group_column in (("TRAIN", "patient"), ("TEST", None))
    )
    return train, test


def patient(path):
    """Returns the patient that a file's name carries, such as `person123` or `NORMAL2-IM-0587`."""
    return re.match(r"person\d+|.*IM-\d+", pathlib.PurePath(path).name).group()


def fit(options, combiner, train, verbose=1):
    classifier = ek.EnsembleClassifier(
        options.backbones,
        combiner=combiner,
        image_size=options.image_size,
        weights=None if options.weights == "none" else options.weights,
        cv=options.cv,
        class_weight=options.class_weight,
        training=ek.Training(epochs=options.epochs, learning_rate=options.learning_rate),
        store=pathlib.Path(options.output) / "features.sqlite",
        directory=pathlib.Path(options.output) / combiner,
        verbose=verbose,
    )
    return classifier.fit(train)


def compare_on_test(reports, test):
    """Returns a table: each member and each combiner on the test images, beside the member with the best ROC AUC."""
    first = next(iter(reports.values()))
    rows = {name: probabilities for name, probabilities in first.member_probabilities.items()}
    best = max(rows, key=lambda name: auc(rows[name], test))
    rows |= {combiner: report.probabilities for combiner, report in reports.items()}
    table = []
    for name, probabilities in rows.items():
        gain = ek.compare(probabilities, rows[best], test.labels, metric="roc_auc")
        accuracy = np.mean(probabilities.argmax(axis=1) == test.labels)
        line = {"name": name, "accuracy": accuracy, "roc_auc": auc(probabilities, test)}
        interval = "(best member)" if name == best else f"{gain.low:+.4f} to {gain.high:+.4f}"
        table.append({**line, "auc_difference": gain.difference, "95 % interval": interval})
    return pd.DataFrame(table).round(4)


def auc(probabilities, test):
    return ek.EvaluationReport.from_predictions(test.labels, probabilities).summary["roc_auc"]


if __name__ == "__main__":
    main()

"""Pneumonia on chest X-rays: nine members, one model (the CoronaHack job).

    python examples/chest_xray.py --data xrays

`--data` is a folder with `train/CLASS` and `test/CLASS`, or the Kaggle folder of the CoronaHack set with its table
(`--metadata xrays/Chest_xray_Corona_Metadata.csv`; the images are found by their names). Patients share a fold. The
members are fitted once, and all combiners join the same ones.

Measured: see benchmarks/results/chest_xray.md.
"""

import argparse
import pathlib
import re
import textwrap

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
    chosen, reports = fit_and_evaluate(options, train, test)
    output = pathlib.Path(options.output)
    chosen.save(output / "chest_xray.keras")
    reports[options.combiner].to_html(output / "report.html")
    table = compare_on_test(members_on_test(chosen, reports, test), reports, test)
    table.to_csv(output / "test.csv", index=False)
    print(f"On the {len(test)} test images (gain: of ROC AUC over the best member, with its paired interval):\n")
    print(table.to_string(index=False))
    print(f"\nThe model ({options.combiner}), its report and this table are in {output}.")
    return table


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--metadata", help="table with X_ray_image_name, Label, Dataset_type; default: class folders")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, metavar="NAME")
    parser.add_argument("--combiner", default="concatenate", choices=[*COMBINERS, "hard_voting", "geometric_voting"])
    parser.add_argument("--activation", default="softmax", choices=["softmax", "sigmoid"], help="of concatenation")
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
    name = pathlib.PurePath(path).name
    found = re.match(r"person\d+|.*IM-\d+", name)
    # A name of another kind stands for itself.
    return found.group() if found else name


def fit_and_evaluate(options, train, test):
    """Returns the fitted classifier of `--combiner`, and a dict from combiner to its report on the test images."""
    combiners = [options.combiner] if options.only else list(dict.fromkeys([*COMBINERS, options.combiner]))
    chosen, reports = None, {}
    for combiner in combiners:
        first = combiner == combiners[0]
        # Concatenation, the first, keeps the features of members trained from scratch; the others need only a part.
        classifier = fit(options, combiner, train, verbose=int(first))
        reports[combiner] = classifier.evaluate(test)
        if not first:
            print(textwrap.fill(classifier.verdict_, 80) + "\n")
        if combiner == options.combiner:
            chosen = classifier
    return chosen, reports


def fit(options, combiner, train, verbose=1):
    if combiner == "concatenate" and options.activation == "sigmoid":
        combiner = ek.ConcatenateDense(1, activation="sigmoid", name="concatenate")
    classifier = ek.EnsembleClassifier(
        options.backbones,
        combiner=combiner,
        image_size=options.image_size,
        weights=None if options.weights == "none" else options.weights,
        cv=options.cv,
        class_weight=options.class_weight,
        training=ek.Training(epochs=options.epochs, learning_rate=options.learning_rate),
        directory=options.output,
        verbose=verbose,
    )
    return classifier.fit(train)


def members_on_test(classifier, reports, test):
    """Returns a dict from each member's name to its probabilities of the test images."""
    for report in reports.values():
        # A concatenation joins features: the members' own heads are not in its model.
        if report.member_probabilities:
            return report.member_probabilities
    names = classifier.leaderboard_.query("kind == 'member'")["name"]
    return {
        name: ek.EvaluationReport.from_model(model, test).probabilities
        for name, model in zip(names, classifier.members_, strict=True)
    }


def compare_on_test(members, reports, test):
    """Returns a table: each member and each combiner on the test images, beside the member with the best ROC AUC."""
    rows = members | {combiner: report.probabilities for combiner, report in reports.items()}
    figures = {name: figures_of(probabilities, test) for name, probabilities in rows.items()}
    best = max(members, key=lambda name: figures[name]["roc_auc"])
    table = []
    for name, probabilities in rows.items():
        gain = ek.compare(probabilities, rows[best], test.labels, metric="roc_auc")
        interval = "(best member)" if name == best else f"{gain.low:+.4f} to {gain.high:+.4f}"
        figures[name] |= {"gain": round(gain.difference, 4), "95 % interval": interval}
        table.append({"name": name, **figures[name]})
    return pd.DataFrame(table)


def figures_of(probabilities, test):
    summary = ek.EvaluationReport.from_predictions(test.labels, probabilities).summary
    return {"accuracy": round(summary["accuracy"], 4), "roc_auc": round(summary["roc_auc"], 4)}


if __name__ == "__main__":
    main()

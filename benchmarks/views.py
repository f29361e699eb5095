"""What the head of a frozen member gains from augmented views of the training images, on chest X-rays.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/views.py --shared ../shared

MobileNetV2(alpha=0.35) at 112 pixels, 5 folds by patient; over seeds, which change the folds and the views. All
figures are of the images as they are.
"""

import argparse
import pathlib
import re
import tempfile
import time

import numpy as np
from _tables import save_table
from sklearn.metrics import roc_auc_score

import ensemble_keras as ek

BACKBONE, IMAGE_SIZE = "MobileNetV2(alpha=0.35)", 112
SETTINGS = [(None, 1), ("light", 2), ("light", 4), ("medical", 4)]
HEADER = ["augmentation", "views", "test accuracy", "test ROC AUC", "out-of-fold log loss", "seconds"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/chest_xray")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few images and one seed")
    options = parser.parse_args(arguments)
    train, test = image_sets(options)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(train, test, *setting, options, pathlib.Path(folder) / "features.sqlite") for setting in SETTINGS]
    save_table(
        f"views{'_quick' if options.quick else ''}",
        "Heads of a frozen member, solved on augmented views of chest X-rays",
        HEADER,
        rows,
        notes=[
            f"{BACKBONE}, {IMAGE_SIZE} pixels; {len(train)} training and {len(test)} test images",
            "mean ± deviation over seeds, which change folds and views; "
            "seconds of a fit with the features not stored before",
        ],
    )


def image_sets(options):
    folder = pathlib.Path(options.shared) / "data" / "chest_xray"
    sets = [ek.ImageDataset.from_directory(folder / part, groups=patient) for part in ("train", "test")]
    return [images[np.arange(0, len(images), 40)] for images in sets] if options.quick else sets


def patient(path):
    """`PNEUMONIA/person63_bacteria_306.jpeg` -> `person63`, `NORMAL/IM-0533-0001-0002.jpeg` -> `IM-0533`."""
    return re.match(r"person\d+|(NORMAL2-)?IM-\d+", pathlib.Path(path).stem)[0]


def row(train, test, augmentation, views, options, store):
    figures = [
        fit(train, test, augmentation, views, seed, store) for seed in range(1 if options.quick else options.seeds)
    ]
    accuracy, auc, loss, seconds = ([found[i] for found in figures] for i in range(4))
    shown = [f"{np.mean(values):.4f} ± {np.std(values):.4f}" for values in (accuracy, auc, loss)]
    return [augmentation or "none", views, *shown, f"{np.mean(seconds):.0f}"]


def fit(train, test, augmentation, views, seed, store):
    """Returns accuracy and ROC AUC on the test images, the out-of-fold log loss, and the seconds of the fit."""
    start = time.perf_counter()
    classifier = ek.EnsembleClassifier(
        [BACKBONE],
        image_size=IMAGE_SIZE,
        augmentation=augmentation,
        views=views,
        store=store,
        seed=seed,
        cv=3 if len(train) < 1000 else 5,
        verbose=0,
    ).fit(train)
    seconds = time.perf_counter() - start
    p = classifier.predict_proba(test)
    accuracy = np.mean(p.argmax(axis=1) == test.labels)
    return accuracy, roc_auc_score(test.labels, p[:, 1]), classifier.leaderboard_["log_loss"][0], seconds


if __name__ == "__main__":
    main()

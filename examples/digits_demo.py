"""Handwritten digits: three small networks trained from scratch, joined two ways, one model out (`make demo`).

    python examples/digits_demo.py --output demo

The 1,797 pictures of 8 by 8 pixels ship with scikit-learn. A fifth of them is kept apart for the test.
Measured: see benchmarks/results/digits_demo.md.
"""

import argparse
import pathlib
import time

import numpy as np
from sklearn.datasets import load_digits

import ensemble_keras as ek

BACKBONES = ["CNN(filters=(32, 64, 128))", "Darknet19(width=0.25)", "AlexNet(width=0.25)"]
IMAGE_SIZE = 32


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="demo", help="folder for the model and the report")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--cv", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    output = pathlib.Path(options.output)
    start = time.perf_counter()

    train, test = load().split(test_size=0.2, seed=options.seed)
    print(f"{len(train)} training and {len(test)} test images of {len(train.class_names)} digits")
    settings = ek.Training(epochs=options.epochs, batch_size=64, learning_rate=2e-3)
    classifier = ek.EnsembleClassifier(
        BACKBONES,
        combiner=["soft_voting", "stacking"],
        image_size=IMAGE_SIZE,
        cv=options.cv,
        training=settings,
        directory=output / "run",
        seed=options.seed,
    )
    classifier.fit(train)
    show(classifier, test, output)
    print(f"{time.perf_counter() - start:.0f} seconds")


def load():
    """Returns the digits as colour images with values in [0, 255]; they come as grey from 0 to 16."""
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype("uint8")
    return ek.ImageDataset.from_arrays(
        np.repeat(grey[..., None], 3, axis=-1), digits.target, class_names=[str(digit) for digit in range(10)]
    )


def show(classifier, test, output):
    report = classifier.evaluate(test)
    print(f"On the {len(test)} test images:")
    print(report.members[["accuracy", "log_loss", "roc_auc"]].rename_axis(None).round(4).to_string())
    classifier.save(output / "ensemble.keras")
    report.to_html(output / "report.html")
    print(f"\nThe model is in {output / 'ensemble.keras'}, the report in {output / 'report.html'}.")


if __name__ == "__main__":
    main()

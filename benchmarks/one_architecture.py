"""Ensembles of one architecture on CIFAR-10: what more training and more members of the same network bring.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/one_architecture.py --shared ../shared

(1) A small CNN from scratch: one network, a deep ensemble of four seeds, four snapshots of one run; and what
    averaging the weights of different seeds does.
(2) MobileNetV2(alpha=0.35), fine-tuned four times from one solved head: one of them, the mean of their weights, a
    greedy soup, and the ensemble of the four.
"""

import argparse
import collections
import statistics
import time

import _cifar10 as cifar10
import keras
import numpy as np
from _tables import save_table

import ensemble_keras as ek
from ensemble_keras.features.extraction import predict

MEMBERS = 4
BACKBONE, BACKBONE_SIZE = "MobileNetV2(alpha=0.35)", 112
HEADER = ["what", "test accuracy", "test log loss", "training, seconds", "multiply-accumulates of an image"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10")
    parser.add_argument("--images", type=int, default=2500, help="training images (default: %(default)s)")
    parser.add_argument("--tests", type=int, default=5000, help="test images (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12, help="of the CNN, a multiple of 4 (default: %(default)s)")
    parser.add_argument("--tuning-images", type=int, default=2000, help="of MobileNetV2 (default: %(default)s)")
    parser.add_argument("--tuning-epochs", type=int, default=3, help="of MobileNetV2 (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few images, one seed, few epochs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.tests, options.seeds, options.epochs = 200, 200, 1, 4
        options.tuning_images, options.tuning_epochs = 100, 1
    sets = data(options)
    rows = collections.defaultdict(list)
    for seed in range(options.seeds):
        for name, figures in {**from_scratch(sets, options, seed), **fine_tuned(sets, options, seed)}.items():
            rows[name].append(figures)
    save_table(
        f"one_architecture{'_quick' if options.quick else ''}",
        "Ensembles of one architecture, CIFAR-10",
        HEADER,
        [[name, *summary(runs)] for name, runs in rows.items()],
        notes=[
            f"CNN: {options.images} training images at 32 px, {options.epochs} epochs, AdamW, augmentation 'cifar'",
            f"{BACKBONE}: {options.tuning_images} training images at {BACKBONE_SIZE} px, {options.tuning_epochs} "
            f"epochs, augmentation 'light'; the greedy soup chooses by {len(sets['held out'])} images that nothing "
            "was trained on",
            f"{options.tests} test images; mean ± deviation over {options.seeds} seeds; seconds of one network: a "
            f"{MEMBERS}th of those of all",
        ],
    )


def data(options):
    (x, y), (x_test, y_test), names = cifar10.load(options.shared)
    # The last training images: the others start from the first.
    held = slice(-200 if options.quick else -1000, None)
    parts = {
        "train": (x[: options.images], y[: options.images]),
        "tuning": (x[: options.tuning_images], y[: options.tuning_images]),
        "held out": (x[held], y[held]),
        "test": (x_test[: options.tests], y_test[: options.tests]),
    }
    return {name: ek.ImageDataset.from_arrays(*part, class_names=names) for name, part in parts.items()}


def from_scratch(sets, options, seed):
    settings = ek.Training(epochs=options.epochs, batch_size=64, learning_rate=2e-3, patience=options.epochs)
    arguments = {"settings": settings, "augmentation": "cifar", "seed": seed, "verbose": 0}
    network = small_cnn()
    deep, seconds = timed(lambda: ek.deep_ensemble(network, sets["train"], size=MEMBERS, **arguments))
    snapshots, of_snapshots = timed(lambda: ek.snapshot_ensemble(network, sets["train"], cycles=MEMBERS, **arguments))
    half = MEMBERS // 2
    return {
        "CNN: one network": figures(deep[0], sets["test"], seconds / MEMBERS),
        f"CNN: deep ensemble of {MEMBERS}": figures(vote(deep), sets["test"], seconds),
        f"CNN: {MEMBERS} snapshots of one run": figures(vote(snapshots), sets["test"], of_snapshots),
        f"CNN: the last {half} of them": figures(vote(snapshots[-half:]), sets["test"], of_snapshots),
        f"CNN: weights of {MEMBERS} seeds averaged": figures(ek.average_weights(deep), sets["test"], seconds),
    }


def fine_tuned(sets, options, seed):
    trunk = ek.build_backbone(BACKBONE, input_shape=(32, 32, 3), resize_to=BACKBONE_SIZE)
    tuned, seconds = timed(
        lambda: ek.deep_ensemble(
            ek.build_member(trunk, cifar10.CLASSES),
            sets["tuning"],
            size=MEMBERS,
            settings=ek.FineTuning(epochs=options.tuning_epochs),
            augmentation="light",
            probe=True,
            seed=seed,
            verbose=0,
        )
    )
    uniform = ek.average_weights(tuned)
    greedy, choosing = timed(lambda: ek.soup(tuned, sets["held out"], verbose=0))
    short = BACKBONE.partition("(")[0]
    return {
        f"{short}: one fine-tuning": figures(tuned[0], sets["test"], seconds / MEMBERS),
        f"{short}: mean of the weights of {MEMBERS}": figures(uniform, sets["test"], seconds),
        f"{short}: greedy soup of {MEMBERS}": figures(greedy, sets["test"], seconds + choosing),
        f"{short}: ensemble of {MEMBERS}": figures(vote(tuned), sets["test"], seconds),
    }


def small_cnn():
    x = images = keras.Input((32, 32, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    for width in (32, 64, 128):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
        x = keras.layers.MaxPooling2D()(x)
    trunk = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="trunk")
    return ek.build_member(trunk, cifar10.CLASSES, name="cnn")


def vote(members):
    return ek.build_ensemble(members, ek.SoftVoting())


def timed(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def figures(model, test, seconds):
    p = predict(model, test, verbose=0)
    chosen = np.clip(p[np.arange(len(test)), test.labels], 1e-7, 1)
    return np.mean(p.argmax(axis=1) == test.labels), -np.log(chosen).mean(), seconds, ek.count_macs(model).total


def summary(runs):
    accuracies, losses, seconds, macs = zip(*runs, strict=True)
    return [
        spread([100 * accuracy for accuracy in accuracies], "{:.1f} %", "{:.1f}"),
        spread(losses, "{:.3f}", "{:.3f}"),
        f"{statistics.mean(seconds):.0f}",
        f"{macs[0] / 1e6:.1f} M",
    ]


def spread(values, form, deviation):
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {deviation.format(statistics.stdev(values))}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()

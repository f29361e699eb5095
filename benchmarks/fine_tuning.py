"""What fine-tuning gains over the frozen backbone, and what it costs beside the plain way.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/fine_tuning.py --shared ../shared

(1) CIFAR-10 and chest X-rays, MobileNetV2(alpha=0.35): linear probe, then fine-tuned; test accuracy and ROC AUC over
    seeds, which change the split for early stopping and the order of the images.
(2) CIFAR-10: batch normalisation that trains, beside the default, which keeps it as it was trained.
(3) CIFAR-10: the way of Keras' guide (freeze, fit, unfreeze, fit) beside ours, the same epochs of fine-tuning.
(4) Chest X-rays: an ensemble of two members, trained jointly, and its members trained one by one.
"""

import argparse
import pathlib
import tempfile
import time

import _cifar10 as cifar10
import keras
import numpy as np
from _tables import save_table
from sklearn.metrics import roc_auc_score

import ensemble_keras as ek

BACKBONE, SECOND = "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"
HEADER = ["what", "seeds", "test accuracy", "test ROC AUC", "difference to the start, accuracy / AUC", "seconds"]
STORE = tempfile.TemporaryDirectory()
PARTS = ("cifar10", "batch_norm", "guide", "xray", "joint")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10 and data/chest_xray")
    parser.add_argument("--images", type=int, default=10000, help="CIFAR-10 training images (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="few images, one seed, one epoch")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.seeds, options.epochs = 300, 1, 1
    cifar = cifar_sets(options)
    xray = xray_sets(options)
    parts = {
        "cifar10": lambda: over_seeds("CIFAR-10, 112 px", cifar, 112, options),
        "batch_norm": lambda: over_seeds(
            "CIFAR-10, batch norm trained", cifar, 112, options, seeds=1, train_batch_norm=True
        ),
        "guide": lambda: [guide_row(cifar, options)],
        "xray": lambda: over_seeds("chest X-rays, 224 px", xray, 224, options),
        "joint": lambda: joint_rows(xray, options),
    }
    for name in options.parts:
        rows = parts[name]()
        save_table(
            f"fine_tuning_{name}{'_quick' if options.quick else ''}",
            f"Fine-tuning: {name}",
            HEADER,
            rows,
            notes=[
                f"{BACKBONE}; {options.epochs} epochs, AdamW 3e-4, warm-up, cosine; mean ± deviation over seeds",
                f"CIFAR-10: {len(cifar[0])} training, {len(cifar[1])} test images; "
                f"chest X-rays: {len(xray[0])} and {len(xray[1])}",
            ],
        )


def cifar_sets(options):
    (x, y), (x_test, y_test), names = cifar10.load(options.shared)
    tests = 300 if options.quick else None
    return (
        ek.ImageDataset.from_arrays(x[: options.images], y[: options.images], class_names=names),
        ek.ImageDataset.from_arrays(x_test[:tests], y_test[:tests], class_names=names),
    )


def xray_sets(options):
    folder = pathlib.Path(options.shared) / "data" / "chest_xray"
    train, test = (
        ek.ImageDataset.from_directory(folder / part, groups=lambda path: pathlib.Path(path).stem.split("_")[0])
        for part in ("train", "test")
    )
    if options.quick:
        rng = np.random.default_rng(0)
        train, test = train[rng.permutation(len(train))[:150]], test[rng.permutation(len(test))[:60]]
    return train, test


def over_seeds(what, sets, size, options, *, seeds=None, **settings):
    """Returns two rows: the probe and the fine-tuned member, mean and spread over seeds."""
    train, test = sets
    pixels = test.load(image_size=size)
    before, after, seconds, notes = [], [], [], []
    for seed in range(seeds or options.seeds):
        [frozen] = probes([BACKBONE], train, size, seed)
        before.append(figures(frozen, pixels, test.labels))
        start = time.perf_counter()
        member = ek.build_member(BACKBONE, len(train.class_names), image_size=size)
        history = ek.fine_tune(
            member, train, settings=ek.FineTuning(epochs=options.epochs, **settings), seed=seed, verbose=0
        )
        seconds.append(time.perf_counter() - start)
        after.append(figures(member, pixels, test.labels))
        notes.append(f"epoch {history.best_epoch}" if not history.note else history.note)
        print(what, seed, before[-1], after[-1], f"{seconds[-1]:.0f} s", notes[-1], flush=True)
    return [
        row(f"{what}, probe", before, "", ""),
        row(f"{what}, fine-tuned ({'; '.join(notes)})", after, gain(before, after), f"{np.mean(seconds):.0f}"),
    ]


def guide_row(sets, options):
    """The way of Keras' guide: the head with a frozen backbone, then all of it at a low rate, batch norm frozen."""
    train, test = sets
    epochs, size = options.epochs, 112
    pixels, test_pixels = train.load(image_size=size), test.load(image_size=size)

    def guide():
        keras.utils.set_random_seed(0)
        backbone = ek.build_backbone(BACKBONE, input_shape=(size, size, 3))
        backbone.trainable = False
        inputs = keras.Input((size, size, 3))
        x = backbone(inputs, training=False)
        model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
        held = len(pixels) // 10
        data = {
            "x": pixels[held:],
            "y": train.labels[held:],
            "validation_data": (pixels[:held], train.labels[:held]),
            "batch_size": 32,
            "epochs": epochs,
            "verbose": 0,
        }
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(**data)
        backbone.trainable = True
        model.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(**data)
        return model

    def ours():
        member = ek.build_member(BACKBONE, 10, image_size=size)
        ek.fine_tune(member, train, settings=ek.FineTuning(epochs=epochs), verbose=0)
        return member

    seconds, found = {}, {}
    for name, way in {"guide": guide, "ours": ours}.items():
        start = time.perf_counter()
        model = way()
        seconds[name] = time.perf_counter() - start
        found[name] = figures(model, test_pixels, test.labels)
        print(name, found[name], f"{seconds[name]:.0f} s", flush=True)
    return [
        f"CIFAR-10: ours beside Keras' guide ({epochs} epochs frozen, {epochs} unfrozen at 1e-5)",
        1,
        f"{found['ours'][0]:.4f} / {found['guide'][0]:.4f}",
        f"{found['ours'][1]:.4f} / {found['guide'][1]:.4f}",
        "ours / guide",
        f"{seconds['ours']:.0f} / {seconds['guide']:.0f}: {seconds['guide'] / seconds['ours']:.2f} times as fast",
    ]


def joint_rows(sets, options):
    """Two members, joined by soft voting: frozen, trained one by one, trained jointly.

    The heads are solved without the images that tell when to stop, or the start would know them by heart.
    """
    train, test = sets
    size = 112
    pixels = test.load(image_size=size)
    found = {"probes": [], "one by one": [], "jointly": []}
    seconds = {"one by one": [], "jointly": []}
    settings = ek.FineTuning(epochs=options.epochs)
    for seed in range(options.seeds):
        fitted, held = train.split(0.15, seed=seed)
        for way in ("one by one", "jointly"):
            members = probes([BACKBONE, SECOND], fitted, size, seed)
            ensemble = ek.build_ensemble(members, ek.SoftVoting())
            if way == "one by one":
                found["probes"].append(figures(ensemble, pixels, test.labels))
            start = time.perf_counter()
            for model in members if way == "one by one" else [ensemble]:
                ek.fine_tune(
                    model, fitted, validation_data=held, settings=settings, probe=False, seed=seed, verbose=0
                )
            seconds[way].append(time.perf_counter() - start)
            found[way].append(figures(ensemble, pixels, test.labels))
            print("joint", seed, way, found["probes"][-1], found[way][-1], flush=True)
    name = "X-rays, 112 px, soft vote of two"
    return [
        row(f"{name}, probes", found["probes"], "", ""),
        *(
            row(f"{name}, trained {way}", found[way], gain(found["probes"], found[way]), f"{np.mean(s):.0f}")
            for way, s in seconds.items()
        ),
    ]


def probes(backbones, train, size, seed):
    """Returns members with frozen backbones, their heads solved."""
    classifier = ek.EnsembleClassifier(
        backbones, image_size=size, seed=seed, store=f"{STORE.name}/features.sqlite", verbose=0
    )
    return classifier.fit(train).members_


def figures(model, pixels, labels):
    """Returns accuracy and ROC AUC (the mean over classes)."""
    p = model.predict(pixels, batch_size=64, verbose=0)
    auc = np.mean([roc_auc_score(labels == k, p[:, k]) for k in np.unique(labels)])
    return float((p.argmax(axis=1) == labels).mean()), float(auc)


def row(what, found, difference, seconds):
    means, spreads = np.mean(found, axis=0), np.std(found, axis=0, ddof=min(1, len(found) - 1))
    cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spreads, strict=True)]
    return [what, len(found), *cells, difference, seconds]


def gain(before, after):
    differences = np.mean(np.subtract(after, before), axis=0)
    return f"{differences[0]:+.4f} / {differences[1]:+.4f}"


if __name__ == "__main__":
    main()

"""What a fit costs beside the one pass over the images that nobody can avoid.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/feature_cache.py --data ../shared/data/chest_xray

(a) fit of a frozen ensemble, 5 folds, all combiners compared ÷ one plain pass (read and decode once, `predict` with
    each of the same backbones), interleaved pairs;
(b) the plain notebook way (frozen backbones in one graph, `model.fit` for 10 epochs, images from
    `image_dataset_from_directory`, as in Keras' guides) ÷ one fit of ours, and the same with the notebook's images
    decoded once and kept in memory;
(c) a second fit with another combiner ÷ the first, in one directory, which keeps vectors and solved heads;
(d) a fit with one more backbone against that backbone's own plain pass.
"""

import argparse
import concurrent.futures
import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
from _tables import save_table
from PIL import Image

import ensemble_keras as ek

BACKBONES = ["MobileNetV2", "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"]
SIZE = 224
HEADER = ["measure", "target", "ratio", "seconds", "detail"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/chest_xray", help="folder with train/CLASS/*.jpeg")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--images", type=int, help="only so many, drawn at random (default: all)")
    parser.add_argument("--only-second", action="store_true", help="only (c), in a table of its own, several times")
    arguments = parser.parse_args()
    train = dataset_of(arguments.data, arguments.images)
    paths = [pathlib.Path(arguments.data) / "train" / name for name in train.names]
    few = np.arange(0, len(train), max(1, len(train) // 64))
    warm_up(train[few], [paths[i] for i in few])
    if arguments.only_second:
        rows = [second_fit_row(train) for _ in range(3)]
        notes = [f"{len(train)} chest X-rays at {SIZE} px; backbones: {', '.join(BACKBONES)}"]
        save_table("feature_cache_second_fit", "A second fit beside the first", HEADER, rows, notes=notes)
        return
    ours, plain, parts = [], [], []
    for pair in range(arguments.pairs):
        seconds, where = plain_pass(paths, BACKBONES)
        plain.append(seconds)
        parts.append(where)
        ours.append(timed(lambda: fit(train, BACKBONES, combiner="auto")))
        print(f"pair {pair + 1}: fit {ours[-1]:.1f} s, plain pass {plain[-1]:.1f} s", flush=True)
    rows = [row_of_pairs(ours, plain, len(train))]
    rows += notebook_rows(train, arguments)
    rows += [second_fit_row(train), further_backbone_row(train, paths)]
    names = ["read and decode", *BACKBONES]
    notes = [f"plain pass, {n}: median {statistics.median(p[n] for p in parts):.2f} s" for n in names]
    notes += [f"fit, {line}" for line in profile(train)]
    save_table(
        "feature_cache",
        "A fit beside the one pass over the images",
        HEADER,
        rows,
        notes=[f"{len(train)} chest X-rays at {SIZE} px; backbones: {', '.join(BACKBONES)}", *notes],
    )


def dataset_of(data, count):
    train = ek.ImageDataset.from_directory(pathlib.Path(data) / "train")
    if count is None:
        return train
    return train[np.sort(np.random.default_rng(0).permutation(len(train))[:count])]


def fit(train, backbones, **arguments):
    return ek.EnsembleClassifier(backbones, image_size=SIZE, cv=5, verbose=0, **arguments).fit(train)


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def warm_up(train, paths):
    plain_pass(paths, BACKBONES)
    fit(train, BACKBONES, combiner="auto")


def read(path):
    return np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def plain_pass(paths, names):
    """Reads and decodes every image once, in threads, and calls `predict` with each backbone, as by hand."""
    where, start = {}, time.perf_counter()
    models = {name: ek.build_backbone(name, input_shape=(SIZE, SIZE, 3)) for name in names}
    where["build"] = time.perf_counter() - start
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(read, paths)))
    where["read and decode"] = time.perf_counter() - start
    for name, model in models.items():
        where[name] = timed(lambda model=model: model.predict(images, batch_size=64, verbose=0))
    # Building the networks is no part of the pass.
    return sum(where.values()) - where["build"], where


def row_of_pairs(ours, plain, count):
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    detail = f"{len(ratios)} pairs, ratios {', '.join(f'{r:.3f}' for r in sorted(ratios))}; {count} images"
    seconds = f"{statistics.median(ours):.1f} / {statistics.median(plain):.1f}"
    return [
        "(a) fit, 5 folds, all combiners ÷ plain pass",
        "≤ 1.15",
        f"{statistics.median(ratios):.3f}",
        seconds,
        detail,
    ]


def notebook_rows(train, arguments):
    """The plain notebook: frozen backbones in one graph, concatenated, `fit` for 10 epochs; no folds."""
    ours = timed(lambda: fit(train, BACKBONES, combiner="concatenate"))
    with tempfile.TemporaryDirectory() as folder:
        files = keras.utils.image_dataset_from_directory(
            folder_of(train, arguments.data, folder), image_size=(SIZE, SIZE), batch_size=32, verbose=False
        )
        from_files = timed(lambda: notebook(files.prefetch(2)))
    in_memory = timed(lambda: notebook(train.load(image_size=SIZE), train.labels))
    detail = (
        f"{len(train)} images; ours gives 5 folds, the notebook none (with 5 folds it would take 5 times as long)"
    )
    ways = {"files read in every epoch": (from_files, "≥ 12"), "images kept in memory": (in_memory, "")}
    return [
        [f"(b) notebook, 10 epochs, {way} ÷ ours", target, f"{t / ours:.1f}", f"{t:.1f} / {ours:.1f}", detail]
        for way, (t, target) in ways.items()
    ]


def folder_of(train, data, folder):
    """Links the images of a dataset into a folder of class folders."""
    for name in train.names:
        link = pathlib.Path(folder) / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to((pathlib.Path(data) / "train" / name).resolve())
    return folder


def notebook(x, y=None):
    inputs = keras.Input((SIZE, SIZE, 3))
    features = []
    for name in BACKBONES:
        backbone = ek.build_backbone(name, input_shape=(SIZE, SIZE, 3))
        backbone.trainable = False
        features.append(backbone(inputs, training=False))
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Concatenate()(features))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=10, batch_size=None if y is None else 32, verbose=0)


def second_fit_row(train):
    with tempfile.TemporaryDirectory() as folder:
        first = timed(lambda: fit(train, BACKBONES, combiner="soft_voting", directory=folder))
        second = timed(lambda: fit(train, BACKBONES, combiner="stacking", directory=folder))
    seconds = f"{second:.1f} / {first:.1f}"
    return ["(c) second fit, another combiner ÷ first", "≤ 0.10", f"{second / first:.3f}", seconds, "one directory"]


def further_backbone_row(train, paths):
    with tempfile.TemporaryDirectory() as folder:
        store = pathlib.Path(folder) / "features.sqlite"
        fit(train, BACKBONES[1:], store=store)
        again = timed(lambda: fit(train, BACKBONES[1:], store=store))
        more = timed(lambda: fit(train, BACKBONES, store=store))
    own, _ = plain_pass(paths, BACKBONES[:1])
    detail = f"{BACKBONES[0]} added to {len(BACKBONES) - 1} stored ones; (with it − again without) ÷ its plain pass"
    return [
        "(d) one more backbone ÷ its own pass",
        "≈ 1",
        f"{(more - again) / own:.2f}",
        f"{more - again:.1f} / {own:.1f}",
        detail,
    ]


def profile(train):
    """Where the rest of a fit goes, by step."""
    classifier = fit(train, BACKBONES, combiner="auto")
    table = classifier.leaderboard_
    for row in table.itertuples():
        label = "features and head" if row.kind == "member" else "combiner, out of fold"
        yield f"{row.name} ({label}): {row.seconds:.2f} s"


if __name__ == "__main__":
    main()

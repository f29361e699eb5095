"""Chest X-rays, train folder to test folder: members, combiners, and a fourth member of one's own.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/chest_xray.py --data ../shared/data/chest_xray

Runs the functions of `examples/chest_xray.py` with three members, then with the SqueezeNet beside them, cut at
`fire9_concat` and given its own preprocessing by `register_backbone`.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import keras
import numpy as np
from _tables import save_table

import ensemble_keras as ek

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
import chest_xray as example

BACKBONES = ["MobileNetV2", "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"]
TARGETS = {3: 0.955, 4: 0.962}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/chest_xray", help="folder with train/CLASS and test/CLASS")
    parser.add_argument("--squeezenet", default="../shared/data/models/squeezenet1.1_imagenet.keras")
    parser.add_argument("--images", type=int, help="only so many of each part, drawn at random (default: all)")
    parser.add_argument("--name", default="chest_xray", help="of the saved table (default: %(default)s)")
    options = parser.parse_args(arguments)
    register_squeezenet(options.squeezenet)
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for backbones in (BACKBONES, [*BACKBONES, "SqueezeNet"]):
            found, note = measure(backbones, options, folder)
            rows += found
            notes.append(note)
    header = ["members", "name", "accuracy", "ROC AUC", "gain in AUC over the best member", "95 % interval", "target"]
    save_table(options.name, "Pneumonia on chest X-rays, on the test folder", header, rows, notes=notes)


def register_squeezenet(path):
    def squeezenet(input_shape):
        whole = keras.saving.load_model(path)
        return keras.Model(whole.inputs, whole.get_layer("fire9_concat").output)

    def standardised(images):
        return (images / 255.0 - np.array(MEAN, "float32")) / np.array(STD, "float32")

    ek.register_backbone("SqueezeNet", squeezenet, preprocessing=standardised, default_size=224)


def measure(backbones, options, folder):
    """Returns the rows of a table, and a sentence on what was run and how long it took."""
    start = time.perf_counter()
    settings = example.parse(
        ["--data", options.data, "--backbones", *backbones, "--output", f"{folder}/{len(backbones)}"]
    )
    train, test = (part_of(dataset, options.images) for dataset in example.load(settings))
    chosen, reports = example.fit_and_evaluate(settings, train, test)
    table = example.compare_on_test(example.members_on_test(chosen, reports, test), reports, test)
    seconds = time.perf_counter() - start
    rows = [row(line, len(backbones)) for line in table.to_dict("records")]
    return rows, (
        f"{len(backbones)} members at {settings.image_size} px, {len(train)} training and {len(test)} test images, "
        f"{settings.cv} folds by patient, {len(reports)} combiners: {seconds:.0f} s"
    )


def part_of(dataset, count):
    if count is None or count >= len(dataset):
        return dataset
    return dataset[np.sort(np.random.default_rng(0).permutation(len(dataset))[:count])]


def row(line, members):
    target = f"≥ {TARGETS[members]:.3f}" if line["name"] == "soft_voting" else ""
    figures = [f"{line[key]:.4f}" for key in ("accuracy", "roc_auc")]
    return [members, line["name"], *figures, f"{line['gain']:+.4f}", line["95 % interval"], target]


if __name__ == "__main__":
    main()

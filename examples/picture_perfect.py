"""PicturePerfect: networks that a sparse search made narrow, joined to one model, beside VGG16 and ResNet50.

    python examples/picture_perfect.py --output perfect                 # CIFAR-10, downloaded by Keras
    python examples/picture_perfect.py --data xrays --output perfect    # a folder with train/CLASS and test/CLASS
    python examples/picture_perfect.py --output perfect --smoke         # a minute or two, on digits

Candidates train with the L1 norm of their weights in the loss (equation 1 of the paper), lose the channels that have
become small, and train on; the best of them are joined by the mean of what they say (equation 2). The baselines train
on the same images. The test images are looked at once, at the end. Printed and saved are the paper's tables:
accuracy, precision, recall and F1; GFLOPs, times and size; the p-value of each comparison; confusion matrix and ROC.
`benchmarks/picture_perfect.py` saves the tables of a run.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _images import load as load_arrays
from chest_xray import patient

import ensemble_keras as ek

BASELINES = ["VGG16", "ResNet50"]
# Smaller images are enlarged for them: they take no smaller ones.
SMALLEST = 32
FAMILIES = {"cnn": {"norm": ["batch"]}, "vgg": {"norm": ["batch"]}, "residual": {}, "densenet": {}}
WAYS = ["pruned_val_accuracy", "scratch_val_accuracy"]
SMALL_FAMILIES = {"cnn": {"blocks": [2], "filters": [24], "kernel_size": [3], "norm": ["batch"]}}


def main(arguments=None):
    options = parse(arguments)
    train, test, size = load(options)
    train, validation = train.split(0.2, seed=options.seed)
    print(f"{len(train)} images to train on, {len(validation)} to choose by, {len(test)} for the end")
    models, seconds = {}, {}
    for name in BASELINES:
        models[name], seconds[name] = baseline(name, train, validation, size, options)
    models["their ensemble"] = ek.build_ensemble([models[name] for name in BASELINES], ek.SoftVoting())
    seconds["their ensemble"] = sum(seconds.values())
    models["sparse ensemble"], seconds["sparse ensemble"] = sparse_ensemble(train, validation, size, options)
    return tell(models, seconds, test, pathlib.Path(options.output))


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", help="cifar10, digits, an .npz file or a folder (default: cifar10; --smoke: digits)"
    )
    parser.add_argument("--image-size", type=int, default=64, help="of the images in a folder (default: %(default)s)")
    parser.add_argument("--output", default="perfect", help="folder for the search and what it finds")
    parser.add_argument("--images", type=int, help="training images to use (default: all)")
    parser.add_argument("--trials", type=int, help="networks to search (default: 30)")
    parser.add_argument("--epochs", type=int, help="epochs of a network (default: 20)")
    parser.add_argument("--members", type=int, default=5, help="members of the ensemble (default: %(default)s)")
    parser.add_argument("--weights", choices=["imagenet", "none"], help="of the baselines (default: imagenet)")
    parser.add_argument("--strength", nargs="+", type=float, default=[3e-4, 1e-3, 3e-3], help="λ, to choose from")
    parser.add_argument("--threshold", type=float, help="channels below this share of the greatest go (default: 0.3)")
    parser.add_argument("--augmentation", default="none", help="a policy such as cifar (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="small: 2 networks, 1 epoch, 300 digits, random weights")
    parser.add_argument("--resume", action="store_true", help="go on with the search in --output")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    # After few steps no channel is near zero.
    small = {"data": "digits", "images": 300, "trials": 2, "epochs": 1, "weights": "none", "threshold": 0.7}
    large = {"data": "cifar10", "images": None, "trials": 30, "epochs": 20, "weights": "imagenet", "threshold": 0.3}
    for name, value in (small if options.smoke else large).items():
        setattr(options, name, getattr(options, name) or value)
    if (pathlib.Path(options.output) / "search").exists() and not options.resume:
        parser.error(f"{options.output} holds a search: --resume goes on with it, another --output begins a new one.")
    return options


def load(options):
    """Returns the training images, as many as asked for, the test images, and their height and width."""
    folder = pathlib.Path(options.data)
    if folder.is_dir():
        train = ek.ImageDataset.from_directory(folder / "train", groups=patient)
        test = ek.ImageDataset.from_directory(folder / "test", class_names=train.class_names)
        size = (options.image_size, options.image_size)
    else:
        (x, y), (x_test, y_test) = load_arrays(options.data)
        train, test = ek.ImageDataset.from_arrays(x, y), ek.ImageDataset.from_arrays(x_test, y_test)
        size = x.shape[1:3]
    if options.images is not None and options.images < len(train):
        train, _ = train.split(1 - options.images / len(train), seed=options.seed)
    return train, test, size


def baseline(name, train, validation, size, options):
    """Returns a trained baseline, and the seconds that it took."""
    start = time.perf_counter()
    pretrained = options.weights != "none"
    backbone = ek.build_backbone(
        name,
        input_shape=(*size, 3),
        weights=options.weights if pretrained else None,
        resize_to=None if min(size) >= SMALLEST else SMALLEST,
    )
    member = ek.build_member(backbone, num_classes(train), name=f"{name.lower()}_member")
    ek.fine_tune(
        member,
        train,
        validation_data=validation,
        settings=ek.FineTuning(
            epochs=options.epochs,
            train_batch_norm=not pretrained,
            monitor="val_accuracy",
            patience=options.epochs,
        ),
        augmentation=options.augmentation,
        probe=pretrained,
        seed=options.seed,
    )
    return member, time.perf_counter() - start


def num_classes(dataset):
    return len(np.unique(dataset.labels))


def sparse_ensemble(train, validation, size, options):
    """Returns the mean of the best narrow networks of a search, and the seconds that the search took."""
    start = time.perf_counter()
    families = SMALL_FAMILIES if options.smoke else FAMILIES
    space = ek.search.HyperImageClassifier(num_classes(train), (*size, 3), families=families)
    tuner = ek.search.SparseSearch(
        space,
        strength=options.strength,
        threshold=options.threshold,
        max_trials=options.trials,
        seed=options.seed,
        directory=options.output,
        project_name="search",
    )
    tuner.search(
        train, validation_data=validation, epochs=options.epochs, augmentation=options.augmentation, verbose=1
    )
    columns = ["trial", "family", "wide_macs", "macs", "wide_val_accuracy", *WAYS]
    print(tuner.leaderboard().head(10)[columns].round(4).to_string(index=False))
    # The one call: equation 2 of the paper is the plain mean.
    model = ek.search.ensemble_from_search(tuner, size=options.members, combiner="top")
    return model, time.perf_counter() - start


def tell(models, seconds, test, output):
    """Prints and saves what the models are worth, what they cost and whether they differ; returns the former."""
    reports = {name: ek.EvaluationReport.from_model(model, test) for name, model in models.items()}
    figures = pd.DataFrame({name: worth(report) for name, report in reports.items()}).T
    sizes = ek.compare_sizes(models, test)
    costs = pd.DataFrame(
        {
            "GFLOPs": 2e-9 * sizes["macs"].astype("float64"),
            "parameters": sizes["parameters"],
            "model size, MB": sizes["file_bytes"] / 1e6,
            "training time, s": pd.Series(seconds),
            "inference time, ms": sizes["latency_ms"],
            "images per second": sizes["throughput"],
        }
    )
    tables = {name: report.probabilities for name, report in reports.items()}
    differences = ek.compare_all(tables, reports["sparse ensemble"].y_true)
    for name, table in {"figures": figures, "costs": costs, "differences": differences}.items():
        print(f"\n{table.round(4).to_string()}")
        table.to_csv(output / f"{name}.csv")
    draw(reports, output)
    models["sparse ensemble"].save(output / "ensemble.keras")
    print(f"\nThe tables, the plots and the ensemble are in {output}.")
    return figures


def worth(report):
    names = {"accuracy": "accuracy", "precision": "precision_macro", "recall": "recall_macro", "F1": "f1_macro"}
    return {name: report.summary[key] for name, key in names.items()}


def draw(reports, output):
    """Draws the confusion matrix and the ROC curves of each model."""
    figure, axes = plt.subplots(2, len(reports), figsize=(5 * len(reports), 9), layout="constrained")
    for (name, report), (above, below) in zip(reports.items(), axes.T, strict=True):
        report.plot_confusion(ax=above, normalize=True)
        report.plot_roc(ax=below)
        above.set_title(name)
    figure.savefig(output / "picture_perfect.png", dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()

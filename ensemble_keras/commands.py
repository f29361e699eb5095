"""Commands: what each of them does, from checked options to printed results."""

import pathlib
import textwrap
import warnings

import numpy as np
import pandas as pd

from ensemble_keras._validation import check_image_size
from ensemble_keras.artifact import load_ensemble, member_names, save_ensemble
from ensemble_keras.backbones.registry import default_size, has_pretrained_weights, list_backbones
from ensemble_keras.classifier import EnsembleClassifier
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.data.decoding import FILTER
from ensemble_keras.data.labels import encode_labels
from ensemble_keras.data.leaks import check_leaks
from ensemble_keras.data.scanning import IMAGE_SUFFIXES
from ensemble_keras.evaluation.report import EvaluationReport
from ensemble_keras.features.extraction import predict as predict_images
from ensemble_keras.members.settings import FineTuning, Training
from ensemble_keras.runs import atomic_path


def fit(options):
    """Fits an ensemble, saves it, and evaluates it where there are test images."""
    classifier = EnsembleClassifier(
        options.backbones,
        combiner=options.combiner,
        image_size=options.image_size,
        weights=None if options.weights == "none" else options.weights,
        cv=options.cv,
        training=None if options.epochs is None else Training(epochs=options.epochs),
        fine_tune=None if options.fine_tune is None else FineTuning(epochs=options.fine_tune),
        augmentation=options.augmentation,
        views=options.views,
        sampling=options.sampling,
        calibrate=options.calibrate,
        max_macs=options.max_macs,
        max_parameters=options.max_parameters,
        max_latency_ms=options.max_latency_ms,
        class_weight=options.class_weight,
        directory=options.directory,
        leaks=options.leaks,
        seed=options.seed,
        verbose=int(not options.quiet),
    )
    train = _dataset(options.data, options)
    # Before the long work: a mistake in the test data would otherwise show after it.
    test, leaks = _test_dataset(options, train) if options.test else (None, None)
    classifier.fit(train)
    classifier.save(options.output)
    if test is not None:
        with warnings.catch_warnings():
            # Said before the fit, with near-duplicates.
            warnings.filterwarnings("ignore", message=".* in the training and the test data")
            report = classifier.evaluate(test)
        report.leaks = leaks
        _show(report, options)


def evaluate(options):
    """Evaluates a saved model, and its members, on labelled images."""
    model, card = load_ensemble(options.model)
    dataset = _dataset(options.data, options)
    _check_classes(dataset, card["class_names"])
    report = EvaluationReport.from_model(
        model,
        dataset,
        class_names=card["class_names"],
        # Whoever calls `save_ensemble` may give a card without these.
        member_names=member_names(card),
        out_of_fold=_dict(_dict(card.get("validation")).get("out_of_fold")),
        operating_point=card.get("operating_point"),
        conformal=card.get("conformal"),
        verdict=card.get("verdict"),
        details=card,
        verbose=int(not options.quiet),
    )
    _show(report, options)


def search(options):
    """Searches architectures, saves the best team as one model, and evaluates it where there are test images."""
    # KerasTuner takes a second to load: only for those who search.
    from ensemble_keras.search.pool import SearchEnsemble
    from ensemble_keras.search.space import HyperImageClassifier
    from ensemble_keras.search.tuner import ArchitectureSearch

    train = _dataset(options.data, options)
    test = None if options.test is None else _dataset(options.test, options)
    if test is not None:
        _check_classes(test, train.class_names)
    size = check_image_size(options.image_size)
    limits = {"max_macs": options.max_macs, "max_parameters": options.max_parameters}
    tuner = ArchitectureSearch(
        HyperImageClassifier(
            len(train.class_names),
            (*size, 3),
            families=options.families,
            **{name: limit and int(limit) for name, limit in limits.items()},
        ),
        algorithm=options.algorithm,
        max_trials=options.trials,
        halving=options.halving or None,
        ensemble_size=options.members,
        seed=options.seed,
        directory=options.directory,
    )
    verbose = int(not options.quiet)
    tuner.search(
        train,
        epochs=options.epochs,
        augmentation=options.augmentation,
        executor=options.processes,
        verbose=verbose,
    )
    found = SearchEnsemble.from_search(tuner, size=options.members, seed=options.seed)
    columns = ["trial", "family", "val_accuracy", "parameters", "macs", "epochs", "seconds"]
    print(f"\n{tuner.leaderboard()[columns].head(10).round(4).to_string(index=False)}\n\n{found.verdict}")
    card = {
        "class_names": train.class_names,
        "image_size": list(size),
        "filter": FILTER,
        "verdict": found.verdict,
        "members": found.members.to_dict("records"),
    }
    save_ensemble(found.model, options.output, card=card, verbose=verbose)
    if test is not None:
        report = EvaluationReport.from_model(
            found.model, test, class_names=train.class_names, verdict=found.verdict, details=card, verbose=verbose
        )
        _show(report, options)


def predict(options):
    """Writes the class and the probabilities of images as a CSV."""
    files = _image_files(options.images)
    model, card = load_ensemble(options.model)
    probabilities = predict_images(model, ImageDataset.from_files(files), verbose=int(not options.quiet))
    names = card["class_names"]
    # A class may be called as one of the columns before it.
    columns = [f"probability of {name}" if name in ("file", "class") else name for name in names]
    table = pd.DataFrame(probabilities, columns=columns)
    table.insert(0, "class", [names[i] for i in probabilities.argmax(axis=1)])
    table.insert(0, "file", files)
    with atomic_path(options.output) as temporary:
        table.to_csv(temporary, index=False)
    if not options.quiet:
        print(f"{len(table)} predictions in {options.output}")


def backbones(options):
    """Lists the backbones with the size they were made for and their weights."""
    for name in list_backbones():
        weights = "imagenet" if has_pretrained_weights(name, "imagenet") else "none: trained from scratch"
        print(f"{name:20} {default_size(name):4} px  {weights}")


def _test_dataset(options, train):
    """Returns the test images, of no other classes than the training images, and the pictures on both sides."""
    test = _dataset(options.test, options)
    _check_classes(test, train.class_names)
    # Reads every image of both sides once, so it also lists those that are not readable.
    return test, check_leaks(train, test, leaks=options.leaks)


def _check_classes(dataset, class_names):
    """Raises `ValueError` if a class of the dataset is none of `class_names`; it need not have all of them."""
    encode_labels(np.asarray(dataset.class_names)[dataset.labels], np.asarray(class_names))


def _dataset(data, options):
    arguments = {"on_bad_image": options.on_bad_image}
    if pathlib.Path(data).suffix.lower() == ".csv":
        dataset = ImageDataset.from_dataframe(
            pd.read_csv(data),
            options.images or pathlib.Path(data).parent,
            filename_column=options.filename_column,
            label_column=options.label_column,
            group_column=options.group_column,
            **arguments,
        )
    else:
        dataset = ImageDataset.from_directory(data, **arguments)
    if len(dataset.skipped):
        listed = "".join(f"\n  {row.file}: {row.reason}" for row in dataset.skipped.itertuples())
        warnings.warn(f"{len(dataset.skipped)} files of {data} are left out:{listed}", stacklevel=2)
    return dataset


def _image_files(given):
    files = []
    for path in map(pathlib.Path, given):
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [str(file) for file in found if not path.is_dir() or _is_image_file(file)]
    if not files:
        raise ValueError(f"No image file in {', '.join(map(str, given))}.")
    return files


def _is_image_file(path):
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _dict(value):
    return value if isinstance(value, dict) else {}


def _show(report, options):
    figures = dict(report.summary)
    low, high = figures.pop("accuracy_low"), figures.pop("accuracy_high")
    print(f"\n{figures.pop('images')} images of {figures.pop('classes')} classes")
    for name, value in figures.items():
        if isinstance(value, float):
            interval = f"   95 % interval {low:.4f} to {high:.4f}" if name == "accuracy" else ""
            print(f"{name.replace('_', ' '):20} {value:.4f}{interval}")
    if report.member_probabilities:
        members = report.members[["accuracy", "log_loss", "roc_auc"]].rename_axis(None)
        print(f"\n{members.round(4).to_string()}")
    for note in report.notes:
        print("\n" + textwrap.fill(f"Note: {note}", 80))
    if options.report:
        report.to_html(options.report)
        print(f"\nReport in {options.report}")

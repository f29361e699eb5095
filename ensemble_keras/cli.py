"""Command line: fit, evaluate, predict and backbones. It only arranges calls."""

import argparse
import os
import pathlib
import sys

_EXAMPLES = {
    "fit": """example:
  ensemble-keras fit xrays/train --backbones DenseNet121 "MobileNetV2(alpha=0.35)" --combiner stacking \\
      --directory run --output xrays.keras --test xrays/test --report report.html""",
    "evaluate": """example:
  ensemble-keras evaluate xrays.keras xrays/test --report report.html""",
    "predict": """example:
  ensemble-keras predict xrays.keras new/*.jpeg --output predictions.csv""",
    "backbones": """example:
  ensemble-keras backbones""",
}
_DATA = "folder with one subfolder per class, a .zip of one, or a .csv table (see --filename-column)"


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see '{self.prog} --help')\n")


def main(arguments=None):
    """Runs a command.

    Args:
        arguments: List of strings. Defaults to those of the process.

    Returns:
        The exit code: 0; 2 if the arguments or the data are not as they should be, said in one message; 130 if
        interrupted.
    """
    parsed = _parser().parse_args(arguments)
    # TensorFlow's start-up notices would stand before every result.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        parsed.run(parsed)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if os.environ.get("ENSEMBLE_KERAS_TRACEBACK"):
            raise
        print(f"ensemble-keras {parsed.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. With --directory, the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _parser():
    parser = _Parser(prog="ensemble-keras", description="A labelled set of images in, one Keras model out.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")

    fit = _command(commands, "fit", _fit, "fit an ensemble and save it as one .keras file")
    fit.add_argument("data", help=f"training images: {_DATA}")
    fit.add_argument("--backbones", nargs="+", required=True, metavar="NAME", help="see 'ensemble-keras backbones'")
    fit.add_argument("--output", default="ensemble.keras", help="the model's file (default: %(default)s)")
    fit.add_argument("--combiner", default="soft_voting", metavar="NAME",
                     help="soft_voting, hard_voting, geometric_voting, concatenate, stacking or auto "
                     "(default: %(default)s)")  # fmt: skip
    fit.add_argument("--image-size", type=int, default=224, metavar="PIXELS", help="default: %(default)s")
    fit.add_argument("--weights", default="imagenet", choices=["imagenet", "none"],
                     help="none: train every backbone from scratch (default: %(default)s)")  # fmt: skip
    fit.add_argument("--cv", type=int, default=5, metavar="FOLDS", help="default: %(default)s")
    fit.add_argument("--epochs", type=int, help="of backbones that are trained from scratch (default: 50)")
    fit.add_argument("--class-weight", choices=["balanced"], help="give rare classes more weight")
    fit.add_argument("--directory", help="keeps features and finished work: the same command goes on after a kill")
    fit.add_argument("--test", metavar="DATA", help="images to evaluate on, in the form of the training images")
    _add_data_options(fit)
    fit.add_argument("--seed", type=int, default=0, help="default: %(default)s")

    evaluate = _command(commands, "evaluate", _evaluate, "evaluate a saved model on labelled images")
    evaluate.add_argument("model", help="a .keras file made by 'fit'")
    evaluate.add_argument("data", help=f"labelled images: {_DATA}")
    _add_data_options(evaluate)

    predict = _command(commands, "predict", _predict, "write a CSV with the class and the probabilities of images")
    predict.add_argument("model", help="a .keras file made by 'fit'")
    predict.add_argument("images", nargs="+", help="image files, or folders of image files")
    predict.add_argument("--output", default="predictions.csv", help="default: %(default)s")
    predict.add_argument("--quiet", action="store_true", help="show no progress")

    _command(commands, "backbones", _backbones, "list the backbones")
    return parser


def _command(commands, name, run, description):
    command = commands.add_parser(
        name,
        help=description,
        description=description[0].upper() + description[1:] + ".",
        epilog=_EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_data_options(command):
    command.add_argument("--report", metavar="FILE", help="write an HTML report of the evaluation")
    command.add_argument(
        "--images", metavar="FOLDER", help="where the files of a .csv table lie (default: beside it)"
    )
    command.add_argument("--filename-column", metavar="NAME", help="column of a .csv table with the file names")
    command.add_argument("--label-column", metavar="NAME", help="column of a .csv table with the classes")
    command.add_argument(
        "--group-column", metavar="NAME", help="column of a .csv table with groups, such as patients"
    )
    command.add_argument("--on-bad-image", choices=["error", "skip"], default="error", help="default: %(default)s")
    command.add_argument("--quiet", action="store_true", help="show no progress")


def _dataset(data, options, class_names=None):
    import pandas as pd

    from ensemble_keras import ImageDataset

    arguments = {"on_bad_image": options.on_bad_image, "class_names": class_names}
    if pathlib.Path(data).suffix.lower() != ".csv":
        return ImageDataset.from_directory(data, **arguments)
    for name in ("filename_column", "label_column"):
        if getattr(options, name) is None:
            raise ValueError(f"A .csv table needs --{name.replace('_', '-')}.")
    return ImageDataset.from_dataframe(
        pd.read_csv(data),
        options.images or pathlib.Path(data).parent,
        filename_column=options.filename_column,
        label_column=options.label_column,
        group_column=options.group_column,
        **arguments,
    )


def _fit(options):
    from ensemble_keras import EnsembleClassifier, Training

    _check_output(options.output, ".keras")
    if options.report and not options.test:
        raise ValueError("--report shows an evaluation: give images that are not trained on with --test.")
    classifier = EnsembleClassifier(
        options.backbones,
        combiner=options.combiner,
        image_size=options.image_size,
        weights=None if options.weights == "none" else options.weights,
        cv=options.cv,
        training=None if options.epochs is None else Training(epochs=options.epochs),
        class_weight=options.class_weight,
        directory=options.directory,
        seed=options.seed,
        verbose=int(not options.quiet),
    )
    classifier.fit(_dataset(options.data, options))
    if not options.quiet:
        print(classifier.leaderboard_.round(4).to_string(index=False))
    classifier.save(options.output)
    if options.test:
        test = _dataset(options.test, options, [str(name) for name in classifier.classes_])
        _show(classifier.evaluate(test), options)


def _evaluate(options):
    from ensemble_keras import EvaluationReport, load_ensemble
    from ensemble_keras.artifact import member_names

    model, card = load_ensemble(options.model)
    dataset = _dataset(options.data, options, card["class_names"])
    report = EvaluationReport.from_model(
        model,
        dataset,
        class_names=card["class_names"],
        member_names=member_names(card),
        verbose=int(not options.quiet),
        verdict=card["verdict"],
        out_of_fold=card["validation"]["out_of_fold"],
        details=card,
    )
    _show(report, options)


def _predict(options):
    import pandas as pd

    from ensemble_keras import ImageDataset, load_ensemble
    from ensemble_keras.features.extraction import predict
    from ensemble_keras.runs import atomic_path

    _check_output(options.output, ".csv")
    files = _image_files(options.images)
    model, card = load_ensemble(options.model)
    probabilities = predict(model, ImageDataset.from_files(files), verbose=int(not options.quiet))
    table = pd.DataFrame(probabilities, columns=card["class_names"])
    table.insert(0, "class", [card["class_names"][index] for index in probabilities.argmax(axis=1)])
    table.insert(0, "file", files)
    with atomic_path(options.output) as temporary:
        table.to_csv(temporary, index=False)
    print(f"{len(table)} predictions in {options.output}")


def _image_files(given):
    from ensemble_keras.data.scanning import IMAGE_SUFFIXES

    files = []
    for path in map(pathlib.Path, given):
        if not path.exists():
            raise ValueError(f"There is no file or folder {str(path)!r}.")
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [str(file) for file in found if not path.is_dir() or file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise ValueError(f"No image file in {', '.join(map(str, given))}.")
    return files


def _backbones(options):
    from ensemble_keras import list_backbones
    from ensemble_keras.backbones.registry import default_size, has_pretrained_weights

    for name in list_backbones():
        weights = "imagenet" if has_pretrained_weights(name, "imagenet") else "none: trained from scratch"
        print(f"{name:20} {default_size(name):4} px  {weights}")


def _show(report, options):
    for name, value in report.summary.items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    if options.report:
        report.to_html(options.report)
        print(f"Report in {options.report}")


def _check_output(path, suffix):
    if pathlib.Path(path).suffix != suffix:
        raise ValueError(f"--output must end in {suffix}. Received: {path}")
    if not pathlib.Path(path).resolve().parent.is_dir():
        raise ValueError(f"The folder of --output does not exist: {path}")


def _version():
    from ensemble_keras import __version__

    return __version__

"""Command line: the options of each command, and one clear line for what is wrong."""

import argparse
import os
import pathlib
import sys

from ensemble_keras import __version__
from ensemble_keras._terminal import quiet_start, short_warnings

COMBINERS = (
    "soft_voting",
    "hard_voting",
    "geometric_voting",
    "weighted_voting",
    "greedy",
    "best_member",
    "stacking",
    "concatenate",
    "gated",
    "auto",
)
FAMILIES = ("cnn", "alexnet", "vgg", "residual", "densenet", "mobilenet", "recurrent", "transformer", "hybrid")
AUGMENTATIONS = (
    "none",
    "light",
    "medical",
    "cifar",
    "strong",
    "rotation",
    "blur",
    "flip",
    "crop",
    "zoom",
    "brightness",
    "contrast",
    "erasing",
    "randaugment",
    "mixup",
    "cutmix",
)
_TRACEBACK = "ENSEMBLE_KERAS_TRACEBACK"
_DATA = "folder with one subfolder per class, a .zip of one, or a .csv table (see --filename-column)"
_IN_SHELL = {
    "See list_backbones().": "See 'ensemble-keras backbones'.",
    "See list_families().": f"Known: {', '.join(FAMILIES)}.",
    "See list_augmentations().": f"Known: {', '.join(AUGMENTATIONS)}.",
    "on_bad_image='skip'": "--on-bad-image skip",
    "weights=None": "--weights none",
    "the path of a weights file": "\"NAME(weights='FILE')\" with a weights file",
    "Correct `directory`": "Correct --images",
    "or use `from_dataframe`": "or give a .csv table",
    "`y_true` must hold": "The labels must be",
    " (see `.failures`)": "",
    "`max_trials`": "--trials",
    "`ensemble_size`": "--members",
    "`executor`": "--processes",
    "another `project_name`, or `overwrite=True`": "another --directory",
    "See `leaderboard()`": "See trials.csv in the folder of the search",
    "\n`find_leaks` gives all of them.": "",
}
_EXAMPLES = {
    "fit": """\
  ensemble-keras fit xrays/train --backbones DenseNet121 "MobileNetV2(alpha=0.35)" \\
      --combiner stacking --directory run --output xrays.keras \\
      --test xrays/test --report report.html""",
    "evaluate": "  ensemble-keras evaluate xrays.keras xrays/test --report report.html",
    "predict": "  ensemble-keras predict xrays.keras new/*.jpeg --output predictions.csv",
    "search": """\
  ensemble-keras search photos/train --image-size 32 --trials 100 --epochs 30 --halving \\
      --directory night --output photos.keras --test photos/test""",
    "backbones": "  ensemble-keras backbones",
}
ALGORITHMS = ("genetic", "local", "random", "bayesian", "hyperband")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see '{self.prog} --help')\n")


def main(arguments=None):
    """Runs a command.

    Args:
        arguments: List of strings. Defaults to those of the process.

    Returns:
        The exit code: 0; 2 if the data or the values of options are not as they should be, said in one message; 130
        if interrupted.

    Raises:
        SystemExit: With code 2 if the options are malformed, 0 after `--help` and `--version`.
    """
    options = _parser().parse_args(arguments)
    try:
        with short_warnings():
            _check(options)
            _run(options)
        # A closed pipe (`| head`) shows here, not when the interpreter ends.
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if os.environ.get(_TRACEBACK):
            raise
        print(f"ensemble-keras {options.command}: error: {_as_options(str(error), options)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nInterrupted.{_way_on(options)}", file=sys.stderr)
        return 130
    return 0


def _run(options):
    # Loaded only now: help and mistakes in the options are answered at once.
    with quiet_start():
        from ensemble_keras import commands
    getattr(commands, options.command)(options)


def _parser():
    parser = _Parser(
        prog="ensemble-keras",
        description="A labelled set of images in, one Keras model out.",
        epilog=f"{_TRACEBACK}=1 in the environment shows where in the code an error came from.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")
    _add_fit(commands)

    evaluate = _command(commands, "evaluate", "evaluate a saved model on labelled images")
    evaluate.add_argument("model", help="a .keras file made by 'fit'")
    evaluate.add_argument(
        "data", help=f"labelled images that were not trained on (only 'fit --test' can tell): {_DATA}"
    )
    _add_data_options(evaluate)

    predict = _command(commands, "predict", "write a CSV with the class and the probabilities of images")
    predict.add_argument("model", help="a .keras file made by 'fit'")
    predict.add_argument("images", nargs="+", help="image files, or folders of image files")
    predict.add_argument("--output", default="predictions.csv", metavar="FILE", help="default: %(default)s")
    predict.add_argument("--quiet", action="store_true", help="print nothing")

    _add_search(commands)
    _command(commands, "backbones", "list the backbones")
    return parser


def _add_fit(commands):
    fit = _command(commands, "fit", "fit an ensemble and save it as one .keras file")
    fit.add_argument("data", help=f"training images: {_DATA}")
    fit.add_argument("--backbones", nargs="+", required=True, metavar="NAME", help="see 'ensemble-keras backbones'")
    fit.add_argument(
        "--output", default="ensemble.keras", metavar="FILE", help="the model's file (default: %(default)s)"
    )
    fit.add_argument(
        "--combiner",
        default="soft_voting",
        metavar="NAME",
        help=f"{', '.join(COMBINERS[:-1])}, or auto: the simplest that is not worse (default: %(default)s)",
    )
    fit.add_argument(
        "--image-size",
        type=_image_size,
        default=224,
        metavar="PIXELS",
        help="side of the images, or HEIGHTxWIDTH such as 224x160 (default: %(default)s)",
    )
    fit.add_argument(
        "--weights",
        default="imagenet",
        choices=["imagenet", "none"],
        help="none: train every backbone from scratch (default: %(default)s)",
    )
    fit.add_argument("--cv", type=int, default=5, metavar="FOLDS", help="folds (default: %(default)s)")
    fit.add_argument(
        "--epochs", type=int, help="at most so many, of backbones that are trained from scratch (default: 50)"
    )
    fit.add_argument(
        "--fine-tune",
        nargs="?",
        type=int,
        const=5,
        metavar="EPOCHS",
        help="train pretrained backbones on, at most so many epochs (default: they stay frozen; without a number: 5)",
    )
    fit.add_argument(
        "--augmentation",
        metavar="POLICY",
        help="change training images at random: light, medical, cifar, strong, 'light(strength=0.5)', ...",
    )
    fit.add_argument(
        "--views",
        type=int,
        default=1,
        metavar="COUNT",
        help="views of each image, made by --augmentation, that heads of frozen backbones learn from (default: 1)",
    )
    fit.add_argument("--sampling", choices=["over", "under"], help="draw training images so that classes are even")
    fit.add_argument("--calibrate", action="store_true", help="bring members and ensemble to their temperatures")
    limits = fit.add_argument_group("what the ensemble may cost for one image")
    limits.add_argument("--max-macs", type=float, metavar="COUNT", help="multiply-accumulates of its members, as 2e9")
    limits.add_argument("--max-parameters", type=float, metavar="COUNT", help="parameters of its members")
    limits.add_argument(
        "--max-latency-ms", type=float, metavar="MS", help="milliseconds of its members, one by one, on this machine"
    )
    fit.add_argument("--class-weight", choices=["balanced"], help="give rare classes more weight")
    fit.add_argument(
        "--directory",
        metavar="FOLDER",
        help="keeps features and finished work: the same command goes on after a kill",
    )
    fit.add_argument("--seed", type=int, default=0, help="of the folds and of training (default: %(default)s)")
    fit.add_argument(
        "--leaks",
        choices=["warn", "error"],
        default="warn",
        help="what to do about pictures or groups in both training and test data (default: %(default)s)",
    )
    fit.add_argument("--test", metavar="DATA", help="images to evaluate on, in the form of the training images")
    _add_data_options(fit)


def _add_search(commands):
    search = _command(commands, "search", "search network architectures and save the best team as one .keras file")
    search.add_argument("data", help=f"training images: {_DATA}")
    search.add_argument(
        "--output", default="ensemble.keras", metavar="FILE", help="the model's file (default: %(default)s)"
    )
    search.add_argument(
        "--directory",
        default="search",
        metavar="FOLDER",
        help="keeps the search: the same command goes on after a kill, or with more --trials (default: %(default)s)",
    )
    search.add_argument(
        "--image-size",
        type=_image_size,
        default=32,
        metavar="PIXELS",
        help="side of the images, or HEIGHTxWIDTH such as 32x48 (default: %(default)s)",
    )
    search.add_argument("--trials", type=int, default=50, help="networks to train (default: %(default)s)")
    search.add_argument("--epochs", type=int, default=10, help="epochs of each (default: %(default)s)")
    search.add_argument("--families", nargs="+", metavar="NAME", help=f"{', '.join(FAMILIES)} (default: all)")
    search.add_argument(
        "--algorithm", choices=ALGORITHMS, default="genetic", help="how trials are proposed (default: %(default)s)"
    )
    search.add_argument("--halving", action="store_true", help="stop poor networks early")
    search.add_argument("--members", type=int, default=5, help="most members of the team (default: %(default)s)")
    search.add_argument(
        "--augmentation", metavar="POLICY", help="change training images at random: light, cifar, ..."
    )
    search.add_argument("--max-macs", type=float, metavar="COUNT", help="multiply-accumulates of a network, as 1e8")
    search.add_argument("--max-parameters", type=float, metavar="COUNT", help="parameters of a network")
    search.add_argument("--processes", type=int, metavar="COUNT", help="train so many networks at a time")
    search.add_argument("--seed", type=int, default=0, help="of the whole search (default: %(default)s)")
    search.add_argument("--test", metavar="DATA", help="images to evaluate on, in the form of the training images")
    _add_data_options(search)


def _command(commands, name, description):
    return commands.add_parser(
        name,
        help=description,
        description=f"{description[0].upper()}{description[1:]}.",
        epilog=f"example:\n{_EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _image_size(text):
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if not 0 < len(sides) < 3:
        raise argparse.ArgumentTypeError(f"must be one int or HEIGHTxWIDTH, in pixels. Received: {text!r}")
    return sides[0] if len(sides) == 1 else tuple(sides)


def _add_data_options(command):
    command.add_argument("--report", metavar="FILE", help="write an HTML report of the evaluation")
    table = command.add_argument_group("options of a .csv table")
    table.add_argument("--filename-column", metavar="NAME", help="column with the file names")
    table.add_argument("--label-column", metavar="NAME", help="column with the classes")
    table.add_argument("--group-column", metavar="NAME", help="column with groups, such as patients")
    table.add_argument("--images", metavar="FOLDER", help="where the files lie (default: beside the table)")
    command.add_argument(
        "--on-bad-image",
        choices=["error", "skip"],
        default="error",
        help="what to do about files that are no readable images (default: %(default)s)",
    )
    command.add_argument("--quiet", action="store_true", help="show results only, no progress")


def _check(options):
    """Refuses what can be seen to be wrong without the library, which takes seconds to load."""
    if options.command == "fit":
        _check_fit(options)
    if options.command in ("fit", "search"):
        _check_output(options.output, ".keras")
        if options.report and not options.test:
            raise ValueError("--report shows an evaluation: give images that are not trained on with --test.")
    if options.command in ("evaluate", "predict"):
        _check_suffix("The model", options.model, ".keras")
        _check_exists(options.model)
    if options.command == "predict":
        _check_output(options.output, ".csv")
        for path in options.images:
            _check_exists(path)
    if options.command in ("fit", "search", "evaluate"):
        _check_tables(options)


def _check_fit(options):
    if options.combiner not in COMBINERS:
        from ensemble_keras._validation import suggest

        hint = suggest(options.combiner, COMBINERS)
        raise ValueError(f"--combiner must be one of {', '.join(COMBINERS)}. Received: {options.combiner!r}.{hint}")
    if options.fine_tune is not None and options.fine_tune < 1:
        raise ValueError(f"--fine-tune takes a number of epochs, at least 1. Received: {options.fine_tune}.")


def _check_tables(options):
    given = [path for path in (options.data, getattr(options, "test", None)) if path]
    for path in given:
        _check_exists(path)
    tables = [path for path in given if pathlib.Path(path).suffix.lower() == ".csv"]
    for name in ("filename_column", "label_column"):
        if tables and getattr(options, name) is None:
            raise ValueError(f"The table {tables[0]} needs {_flag(name)}.")
    for name in ("filename_column", "label_column", "group_column", "images"):
        if not tables and getattr(options, name) is not None:
            raise ValueError(f"{_flag(name)} belongs to a .csv table. Received: {', '.join(given)}.")


def _check_exists(path):
    path = pathlib.Path(path)
    if not path.exists():
        from ensemble_keras._validation import suggest

        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ValueError(f"There is no file or folder {str(path)!r}.{suggest(path.name, beside)}")


def _check_output(path, suffix):
    _check_suffix("--output", path, suffix)
    if not pathlib.Path(path).resolve().parent.is_dir():
        raise ValueError(f"The folder of --output does not exist: {path}")


def _check_suffix(what, path, suffix):
    if pathlib.Path(path).suffix != suffix:
        raise ValueError(f"{what} must end in {suffix}. Received: {path}")


def _as_options(message, options):
    """Spells what a message of the library says in Python as it is said on the command line."""
    for python, shell in _IN_SHELL.items():
        message = message.replace(python, shell)
    if "on_bad_image" not in vars(options):
        message = message.replace(", or leave them out with --on-bad-image skip", "")
    for name in vars(options):
        message = message.replace(f"`{name}`", _flag(name))
    return message


def _flag(name):
    return f"--{name.replace('_', '-')}"


def _way_on(options):
    if options.command not in ("fit", "search"):
        return ""
    return " The same command goes on from here." if options.directory else " With --directory, the work is kept."

"""The command line, as a person at a shell meets it: results, and one clear line for every mistake."""

import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras import _terminal, cli, commands
from ensemble_keras.backbones.weights import _WAYS_ON
from ensemble_keras.combiners.choice import named_combiners

CLASSES = ["cat", "dog", "owl"]
SMALL = ["--backbones", "CNN(filters=(8, 16))", "CNN(filters=(4, 8))"]
SMALL += ["--epochs", "2", "--weights", "none", "--cv", "2", "--image-size", "16"]


def write_pictures(folder):
    """Writes `train/CLASS/*.png` and `test/CLASS/*.png`."""
    images, labels = pictures(60, 3, 16)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / ("train" if i < 42 else "test") / CLASSES[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with pictures, the model that `fit` made of them, and what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    write_pictures(folder)
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert cli.main(["fit", "train", *SMALL, "--output", "m.keras", "--quiet"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    return fitted


def read(paths):
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def environment(**changes):
    """The environment of a person who set nothing."""
    kept = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    return kept | changes


def run(*arguments, **changes):
    command = [sys.executable, "-m", "ensemble_keras", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**changes))


def test_predict_writes_what_the_model_predicts(here, tmp_path, capsys):
    output = tmp_path / "p.csv"
    assert cli.main(["predict", "m.keras", "test/owl", "test/cat", "train/dog/001.png", "--output", str(output)]) == 0
    assert "13 predictions in" in capsys.readouterr().out
    table = pd.read_csv(output)
    assert list(table.columns) == ["file", "class", *CLASSES]
    assert table["file"].tolist()[:1] == ["test/owl/044.png"]
    assert table["file"].tolist()[-1] == "train/dog/001.png"
    np.testing.assert_allclose(table[CLASSES].sum(axis=1), 1, atol=1e-6)
    model, _ = ek.load_ensemble("m.keras")
    np.testing.assert_allclose(table[CLASSES], model.predict(read(table["file"]), verbose=0), atol=1e-6)
    assert table["class"].tolist() == [CLASSES[i] for i in table[CLASSES].to_numpy().argmax(axis=1)]


def test_predict_takes_no_hidden_or_other_files_from_a_folder(here, tmp_path):
    folder = tmp_path / "new"
    (folder / "deep.png").mkdir(parents=True)
    image = Image.open("test/cat/042.png")
    for name in ("a.png", ".b.png", "deep.png/c.PNG"):
        image.save(folder / name)
    (folder / "notes.txt").write_text("no image")
    assert cli.main(["predict", "m.keras", str(folder), "--output", str(tmp_path / "p.csv"), "--quiet"]) == 0
    names = [os.path.relpath(file, folder) for file in pd.read_csv(tmp_path / "p.csv")["file"]]
    assert names == ["a.png", "deep.png/c.PNG"]


def test_evaluate_prints_the_accuracy_of_the_predictions(here, tmp_path, capsys):
    assert cli.main(["evaluate", "m.keras", "test", "--report", str(tmp_path / "r.html"), "--quiet"]) == 0
    printed = capsys.readouterr().out
    model, _ = ek.load_ensemble("m.keras")
    files = sorted((here / "test").glob("*/*.png"))
    right = model.predict(read(files), verbose=0).argmax(axis=1) == [CLASSES.index(f.parent.name) for f in files]
    assert re.search(rf"^accuracy +{right.mean():.4f} ", printed, re.MULTILINE)
    assert "CNN(filters=(4, 8))" in printed
    page = (tmp_path / "r.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert f"Report in {tmp_path / 'r.html'}" in printed


def test_a_table_gives_the_same_evaluation_as_folders(here, tmp_path, capsys):
    rows = [{"path": f"{f.parent.name}/{f.name}", "kind": f.parent.name} for f in (here / "test").glob("*/*.png")]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    columns = ["--filename-column", "path", "--label-column", "kind", "--images", "test"]
    assert cli.main(["evaluate", "m.keras", str(tmp_path / "t.csv"), *columns, "--quiet"]) == 0
    by_table = capsys.readouterr().out
    assert cli.main(["evaluate", "m.keras", "test", "--quiet"]) == 0
    assert by_table == capsys.readouterr().out


def test_fit_from_a_table_with_groups_evaluates_and_reports(here, tmp_path, capsys):
    files = [f for part in ("train", "test") for f in (here / part).glob("*/*.png")]
    rows = [
        {"path": str(f.relative_to(here)), "kind": f.parent.name, "who": f"p{i // 2}", "part": f.parent.parent.name}
        for i, f in enumerate(files)
    ]
    for part, table in pd.DataFrame(rows).groupby("part"):
        table.to_csv(here / f"{part}.csv", index=False)
    columns = ["--filename-column", "path", "--label-column", "kind", "--group-column", "who"]
    outputs = ["--output", str(tmp_path / "t.keras"), "--test", "test.csv", "--report", str(tmp_path / "r.html")]
    one = ["--backbones", "CNN(filters=(4, 8))", *SMALL[3:]]
    assert cli.main(["fit", "train.csv", *columns, *outputs, *one]) == 0
    printed = capsys.readouterr().out
    assert "18 images of 3 classes" in printed
    assert "soft_voting (chosen)" in printed
    assert (tmp_path / "r.html").exists()
    assert ek.load_ensemble(tmp_path / "t.keras")[1]["data"]["groups"] == 21


def test_quiet_prints_nothing_of_a_fit(here, tmp_path, capsys):
    one = ["--backbones", "CNN(filters=(4, 8))", *SMALL[3:]]
    assert cli.main(["fit", "train", *one, "--output", str(tmp_path / "q.keras"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_bad_images_are_named_or_left_out_as_asked(here, tmp_path, capsys):
    write_pictures(tmp_path)
    (tmp_path / "test" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    (tmp_path / "test" / "dog" / "empty.png").touch()
    test = str(tmp_path / "test")
    assert cli.main(["evaluate", "m.keras", test, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "2 files are no readable images:\n  cat/broken.png: damaged" in error
    assert "leave them out with --on-bad-image skip." in error
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main(["evaluate", "m.keras", test, "--quiet", "--on-bad-image", "skip"]) == 0
    printed = capsys.readouterr()
    assert "18 images of 3 classes" in printed.out
    assert printed.err.startswith(f"warning: 2 files of {test} are left out:\n  cat/broken.png: ")
    assert cli.main(["predict", "m.keras", test, "--quiet"]) == 2
    assert capsys.readouterr().err.endswith("Replace or remove them.\n")


def test_backbones_lists_all_of_them(capsys):
    assert cli.main(["backbones"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ek.list_backbones()
    assert "MobileNetV2           224 px  imagenet" in lines
    assert "Darknet19             224 px  none: trained from scratch" in lines


def test_every_combiner_of_the_command_line_is_known_to_the_library():
    for name in cli.COMBINERS:
        assert named_combiners(name, 2)


def test_every_family_and_augmentation_is_on_the_command_line():
    assert tuple(ek.list_augmentations()) == cli.AUGMENTATIONS
    # Other tests register families, which stand behind these.
    assert tuple(ek.search.list_families()[:9]) == cli.FAMILIES


def test_every_search_algorithm_is_on_the_command_line():
    from ensemble_keras.search.tuner import ALGORITHMS

    assert tuple(ALGORITHMS) == cli.ALGORITHMS


@pytest.mark.parametrize("command", ["fit", "evaluate", "predict", "search", "backbones"])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert f"example:\n  ensemble-keras {command}" in printed
    assert all(len(line) < 120 for line in printed.partition("example:")[2].splitlines())


MALFORMED = {
    "": "the following arguments are required: COMMAND",
    "fti": "invalid choice: 'fti'",
    "fit train": "the following arguments are required: --backbones",
    "fit train --backbones CNN --bakbones": "unrecognized arguments: --bakbones",
    "fit train --backbones CNN --cv five": "argument --cv: invalid int value: 'five'",
    "fit train --backbones CNN --image-size 2x2x2": "--image-size: must be one int or HEIGHTxWIDTH, in pixels",
    "fit train --backbones CNN --leaks ignore": "argument --leaks: invalid choice: 'ignore'",
    "fit train --backbones CNN --weights imagnet": "argument --weights: invalid choice: 'imagnet'",
}


@pytest.mark.parametrize("line", MALFORMED)
def test_malformed_options_give_one_line_and_code_2(line, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(line.split())
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert MALFORMED[line] in printed.err
    assert "--help'" in printed.err


MISTAKES = {
    "fit trian --backbones CNN": "There is no file or folder 'trian'. Did you mean 'train'?",
    "fit train --backbones CNN --combiner stackin": "Received: 'stackin'. Did you mean 'stacking'?",
    "fit train --backbones CNN --output m.h5": "--output must end in .keras. Received: m.h5",
    "fit train --backbones CNN --output no/m.keras": "The folder of --output does not exist: no/m.keras",
    "fit train --backbones CNN --report r.html": "--report shows an evaluation: give images",
    "fit train --backbones CNN --test tset": "There is no file or folder 'tset'. Did you mean 'test'?",
    "fit train --backbones CNN --label-column kind": "--label-column belongs to a .csv table. Received: train.",
    "fit t.csv --backbones CNN --label-column kind": "The table t.csv needs --filename-column.",
    "fit t.csv --backbones CNN --filename-column file": "The table t.csv needs --label-column.",
    "fit t.csv --backbones CNN --filename-column fil --label-column kind": "--filename-column must be a column of "
    "the table: 'file', 'kind'. Received: 'fil'. Did you mean 'file'?",
    "fit t.csv --images train --backbones CNN --filename-column file --label-column kind": "1 of 2 rows name a file "
    "that is not below 'train': zzz.png. Correct --images or the column 'file'",
    "fit train --backbones DenseNet112": "Unknown backbone 'DenseNet112'. Did you mean 'DenseNet121'? "
    "See 'ensemble-keras backbones'.",
    "fit train --backbones CNN --cv 1": "--cv must be a number of folds of at least 2",
    "fit train --backbones CNN --image-size 0": "--image-size must be one int",
    "fit train --backbones AlexNet(width='a')": "AlexNet(width='a') cannot be built with these options",
    "fit train --backbones CNN --epochs 0": "--epochs must be at least 1, an int. Received: 0.",
    "fit train --backbones CNN --fine-tune": "--fine-tune is of backbones with pretrained weights. Received: CNN",
    "fit train --backbones VGG16 --fine-tune 0": "--fine-tune takes a number of epochs, at least 1. Received: 0.",
    "fit train --backbones CNN --augmentation lihgt": "Unknown augmentation 'lihgt'. Did you mean 'light'? "
    "Known: none, light, medical,",
    "fit train --backbones CNN --augmentation light --views 3": "--views are what the heads of frozen",
    "fit train --backbones VGG16 --augmentation light": "all backbones stay frozen. Give --views",
    "fit train --backbones CNN --max-macs 0": "--max-macs must be a number above 0, or None. Received: 0.0.",
    "fit train --backbones CNN --max-parameters 5": "Not one member is within --max-parameters of 5. The cheapest is",
    "fit flat --backbones CNN": "Expected one folder per class in 'flat'. Received: 1 images outside",
    "evaluate t.csv test": "The model must end in .keras. Received: t.csv",
    "evaluate n.keras test": "There is no file or folder 'n.keras'. Did you mean 'm.keras'?",
    "evaluate junk.keras test": "'junk.keras' is not a .keras file",
    "evaluate m.keras other": "Labels that are not in the training data: mouse. Classes: cat, dog, owl.",
    "predict bare.keras test": "The card of 'bare.keras' lacks 'class_names'.",
    "predict m.keras nothing.png": "There is no file or folder 'nothing.png'.",
    "predict m.keras empty": "No image file in empty.",
    "predict m.keras test --output p.txt": "--output must end in .csv. Received: p.txt",
}


@pytest.fixture(scope="module")
def wrong_inputs(fitted):
    (fitted / "t.csv").write_text("file,kind\n000.png,cat\nzzz.png,dog\n")
    (fitted / "junk.keras").write_text("junk")
    for kind in CLASSES:
        (fitted / "copies" / kind).mkdir(parents=True)
        first = min((fitted / "train" / kind).iterdir())
        shutil.copy(first, fitted / "copies" / kind)
    with zipfile.ZipFile(fitted / "bare.keras", "w") as file:
        file.writestr("ensemble.json", '{"format": 1, "filter": "bilinear"}')
    for name in ("empty", "flat", "other/mouse"):
        (fitted / name).mkdir(parents=True)
    for name in ("flat", "other/mouse"):
        Image.new("RGB", (4, 4)).save(fitted / name / "a.png")


@pytest.mark.parametrize("line", MISTAKES)
@pytest.mark.usefixtures("wrong_inputs", "here")
def test_a_mistake_gives_one_line_and_code_2(line, capsys):
    assert cli.main(line.split()) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith(f"ensemble-keras {line.split()[0]}: error: ")
    assert MISTAKES[line] in printed.err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"fine_tune": None, "augmentation": None, "views": 1, "sampling": None, "class_weight": None}),
        ("--fine-tune", {"fine_tune": ek.FineTuning()}),
        ("--fine-tune 2 --augmentation cifar", {"fine_tune": ek.FineTuning(epochs=2), "augmentation": "cifar"}),
        ("--augmentation light --views 4 --sampling over", {"views": 4, "sampling": "over"}),
        ("--max-macs 2e9 --max-latency-ms 5", {"max_macs": 2e9, "max_parameters": None, "max_latency_ms": 5.0}),
        ("--epochs 3 --class-weight balanced", {"training": ek.Training(epochs=3), "class_weight": "balanced"}),
    ],
)
@pytest.mark.usefixtures("here")
def test_options_of_fit_are_those_of_the_classifier(line, expected, monkeypatch):
    class ReachedError(Exception):
        pass

    def classifier(backbones, **arguments):
        assert {name: arguments[name] for name in expected} == expected
        raise ReachedError

    monkeypatch.setattr(commands, "EnsembleClassifier", classifier)
    with pytest.raises(ReachedError):
        cli.main(["fit", "train", "--backbones", "VGG16", *line.split()])


@pytest.mark.usefixtures("here")
def test_the_place_of_an_error_is_shown_on_demand(monkeypatch):
    monkeypatch.setenv("ENSEMBLE_KERAS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        cli.main(["fit", "trian", "--backbones", "CNN"])


@pytest.mark.parametrize(
    ("options", "way_on"),
    [
        (["fit", "train", "--backbones", "CNN"], "Interrupted. With --directory, the work is kept."),
        (
            ["fit", "train", "--backbones", "CNN", "--directory", "d"],
            "Interrupted. The same command goes on from here.",
        ),
        (["backbones"], "Interrupted."),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_interrupt_ends_with_130_and_says_how_to_go_on(options, way_on, monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, options[0], interrupted)
    assert cli.main(options) == 130
    assert capsys.readouterr().err == f"\n{way_on}\n"


def test_a_foreign_card_can_be_evaluated(here, tmp_path, capsys):
    model, _ = ek.load_ensemble("m.keras")
    card = {"class_names": CLASSES, "filter": "bilinear"}
    ek.save_ensemble(model, tmp_path / "foreign.keras", card=card, verbose=0)
    assert cli.main(["evaluate", str(tmp_path / "foreign.keras"), "test", "--quiet"]) == 0
    assert "18 images of 3 classes" in capsys.readouterr().out


def test_anybodys_card_can_be_evaluated_and_predicted_whatever_else_it_says(here, tmp_path, capsys):
    model, _ = ek.load_ensemble("m.keras")
    card = {"class_names": ["file", "class", "owl"], "filter": "bilinear", "members": ["a"], "validation": [0.9]}
    path, output = str(tmp_path / "foreign.keras"), tmp_path / "p.csv"
    ek.save_ensemble(model, path, card=card, verbose=0)
    assert cli.main(["predict", path, "test", "--output", str(output), "--quiet"]) == 0
    table = pd.read_csv(output)
    assert list(table.columns) == ["file", "class", "probability of file", "probability of class", "owl"]
    np.testing.assert_allclose(table.iloc[:, 2:].sum(axis=1), 1, atol=1e-6)
    os.makedirs(tmp_path / "data")
    for old, new in zip(CLASSES, card["class_names"], strict=True):
        shutil.copytree(here / "test" / old, tmp_path / "data" / new)
    assert cli.main(["evaluate", path, str(tmp_path / "data"), "--quiet"]) == 0
    assert "18 images of 3 classes" in capsys.readouterr().out


def test_a_size_may_have_two_sides_and_copies_of_training_images_are_said_once(here, tmp_path, capsys):
    for kind in CLASSES:
        shutil.copytree(here / "test" / kind, tmp_path / "test" / kind)
        shutil.copy(min((here / "train" / kind).iterdir()), tmp_path / "test" / kind)
    one = ["--backbones", "CNN(filters=(4, 8))", "--epochs", "1", "--weights", "none", "--cv", "2", "--quiet"]
    outputs = ["--output", str(tmp_path / "q.keras"), "--report", str(tmp_path / "r.html")]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        test = str(tmp_path / "test")
        assert cli.main(["fit", "train", *one, *outputs, "--image-size", "24x16", "--test", test]) == 0
    assert capsys.readouterr().err.count("3 pairs of images are in the training and the test data") == 1
    assert ek.load_ensemble(tmp_path / "q.keras")[0].input_shape == (None, 24, 16, 3)
    assert (tmp_path / "r.html").read_text().count("Training images among the test images</h3>") == 1


@pytest.mark.usefixtures("wrong_inputs", "here")
def test_copies_of_training_images_are_refused_on_demand(capsys):
    assert cli.main(["fit", "train", "--backbones", "CNN", "--test", "copies", "--leaks", "error", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "3 pairs of images are in the training and the test data (3 exact)" in error
    assert "find_leaks" not in error


def test_missing_weights_are_said_as_options_of_the_command_line():
    message = f"The imagenet weights of VGG16 are not there. Use {_WAYS_ON}."
    options = cli._parser().parse_args(["fit", "train", "--backbones", "VGG16"])
    assert cli._as_options(message, options).endswith(
        "(random weights) or \"NAME(weights='FILE')\" with a weights file (.weights.h5, .h5, .keras)."
    )


def test_warnings_are_one_line_and_only_inside(capsys):
    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with _terminal.short_warnings():
            warnings.warn("This is odd.", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: This is odd.\n"
    assert warnings.showwarning is shown


def test_only_notices_of_the_backend_are_held_back(monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    written = (
        "I0000 00:00:1795233.5   1 port.cc:1] oneDNN\nW1121 10:00:00.5 1 x.cc:1] w\nE0000 00:00:1.5 1 y.cc:1] bad\n"
    )
    with _terminal.quiet_start():
        os.write(2, written.encode())
        os.write(2, b"something else\n")
    assert capfd.readouterr().err == "E0000 00:00:1.5 1 y.cc:1] bad\nsomething else\n"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with _terminal.quiet_start():
        os.write(2, written.encode())
    assert capfd.readouterr().err == written


def test_help_and_mistakes_do_not_wait_for_the_backend():
    code = """
import sys
from ensemble_keras.cli import main
for line in (["fit", "--help"], ["fit"], ["fit", "nowhere", "--backbones", "CNN"], ["predict", "m.keras", "x"]):
    try:
        assert main(line) == 2
    except SystemExit:
        pass
print([name for name in ("tensorflow", "jax", "keras", "pandas", "sklearn", "numpy") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] in ("[]", "['numpy']")


def test_as_a_process_it_writes_results_and_nothing_of_the_backend(here, tmp_path):
    done = run("predict", "m.keras", "test", "--output", str(tmp_path / "p.csv"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"18 predictions in {tmp_path / 'p.csv'}"


@pytest.mark.slow
def test_search_saves_the_best_team_and_goes_on_where_it_was(here, tmp_path, capsys):
    options = ["--image-size", "16", "--families", "cnn", "--max-parameters", "2e5", "--epochs", "1"]
    options += [
        "--members",
        "2",
        "--directory",
        str(tmp_path / "night"),
        "--output",
        str(tmp_path / "found.keras"),
        "--test",
        "test",
    ]
    assert cli.main(["search", "train", *options, "--trials", "2", "--report", str(tmp_path / "r.html")]) == 0
    printed = capsys.readouterr().out
    assert "18 images of 3 classes" in printed
    assert (tmp_path / "r.html").exists()
    assert (tmp_path / "night" / "search" / "champion.py").exists()
    model, card = ek.load_ensemble(tmp_path / "found.keras")
    assert card["class_names"] == CLASSES
    assert card["verdict"] in printed
    assert model.output_shape == (None, 3)
    assert cli.main(["search", "train", *options, "--trials", "3", "--quiet"]) == 0
    assert len(pd.read_csv(tmp_path / "night" / "search" / "trials.csv")) == 3
    assert cli.main(["search", "train", *options, "--trials", "3", "--epochs", "2"]) == 2
    error = capsys.readouterr().err
    assert "trained otherwise (epochs: 1 then, 2 now" in error
    assert "Give another --directory." in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--families residuals", "Did you mean 'residual'? Known: cnn, alexnet, vgg,"),
        ("--trials 0", "--trials must be an int of at least 1. Received: 0."),
        ("--members 0", "--members must be an int of at least 1. Received: 0."),
        ("--processes 0", "--processes must be an int of at least 1. Received: 0."),
        ("--epochs 0", "--epochs must be at least 1, an int. Received: 0."),
        ("--max-macs 0", "--max-macs must be an int of at least 1."),
        ("--image-size 4", "of at least 8 pixels a side"),
        ("--augmentation lite", "Did you mean 'light'?"),
    ],
)
def test_search_refuses_in_terms_of_its_options(here, tmp_path, capsys, options, message):
    where = ["--directory", str(tmp_path / "night"), "--output", str(tmp_path / "x.keras"), "--image-size", "16"]
    assert cli.main(["search", "train", *where, *options.split()]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "night" / "search" / "run.json").exists()

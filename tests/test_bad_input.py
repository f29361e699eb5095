"""What bad input gets on its way through the public entry points; the parts test their own checks."""

import json
import logging
import os
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest
from little_memory import refuse_batches
from PIL import Image
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras import cli
from ensemble_keras.data.decoding import BadImagesError
from ensemble_keras.features.extraction import extract
from ensemble_keras.features.store import FeatureStore
from ensemble_keras.members import head_fitting, trainer

NAMES = np.array(["ant", "bee", "cat"])


def classifier(**arguments):
    backbones = arguments.pop("backbones", None) or [random_backbone("a"), random_backbone("b", 6, seed=1)]
    return ek.EnsembleClassifier(backbones, **{"image_size": 16, "cv": 3, "verbose": 0, **arguments})


def write_folders(directory, n=60, seed=0):
    x, y = pictures(n, seed=seed)
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        path = directory / NAMES[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return directory


@pytest.fixture
def folder(tmp_path):
    return write_folders(tmp_path / "data")


@pytest.fixture
def nothing_is_trained(monkeypatch):
    """Heads and networks may not be fitted in this test."""

    def refuse(*_, **__):
        raise AssertionError("training has begun")

    monkeypatch.setattr(trainer, "train", refuse)
    monkeypatch.setattr(head_fitting, "solve_linear_head", refuse)


@pytest.fixture(scope="module")
def fitted():
    x, y = pictures()
    return classifier().fit(x, NAMES[y])


def spoil(folder):
    """Adds a truncated, an empty and a non-image file; returns their names."""
    whole = (folder / "ant" / "000.png").read_bytes()
    bad = {"ant/truncated.png": whole[: len(whole) // 2], "bee/empty.jpg": b"", "cat/page.png": b"<html>not found"}
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    return list(bad)


# Files


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.parametrize("backbones", [None, ["CNN(filters=(4, 8))"]], ids=["frozen", "trained"])
def test_unreadable_files_are_listed_all_at_once_before_training(folder, backbones):
    names = spoil(folder)
    with pytest.raises(BadImagesError, match="3 files are no readable images") as error:
        classifier(backbones=backbones).fit(ek.ImageDataset.from_directory(folder))
    assert list(error.value.failures) == names


@pytest.mark.usefixtures("nothing_is_trained")
def test_unreadable_files_of_the_validation_data_are_listed_before_training(folder, tmp_path):
    other = write_folders(tmp_path / "other", 12, seed=1)
    spoil(other)
    with pytest.raises(BadImagesError, match="3 files are no readable images"):
        classifier().fit(
            ek.ImageDataset.from_directory(folder), validation_data=ek.ImageDataset.from_directory(other)
        )


def test_skipped_files_are_in_the_card_and_on_the_page(folder, tmp_path):
    names = spoil(folder)
    dataset = ek.ImageDataset.from_directory(folder, on_bad_image="skip")
    fitted = classifier().fit(dataset)
    assert fitted.card_["data"]["images"] == 60
    assert sorted(entry["file"] for entry in fitted.card_["data"]["skipped"]) == sorted(names)
    with pytest.warns(UserWarning, match="60 pairs of images are in the training and the test data"):
        fitted.evaluate(dataset).to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in names)


def test_what_was_computed_before_a_bad_file_is_kept(folder, tmp_path):
    (folder / "cat" / "zzz.png").write_bytes(b"")
    store, models = FeatureStore(tmp_path / "features.sqlite"), {"a": random_backbone("a")}
    options = {"image_size": (16, 16), "store": store, "batch_size": 8, "verbose": 0}
    with pytest.raises(BadImagesError, match="cat/zzz.png"):
        extract(models, ek.ImageDataset.from_directory(folder), **options)
    # It is the last of 61 files, in the eighth batch.
    assert store.stats()["vectors"] == 56
    (folder / "cat" / "zzz.png").unlink()
    assert extract(models, ek.ImageDataset.from_directory(folder), **options).computed == {"a": 4}


def test_odd_kinds_of_files_are_predicted_as_the_picture_that_a_person_sees(fitted, tmp_path):
    scene = Image.fromarray(pictures(4, seed=3)[0][2])
    grey = scene.convert("L")
    wide = grey.point(lambda value: value * 257, "I").convert("I;16")
    turned = Image.Exif()
    turned[0x0112] = 6  # To be turned clockwise by a quarter.
    files = {
        "rgb.png": (scene, scene, {}),
        "palette.png": (scene.quantize(64), scene.quantize(64).convert("RGB"), {}),
        "grey.png": (grey, grey.convert("RGB"), {}),
        "16bit.png": (wide, grey.convert("RGB"), {}),
        "alpha.png": (scene.convert("RGBA"), scene, {}),
        "turned.png": (scene.transpose(Image.Transpose.ROTATE_90), scene, {"exif": turned}),
        "animated.gif": (
            scene.quantize(64),
            scene.quantize(64).convert("RGB"),
            {"save_all": True, "append_images": [grey]},
        ),
        "cmyk.tif": (scene.convert("CMYK"), scene, {}),
    }
    for name, (image, _, options) in files.items():
        image.save(tmp_path / name, **options)
    dataset = ek.ImageDataset.from_files([tmp_path / name for name in files])
    seen = np.stack([np.asarray(picture) for _, picture, _ in files.values()])
    np.testing.assert_allclose(fitted.predict_proba(dataset), fitted.predict_proba(seen), atol=0.02)


def test_the_command_line_lists_unreadable_files_and_writes_no_model(folder, tmp_path, capsys, monkeypatch):
    names = spoil(folder)
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", str(folder), "--backbones", "CNN", "--weights", "none", "--image-size", "16", "--quiet"]
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in names)
    assert "Traceback" not in message
    assert not list(tmp_path.glob("*.keras"))


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.parametrize("mistake", ["no such folder", "a class that is not trained", "an unreadable file"])
def test_a_mistake_in_the_test_data_is_said_before_training(folder, tmp_path, capsys, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    test = write_folders(tmp_path / "test", 12, seed=1)
    if mistake == "a class that is not trained":
        (folder / "cat").rename(tmp_path / "elsewhere")
        expected = "cat"
    elif mistake == "an unreadable file":
        expected = spoil(test)[0]
    else:
        test, expected = tmp_path / "tset", "Did you mean 'test'"
    arguments = ["fit", str(folder), "--backbones", "CNN", "--weights", "none", "--image-size", "16", "--quiet"]
    assert cli.main([*arguments, "--test", str(test)]) == 2
    assert expected in capsys.readouterr().err


def test_test_pictures_that_are_trained_on_are_said_at_once_and_on_the_page(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = write_folders(tmp_path / "test", 12, seed=1)
    (test / "ant" / "copy.png").write_bytes((folder / "ant" / "003.png").read_bytes())
    command = ["fit", str(folder), "--backbones", "CNN(filters=(4, 8))", "--weights", "none", "--image-size", "16"]
    options = ["--cv", "2", "--epochs", "1", "--quiet", "--test", str(test), "--report", "report.html"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main([*command, *options]) == 0
    assert "ant/003.png = ant/copy.png (exact)" in capsys.readouterr().err
    assert "ant/copy.png" in (tmp_path / "report.html").read_text()


def test_a_class_that_the_model_does_not_know_is_not_left_out_by_evaluate(fitted, folder, tmp_path, capsys):
    fitted.save(tmp_path / "m.keras")
    (folder / "cat").rename(folder / "dog")
    assert cli.main(["evaluate", str(tmp_path / "m.keras"), str(folder), "--quiet"]) == 2
    assert "not in the training data: dog. Classes: ant, bee, cat" in capsys.readouterr().err


# Classes, labels and tables


@pytest.mark.usefixtures("nothing_is_trained")
def test_a_class_smaller_than_the_folds_and_a_single_class_are_said_with_names(folder):
    for file in sorted((folder / "cat").iterdir())[2:]:
        file.unlink()
    dataset = ek.ImageDataset.from_directory(folder)
    with pytest.raises(ValueError, match=r"cv=3; class 'cat' has 2\. Use fewer folds"):
        classifier().fit(dataset)
    with pytest.raises(ValueError, match="At least two classes with images are needed.*20 images, all of ant"):
        classifier().fit(ek.ImageDataset.from_directory(folder, class_names=["ant"]))


@pytest.mark.usefixtures("nothing_is_trained")
def test_copies_of_one_image_do_not_fill_the_folds(folder):
    first, *others = sorted((folder / "cat").iterdir())
    for file in others:
        file.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="as many different images of each class as folds.*class 'cat' has 1"):
        classifier().fit(ek.ImageDataset.from_directory(folder))


@pytest.mark.usefixtures("nothing_is_trained")
def test_a_class_of_the_validation_data_that_is_not_trained_is_named(folder, tmp_path):
    other = write_folders(tmp_path / "other", 12, seed=1)
    (other / "cat").rename(other / "dog")
    with pytest.raises(ValueError, match="Labels that are not in the training data: dog. Classes: ant, bee, cat"):
        classifier().fit(
            ek.ImageDataset.from_directory(folder), validation_data=ek.ImageDataset.from_directory(other)
        )


def test_a_class_of_the_test_data_that_is_not_trained_is_named(fitted, tmp_path):
    other = write_folders(tmp_path / "other", 12, seed=1)
    (other / "cat").rename(other / "dog")
    with pytest.raises(ValueError, match="dog"):
        fitted.evaluate(ek.ImageDataset.from_directory(other))


def table(folder, path, change):
    frame = pd.DataFrame({"file": sorted(f"{file.parent.name}/{file.name}" for file in folder.rglob("*.png"))})
    frame["label"] = frame["file"].str.partition("/")[0]
    change(frame)
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", None, "must hold no missing label. Received: NaN or None in 2 rows: 3, 8"),
        ("file", "nowhere.png", "2 of 60 rows name a file that is not below"),
        ("file", None, "a file name in every row of 'file'. Received: none in 2 rows: 3, 8"),
    ],
)
def test_a_table_with_gaps_is_one_message_and_exit_code_2(folder, tmp_path, capsys, column, value, message):
    def spoil_rows(frame):
        frame.loc[[3, 8], column] = value

    path = table(folder, tmp_path / "table.csv", spoil_rows)
    arguments = ["fit", str(path), "--images", str(folder), "--filename-column", "file", "--label-column", "label"]
    assert (
        cli.main([*arguments, "--backbones", "CNN", "--weights", "none", "--output", str(tmp_path / "m.keras")]) == 2
    )
    assert message in capsys.readouterr().err


@pytest.mark.shared
def test_the_x_ray_table_with_2390_rows_without_a_file_is_one_message(shared, tmp_path, capsys):
    folder = shared / "data" / "chest_xray"
    arguments = ["--filename-column", "X_ray_image_name", "--label-column", "Label", "--backbones", "MobileNetV2"]
    command = ["fit", str(folder / "metadata_all_rows.csv"), *arguments, "--output", str(tmp_path / "m.keras")]
    assert cli.main(command) == 2
    message = capsys.readouterr().err
    assert "2390 of 5910 rows name a file that is not below" in message
    assert "IM-0122-0001.jpeg, IM-" in message
    assert message.count("\n") == 1


# Both sides


def test_pictures_on_both_sides_are_warned_of_in_the_card_and_on_the_page(folder, tmp_path):
    other = write_folders(tmp_path / "other", 12, seed=1)
    (other / "ant" / "copy.png").write_bytes((folder / "ant" / "003.png").read_bytes())
    Image.open(folder / "cat" / "002.png").save(other / "cat" / "again.png", compress_level=1)
    train, validation = map(ek.ImageDataset.from_directory, (folder, other))
    with pytest.warns(
        UserWarning, match=r"(?s)1 exact, 1 near.*ant/003.png = ant/copy.png.*cat/002.png = cat/again.png"
    ):
        fitted = classifier().fit(train, validation_data=validation)
    pair = {"train_file": "ant/003.png", "test_file": "ant/copy.png", "kind": "exact"}
    assert fitted.card_["data"]["leaks"][0] == pair
    fitted.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as file:
        assert json.loads(file.read("ensemble.json"))["data"]["leaks"][0] == pair
    with pytest.warns(UserWarning, match=r"ant/003.png = ant/copy.png \(exact\)"):
        fitted.evaluate(validation).to_html(tmp_path / "report.html")
    assert "ant/copy.png" in (tmp_path / "report.html").read_text()
    with pytest.raises(ValueError, match="2 pairs of images are in the training and the test data"):
        classifier(leaks="error").fit(train, validation_data=validation)


@pytest.mark.usefixtures("nothing_is_trained")
def test_a_patient_on_both_sides_is_refused_on_demand():
    x, y = pictures(72)
    train = ek.ImageDataset.from_arrays(x[:60], y[:60], groups=np.arange(60) // 2)
    validation = ek.ImageDataset.from_arrays(x[60:], y[60:], groups=np.arange(12) + 28)
    with pytest.raises(ValueError, match=r"2 pairs of images .*\(2 group\)"):
        classifier(leaks="error").fit(train, validation_data=validation)


# Pixels and probabilities


@pytest.mark.parametrize("use", ["fit", "predict", "evaluate", "validation"])
def test_wrong_pixels_are_refused_wherever_images_are_taken(fitted, use):
    x, y = pictures(12)
    broken = x.astype("float32")
    broken[[3, 8], 0, 0, 0] = np.nan
    for images, message in [
        (x / 255.0, r"look scaled to \[0, 1\]"),
        (broken, "NaN pixels in 2 rows: 3, 8"),
        (x[..., 0], r"shape \(n, height, width, 3\).*Received: shape \(12, 16, 16\)"),
        (x[0], r"Received: shape \(16, 16, 3\)"),
        (np.concatenate([x, x[..., :1]], axis=-1), r"Received: shape \(12, 16, 16, 4\)"),
        (x - 300.0, "values from -300"),
    ]:
        with pytest.raises(ValueError, match=message):
            if use == "fit":
                classifier().fit(images, y)
            elif use == "predict":
                fitted.predict(images)
            elif use == "evaluate":
                fitted.evaluate(images, NAMES[y])
            else:
                classifier().fit(x, y, validation_data=(images, y))


def test_a_table_of_probabilities_that_is_none_names_member_and_row(rng):
    good = rng.dirichlet(np.ones(3), (30, 2)).astype("float32")
    y = np.arange(30) % 3
    nan, unequal = good.copy(), good.copy()
    nan[[4, 7], 1, 0] = np.nan
    unequal[5, 0] *= 2 / unequal[5, 0].sum()
    for predictions, message in [
        (nan, "NaN from member 1 in 2 rows: 4, 7"),
        (unequal, r"from member 0 in 1 row: 5"),
    ]:
        with pytest.raises(ValueError, match=message):
            ek.fit_combiner(ek.StackedMetaLearner(3), predictions, y)
    for probabilities, row in [(nan[:, 1], 4), (unequal[:, 0], 5)]:
        with pytest.raises(ValueError, match=rf"row.*{row}"):
            ek.EvaluationReport.from_predictions(y, probabilities)
        with pytest.raises(ValueError, match=rf"(?s)members\['b'\].*{row}"):
            ek.EvaluationReport.from_predictions(y, good[:, 0], members={"a": good[:, 0], "b": probabilities})


# Weights, memory, NaN, a full disk, strangers


@pytest.mark.usefixtures("nothing_is_trained")
def test_weights_that_cannot_be_downloaded_stop_the_command_with_ways_on(folder, tmp_path, capsys, monkeypatch):
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # Nothing listens on port 9.
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    output = tmp_path / "m.keras"
    command = ["fit", str(folder), "--backbones", "MobileNet(alpha=0.5)", "--image-size", "32", "--quiet"]
    assert cli.main([*command, "--output", str(output)]) == 2
    message = capsys.readouterr().err
    assert "mobilenet_5_0_224_tf_no_top.h5" in message
    assert str(tmp_path / "models") in message
    assert "or use --weights none" in message
    assert not output.exists()
    x, y = pictures()
    with pytest.raises(OSError, match=r"mobilenet_5_0_224_tf_no_top\.h5.*Put it there, or use weights=None"):
        classifier(backbones=["MobileNet(alpha=0.5)"], image_size=32).fit(x, y)


def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(fitted, monkeypatch, caplog):
    x, y = pictures()
    expected = fitted.predict_proba(x)
    refuse_batches(monkeypatch, lambda _, batch: len(batch) > 16)
    with caplog.at_level(logging.WARNING, "ensemble_keras"):
        again = classifier().fit(x, NAMES[y])
    said = [record.getMessage() for record in caplog.records]
    assert said.count("a: out of memory with 60 images at a time, going on with 30.") == 1
    assert said.count("a: out of memory with 30 images at a time, going on with 15.") == 1
    assert len(again.members_) == 2
    np.testing.assert_allclose(again.predict_proba(x), expected, atol=1e-5)


def test_a_network_that_becomes_nan_is_said_in_leaderboard_and_page(tmp_path):
    x, y = pictures()
    training = ek.Training(epochs=2, batch_size=16, learning_rate=1e30)
    fitted = classifier(backbones=["CNN(filters=(4, 8))", random_backbone("a")], training=training).fit(x, y)
    assert "loss became NaN in epoch" in fitted.leaderboard_["note"][0]
    with pytest.warns(UserWarning, match="60 pairs of images are in the training and the test data"):
        fitted.evaluate(x, y).to_html(tmp_path / "report.html")
    assert "loss became NaN in epoch" in (tmp_path / "report.html").read_text()


def full_disk(monkeypatch, written):
    """Makes the disk full for `written`: `np.savez`, or a method of the store or of Keras."""
    module, name = written

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, name, fail)


@pytest.mark.parametrize("written", [(np, "savez"), (FeatureStore, "put"), (keras.Model, "save")])
def test_after_a_full_disk_the_same_command_goes_on(tmp_path, written):
    x, y = pictures()
    directory = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, written)
        with pytest.raises(OSError, match="No space left on device"):
            classifier(directory=directory).fit(x, y).save(tmp_path / "m.keras")
    assert not (tmp_path / "m.keras").exists()
    assert not list(tmp_path.rglob("*.partial.*"))
    fitted = classifier(directory=directory).fit(x, y)
    fitted.save(tmp_path / "m.keras")
    assert ek.load_ensemble(tmp_path / "m.keras")[1]["data"]["images"] == 60


_LIMITED = """
import resource, sys
import numpy as np
from synthetic import pictures, random_backbone
import ensemble_keras as ek

x, y = pictures(120)
backbones = [random_backbone("a", 64), random_backbone("b", 64, seed=1)]
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
classifier = ek.EnsembleClassifier(backbones, image_size=16, cv=2, directory=sys.argv[1] + "/run", verbose=0)
try:
    classifier.fit(x, y).save(sys.argv[1] + "/m.keras")
except OSError as error:
    sys.exit(f"OSError: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [20_000, 60_000, 150_000], ids=["store", "more", "most"])
def test_files_that_may_not_grow_are_said_and_the_same_command_goes_on(tmp_path, limit):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def fit(limit):
        command = [sys.executable, "-c", _LIMITED, str(tmp_path), str(limit)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    stopped = fit(limit)
    assert stopped.returncode == 1
    assert "OSError" in stopped.stderr.splitlines()[-1]
    assert not (tmp_path / "m.keras").exists()
    assert fit(0).returncode == 0
    assert ek.load_ensemble(tmp_path / "m.keras")[1]["data"]["images"] == 120


def test_a_strangers_file_with_code_is_refused_by_the_command_line(folder, tmp_path, capsys):
    inputs = keras.Input((16, 16, 3))
    hidden = keras.layers.Lambda(lambda x: print("run") or x, output_shape=(16, 16, 3))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(hidden)))
    path = tmp_path / "stranger.keras"
    model.save(path)
    with zipfile.ZipFile(path, "a") as file:
        card = {"format": 1, "class_names": NAMES.tolist(), "filter": "bilinear", "image_size": [16, 16]}
        file.writestr("ensemble.json", json.dumps(card))
    capsys.readouterr()
    for command in (["evaluate", str(path), str(folder)], ["predict", str(path), str(folder)]):
        assert cli.main([*command, "--quiet"]) == 2
        message = capsys.readouterr()
        assert "Lambda" in message.err
        assert "run" not in message.out

"""The examples run from start to end at a small size, and say what they found."""

import importlib.util
import pathlib
import re

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import pictures

import ensemble_keras as ek

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
SMALL = [
    "--backbones",
    "CNN(filters=(4, 8))",
    "CNN(filters=(8,))",
    "--image-size",
    "16",
    "--cv",
    "2",
    "--epochs",
    "1",
]
ROWS = ["CNN(filters=(4, 8))", "CNN(filters=(8,))", "concatenate", "soft_voting", "stacking"]


@pytest.fixture
def search_example(monkeypatch):
    """A function that loads an example which reads its images by a module beside it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return example


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    """Class folders of pictures named as the real ones, two of a patient, and their metadata table."""
    folder, rows = tmp_path_factory.mktemp("xrays"), []
    images, labels = pictures(64, 2)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        part, who, which = ("train" if i < 44 else "test"), i // 4, i % 4 // 2
        name = f"person{who}_bacteria_{which}.png" if label else f"IM-{who:04}-{which:04}.png"
        path = folder / part / ("PNEUMONIA" if label else "NORMAL") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        rows.append({"X_ray_image_name": name, "Label": ["Normal", "Pnemonia"][label], "Dataset_type": part.upper()})
    pd.DataFrame(rows).to_csv(folder / "table.csv")
    return folder


@pytest.mark.parametrize("way", ["folders", "table"])
def test_chest_xray_compares_all_combiners_with_the_members(xrays, tmp_path, capsys, way):
    metadata = ["--metadata", str(xrays / "table.csv")] if way == "table" else []
    chest_xray = example("chest_xray")
    table = chest_xray.main(["--data", str(xrays), *metadata, *SMALL, "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    classes = "Normal, Pnemonia" if way == "table" else "NORMAL, PNEUMONIA"
    assert f"44 training and 20 test images of {classes}" in printed
    # Each combiner joins the same members: none is trained twice.
    assert printed.count("CNN(filters=(4, 8)), all images") == 1
    assert len(list((tmp_path / "units").glob("*final*"))) == 2
    assert table["name"].tolist() == ROWS
    model, card = ek.load_ensemble(tmp_path / "chest_xray.keras")
    assert card["combiner"]["name"] == "concatenate"
    assert card["data"]["groups"] == 22
    files = sorted((xrays / "test").glob("*/*.png"))
    right = model.predict(np.stack([np.asarray(Image.open(f)) for f in files]), verbose=0).argmax(axis=1) == [
        f.parent.name == "PNEUMONIA" for f in files
    ]
    assert table.set_index("name").loc["concatenate", "accuracy"] == round(right.mean(), 4)
    assert pd.read_csv(tmp_path / "test.csv")["roc_auc"].tolist() == table["roc_auc"].tolist()
    assert (tmp_path / "report.html").exists()


def test_chest_xray_concatenation_alone_shows_the_members_too(xrays, tmp_path):
    alone = ["--only", "--activation", "sigmoid", "--class-weight", "balanced"]
    table = example("chest_xray").main(["--data", str(xrays), *SMALL, *alone, "--output", str(tmp_path)])
    assert table["name"].tolist() == ROWS[:3]
    model = keras.saving.load_model(tmp_path / "chest_xray.keras")
    predicted = model.predict(pictures(4)[0], verbose=0)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("PNEUMONIA/person123_bacteria_456.jpeg", "person123"),
        ("NORMAL2-IM-0587-0001.jpeg", "NORMAL2-IM-0587"),
        ("IM-0011-0001-0002.jpeg", "IM-0011"),
        ("scan.png", "scan.png"),
    ],
)
def test_chest_xray_reads_the_patient_from_the_name(name, patient):
    assert example("chest_xray").patient(name) == patient


def some_xrays(source, folder):
    """Links to some of the real pictures of each class, spread over the patients."""
    for part, count in (("train", 40), ("test", 15)):
        for old in (source / part).iterdir():
            files = sorted(old.iterdir())
            (folder / part / old.name).mkdir(parents=True)
            for file in files[:: len(files) // count][:count]:
                (folder / part / old.name / file.name).symlink_to(file)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("way", ["folders", "table"])
def test_chest_xray_on_real_pictures_and_weights(shared, tmp_path, way):
    source, folder = shared / "data" / "chest_xray", tmp_path / "data"
    some_xrays(source, folder)
    metadata = []
    if way == "table":
        table = pd.read_csv(source / "Chest_xray_Corona_Metadata.csv")
        table = table[table["X_ray_image_name"].isin([path.name for path in folder.glob("*/*/*")])]
        table.to_csv(tmp_path / "table.csv")
        metadata = ["--metadata", str(tmp_path / "table.csv")]
    backbones = ["--backbones", "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"]
    output = ["--output", str(tmp_path / "out")]
    table = example("chest_xray").main(["--data", str(folder), *metadata, *backbones, *output])
    # Chance gives .5; the whole set gives .95.
    assert table.set_index("name").loc["soft_voting", "roc_auc"] > 0.75


@pytest.mark.slow
def test_digits_demo_writes_a_model_and_a_page(tmp_path, capsys):
    example("digits_demo").main(["--output", str(tmp_path), "--epochs", "1", "--cv", "2"])
    printed = capsys.readouterr().out
    assert "1438 training and 359 test images of 10 digits" in printed
    assert "(chosen)" in printed
    assert "On the 359 test images:" in printed
    assert (tmp_path / "report.html").exists()
    model, card = ek.load_ensemble(tmp_path / "ensemble.keras")
    assert card["class_names"] == list("0123456789")
    assert model.output_shape == (None, 10)


@pytest.mark.slow
def test_cifar100_nas_ends_in_one_model_and_goes_on(tmp_path, capsys, search_example):
    options = ["--data", "digits", "--epochs", "1", "--images", "400", "--families", "cnn", "recurrent"]
    options += ["--max-macs", "2e6", "--members", "2", "--output", str(tmp_path)]
    *_, table = search_example("cifar100_nas").main([*options, "--trials", "3"])
    printed = capsys.readouterr().out
    assert "points over the best single network" in printed
    assert table.index.tolist() == ["best single", "greedy", "top", "gated"]
    model, card = ek.load_ensemble(tmp_path / "ensemble.keras")
    assert card["class_names"] == list("0123456789")
    assert card["verdict"] in printed
    (_, _), (x, y) = search_example("_images").load("digits")
    accuracy = np.mean(model.predict(x, verbose=0).argmax(axis=1) == y)
    assert table.loc["greedy", "accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert {path.name for path in tmp_path.iterdir()} >= {"report.html", "search.png", "search", "evaluations"}
    with pytest.raises(SystemExit):
        search_example("cifar100_nas").main([*options, "--trials", "4"])
    assert "--resume goes on with it" in capsys.readouterr().err
    search_example("cifar100_nas").main([*options, "--trials", "4", "--resume"])
    assert len(pd.read_csv(tmp_path / "search" / "trials.csv")) == 4


@pytest.mark.slow
def test_cifar10_genetic_leaves_a_champion(tmp_path, capsys, search_example):
    accuracy = search_example("cifar10_genetic").main(["--smoke", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"{accuracy:.4f} on 360 test images" in printed
    trials = pd.read_csv(tmp_path / "search" / "trials.csv")
    # The second generation has its best parent, and three children.
    assert len(trials) == 7
    means = [trials["score"][:4].mean(), trials["score"][4:].mean()]
    assert re.findall(r"^([12]) .* (\d\.\d+)$", printed, re.MULTILINE) == [
        (str(number), f"{mean:.4f}") for number, mean in enumerate(means, start=1)
    ]
    for genome in trials["genome"]:
        assert (tmp_path / "search" / "stats" / genome[:16] / "1.json").exists()
        assert (tmp_path / "search" / "architectures" / f"{genome[:16]}.py").exists()
    assert "ensemble_keras" not in (tmp_path / "search" / "champion.py").read_text()


def test_images_of_a_search_come_from_a_file_too(tmp_path, search_example):
    arrays = {name: np.zeros((4, 8, 8, 3), "uint8") for name in ("x_train", "x_test")}
    np.savez(tmp_path / "some.npz", **arrays, y_train=np.arange(4)[:, None], y_test=np.arange(4))
    (x, y), (x_test, _) = search_example("_images").load(str(tmp_path / "some.npz"))
    assert x.shape == x_test.shape == (4, 8, 8, 3)
    assert y.tolist() == [0, 1, 2, 3]
    with pytest.raises(SystemExit, match="digits or a file that ends in .npz"):
        search_example("_images").load("digit")

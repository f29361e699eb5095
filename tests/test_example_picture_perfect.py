"""`examples/picture_perfect.py` runs from start to end at a small size, and its tables are those of its models."""

import importlib.util
import pathlib

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ensemble_keras as ek

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
MODELS = ["VGG16", "ResNet50", "their ensemble", "sparse ensemble"]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("picture_perfect", EXAMPLES / "picture_perfect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_picture_perfect_prints_the_tables_of_the_paper(example, tmp_path, capsys):
    table = example.main(["--smoke", "--images", "120", "--members", "2", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "100 images to train on, 20 to choose by, 360 for the end" in printed
    assert table.index.tolist() == MODELS
    assert table.columns.tolist() == ["accuracy", "precision", "recall", "F1"]
    model = keras.saving.load_model(tmp_path / "ensemble.keras")
    _, test, size = example.load(example.parse(["--smoke", "--output", str(tmp_path / "other")]))
    predicted = model.predict(test.load(image_size=size), verbose=0).argmax(axis=1)
    assert table.loc["sparse ensemble", "accuracy"] == pytest.approx(np.mean(predicted == test.labels))
    costs = pd.read_csv(tmp_path / "costs.csv", index_col=0)
    assert costs.loc["sparse ensemble", "GFLOPs"] == pytest.approx(2e-9 * ek.count_macs(model).total)
    assert (costs > 0).all(axis=None)
    differences = pd.read_csv(tmp_path / "differences.csv", index_col=0)
    assert len(differences) == 6
    assert (differences["p_holm"] >= differences["p_value"]).all()
    assert (tmp_path / "picture_perfect.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        example.main(["--smoke", "--output", str(tmp_path)])
    assert "--resume goes on with it" in capsys.readouterr().err


def test_picture_perfect_reads_class_folders_with_patients(example, tmp_path):
    for part, count in (("train", 12), ("test", 4)):
        for i in range(count):
            path = tmp_path / part / ("NORMAL" if i % 2 else "PNEUMONIA") / f"person{i // 4}_virus_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9, 3), 16 * i, "uint8")).save(path)
    options = example.parse(["--data", str(tmp_path), "--image-size", "16", "--output", str(tmp_path / "out")])
    train, test, size = example.load(options)
    assert (len(train), len(test), size) == (12, 4, (16, 16))
    assert train.class_names == test.class_names == ["NORMAL", "PNEUMONIA"]
    assert len(set(train.groups)) == 3

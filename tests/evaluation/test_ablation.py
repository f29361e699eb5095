import json
import re

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras.backbones import registry
from ensemble_keras.evaluation import ablation as ablation_module
from ensemble_keras.evaluation import experiments
from ensemble_keras.evaluation.ablation import AblationResult
from ensemble_keras.members import head_fitting

BASE = {"backbone": "CNN(filters=(8,))", "image_size": 16, "epochs": 2, "learning_rate": 0.01, "batch_size": 16}
CHANGES = {"flip": {"augmentation": "+flip"}, "larger batch": {"batch_size": 32}}


@pytest.fixture(scope="module")
def data():
    names = ["a", "b", "c"]
    train, test = pictures(90), pictures(36, seed=1)
    return [ek.ImageDataset.from_arrays(x, y, class_names=names) for x, y in (train, test)]


@pytest.fixture
def runs_of(monkeypatch):
    """Counts the experiments that are run and not taken from a directory, by their arguments."""
    done, run = [], experiments.Experiment.run

    def counted(self, *args, **options):
        done.append(self.depends_on)
        return run(self, *args, **options)

    monkeypatch.setattr(experiments.Experiment, "run", counted)
    return done


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("ablation")
    return ek.ablation(CHANGES, *data, base=BASE, directory=directory, verbose=0), directory


def test_changes_are_put_one_on_top_of_the_other(finished):
    table = finished[0].table
    assert table["experiment"].tolist() == ["base", "+ flip", "+ larger batch"]
    np.testing.assert_array_equal(table[list(CHANGES)], np.tri(3, 2, k=-1, dtype=bool))


def test_the_figures_are_those_of_the_predictions(finished, data):
    result, directory = finished
    rows = {}
    for path in (directory / "units").glob("*.npz"):
        with np.load(path) as arrays:
            rows[float(arrays["seconds"])] = dict(arrays)
    accuracy = None
    for row in result.table.to_dict("records"):
        arrays = rows[row["seconds"]]
        for part, dataset in zip(("train", "test"), data, strict=True):
            predicted = arrays[part].argmax(axis=1)
            assert row[f"accuracy_{part}"] == np.mean(predicted == dataset.labels)
            assert row[f"f1_{part}"] == f1_score(dataset.labels, predicted, average="macro")
        assert 1 <= row["epochs"] <= 2
        if accuracy is not None:
            assert row["improvement"] == pytest.approx(row["accuracy_test"] - accuracy)
            assert row["low"] <= row["improvement"] <= row["high"]
        accuracy = row["accuracy_test"]


def test_finished_rows_are_not_computed_again(finished, data, runs_of):
    result, directory = finished
    again = ek.ablation(CHANGES, *data, base=BASE, directory=directory, verbose=0)
    assert not runs_of
    assert again.table.equals(result.table)
    further = {**CHANGES, "one epoch": {"epochs": 1}}
    longer = ek.ablation(further, *data, base=BASE, directory=directory, verbose=0)
    assert len(runs_of) == 1
    shared = [name for name in result.table if name not in CHANGES]
    assert longer.table[shared].iloc[:3].equals(result.table[shared])


def test_a_backbone_that_was_registered_anew_is_trained_anew(data, tmp_path, runs_of, monkeypatch):
    def builder(width):
        def own(input_shape):
            images = keras.Input(input_shape)
            return keras.Model(images, keras.layers.Conv2D(width, 3)(images))

        return own

    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))
    for width, count in ((2, 2), (2, 2), (3, 4)):
        # The same function by its name, as after an edit.
        ek.register_backbone("Own", builder(width), preprocessing="unit", default_size=16, weights=())
        base = {**BASE, "backbone": "Own", "epochs": 1}
        ek.ablation({"flip": {"augmentation": "+flip"}}, *data, base=base, directory=tmp_path, verbose=0)
        assert len(runs_of) == count


def test_one_left_out_shares_its_rows_with_the_other_table(finished, data, runs_of):
    _, directory = finished
    result = ek.ablation(CHANGES, *data, base=BASE, mode="leave_one_out", directory=directory, verbose=0)
    table = result.table
    assert table["experiment"].tolist() == ["all changes", *(f"without {name}" for name in CHANGES)]
    np.testing.assert_array_equal(table[list(CHANGES)], np.vstack([np.ones((1, 2)), 1 - np.eye(2)]).astype(bool))
    assert len(runs_of) == 1  # all, and all but the last, were rows of the first table
    expected = table["accuracy_test"] - table["accuracy_test"][0]
    np.testing.assert_allclose(table["improvement"][1:], expected[1:])


@pytest.mark.parametrize(("mode", "gains"), [("cumulative", [0.5, -0.25]), ("leave_one_out", [0.5, 0.25])])
def test_an_improvement_is_over_the_row_before_or_over_all_changes(mode, gains):
    test = ek.ImageDataset.from_arrays(*pictures(4, classes=2))
    right, results = np.eye(2)[test.labels], []
    for count in (1, 3, 2):
        p = np.where(np.arange(4)[:, None] < count, right, 1 - right)
        results.append({"train": p, "test": p, "epochs": 1, "seconds": 1.0, "note": ""})
    rows = [("first", [], {}), ("second", ["a"], {}), ("third", ["a", "b"], {})]
    table = ablation_module._table(rows, ["a", "b"], results, test.labels, test, mode)
    assert table["accuracy_test"].tolist() == [0.25, 0.75, 0.5]
    assert table["improvement"].tolist()[1:] == gains


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table(finished, data):
    again = ek.ablation(dict(list(CHANGES.items())[:1]), *data, base=BASE, verbose=0)
    figures = ["f1_train", "accuracy_train", "f1_test", "accuracy_test"]
    np.testing.assert_allclose(again.table[figures], finished[0].table[figures].iloc[:2])


def test_the_table_as_markdown_csv_and_picture(finished, tmp_path):
    result, _ = finished
    lines = result.to_markdown().splitlines()
    assert lines[0].startswith("| experiment | flip | larger batch | F1 train | accuracy train |")
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| base |  |  | 0.")
    assert lines[3].startswith("| + flip | ✓ |  | 0.")
    assert re.search(r"\| [+-]0\.\d{4} \| [+-]0\.\d{4} to [+-]0\.\d{4} \| [12] \| \d+ \|$", lines[3])
    result.to_csv(tmp_path / "table.csv")
    header, first, *rest = (tmp_path / "table.csv").read_text().splitlines()
    assert header.split(",") == list(result.table)
    assert first.startswith("base,False,False,0.")
    assert len(rest) == 2
    figure = result.plot()
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == result.table["experiment"].tolist()
    test_line = figure.axes[0].lines[1]
    np.testing.assert_allclose(test_line.get_xdata(), 100 * result.table["accuracy_test"])


def test_a_bar_in_a_name_ends_no_cell(finished):
    table = finished[0].table.replace("+ flip", "+ a|b").rename(columns={"flip": "a|b"})
    text = AblationResult(table, "cumulative").to_markdown()
    assert text.startswith("| experiment | a/b | larger batch |")
    assert "| + a/b | ✓ |" in text


@pytest.mark.slow
def test_transfer_learning_starts_from_the_solved_head_and_may_stay_there(data):
    base = {"backbone": random_backbone("pretrained"), "image_size": 16, "fine_tune": False}
    changes = {"fine-tuning": {"fine_tune": True, "epochs": 1, "learning_rate": 1e-9}}
    frozen, tuned = ek.ablation(changes, *data, base=base, verbose=0).table.to_dict("records")
    assert frozen["epochs"] == 0
    assert frozen["accuracy_test"] > 0.9
    # A step of nothing leaves the solved head as it was; it was solved on fewer images, with some set apart.
    assert tuned["accuracy_test"] == pytest.approx(frozen["accuracy_test"], abs=0.06)


def test_sampling_and_weights_of_classes_count_in_a_solved_head(data, monkeypatch):
    few = data[0][np.flatnonzero((data[0].labels < 2) | (np.arange(90) < 15))]  # 30, 30 and 5 images
    base = {"backbone": random_backbone("frozen"), "image_size": 16, "fine_tune": False}
    changes = {
        "over": {"sampling": "over"},
        "weighted": {"sampling": None, "class_weight": {"c": 50.0}},
        "both": {"sampling": "over", "class_weight": {"a": 2}},
    }
    seen, fit = [], head_fitting.fit_head
    monkeypatch.setattr(head_fitting, "fit_head", lambda *a, **k: seen.append(k["class_weight"]) or fit(*a, **k))
    ek.ablation(changes, few, data[1], base=base, verbose=0)
    assert seen[0] is None
    np.testing.assert_allclose(seen[1:], [[1, 1, 6], [1, 1, 50], [2, 1, 6]])


def test_a_frozen_backbone_s_head_learns_from_views(data, monkeypatch):
    base = {"backbone": random_backbone("frozen"), "image_size": 16, "fine_tune": False, "augmentation": "light"}
    seen, fit = [], head_fitting.fit_head
    monkeypatch.setattr(head_fitting, "fit_head", lambda *a, **k: seen.append(a[0]) or fit(*a, **k))
    table = ek.ablation({"views": {"views": 3}}, *data, base=base, verbose=0).table
    plain, views = seen
    assert views.shape == (90, 3, plain.shape[1])
    np.testing.assert_allclose(views[:, 0], plain, atol=1e-6)
    assert np.abs(views[:, 1] - plain).max() > 1e-3
    assert table["accuracy_test"].min() > 0.9


def test_resizing_stands_inside_the_graph(data):
    arguments = {**BASE, "resize_to": 24, "interpolation": "bicubic"}
    experiment = experiments.Experiment(arguments, data[0], np.array(["a", "b", "c"]))
    member = experiment._build()
    assert member.input_shape == (None, 16, 16, 3)
    resizing = next(layer for layer in member._flatten_layers() if isinstance(layer, keras.layers.Resizing))
    assert (resizing.height, resizing.interpolation) == (24, "bicubic")


def test_what_is_kept_depends_on_all_that_counts_and_on_nothing_else(data):
    def key(**arguments):
        experiment = experiments.Experiment({**BASE, **arguments}, data[0], np.array(["a", "b", "c"]))
        return json.dumps(experiment.depends_on)

    same = [{}, {"interpolation": "bicubic"}, {"unfreeze": 2}, {"fine_tune": False}, {"augmentation": "none"}]
    assert len({key(**arguments) for arguments in [*same, {"views": 4}]}) == 1
    other = [
        {"epochs": 3},
        {"optimizer": "sgd"},
        {"augmentation": ["flip", "blur"]},
        {"augmentation": ["blur", "flip"]},
        {"resize_to": 24},
        {"resize_to": 24, "interpolation": "bicubic"},
        {"image_size": 24},
        {"sampling": "over"},
        {"class_weight": {"a": 2}},
        {"dropout": 0.1},
        {"head": "mlp"},
        {"backbone": "CNN(filters=(9,))"},
        {"backbone": random_backbone("a")},
        {"backbone": random_backbone("a", seed=1)},
    ]
    assert len({key(**arguments) for arguments in same + other}) == 1 + len(other)


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        (None, "+flip", ["flip"]),
        ("cifar", "+blur", ["cifar", "blur"]),
        (["flip"], ["+blur", "+zoom"], ["flip", "blur", "zoom"]),
        (["flip"], ["blur"], ["blur"]),
        (["flip"], "none", "none"),
        (["flip"], None, None),
    ],
)
def test_an_augmentation_with_a_plus_is_added(before, value, after):
    assert experiments.changed({"augmentation": before}, {"augmentation": value})["augmentation"] == after


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "`changes` must be a dict from a name to a dict of arguments"),
        ([("a", {})], "`changes` must be a dict"),
        ({"a": {}}, "Change 'a' must be a dict of arguments"),
        ({"seconds": {"epochs": 3}}, "no column of the table's own. Received: 'seconds'"),
        ({"a": {"epoch": 3}}, "Change 'a' sets an unknown argument 'epoch'. Did you mean 'epochs'"),
        ({"a": {"epochs": 0}}, "`epochs` must be at least 1"),
        ({"a": {"optimizer": "adamww"}}, "Unknown optimizer 'adamww'. Did you mean 'adamw'"),
        ({"a": {"augmentation": "+rotatoin"}}, "Unknown augmentation 'rotatoin'. Did you mean 'rotation'"),
        ({"a": {"augmentation": ["+flip", "blur"]}}, r"either adds \('\+name' throughout\) or replaces"),
        ({"a": {"views": 0}}, "`views` must be"),
        ({"a": {"backbone": random_backbone("a"), "fine_tune": False, "views": 4}}, "Views need an augmentation"),
        ({"a": {"sampling": "more"}}, "`sampling` must be one of"),
        ({"a": {"class_weight": {"d": 2}}}, "`class_weight` names a class that is not there: 'd'"),
        ({"a": {"backbone": "CNM"}}, "Unknown backbone 'CNM'. Did you mean 'CNN'"),
        ({"a": {"resize_to": 24, "interpolation": "cubic"}}, "`interpolation` must be one of"),
        ({"a": {"head": "conv"}}, "`head` must be one of"),
        ({"a": {"epochs": 2}}, r"The row '\+ a' is no other training than 'base'"),
        ({"a": {"interpolation": "bicubic"}}, r"The row '\+ a' is no other training than 'base'"),
        ({"a": {"unfreeze": 3}}, r"The row '\+ a' is no other training than 'base'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(changes, message, data, runs_of):
    with pytest.raises(ValueError, match=message):
        ek.ablation(changes, *data, base=BASE, verbose=0)
    assert not runs_of


def test_other_arguments_are_checked_too(data):
    with pytest.raises(ValueError, match="`base` sets an unknown argument 'size'"):
        ek.ablation(CHANGES, *data, base={"size": 3})
    with pytest.raises(ValueError, match="`mode` must be one of 'cumulative', 'leave_one_out'"):
        ek.ablation(CHANGES, *data, mode="leave-one-out")
    with pytest.raises(ValueError, match="`seed` must be an int of at least 0"):
        ek.ablation(CHANGES, *data, seed=-1)
    with pytest.raises(ValueError, match="Labels are needed. Received: images without labels"):
        ek.ablation(CHANGES, data[0], pictures(4)[0], base=BASE)
    with pytest.raises(ValueError, match="Labels that are not in the training data: d"):
        ek.ablation(CHANGES, data[0], (pictures(4)[0], ["a", "b", "c", "d"]), base=BASE)


def test_a_change_that_another_one_undoes_is_refused_when_it_is_left_out(data):
    changes = {"few": {"epochs": 3}, "many": {"epochs": 4}}
    with pytest.raises(ValueError, match="The row 'without few' is no other training than 'all changes'"):
        ek.ablation(changes, *data, base=BASE, mode="leave_one_out", verbose=0)

import json
import pickle

import keras
import numpy as np
import pytest
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras.members import head_trials, network_trials, tuning, tuning_targets
from ensemble_keras.members.heads import solve_linear_head

QUICK = {"epochs": [3], "units": [8], "batch_size": [16], "learning_rate": (1e-3, 0.03)}
NETWORK = "CNN(filters=(8,))"


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def data():
    return pictures(90)


def tune(data, backbone=None, **options):
    given = {"hyperparameters": QUICK, "max_trials": 4, "tuner": "random", "verbose": 0, **options}
    return ek.tune_member(backbone or random_backbone("frozen"), *data, **given)


def of_trials(tuned):
    return tuned.trials.drop(columns="seconds")


def log_loss(model, x, y):
    return -np.log(model.predict(x, verbose=0)[np.arange(len(y)), y]).mean()


@pytest.fixture(scope="module")
def tuned(data):
    return tune(data)


def test_trials_are_a_table_with_the_best_first(tuned):
    assert sorted(tuned.trials["trial"]) == [0, 1, 2, 3, 4]
    assert tuned.trials["val_loss"].is_monotonic_increasing
    assert list(tuned.trials.columns[-5:]) == ["val_loss", "val_accuracy", "best_epoch", "seconds", "note"]
    assert set(tuned.trials["head"]) <= {"solved", "linear", "mlp"}
    assert tuned.trials["units"].isna().tolist() == (tuned.trials["head"] != "mlp").tolist()
    assert tuned.trials["batch_size"].dropna().tolist() == [16] * 4


def test_the_solved_head_is_the_members_where_no_trial_beats_it(data, tuned):
    assert tuned.trials["head"][0] == tuned.hyperparameters["head"] == "solved"
    assert tuned.note.startswith("None of 4 trials beat the solved linear head: held-out loss 0.")
    assert tuned.settings == ek.Training(monitor="val_loss")
    layers = [layer.name for layer in tuned.member.layers]
    assert layers == ["images", "frozen", "features", "predictions"]
    assert log_loss(tuned.member, *data) < 0.05
    dataset = ek.ImageDataset.from_arrays(*data)
    features = ek.extract_features([random_backbone("frozen")], dataset, image_size=16, verbose=0)["frozen"]
    folds = tuning_targets.folds_that_fit(dataset, 0)
    solved = solve_linear_head(features, data[1], folds, num_classes=3)
    np.testing.assert_array_equal(tuned.member.get_layer("predictions").kernel, solved.kernel)
    assert tuned.hyperparameters["strength"] == solved.strength


@pytest.fixture
def no_solved_head(monkeypatch):
    monkeypatch.setattr(tuning_targets.HeadTarget, "competitors", lambda self: [])


def test_the_best_head_is_trained_on_all_images(data, no_solved_head):
    given = {**QUICK, "head": ["mlp"], "dropout": [0.1], "epochs": [20]}
    tuned = tune(data, hyperparameters=given, max_trials=2)
    best = tuned.trials.iloc[0]
    assert tuned.hyperparameters["units"] == 8
    assert tuned.hyperparameters["learning_rate"] == best["learning_rate"]
    assert tuned.settings.learning_rate == best["learning_rate"]
    assert (tuned.settings.epochs, tuned.settings.batch_size) == (20, best["batch_size"])
    layers = {layer.name: layer for layer in tuned.member.layers}
    assert list(layers) == ["images", "frozen", "features", "dropout", "hidden_1", "predictions"]
    assert layers["hidden_1"].units == 8
    assert layers["dropout"].rate == 0.1
    assert "number" in tuned.note
    assert "judge the member by other images" in tuned.note
    x, y = pictures(60, seed=1)
    assert log_loss(tuned.member, x, y) < 0.8


@pytest.mark.slow
def test_a_member_is_saved_and_opened_by_keras_alone(data, no_solved_head, tmp_path):
    tuned = tune(data, hyperparameters={**QUICK, "head": ["mlp"]}, max_trials=1)
    tuned.member.save(tmp_path / "member.keras")
    again = keras.saving.load_model(tmp_path / "member.keras")
    x = data[0][:8]
    np.testing.assert_allclose(again.predict(x, verbose=0), tuned.member.predict(x, verbose=0), atol=1e-6)


def test_the_same_seed_gives_the_same_trials(data, tuned):
    assert of_trials(tune(data)).equals(of_trials(tuned))


def test_a_killed_search_goes_on_from_its_directory(data, tuned, tmp_path, monkeypatch):
    whole, runs_before, run = tuned, [], head_trials.HeadTrials.run

    def counted(self, values):
        if len(runs_before) == 3:
            raise Killed
        runs_before.append(values)
        return run(self, values)

    monkeypatch.setattr(tuning_targets.HeadTrials, "run", counted)
    with pytest.raises(Killed):
        tune(data, directory=tmp_path)
    monkeypatch.setattr(tuning_targets.HeadTrials, "run", run)
    again = tune(data, directory=tmp_path)
    assert of_trials(again).equals(of_trials(whole))
    monkeypatch.setattr(tuning_targets.HeadTrials, "run", None)
    monkeypatch.setattr(tuning_targets, "solve_linear_head", None)
    third = tune(data, directory=tmp_path)
    assert third.trials.equals(again.trials)
    for a, b in zip(third.member.get_weights(), whole.member.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_directory_holds_no_pickle_and_a_project_per_search(data, tmp_path):
    tune(data, directory=tmp_path, max_trials=2)
    with pytest.warns(UserWarning, match="holds a run with other arguments"):
        tune(data, directory=tmp_path, max_trials=1, seed=1)
    projects = sorted(path.name for path in tmp_path.glob("trials-*"))
    assert len(projects) == 2
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".lock", ".npz", ".sqlite"}
    for path in files:
        if path.suffix == ".npz":
            np.load(path, allow_pickle=False)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError)):
            pickle.loads(path.read_bytes())


@pytest.mark.parametrize(("cv", "parts"), [(None, 1), (3, 3)])
def test_images_of_a_group_are_on_one_side(data, cv, parts):
    groups = np.arange(90) // 3
    dataset = ek.ImageDataset.from_arrays(*data, groups=groups)
    split = tuning._parts(dataset, np.arange(3), 0.2, cv, 0)
    assert len(split) == parts
    for train, held in split:
        assert not set(groups[train]) & set(groups[held])
        assert len(train) + len(held) == 90
        assert len(np.unique(data[1][held])) == 3
        assert len(held) == (18 if cv is None else 30)


def test_accuracy_can_be_the_objective_judged_by_folds_and_classes_can_weigh(data, tuned):
    other = tune(data, objective="val_accuracy", class_weight={0: 3.0}, cv=2, max_trials=2)
    assert other.trials["val_accuracy"].is_monotonic_decreasing
    assert other.settings.monitor == "val_accuracy"
    assert not set(other.trials["val_loss"]) & set(tuned.trials["val_loss"])


@pytest.mark.slow
def test_hyperband_deals_out_the_epochs(data):
    tuned = tune(data, tuner="hyperband", max_trials=8, hyperparameters={**QUICK, "epochs": (1, 9)})
    assert set(tuned.trials["epochs"].dropna()) == {3, 9}
    assert not [name for name in tuned.trials if "/" in name]


def test_a_whole_network_is_tuned_where_it_has_no_pretrained_weights(data, tmp_path):
    given = {"augmentation": ["none", "flip"], "learning_rate": [0.01], "batch_size": [16], "dropout": [0.0, 0.1]}
    options = {"hyperparameters": given, "image_size": 16, "settings": ek.Training(epochs=2), "max_trials": 2}
    tuned = tune(data, NETWORK, directory=tmp_path, **options)
    assert sorted(tuned.trials["trial"]) == [1, 2]
    assert set(tuned.trials["augmentation"]) <= {"none", "flip"}
    assert tuned.trials["best_epoch"].between(1, 2).all()
    assert tuned.settings.learning_rate == 0.01
    assert tuned.settings.epochs == 2
    assert tuned.settings.weight_decay == tuned.trials["weight_decay"][0]
    assert tuned.member.output_shape == (None, 3)
    again = tune(data, NETWORK, directory=tmp_path, **options)
    assert again.trials.equals(tuned.trials)
    for a, b in zip(again.member.get_weights(), tuned.member.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_trials_differ_in_the_strength_of_their_augmentation(data, monkeypatch):
    seen, init = [], network_trials.Trainer.__init__
    monkeypatch.setattr(
        network_trials.Trainer, "__init__", lambda *a, **k: seen.append(k["augmentation"]) or init(*a, **k)
    )
    given = {"augmentation": ["brightness"], "augmentation_strength": (0.5, 1.5), "batch_size": [32]}
    options = {"hyperparameters": given, "image_size": 16, "settings": ek.Training(epochs=1), "max_trials": 2}
    tuned = tune(data, NETWORK, **options)
    strengths = tuned.trials.sort_values("trial")["augmentation_strength"].tolist()
    assert 0.5 <= min(strengths) < max(strengths) <= 1.5
    best = tuned.hyperparameters["augmentation_strength"]
    assert seen == [f"brightness(strength={strength!r})" for strength in (*strengths, best)]


@pytest.mark.slow
def test_networks_of_one_seed_are_equal_in_every_trial_and_learn(data):
    given = {"augmentation": ["none"], "learning_rate": (0.02, 0.05), "batch_size": [16], "dropout": [0.0]}
    options = {"hyperparameters": given, "image_size": 16, "settings": ek.Training(epochs=15), "max_trials": 2}
    first, second = (tune(data, NETWORK, **options) for _ in range(2))
    assert of_trials(first).equals(of_trials(second))
    assert first.trials["val_loss"][0] < 1.0
    assert log_loss(first.member, *pictures(60, seed=1)) < 1.0
    for a, b in zip(first.member.get_weights(), second.member.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_network_that_does_not_fit_counts_as_one_that_learned_nothing(data, monkeypatch):
    class Huge:
        def __init__(self, *args, **options):
            pass

        def run(self, *args, **options):
            raise MemoryError("out of memory even with one image at a time")

    monkeypatch.setattr(network_trials, "Trainer", Huge)
    dataset = ek.ImageDataset.from_arrays(*data)
    trunk = ek.build_backbone(NETWORK, input_shape=(16, 16, 3), weights=None)
    parts = [(np.arange(60), np.arange(60, 90))]
    options = {"num_classes": 3, "class_weight": None, "objective": "val_loss", "seed": 0}
    trials = network_trials.NetworkTrials(trunk, dataset, parts, settings=ek.Training(), **options)
    figures, note = trials.run({"dropout": 0.0, "augmentation": "none"})
    assert figures == {"val_loss": np.log(3), "val_accuracy": 1 / 3, "val_auc": 0.5, "best_epoch": 0}
    assert note.startswith("out of memory")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hyperparameters": {"unit": [8]}}, "Unknown hyperparameter 'unit'. Did you mean 'units'"),
        ({"tuner": "bayes"}, "`tuner` must be one of 'bayesian', 'random', 'hyperband'"),
        ({"objective": "accuracy"}, "`objective` must be one of.*Did you mean 'val_accuracy'"),
        ({"seed": True}, "`seed` must be an int of at least 0"),
        ({"max_trials": 0}, "`max_trials` must be an int of at least 1. Received: 0"),
        ({"max_trials": 2.0}, "`max_trials` must be an int"),
        ({"settings": ek.Training()}, "`settings` are of end-to-end training, and this backbone is frozen"),
        (
            {"settings": 5, "backbone": "CNN", "hyperparameters": {}},
            "`settings` must be None or Training settings. Received: 5",
        ),
        ({"validation_split": 1.5}, "`test_size` must be a share between 0 and 1"),
        ({"cv": 1}, "`cv` must be a number of folds of at least 2"),
        (
            {"backbone": "MobileNetV2", "weights": "imagnet"},
            "MobileNetV2 has no weights 'imagnet', only 'imagenet', and would be trained from scratch",
        ),
    ],
)
def test_what_cannot_be_is_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        tune(data, **options)

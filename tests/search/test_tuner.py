import json
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from tiny_search import FAMILIES, tiny_images, tiny_space, untrained

from ensemble_keras.search import tuner as tuner_module
from ensemble_keras.search.family import Family
from ensemble_keras.search.genetic import GeneticOracle
from ensemble_keras.search.halving import SuccessiveHalving
from ensemble_keras.search.space import HyperImageClassifier
from ensemble_keras.search.tuner import ALGORITHMS, ArchitectureSearch, GeneticSearch


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search of four trials."""
    return search_of_four(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def searched_by_loss(tmp_path_factory):
    """The same by the loss, in which no trial is as good as another, so that two keep their weights."""
    return search_of_four(tmp_path_factory.mktemp("searched_by_loss"), objective="val_loss")


def search_of_four(folder, **options):
    tuner = GeneticSearch(
        tiny_space(), max_trials=4, population_size=3, keep=2, ensemble_size=1, directory=folder, **options
    )
    tuner.search(*tiny_images(), epochs=2, verbose=0)
    return tuner


def project(tuner):
    return tuner.oracle.folder


def test_the_leaderboard_tells_of_every_trial(searched):
    table = searched.leaderboard()
    assert sorted(table["trial"]) == [1, 2, 3, 4]
    assert table["score"].is_monotonic_decreasing
    assert table["genome"].is_unique
    assert (table["score"] == table["val_accuracy"]).all()
    measured = [searched.hypermodel.measure(trial.hyperparameters.values) for trial in searched.completed_trials()]
    assert table["parameters"].tolist() == [costs["parameters"] for costs in measured]
    assert table["macs"].tolist() == [costs["macs"] for costs in measured]


def test_every_epoch_has_its_statistics(searched):
    for trial in searched.completed_trials():
        files = sorted((project(searched) / "stats" / trial.genome_id[:16]).glob("*.json"))
        epochs = [json.loads(file.read_text()) for file in files]
        assert [figures["epoch"] for figures in epochs] == [1, 2]
        assert max(figures["val_accuracy"] for figures in epochs) == trial.score


def test_every_architecture_is_kept_as_code_and_the_best_one_as_champion(searched):
    best = searched.completed_trials()[0]
    sources = {path.stem: path.read_text() for path in (project(searched) / "architectures").glob("*.py")}
    assert set(sources) == {trial.genome_id[:16] for trial in searched.completed_trials()}
    assert "ensemble_keras" not in "".join(sources.values())
    assert (project(searched) / "champion.py").read_text() == sources[best.genome_id[:16]]


@pytest.mark.slow
def test_the_champion_predicts_what_the_trial_did_where_this_library_is_missing(searched, tmp_path):
    np.save(tmp_path / "x.npy", searched.data.selection.pixels)
    code = (
        "import sys; sys.modules['ensemble_keras'] = None\n"
        "import runpy, numpy as np\n"
        "folder, images = sys.argv[1:]\n"
        "model = runpy.run_path(folder + '/champion.py')['build_model']()\n"
        "model.load_weights(folder + '/champion.weights.h5')\n"
        "np.save(images.replace('x.npy', 'p.npy'), model.predict(np.load(images), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(project(searched)), str(tmp_path / "x.npy")], check=True)
    (predicted,), _ = searched.predictions(searched.completed_trials()[:1])
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), predicted, atol=1e-6)


def test_a_best_model_predicts_what_its_trial_did(searched):
    (predicted,), (held,) = searched.predictions(searched.completed_trials()[:1])
    (model,) = searched.get_best_models()
    np.testing.assert_allclose(searched.data.selection.predict(model), predicted, atol=1e-6)
    np.testing.assert_allclose(searched.data.comparison.predict(model), held, atol=1e-6)
    accuracy = np.mean(predicted.argmax(axis=1) == searched.data.selection.labels)
    assert np.isclose(accuracy, searched.completed_trials()[0].score)


def test_only_the_weights_of_the_best_are_kept_and_others_are_trained_again_as_they_were(searched_by_loss):
    tuner = searched_by_loss
    trials = tuner.completed_trials()
    assert [tuner.has_weights(trial) for trial in trials] == [True, True, False, False]
    (predicted,), _ = tuner.predictions([trials[2]])
    model = tuner.load_model(trials[2])
    np.testing.assert_allclose(tuner.data.selection.predict(model), predicted, atol=1e-6)
    tuner._records.keep_weights_of({trial.genome_id[:16] for trial in trials[:2]})


def test_a_new_process_knows_the_search_without_its_data(searched_by_loss):
    again = GeneticSearch(
        tiny_space(),
        objective="val_loss",
        max_trials=4,
        population_size=3,
        keep=2,
        directory=project(searched_by_loss).parent,
        project_name="search",
    )
    pd.testing.assert_frame_equal(again.leaderboard(), searched_by_loss.leaderboard())
    (model,) = again.get_best_models()
    x = tiny_images()[0]
    expected = searched_by_loss.get_best_models()[0].predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    dropped = again.completed_trials()[2]
    with pytest.raises(RuntimeError, match="Call `search` with the arguments that it had"):
        again.load_model(dropped)
    with pytest.raises(RuntimeError, match="Call `search` first"):
        again.predictions([dropped])


def test_a_finished_search_returns_at_once_and_a_larger_one_goes_on(searched, monkeypatch):
    before = searched.leaderboard()["genome"].tolist()
    options = {"population_size": 3, "keep": 2, "directory": project(searched).parent}
    again = GeneticSearch(tiny_space(), max_trials=4, **options)
    with monkeypatch.context() as patched:
        patched.setattr("ensemble_keras.search.tuner.evaluate", None)
        again.search(*tiny_images(), epochs=2, verbose=0)
    larger = GeneticSearch(tiny_space(), max_trials=5, **options)
    larger.search(*tiny_images(), epochs=2, verbose=0)
    assert len(larger.leaderboard()) == 5
    assert set(before) < set(larger.leaderboard()["genome"])


def test_a_search_killed_as_its_last_trial_ended_still_writes_its_tables(tmp_path, monkeypatch):
    def search():
        options = {"objective": "val_loss", "keep": 1, "ensemble_size": 1}  # no ties, and no team, whose weights stay
        tuner = GeneticSearch(tiny_space(), max_trials=2, population_size=3, directory=tmp_path, **options)
        tuner.search(*tiny_images(), epochs=1, verbose=0)

    def killed(tuner):
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(GeneticSearch, "_tidy", killed)
            search()
    search()
    assert pd.read_csv(tmp_path / "search" / "trials.csv")["status"].tolist() == ["COMPLETED", "COMPLETED"]
    assert len(list((tmp_path / "search" / "weights").iterdir())) == 1


def test_what_killed_writers_left_is_removed_but_not_that_of_other_searches(searched):
    left = project(searched) / "stats" / "trial" / ".1-left.partial.json"
    written_by_another = project(searched).parent / "evaluations" / ".a-being-written.partial.npz"
    left.parent.mkdir()
    for path in (left, written_by_another):
        path.touch()
    searched.search(*tiny_images(), epochs=2, verbose=0)
    assert not left.exists()
    assert written_by_another.exists()


def test_a_genome_that_another_search_trained_is_not_trained_again(searched, monkeypatch):
    trained, evaluate = [], tuner_module.evaluate
    monkeypatch.setattr(tuner_module, "evaluate", lambda job: trained.append(job.name) or evaluate(job))
    other = GeneticSearch(
        tiny_space(), max_trials=6, population_size=3, directory=project(searched).parent, project_name="other"
    )
    other.search(*tiny_images(), epochs=2, verbose=0)
    known = {genome[:16] for genome in searched.leaderboard()["genome"]}
    found = {genome[:16] for genome in other.leaderboard()["genome"]}
    assert known < found
    # A test before this one may have trained the fifth.
    assert 1 <= len(trained) <= 2
    assert set(trained) <= found - known
    for trial in other.completed_trials():
        assert (project(other) / "stats" / trial.genome_id[:16] / "2.json").exists()


def test_other_data_or_settings_are_refused_and_what_differs_is_named(searched):
    folder = {"directory": project(searched).parent, "max_trials": 5}
    with pytest.raises(ValueError, match=r"trained otherwise \(epochs: 2 then, 3 now; settings.patience"):
        GeneticSearch(tiny_space(), **folder).search(*tiny_images(), epochs=3, verbose=0)
    with pytest.raises(ValueError, match=r"trained otherwise \(data.comparison"):
        GeneticSearch(tiny_space(), **folder).search(*tiny_images(seed=1), epochs=2, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_searches_the_same_space(algorithm, tmp_path):
    tuner = ArchitectureSearch(tiny_space(), algorithm=algorithm, max_trials=2, directory=tmp_path)
    tuner.search(*tiny_images(), epochs=2, verbose=0)
    assert len(tuner.leaderboard()) == 2
    assert tuner.leaderboard()["genome"].is_unique


@pytest.mark.slow
def test_hyperband_trains_the_same_genome_longer(tmp_path):
    tuner = ArchitectureSearch(tiny_space(), algorithm="hyperband", max_trials=6, directory=tmp_path)
    tuner.search(*tiny_images(), epochs=3, verbose=0)
    table = tuner.leaderboard()
    assert set(table["epochs"]) == {1, 3}
    again = table[table["genome"].duplicated(keep=False)].groupby("genome")["epochs"].agg(sorted)
    assert len(again)
    assert again.map(lambda epochs: epochs == [1, 3]).all()
    for name in (trial.genome_id[:16] for trial in tuner.completed_trials()):
        assert list((project(tuner) / "stats").glob(f"{name}-*epochs"))


@pytest.mark.slow
def test_several_objectives_give_a_front(tmp_path):
    tuner = GeneticSearch(tiny_space(), objective=["val_accuracy", "macs"], max_trials=4, directory=tmp_path)
    tuner.search(*tiny_images(), epochs=1, verbose=0)
    front = tuner.oracle.get_pareto_trials()
    points = tuner.leaderboard()[["val_accuracy", "macs"]].to_numpy("float64")
    dominated = [any((p >= q).all() and (p > q).any() for p in points * [1, -1]) for q in points * [1, -1]]
    assert len(front) == dominated.count(False)
    assert all(tuner.has_weights(trial) for trial in front)


@pytest.mark.slow
def test_poor_trials_stop_early(tmp_path):
    tuner = ArchitectureSearch(
        tiny_space(),
        algorithm="random",
        max_trials=6,
        halving=SuccessiveHalving(min_epochs=1, reduction_factor=2),
        directory=tmp_path,
    )
    tuner.search(*tiny_images(), epochs=3, verbose=0)
    table = tuner.leaderboard()
    stopped = table[table["status"] == "STOPPED"]
    assert 0 < len(stopped) < 6
    assert (stopped["epochs"] < 3).all()
    assert stopped["reason"].str.contains("was needed to go on").all()
    assert (table["epochs"] == 3).any()
    # Whoever asks for its network gets what was trained, not what would be trained by now.
    trial = next(trial for trial in tuner.completed_trials() if trial.message)
    tuner._records.keep_weights_of([])
    (predicted,), _ = tuner.predictions([trial])
    np.testing.assert_allclose(tuner.data.selection.predict(tuner.load_model(trial)), predicted, atol=1e-6)


def test_failures_are_noted_with_their_reason_and_replaced(tmp_path, monkeypatch):
    evaluate, errors = (
        tuner_module.evaluate,
        [MemoryError("no room"), FloatingPointError("NaN"), ValueError("a bad one")],
    )

    def failing(job):
        if int(job.trial_id) != 1 and errors:
            raise errors.pop()
        return evaluate(job)

    monkeypatch.setattr(tuner_module, "evaluate", failing)
    tuner = ArchitectureSearch(
        tiny_space(), algorithm="random", max_trials=2, directory=tmp_path, oracle_options={"max_failed": 3}
    )
    tuner.search(*tiny_images(), epochs=1, verbose=0)
    table = tuner.leaderboard()
    assert table["status"].tolist() == ["COMPLETED"] * 2 + ["FAILED"] * 3
    assert set(table["reason"][2:]) == {"MemoryError: no room", "FloatingPointError: NaN", "ValueError: a bad one"}
    assert len(tuner.get_best_models(9)) == 2


@pytest.mark.slow
def test_a_trial_that_takes_too_long_has_failed(tmp_path):
    tuner = ArchitectureSearch(tiny_space(), max_trials=1, directory=tmp_path, oracle_options={"max_failed": 1})
    with pytest.raises(RuntimeError, match="with 0 of 1 trials. 2 trials have failed.* TrialTimeoutError: not ready"):
        tuner.search(*tiny_images(), epochs=1, max_seconds_per_trial=1e-9, verbose=0)
    assert tuner.leaderboard()["reason"].str.startswith("TrialTimeoutError: not ready after 1e-09 seconds").all()
    assert len(tuner.leaderboard()) == 2


@pytest.mark.slow
def test_a_loss_that_is_no_number_has_failed(tmp_path):
    space = HyperImageClassifier(2, (8, 8, 1), families=FAMILIES, training={"learning_rate": [1e30]})
    tuner = ArchitectureSearch(space, max_trials=1, directory=tmp_path, oracle_options={"max_failed": 0})
    with pytest.raises(RuntimeError, match="loss became NaN"):
        tuner.search(*tiny_images(), epochs=2, verbose=0)
    assert tuner.leaderboard()["reason"].str.startswith("FloatingPointError: loss became NaN").all()


@pytest.mark.slow
def test_limits_refuse_before_a_trial_is_spent(tmp_path):
    space = tiny_space(max_parameters=400)
    tuner = ArchitectureSearch(space, algorithm="random", max_trials=3, directory=tmp_path)
    tuner.search(*tiny_images(), epochs=1, verbose=0)
    assert (tuner.leaderboard()["parameters"] <= 400).all()
    assert (tuner.leaderboard()["status"] == "COMPLETED").all()


@pytest.mark.slow
def test_a_network_is_built_once_for_each_trial(tmp_path, monkeypatch):
    space, built = tiny_space(), []
    construct = HyperImageClassifier._construct
    monkeypatch.setattr(
        HyperImageClassifier, "_construct", lambda self, *a: built.append(a[0]) or construct(self, *a)
    )
    tuner = ArchitectureSearch(space, algorithm="random", max_trials=3, keep=0, ensemble_size=1, directory=tmp_path)
    assert not built
    monkeypatch.setattr("ensemble_keras.search.tuner.write_champion", lambda *_: None)
    monkeypatch.setattr(ArchitectureSearch, "load_model", lambda *_: None)
    tuner.search(*tiny_images(), epochs=1, verbose=0)
    assert sorted(built) == sorted(tuner.leaderboard()["genome"])


@pytest.mark.slow
def test_parents_may_come_from_the_best_team(tmp_path):
    tuner = GeneticSearch(
        tiny_space(), max_trials=6, population_size=3, parents="ensemble", ensemble_size=2, directory=tmp_path
    )
    tuner.search(*tiny_images(), epochs=1, verbose=0)
    table = tuner.leaderboard()
    children = table[table["origin"] != "random"]
    assert len(children) == 3
    assert children["parents"].map(len).min() >= 1


@pytest.mark.slow
def test_own_processes_train_what_this_one_would(searched, tmp_path):
    tuner = GeneticSearch(tiny_space(), max_trials=2, population_size=3, directory=tmp_path)
    tuner.search(*tiny_images(), epochs=2, executor=1, verbose=0)
    alone = searched.leaderboard().set_index("genome")
    for genome, row in tuner.leaderboard().set_index("genome").iterrows():
        assert genome in alone.index
        assert row["val_loss"] == pytest.approx(alone.loc[genome, "val_loss"], abs=1e-5)


def perceptron(hp):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(hp.Choice("units", [2, 4, 8]), activation="relu"))
    model.add(keras.layers.Dense(2, activation="softmax"))
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.slow
def test_any_keras_tuner_hypermodel_can_be_searched(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Choice("units", [2, 4, 8])
    tuner = GeneticSearch(perceptron, max_trials=3, directory=tmp_path, oracle_options={"hyperparameters": hp})
    x, y = tiny_images()
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert isinstance(tuner.oracle, GeneticOracle)
    assert sorted(hp.get("units") for hp in tuner.get_best_hyperparameters(3)) == [2, 4, 8]
    assert tuner.leaderboard()["units"].tolist() == [hp.get("units") for hp in tuner.get_best_hyperparameters(3)]


@pytest.mark.slow
def test_a_hypermodel_of_ones_own_trains_as_long_as_hyperband_says_and_on_a_part_of_the_images(tmp_path):
    epochs, seen = [], []

    class Count(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            epochs.append(self.params["epochs"])
            seen.append(self.params["steps"])

    tuner = ArchitectureSearch(perceptron, algorithm="hyperband", max_trials=4, directory=tmp_path)
    tuner.search(*tiny_images(100), epochs=3, batch_size=10, callbacks=[Count()], verbose=0)
    dealt = [trial.hyperparameters.values["tuner/epochs"] for trial in tuner.oracle.finished()]
    assert epochs == dealt
    assert set(dealt) == {1, 3}
    assert set(seen) == {8}


def test_what_keras_tuner_cannot_do_with_a_hypermodel_of_ones_own_is_refused(tmp_path):
    for options in ({"halving": True}, {"parents": "ensemble"}):
        with pytest.raises(ValueError, match="`halving` and `parents='ensemble'` need a HyperImageClassifier"):
            ArchitectureSearch(perceptron, directory=tmp_path, **options)
    tuner = ArchitectureSearch(perceptron, max_trials=1, directory=tmp_path)
    for options in ({"executor": 2}, {"augmentation": "light"}, {"max_seconds_per_trial": 9.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` needs a HyperImageClassifier"):
            tuner.search(*tiny_images(), **options)


def test_halving_is_off_by_none_and_by_false(tmp_path):
    halvings = [ArchitectureSearch(tiny_space(), halving=h, directory=tmp_path).halving for h in (None, False, True)]
    assert halvings == [None, None, SuccessiveHalving()]


def test_validation_images_need_not_have_every_class(tmp_path, monkeypatch):
    monkeypatch.setattr(tuner_module, "evaluate", untrained)
    x, y = tiny_images(60)
    tuner = ArchitectureSearch(tiny_space(), algorithm="random", max_trials=2, directory=tmp_path)
    tuner.search(x, y, validation_data=(x[y == 0][:20] // 2, y[y == 0][:20]), epochs=1, verbose=0)
    assert (tuner.leaderboard()["status"] == "COMPLETED").all()


def test_bad_arguments_are_refused(tmp_path):
    folder = {"directory": tmp_path}
    with pytest.raises(ValueError, match="`algorithm` must be one of 'genetic', 'local'"):
        ArchitectureSearch(tiny_space(), algorithm="genetics", **folder)
    with pytest.raises(ValueError, match="`objective` must be one of 'val_loss'"):
        ArchitectureSearch(tiny_space(), objective="accuracy", **folder)
    with pytest.raises(ValueError, match="`objective` must be one of .*'macs'"):
        ArchitectureSearch(tiny_space(), objective=["val_loss", "flops"], **folder)
    with pytest.raises(ValueError, match="`objective` must be a name or a list of names. Received: "):
        ArchitectureSearch(tiny_space(), objective=keras_tuner.Objective("val_loss", "min"), **folder)
    with pytest.raises(ValueError, match="needs `algorithm='genetic'`"):
        ArchitectureSearch(tiny_space(), algorithm="random", parents="ensemble", **folder)
    with pytest.raises(ValueError, match="`seed` must be an int"):
        ArchitectureSearch(tiny_space(), seed=-1, **folder)
    with pytest.raises(ValueError, match="`keep` must be an int of at least 0. Received: -1"):
        ArchitectureSearch(tiny_space(), keep=-1, **folder)
    with pytest.raises(ValueError, match="`ensemble_size` must be an int of at least 1. Received: 0"):
        ArchitectureSearch(tiny_space(), ensemble_size=0, **folder)
    with pytest.raises(ValueError, match="`halving` must be a SuccessiveHalving, True or None. Received: 3"):
        ArchitectureSearch(tiny_space(), halving=3, **folder)
    with pytest.raises(ValueError, match="does not give by itself. Received: seed, refusal. Take the argument"):
        ArchitectureSearch(tiny_space(), oracle_options={"refusal": len, "seed": 3, "max_failed": 1}, **folder)
    with pytest.raises(ValueError, match="'optimizer', 'loss' belong to a hypermodel of your own"):
        ArchitectureSearch(tiny_space(), optimizer="sgd", loss="mse", **folder)
    tuner = ArchitectureSearch(tiny_space(3), **folder)
    with pytest.raises(ValueError, match="The space is of 3 classes. Received: images of 2."):
        tuner.search(*tiny_images(), verbose=0)
    with pytest.raises(TypeError, match="takes no argument 'epoch'"):
        tuner.search(*tiny_images(), epoch=3, verbose=0)


class Doubled(keras.layers.Layer):
    """A layer that is not Keras' own."""

    def call(self, x):
        return 2 * x


def test_a_search_that_finds_nothing_to_try_says_why(tmp_path):
    family = Family("doubled", {"filters": (4, 8)}, lambda images, values: Doubled(name="twice")(images))
    tuner = ArchitectureSearch(HyperImageClassifier(2, (8, 8, 1), families=[family]), directory=tmp_path)
    with pytest.raises(RuntimeError, match=r"ended with 0 of 100 trials. .* Most often: .* not known: .*/twice"):
        tuner.search(*tiny_images(), epochs=1, verbose=0)


@pytest.mark.slow
def test_an_exhausted_space_ends_the_search_with_what_there_is(tmp_path):
    family = {"cnn": {"blocks": [2], "filters": [4], "widening": [1.5], "norm": ["none"], "dropout": [0.0]}}
    family["cnn"] |= {"kernel_size": [3], "pooling": ["max", "average"]}
    training = {"learning_rate": [1e-3], "weight_decay": [1e-4], "dropout": [0.0]}
    space = HyperImageClassifier(2, (8, 8, 1), families=family, training=training)
    tuner = ArchitectureSearch(space, max_trials=3, directory=tmp_path)
    with pytest.warns(UserWarning, match="The search ended with 2 of 3 trials"):
        tuner.search(*tiny_images(), epochs=1, verbose=0)
    assert len(tuner.leaderboard()) == 2

import keras
import numpy as np
import pytest
from contracts import assert_stock_only
from tiny_search import tiny_images, tiny_space, untrained

import ensemble_keras as ek
from ensemble_keras.measures.metrics import log_losses
from ensemble_keras.search.pool import SearchEnsemble, ensemble_from_search
from ensemble_keras.search.tuner import ArchitectureSearch


@pytest.fixture(scope="module")
def tuner(tmp_path_factory):
    tuner = ArchitectureSearch(
        tiny_space(), algorithm="random", max_trials=4, directory=tmp_path_factory.mktemp("pool"), keep=3
    )
    tuner.search(*tiny_images(200), epochs=1, verbose=0)
    return tuner


@pytest.fixture(scope="module")
def found(tuner):
    return SearchEnsemble.from_search(tuner, size=3)


def test_the_model_is_the_weighted_vote_of_its_members(tuner, found):
    images = tiny_images(30, seed=5)[0]
    genomes = tuner.leaderboard().set_index("trial")["genome"]
    trials = {trial.genome_id: trial for trial in tuner.completed_trials()}
    members = [tuner.load_model(trials[genomes[number]]) for number in found.members["trial"]]
    expected = np.average(
        [member.predict(images, verbose=0) for member in members], axis=0, weights=found.members["weight"]
    )
    np.testing.assert_allclose(found.model.predict(images, verbose=0), expected, atol=1e-6)
    assert_stock_only(found.model)


def test_figures_are_of_images_that_chose_neither_trials_nor_members(tuner, found):
    _, held = tuner.predictions(tuner.completed_trials())
    y = tuner.data.comparison.labels
    table = found.comparison.set_index("name")
    assert table.loc["best single", "accuracy"] == pytest.approx(np.mean(held[0].argmax(axis=1) == y))
    count = table.loc["top", "members"]
    top = np.mean(held[:count], axis=0)
    assert table.loc["top", "log_loss"] == pytest.approx(log_losses(y, top).mean(), rel=1e-5)
    predicted = tuner.data.comparison.predict(found.model)
    assert table.loc["greedy", "accuracy"] == pytest.approx(np.mean(predicted.argmax(axis=1) == y))
    difference = table.loc["greedy", "accuracy"] - table.loc["best single", "accuracy"]
    assert table.loc["greedy", "difference"] == pytest.approx(difference)
    assert table.loc["best single", ["difference", "low", "high"]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("combiner", ["gated", "top"])
def test_the_model_is_the_one_compared(tuner, combiner):
    found = SearchEnsemble.from_search(tuner, size=3, combiner=combiner)
    predicted = tuner.data.comparison.predict(found.model)
    row = found.comparison.set_index("name").loc[combiner]
    assert row["log_loss"] == pytest.approx(log_losses(tuner.data.comparison.labels, predicted).mean(), rel=1e-4)


def test_the_searchs_own_validation_images_stand_for_what_is_known_of_them(tuner, found):
    parts = (tuner.data.comparison, tuner.data.selection)
    x, y = np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts])
    again = SearchEnsemble.from_search(tuner, x, y, size=3)
    assert again.members.equals(found.members)
    assert np.allclose(again.comparison["log_loss"], found.comparison["log_loss"])


def test_other_images_are_predicted_by_the_trials_whose_weights_are_kept(tuner):
    x, y = tiny_images(80, seed=9)
    found = SearchEnsemble.from_search(tuner, x, y, size=2)
    kept = {trial.genome_id for trial in tuner.completed_trials() if tuner.has_weights(trial)}
    assert set(tuner.leaderboard().set_index("trial")["genome"][found.members["trial"]]) <= kept
    assert found.verdict.endswith("on 40 images that chose neither.")


def test_the_verdict_says_when_one_model_would_do(tuner):
    found = SearchEnsemble.from_search(tuner, size=1)
    assert len(found.members) == 1
    text = "One model would do: nothing improves on a single network. Greedy of 1 member: "
    assert found.verdict.startswith(text)


def test_a_file_of_it_opens_with_keras_alone(tuner, tmp_path, capsys):
    model = ensemble_from_search(tuner, size=3)
    assert "points over the best single network" in capsys.readouterr().out
    card = {"class_names": ["left", "right"], "filter": "bilinear"}
    ek.save_ensemble(model, tmp_path / "found.keras", card=card, verbose=0)
    x = tiny_images(10, seed=3)[0]
    again = keras.saving.load_model(tmp_path / "found.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_training_images_are_refused(tuner):
    x, y = tiny_images(200)
    with pytest.raises(ValueError, match="Expected images that no trial trained on. Received: 160 of the training"):
        ensemble_from_search(tuner, x, y)


def test_images_that_chose_trials_compare_nothing(tuner):
    chose, others = tuner.data.selection, tiny_images(30, seed=8)
    x, y = np.concatenate([chose.pixels, others[0]]), np.concatenate([chose.labels, others[1]])
    with pytest.raises(ValueError, match=f"that chose no trial. Received: {len(chose)} that did, beside {len(y)}"):
        ensemble_from_search(tuner, x, y)


def test_without_an_image_of_a_class_there_is_no_gate(tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble_keras.search.tuner.evaluate", untrained)
    x, y = tiny_images(90)
    y[:60] = np.arange(60) % 3
    few = ArchitectureSearch(tiny_space(3), algorithm="random", max_trials=3, directory=tmp_path)
    few.search(x[:60], y[:60], validation_data=(x[60:], y[60:]), epochs=1, verbose=0)
    assert SearchEnsemble.from_search(few, size=2).comparison["name"].tolist() == ["best single", "top", "greedy"]
    with pytest.raises(ValueError, match="`y` must hold images of all 3 classes. .* none of class 2"):
        ensemble_from_search(few, combiner="gated")


def test_bad_arguments_are_refused(tuner, tmp_path):
    with pytest.raises(ValueError, match="`size` must be an int of at least 1. Received: 0"):
        ensemble_from_search(tuner, size=0)
    with pytest.raises(ValueError, match="`combiner` must be one of 'greedy'"):
        ensemble_from_search(tuner, combiner="greedily")
    with pytest.raises(ValueError, match="Expected images of 2 classes. Received: 3."):
        empty = ArchitectureSearch(
            tiny_space(), algorithm="random", directory=tuner.oracle.folder.parent, project_name="search"
        )
        ensemble_from_search(empty, tiny_images(30, seed=4)[0], np.arange(30) % 3)
    with pytest.raises(ValueError, match="The search has no completed trial"):
        ensemble_from_search(ArchitectureSearch(tiny_space(), directory=tmp_path))

import pickle

import keras
import numpy as np
import pandas as pd
import pytest
from contracts import assert_stock_only
from tiny_search import KillOnce, tiny_images

from ensemble_keras.measures.macs import count_macs
from ensemble_keras.search import sparse as sparse_module
from ensemble_keras.search.halving import SuccessiveHalving
from ensemble_keras.search.pool import SearchEnsemble
from ensemble_keras.search.space import HyperImageClassifier
from ensemble_keras.search.sparse import SparseEvaluation, SparseSearch

TRAINING = {"learning_rate": [0.01], "weight_decay": [1e-4], "dropout": [0.0]}
FAMILIES = {"cnn": {"blocks": [2], "filters": [16, 24, 32], "widening": [1.5], "norm": ["batch"], "dropout": [0.0]}}


def wide_space(num_classes=2):
    """Returns a space of twelve networks that are wider than the images need."""
    return HyperImageClassifier(num_classes, (8, 8, 1), families=FAMILIES, training=TRAINING)


def sparse_search(folder, **options):
    # So few steps leave much of every channel.
    options = {"max_trials": 3, "strength": [1e-2, 1e-1], "threshold": 0.7, "halving": None, **options}
    options = {"algorithm": "random", **options}
    return SparseSearch(wide_space(), directory=folder, **options)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search of three trials, of which one keeps its weights for being good, others for their cost."""
    tuner = sparse_search(tmp_path_factory.mktemp("sparse"), keep=1, ensemble_size=1)
    tuner.search(*tiny_images(), epochs=2, verbose=0)
    return tuner


def test_a_trial_is_its_narrow_network(searched):
    table = searched.leaderboard().set_index("genome")
    assert (table["macs"] < table["wide_macs"]).any()
    assert (table["macs"] <= table["wide_macs"]).all()
    for trial in searched.completed_trials():
        row, wide = table.loc[trial.genome_id], searched.hypermodel.measure(trial.hyperparameters.values)
        assert [row["wide_parameters"], row["wide_macs"]] == [wide["parameters"], wide["macs"]]
        counted = count_macs(searched.load_model(trial))
        assert [row["parameters"], row["macs"]] == [counted.parameters, counted.total]
        assert searched.costs(trial) == {"parameters": counted.parameters, "macs": counted.total}


def test_the_better_of_both_ways_counts(searched):
    table = searched.leaderboard()
    ways = table[["pruned_val_accuracy", "scratch_val_accuracy"]]
    assert table["val_accuracy"].tolist() == ways.max(axis=1).tolist()
    assert table["score"].tolist() == table["val_accuracy"].tolist()
    assert table["wide_val_accuracy"].between(0, 1).all()


def test_a_model_predicts_what_its_trial_did(searched):
    for trial in searched.completed_trials():
        (predicted,), (held,) = searched.predictions([trial])
        model = searched.load_model(trial)
        np.testing.assert_allclose(searched.data.selection.predict(model), predicted, atol=1e-5)
        np.testing.assert_allclose(searched.data.comparison.predict(model), held, atol=1e-5)
        accuracy = np.mean(predicted.argmax(axis=1) == searched.data.selection.labels)
        assert accuracy == pytest.approx(trial.score)
        assert_stock_only(model)


def test_the_champion_is_narrow_and_runs_without_this_library(searched, tmp_path):
    folder, best = searched.oracle.folder, searched.completed_trials()[0]
    source = (folder / "champion.py").read_text()
    assert source == (folder / "architectures" / f"{best.genome_id[:16]}.py").read_text()
    code = compile(source, "champion.py", "exec")
    names = {"__name__": "champion", "__file__": str(folder / "champion.py")}
    exec(code, names)
    model = names["build_model"]()
    model.load_weights(folder / "champion.weights.h5")
    assert model.count_params() == searched.costs(best)["parameters"]
    (predicted,), _ = searched.predictions([best])
    np.testing.assert_allclose(searched.data.selection.predict(model), predicted, atol=1e-5)


def test_narrow_networks_of_one_architecture_and_other_strengths_join_one_model(searched):
    found = SearchEnsemble.from_search(searched, size=3, combiner="top")
    numbers = searched.leaderboard().set_index("genome")["trial"]
    trials = {numbers[trial.genome_id]: trial for trial in searched.completed_trials()}
    members = [searched.load_model(trials[number]) for number in found.members["trial"]]
    assert found.members["macs"].tolist() == [count_macs(member).total for member in members]
    x = tiny_images(20, seed=5)[0]
    expected = np.mean([member.predict(x, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(found.model.predict(x, verbose=0), expected, atol=1e-5)


def test_a_search_goes_on_where_it_was(searched, monkeypatch):
    folder = searched.oracle.folder.parent
    before = searched.leaderboard()["genome"].tolist()
    again = sparse_search(folder, keep=1)
    with monkeypatch.context() as patched:
        patched.setattr("ensemble_keras.search.sparse.evaluate", None)
        again.search(*tiny_images(), epochs=2, verbose=0)
    assert again.leaderboard().equals(searched.leaderboard())
    assert set(before) == set(again.leaderboard()["genome"])


def test_another_penalty_or_fine_tuning_is_another_search(searched):
    folder = searched.oracle.folder.parent
    with pytest.raises(ValueError, match=r"trained otherwise \(sparsity.fine_tuning_epochs"):
        sparse_search(folder, fine_tuning_epochs=1).search(*tiny_images(), epochs=2, verbose=0)


@pytest.mark.slow
def test_a_kill_while_a_narrow_network_trains_changes_nothing(searched, tmp_path):
    # Two epochs of the wide network, one of the pruned one: the fourth is of the one from scratch.
    killer = KillOnce(tmp_path / "killed", epochs=4)
    tuner = sparse_search(tmp_path, keep=1, ensemble_size=1)
    tuner.search(*tiny_images(), epochs=2, executor=1, callbacks=[killer], verbose=0)
    assert killer.marker.exists()
    expected, found = (one.leaderboard().drop(columns="seconds") for one in (searched, tuner))
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.slow
def test_stopped_trials_stay_wide(tmp_path):
    # Under the greater strength nothing is learned.
    options = {"strength": [1e-4, 10.0], "halving": SuccessiveHalving(min_epochs=2, reduction_factor=2)}
    tuner = sparse_search(tmp_path, max_trials=5, **options, keep=1, ensemble_size=1)
    tuner.search(*tiny_images(), epochs=3, batch_size=10, verbose=0)
    table = tuner.leaderboard()
    stopped = table["status"] == "STOPPED"
    assert 0 < stopped.sum() < len(table)
    assert table.loc[stopped, ["pruned_val_accuracy", "scratch_val_accuracy"]].isna().all(axis=None)
    assert (table.loc[stopped, "macs"] == table.loc[stopped, "wide_macs"]).all()
    assert table.loc[~stopped, ["pruned_val_accuracy", "scratch_val_accuracy"]].notna().all(axis=None)
    trial = next(t for t in tuner.completed_trials() if t.genome_id in set(table.loc[stopped, "genome"]))
    (predicted,), _ = tuner.predictions([trial])
    np.testing.assert_allclose(tuner.data.selection.predict(tuner.load_model(trial)), predicted, atol=1e-5)


def test_evaluations_and_spaces_survive_the_way_to_a_file_or_another_process(searched):
    trial = searched.completed_trials()[0]
    evaluation = searched._evaluation(trial)
    again = SparseEvaluation.of_arrays(evaluation.arrays())
    assert again.found == evaluation.found
    assert again.figures() == evaluation.figures()
    space = pickle.loads(pickle.dumps(searched.hypermodel))
    assert space.hyperparameters().values == searched.hypermodel.hyperparameters().values
    work = pickle.loads(pickle.dumps(searched._work()))
    assert work.keywords == {"sparsity": searched.sparsity}


def test_a_narrow_network_without_a_finite_figure_fails(tmp_path):
    results = {way: sparse_module._Result(None, 0, {"val_loss": np.nan}, {}, None) for way in ("pruned", "scratch")}
    with pytest.raises(FloatingPointError, match="no epoch of the narrow network"):
        sparse_module._better(results, "val_loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.0}, "`strength` must be above 0"),
        ({"strength": []}, "`strength` must hold one value or more"),
        ({"strength": "small"}, "`strength` must be above 0. Received: 'small'"),
        ({"penalty": "l0"}, "`penalty` must be one of"),
        ({"warmup_epochs": -1}, "`warmup_epochs` must be at least 0"),
        ({"threshold": 1.0}, r"`threshold` must be in \(0, 1\). Received: 1.0"),
        ({"threshold": "low"}, r"`threshold` must be in \(0, 1\). Received: 'low'"),
        ({"floor": 0}, "`floor` must be in"),
        ({"round_to": 0}, "`round_to` must be"),
        ({"fine_tuning_epochs": 0}, "`fine_tuning_epochs` must be"),
    ],
)
def test_malformed_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sparse_search(tmp_path, **options)


def test_a_hypermodel_of_ones_own_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`hypermodel` must be a HyperImageClassifier"):
        SparseSearch(keras.Sequential, directory=tmp_path)

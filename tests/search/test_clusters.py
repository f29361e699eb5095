"""A search over processes, a Dask or a Ray cluster, or threads, one of whose workers is killed in the middle."""

import concurrent.futures
import os
import pathlib

import pytest
from tiny_search import KillOnce, tiny_images, tiny_space

from ensemble_keras.executors import ProcessExecutor, RayExecutor
from ensemble_keras.search.tuner import GeneticSearch

TESTS = pathlib.Path(__file__).parents[1]
# So that workers import `tiny_search`.
PATH = os.pathsep.join([str(TESTS), str(TESTS.parent)])


def searched(folder, executor, **options):
    tuner = GeneticSearch(tiny_space(), max_trials=4, population_size=3, directory=folder)
    tuner.search(*tiny_images(), epochs=1, executor=executor, verbose=0, **options)
    return tuner


def check_search_survives_a_kill(folder, executor):
    """A worker dies in its first trial, and yet all trials succeed, as if nothing had been."""
    killer = KillOnce(folder / "killed")
    table = searched(folder, executor, callbacks=[killer]).leaderboard()
    assert killer.marker.exists()
    assert table["status"].tolist() == ["COMPLETED"] * 4
    assert table["genome"].is_unique
    assert not list(folder.rglob("*.partial*"))


@pytest.mark.slow
def test_a_killed_process_costs_nothing_but_time(tmp_path):
    check_search_survives_a_kill(tmp_path, 2)


@pytest.mark.slow
def test_a_killed_worker_of_a_dask_cluster_costs_nothing_but_time(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: `pip install ensemble-keras[dask]`")
    from distributed import Client, LocalCluster

    monkeypatch.setenv("PYTHONPATH", PATH)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        check_search_survives_a_kill(tmp_path, client)
        # Dask fails if it is to close a worker process that it is just starting again.
        client.wait_for_workers(2, timeout=60)


@pytest.mark.slow
def test_a_killed_worker_of_a_ray_cluster_costs_nothing_but_time(tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed: `pip install ensemble-keras[ray]`")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": PATH}},
    )
    try:
        check_search_survives_a_kill(tmp_path, RayExecutor())
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_threads_share_a_process_and_train_one_after_another(tmp_path):
    alone = searched(tmp_path / "alone", None).leaderboard().set_index("genome")
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        table = searched(tmp_path / "threads", executor).leaderboard()
    assert table["status"].tolist() == ["COMPLETED"] * 4
    # The first three are drawn at random, whatever came before.
    both = table[table["genome"].isin(alone.index)].set_index("genome")
    assert len(both) >= 3
    assert both["val_loss"].to_dict() == alone.loc[both.index, "val_loss"].to_dict()


@pytest.mark.slow
def test_processes_of_ones_own_serve_several_searches(tmp_path):
    with ProcessExecutor(1) as executor:
        for name in ("first", "second"):
            table = searched(tmp_path / name, executor).leaderboard()
            assert table["status"].tolist() == ["COMPLETED"] * 4
            assert not (tmp_path / name / "search" / "images").exists()

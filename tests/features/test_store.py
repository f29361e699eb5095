import multiprocessing
import sqlite3

import numpy as np
import pytest

from ensemble_keras.features.store import FeatureStore

DIGESTS = [bytes([i]) * 16 for i in range(5)]


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((5, 7)).astype("float32")


@pytest.fixture
def store(tmp_path, vectors):
    store = FeatureStore(tmp_path / "folder" / "features.sqlite")
    store.put("a", {"backbone": "A"}, DIGESTS[:3], vectors[:3])
    return store


def test_vectors_come_back_bit_for_bit(store, vectors):
    found = store.get("a", DIGESTS)
    assert sorted(found) == DIGESTS[:3]
    np.testing.assert_array_equal(np.stack([found[d] for d in DIGESTS[:3]]), vectors[:3])


def test_spaces_do_not_mix(store, vectors):
    store.put("b", {"backbone": "B"}, DIGESTS[:1], vectors[4:])
    np.testing.assert_array_equal(store.get("a", DIGESTS[:1])[DIGESTS[0]], vectors[0])
    np.testing.assert_array_equal(store.get("b", DIGESTS[:1])[DIGESTS[0]], vectors[4])
    assert store.get("c", DIGESTS) == {}


def test_what_is_stored_stays(store, vectors):
    store.put("a", {"backbone": "A"}, DIGESTS, vectors + 1)
    found = store.get("a", DIGESTS)
    np.testing.assert_array_equal(found[DIGESTS[0]], vectors[0])
    np.testing.assert_array_equal(found[DIGESTS[4]], vectors[4] + 1)


def test_more_digests_than_one_statement_takes(tmp_path):
    store = FeatureStore(tmp_path / "s.sqlite")
    digests = [i.to_bytes(16, "big") for i in range(2500)]
    store.put("a", {}, digests, np.arange(2500, dtype="float32")[:, None])
    found = store.get("a", digests)
    assert [float(found[d][0]) for d in digests] == list(range(2500))


def test_a_missing_file_is_an_empty_store_and_is_not_made_by_reading(tmp_path):
    store = FeatureStore(tmp_path / "none.sqlite")
    assert store.get("a", DIGESTS) == {}
    assert store.stats() == {"vectors": 0, "bytes": 0, "spaces": []}
    assert store.prune(0) == 0
    assert not store.path.exists()


def test_stats_count_by_space(store, vectors):
    store.put("b", {"backbone": "B"}, DIGESTS, vectors)
    stats = store.stats()
    assert stats["vectors"] == 8
    assert stats["bytes"] == store.path.stat().st_size
    assert stats["spaces"] == [
        {"backbone": "A", "vectors": 3, "bytes": 3 * 7 * 4},
        {"backbone": "B", "vectors": 5, "bytes": 5 * 7 * 4},
    ]


def test_prune_deletes_the_oldest_vectors(store, vectors):
    store.put("b", {"backbone": "B"}, DIGESTS, vectors)
    assert store.prune(4 * 7 * 4) == 4
    assert store.get("a", DIGESTS) == {}
    assert sorted(store.get("b", DIGESTS)) == DIGESTS[1:]
    assert [space["backbone"] for space in store.stats()["spaces"]] == ["B"]
    assert store.prune(10**9) == 0


def test_prune_makes_the_file_smaller(tmp_path, rng):
    store = FeatureStore(tmp_path / "s.sqlite")
    digests = [i.to_bytes(16, "big") for i in range(1000)]
    store.put("a", {}, digests, rng.standard_normal((1000, 300)))
    before = store.path.stat().st_size
    store.prune(300 * 4 * 100)
    assert store.path.stat().st_size < before / 5


def test_a_negative_size_is_refused(store):
    with pytest.raises(ValueError, match="`max_bytes` must be at least 0. Received: -1"):
        store.prune(-1)


def test_a_store_can_be_sent_to_another_process_and_read_there(store, vectors):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(store.get, ("a", DIGESTS))
    np.testing.assert_array_equal(found[DIGESTS[1]], vectors[1])


def test_reading_goes_on_while_another_writes(store, vectors):
    writer = sqlite3.connect(store.path)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM vectors")
    # The writer has not committed: a reader sees what was there before.
    assert len(store.get("a", DIGESTS)) == 3
    writer.rollback()
    writer.close()


def test_an_interrupted_write_leaves_what_was_there(store, vectors):
    with pytest.raises(ValueError, match="zip"):
        store.put("a", {"backbone": "A"}, DIGESTS, vectors[:4])
    assert sorted(store.get("a", DIGESTS)) == DIGESTS[:3]


def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look at: " * 40)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is not a readable feature store"):
        FeatureStore(path).put("a", {}, DIGESTS[:1], np.ones((1, 2)))
    assert path.read_bytes() == before


def test_a_database_of_others_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE people (name TEXT)")
    connection.commit()
    connection.close()
    for use in (lambda s: s.get("a", DIGESTS), lambda s: s.put("a", {}, DIGESTS[:1], np.ones((1, 2)))):
        with pytest.raises(ValueError, match="is not a feature store of format 1"):
            use(FeatureStore(path))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="A feature store is one file. Received a folder"):
        FeatureStore(tmp_path)


def test_a_full_disk_is_said_and_costs_only_the_last_write(store, rng):
    def limited(*args, connect=sqlite3.connect, **kwargs):
        connection = connect(*args, **kwargs)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", limited)
        with pytest.raises(OSError, match="full. What was stored stays"):
            store.put("a", {}, DIGESTS, rng.standard_normal((5, 10000)))
    assert sorted(store.get("a", DIGESTS)) == DIGESTS[:3]

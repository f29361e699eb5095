"""Feature store: vectors in one SQLite file, found by the content of what they were made from."""

import contextlib
import json
import pathlib
import sqlite3
import time

import numpy as np

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spaces (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, description TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY, space INTEGER NOT NULL REFERENCES spaces(id), digest BLOB NOT NULL, vector BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS vectors_by_digest ON vectors (space, digest);
"""
# SQLite takes at least 999 parameters in one statement.
_CHUNK = 900


class FeatureStore:
    """Feature vectors on disk, computed once and found again by content.

    A vector belongs to a *space* (backbone with its weights, image size, filter, precision: all that determines it
    but the image) and to the digest of an image. One process writes, any number may read at the same time. Every
    write is one transaction: a kill leaves what was written before it. The rollback journal is used everywhere,
    since write-ahead logging fails on network and Drive folders and gains nothing for batched writes.

    Args:
        path: Path of the file, made on first writing. By custom `*.sqlite`.

    Raises:
        ValueError: On use, if the file is not a feature store or was made by a newer version.

    Example:

    >>> store = FeatureStore(getfixture("tmp_path") / "features.sqlite")
    >>> store.put("space", {"backbone": "CNN"}, [b"image"], np.ones((1, 3), "float32"))
    >>> store.get("space", [b"image", b"other"])
    {b'image': array([1., 1., 1.], dtype=float32)}
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        if self.path.is_dir():
            raise ValueError(f"A feature store is one file. Received a folder: {str(path)!r}. Add a file name.")

    def __repr__(self):
        return f"FeatureStore({str(self.path)!r})"

    def get(self, key, digests):
        """Returns a dict from digest to float32 vector, of those that are stored.

        Args:
            key: String, the space.
            digests: Iterable of bytes.
        """
        if self._is_empty():
            return {}
        digests, found = list(digests), {}
        with self._connection() as connection:
            space = connection.execute("SELECT id FROM spaces WHERE key = ?", (key,)).fetchone()
            if space is None:
                return {}
            for start in range(0, len(digests), _CHUNK):
                chunk = digests[start : start + _CHUNK]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT digest, vector FROM vectors WHERE space = ? AND digest IN ({marks})"
                for digest, vector in connection.execute(query, (space[0], *chunk)):
                    found[digest] = np.frombuffer(vector, dtype="<f4").astype("float32", copy=False)
        return found

    def put(self, key, description, digests, vectors):
        """Stores one vector per digest in one transaction; those already there stay.

        Args:
            key: String, the space.
            description: JSON values that tell a person what the space is.
            digests: Sequence of bytes.
            vectors: Array `(len(digests), d)`.
        """
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        with self._connection(write=True) as connection:
            text = json.dumps(description, sort_keys=True)
            connection.execute(
                "INSERT OR IGNORE INTO spaces (key, description, created) VALUES (?, ?, ?)", (key, text, time.time())
            )
            (space,) = connection.execute("SELECT id FROM spaces WHERE key = ?", (key,)).fetchone()
            connection.executemany(
                "INSERT OR IGNORE INTO vectors (space, digest, vector) VALUES (?, ?, ?)",
                ((space, digest, row.tobytes()) for digest, row in zip(digests, rows, strict=True)),
            )

    def stats(self):
        """Returns what is stored.

        Returns:
            A dict with `"vectors"` (count), `"bytes"` (size of the file) and `"spaces"`, a list of dicts with each
            space's description, its `"vectors"` and their `"bytes"`.
        """
        if self._is_empty():
            return {"vectors": 0, "bytes": 0, "spaces": []}
        query = """
            SELECT description, count(vectors.id), coalesce(sum(length(vector)), 0)
            FROM spaces LEFT JOIN vectors ON vectors.space = spaces.id GROUP BY spaces.id ORDER BY spaces.id"""
        with self._connection() as connection:
            spaces = [
                {**json.loads(description), "vectors": count, "bytes": size}
                for description, count, size in connection.execute(query)
            ]
        return {"vectors": sum(s["vectors"] for s in spaces), "bytes": self.path.stat().st_size, "spaces": spaces}

    def prune(self, max_bytes):
        """Deletes the vectors that were written first, until the file holds at most `max_bytes` of vectors.

        Args:
            max_bytes: Int, bytes of vectors to keep. The file shrinks accordingly (indices add about 5 %).

        Returns:
            Int, the number of vectors deleted.
        """
        if max_bytes < 0:
            raise ValueError(f"`max_bytes` must be at least 0. Received: {max_bytes}.")
        if self._is_empty():
            return 0
        query = """
            DELETE FROM vectors WHERE id IN (SELECT id FROM (
                SELECT id, sum(length(vector)) OVER (ORDER BY id DESC) AS newer FROM vectors) WHERE newer > ?)"""
        with self._connection(write=True) as connection:
            deleted = connection.execute(query, (max_bytes,)).rowcount
            connection.execute("DELETE FROM spaces WHERE id NOT IN (SELECT DISTINCT space FROM vectors)")
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.execute("VACUUM")
        return deleted

    def _is_empty(self):
        return not self.path.exists() or not self.path.stat().st_size

    @contextlib.contextmanager
    def _connection(self, write=False):
        # A connection for each call, so that a store can be pickled and used from any thread or process.
        if write:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                self._check_version(connection, write)
                yield connection
        except sqlite3.DatabaseError as error:
            raise _explained(error, self.path) from error

    def _check_version(self, connection, write):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == 0 and empty:
            if write:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            return
        if version != _VERSION:
            raise ValueError(
                f"{str(self.path)!r} is not a feature store of format {_VERSION} (found format {version}). "
                "Give another path, or delete the file: features can be computed again."
            )


def _explained(error, path):
    if "not a database" in str(error) or "malformed" in str(error):
        return ValueError(
            f"{str(path)!r} is not a readable feature store ({error}). Give another path, or delete the file: "
            "features can be computed again."
        )
    return OSError(f"The feature store {str(path)!r} could not be read or written: {error}. What was stored stays.")

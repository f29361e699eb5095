"""Runs: a directory that says what is done, so that the same command goes on after a kill."""

import contextlib
import datetime
import glob
import hashlib
import json
import os
import pathlib
import tempfile
import time
import warnings

import filelock
import numpy as np

from ensemble_keras._version import __version__

# In the names of files that are being written: what a kill leaves is known by it.
_PARTIAL = ".partial"
_LEFTOVERS = f".*{_PARTIAL}.*"
# So many changed arguments are named in a warning.
_LISTED = 8
# No writer pauses so long.
_STALE_SECONDS = 3600


@contextlib.contextmanager
def atomic_path(path, *, within=None):
    """Gives a temporary path beside `path`; when the block ends well, it takes that name in one step.

    A kill at any moment leaves either the old file or the new one under `path`, never half of one. The temporary
    name keeps the suffix, since writers such as Keras choose the format by it. What a kill leaves beside `path` is
    removed by the next writer of `path` that comes an hour later, on entering the `Run` whose file it is, or by
    `remove_leftovers`.

    Args:
        path: The final path. Missing parent folders are made.
        within: Folder of the temporary file, on the same filesystem: one's own, where others write beside `path`.
            Defaults to that of `path`.

    Yields:
        A `pathlib.Path` to write to.
    """
    path = pathlib.Path(path)
    folder = path.parent if within is None else within
    for needed in (path.parent, folder):
        needed.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder.glob(f".{glob.escape(path.stem)}-*{_PARTIAL}{path.suffix}"), seconds=_STALE_SECONDS)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.stem}-", suffix=_PARTIAL + path.suffix)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; a result is readable as any file the user makes.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder):
    """Removes the half-written files that killed writers left anywhere in a folder.

    Args:
        folder: A `pathlib.Path` where nobody else writes: the caller is in its `Run`.
    """
    _remove_stale(folder.rglob(_LEFTOVERS))


def fingerprint(value):
    """Returns a hex SHA-256 of `value` (nested dicts, lists, strings, numbers), independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


class Run:
    """A run's directory: its settings, its lock, and the results of its finished units of work.

    A unit's result is a dict of arrays, kept as `units/<name>-<key>.npz`. The key is made of everything the unit
    depends on, so a result is taken up again exactly where nothing that matters has changed.

    Args:
        directory: Folder of the run, or `None`: then nothing is kept and every unit is computed.
        settings: Dict of the run's arguments, JSON values only. Where the folder holds a run with other ones, a
            warning names those that differ; results that do not depend on them are still used.

    Raises:
        RuntimeError: On entering, if another process works in the directory.
    """

    def __init__(self, directory, settings):
        self.directory = None if directory is None else pathlib.Path(directory)
        self.settings = json.loads(json.dumps(settings, default=_plain))
        self._lock = None

    def __enter__(self):
        if self.directory is None:
            return self
        self.directory.mkdir(parents=True, exist_ok=True)
        # The system drops this lock when the process dies, so a killed run never blocks the next one.
        self._lock = filelock.FileLock(self.directory / "run.lock")
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RuntimeError(
                f"Another process works in {str(self.directory)!r}. Wait for it, or give another `directory`."
            ) from None
        # Nobody else writes here while the lock is held, so what looks half-written was left by a kill.
        for folder in (self.directory, self.directory / "units"):
            _remove_stale(folder.glob(_LEFTOVERS))
        self._compare_settings()
        return self

    def __exit__(self, *_):
        if self._lock is not None:
            self._lock.release()

    def unit(self, name, depends_on, compute):
        """Returns the finished result of a unit of work, or computes and keeps it.

        Args:
            name: Name of the unit, for people who look into the folder.
            depends_on: JSON values that determine the result.
            compute: Function without arguments that returns a dict of arrays.

        Returns:
            The dict of arrays, and whether it was computed now.
        """
        if self.has(name, depends_on):
            # A kill may have come between the two.
            self.checkpoint(name, depends_on).unlink(missing_ok=True)
            with np.load(self._path(name, depends_on), allow_pickle=False) as arrays:
                return dict(arrays), False
        start = time.perf_counter()
        result = compute()
        self.keep(name, depends_on, result, time.perf_counter() - start)
        return result, True

    def keep(self, name, depends_on, result, seconds):
        """Keeps the result of a unit of work that was computed elsewhere.

        Args:
            name: As in `unit`.
            depends_on: As in `unit`.
            result: The dict of arrays.
            seconds: Float, how long it took.

        Raises:
            OSError: If it cannot be written.
        """
        if self.directory is None:
            return
        path = self._path(name, depends_on)
        try:
            with atomic_path(path) as temporary:
                np.savez(temporary, **result)
        except OSError as error:
            raise OSError(
                f"The result of {name!r} could not be written to {str(self.directory)!r}: {error}. "
                "With space and rights there, the same command goes on from the last finished step."
            ) from error
        self.checkpoint(name, depends_on).unlink(missing_ok=True)
        self._journal(unit=name, file=path.name, seconds=round(seconds, 3))

    def checkpoint(self, name, depends_on):
        """Returns the path where a unit may keep its state on the way, or `None`; gone once the unit is finished."""
        if self.directory is None:
            return None
        return self._path(name, depends_on).with_suffix(".checkpoint.npz")

    def has(self, name, depends_on):
        """Returns whether a unit of work is finished."""
        return self.directory is not None and self._path(name, depends_on).exists()

    def _path(self, name, depends_on):
        safe_name = "".join(c if c.isalnum() else "_" for c in name)
        # Another version may solve or train otherwise.
        key = fingerprint([__version__, depends_on])[:16]
        return self.directory / "units" / f"{safe_name}-{key}.npz"

    def _compare_settings(self):
        path = self.directory / "run.json"
        if path.exists():
            before = json.loads(path.read_text())
            if before == self.settings:
                return
            warnings.warn(
                f"{str(self.directory)!r} holds a run with other arguments ({changes(before, self.settings)}). What "
                "does not depend on them is used again. Give another `directory` to keep the two apart.",
                stacklevel=4,
            )
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.settings, indent=1, sort_keys=True))

    def _journal(self, **entry):
        entry = {"time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **entry}
        # For people only: what is done is read from the units themselves, so a torn last line harms nothing.
        with open(self.directory / "journal.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")


def changes(before, after):
    """Returns what differs between two nested dicts of JSON values, for a message; `""` where nothing does."""
    differ = [f"{name}: {then!r} then, {now!r} now" for name, then, now in _differences(before, after)]
    return "; ".join(differ[:_LISTED]) + ("; …" if len(differ) > _LISTED else "")


def _differences(before, after, prefix=""):
    """Yields what differs between two nested dicts: its name, such as `"training.epochs"`, and both values."""
    for key in sorted(before.keys() | after.keys()):
        then, now = before.get(key), after.get(key)
        if isinstance(then, dict) and isinstance(now, dict):
            yield from _differences(then, now, f"{prefix}{key}.")
        elif then != now:
            yield f"{prefix}{key}", then, now


def _remove_stale(files, seconds=0):
    """Removes half-written files that killed writers left, if nobody wrote to them for so long."""
    for file in files:
        # Another process may remove or rename it first.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime >= seconds:
                file.unlink()


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value: {value!r}")


def _umask():
    # The only way to read the mask is to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask

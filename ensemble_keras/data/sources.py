"""Sources: where images come from, be it files, the entries of a zip or rows of an array, each read by number."""

import dataclasses
import functools
import hashlib
import os
import zipfile
import zlib

import numpy as np

from ensemble_keras.data.decoding import BadImageError, decode, resize


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An image that was read and is not decoded yet.

    Attributes:
        name: String: the path relative to the directory, or `"row 12"` of an array.
        content: The bytes of the file; of an array its pixels `(height, width, 3)`.
        digest: Bytes, the BLAKE2b hash (16 bytes) of the content: equal for byte-identical images.
    """

    name: str
    content: bytes | np.ndarray

    @functools.cached_property
    def digest(self):
        """Hash of the content."""
        if isinstance(self.content, bytes):
            return hashlib.blake2b(self.content, digest_size=16).digest()
        described = f"{self.content.dtype.str}{self.content.shape}".encode()
        return hashlib.blake2b(described + self.content.tobytes(), digest_size=16).digest()

    def decode(self, image_size=None):
        """Returns the pixels `(height, width, 3)`, at `image_size` or at the picture's own size.

        Files give uint8; rows of an array keep their dtype, uint8 or float32.

        Raises:
            BadImageError: If the content is no readable image.
        """
        if isinstance(self.content, bytes):
            return decode(self.content, self.name, image_size)
        return self.content if image_size is None else resize(self.content, image_size)


class FileSource:
    """Image files below a directory.

    Args:
        directory: Path.
        names: List of paths relative to it.
    """

    dtype = np.dtype("uint8")

    def __init__(self, directory, names):
        self.directory, self.names = os.fspath(directory), list(names)

    def __len__(self):
        return len(self.names)

    def take(self, rows):
        """Returns a source of some rows only."""
        return FileSource(self.directory, [self.names[row] for row in rows])

    def read(self, row):
        """Returns the `EncodedImage` of a row; any number of threads may ask."""
        name = self.names[row]
        try:
            with open(os.path.join(self.directory, name), "rb") as file:
                return EncodedImage(name, file.read())
        # Other failures, such as a drive that went away, are no property of the file.
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise BadImageError(name, f"cannot be opened ({error.strerror})") from error


class ZipSource:
    """Image files in a zip, read by many threads.

    Args:
        path: Path of the zip.
        names: List of its entries.
        prefix: String: what the entries' full names have before `names`.
    """

    dtype = np.dtype("uint8")

    def __init__(self, path, names, prefix=""):
        self.path, self.names, self.prefix = os.fspath(path), list(names), prefix
        self._opened = {}

    def __len__(self):
        return len(self.names)

    def __getstate__(self):
        return {**vars(self), "_opened": {}}

    def take(self, rows):
        """Returns a source of some rows only."""
        return ZipSource(self.path, [self.names[row] for row in rows], self.prefix)

    def read(self, row):
        """Returns the `EncodedImage` of a row; any number of threads may ask."""
        name = self.names[row]
        try:
            return EncodedImage(name, self._zip().read(self.prefix + name))
        # `zipfile` raises these for an entry that is damaged, cut short, missing, packed otherwise, or encrypted.
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
            raise BadImageError(name, f"cannot be read from {os.path.basename(self.path)} ({error})") from error

    def _zip(self):
        # By process: after a fork two processes would move one file position. Threads of one may share it.
        process = os.getpid()
        if process not in self._opened:
            self._opened.setdefault(process, zipfile.ZipFile(self.path))
        return self._opened[process]


class ArraySource:
    """Rows of an array of images.

    Args:
        x: uint8 or float32 array `(n, height, width, 3)`.
        names: List of strings. Defaults to `"row 0"`, `"row 1"`, ...
    """

    def __init__(self, x, names=None):
        self.x, self.dtype = x, x.dtype
        self.names = [f"row {row}" for row in range(len(x))] if names is None else names

    def __len__(self):
        return len(self.x)

    def take(self, rows):
        """Returns a source of some rows only."""
        return ArraySource(self.x[rows], [self.names[row] for row in rows])

    def read(self, row):
        """Returns the `EncodedImage` of a row; any number of threads may ask."""
        return EncodedImage(self.names[row], self.x[row])

"""Scanning: which image files a directory or a zip holds, and their classes by folder."""

import os
import pathlib
import zipfile

import numpy as np

from ensemble_keras._validation import suggest
from ensemble_keras.data.class_names import check_class_names
from ensemble_keras.data.decoding import BadImagesError
from ensemble_keras.data.sources import FileSource, ZipSource

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"}
)

# What operating systems leave in folders; names that start with a dot as well.
_NOT_CONTENT = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def scan_class_folders(directory, class_names=None, *, skip=False):
    """Finds the images of a directory (or a zip) that holds one folder per class.

    A single folder around the class folders is entered. Folders in class folders belong to the class.

    Args:
        directory: Path of a directory or a zip.
        class_names: List of folders to take, in this order, or `None` for all in sorted order.
        skip: Boolean. Whether files that are no images by their suffix are left out, instead of refused.

    Returns:
        The source; an int array of class indices; the list of class names; a dict from file left out to reason.

    Raises:
        ValueError: If the directory does not hold such folders, or a file in them is no image.
    """
    files, folders, root = listing(directory)
    top_folders = [folder for folder in folders if "/" not in folder]
    class_names = top_folders if class_names is None else _checked_class_folders(class_names, top_folders, directory)
    by_class = {name: [] for name in class_names}
    for file in files:
        top, inside, _ = file.partition("/")
        if inside and top in by_class:
            by_class[top].append(file)
    _check_layout(directory, files, folders, by_class)
    skipped = {
        file: f"not an image file ({pathlib.PurePosixPath(file).suffix or 'no suffix'})"
        for found in by_class.values()
        for file in found
        if not _is_image(file)
    }
    if skipped and not skip:
        raise BadImagesError(skipped)
    names = [file for found in by_class.values() for file in found if file not in skipped]
    labels = [i for i, found in enumerate(by_class.values()) for file in found if file not in skipped]
    return source_of(directory, names, root), np.array(labels, dtype="int64"), class_names, skipped


def _checked_class_folders(class_names, folders, directory):
    class_names = check_class_names(class_names)
    for name in class_names:
        if name not in folders:
            raise ValueError(f"No folder for class {name!r} in {os.fspath(directory)!r}.{suggest(name, folders)}")
    return class_names


def _check_layout(directory, files, folders, by_class):
    where = repr(os.fspath(directory))
    loose = [file for file in files if "/" not in file and _is_image(file)]
    if loose:
        raise ValueError(
            f"Expected one folder per class in {where}. Received: {len(loose)} images outside of class folders: "
            f"{first_names(loose)}. Move each into a folder named after its class, or use `from_dataframe`."
        )
    if not any(_is_image(file) for found in by_class.values() for file in found):
        raise ValueError(f"Expected one folder of images per class in {where}. Received: no image file.")
    below = {name: {f.split("/")[1] for f in folders if f.startswith(name + "/")} for name in by_class}
    nested = [name for name, found in by_class.items() if below[name] and all(f.count("/") > 1 for f in found)]
    if len(nested) == len(by_class) > 1 and set.intersection(*below.values()):
        classes = ", ".join(sorted(set.intersection(*below.values()))[:5])
        raise ValueError(
            f"{where} holds the folders {', '.join(by_class)}, and each of these holds {classes}, so they look like "
            f"splits, not classes. Give the directory of one of them, such as {nested[-1]!r}."
        )
    empty = [name for name, found in by_class.items() if not found]
    if empty:
        raise ValueError(
            f"Expected images in every class folder of {where}. Received: none in {', '.join(empty[:10])}. "
            "Remove the folder, fill it, or name the others in `class_names`."
        )


def listing(directory, *, enter_single_folder=True):
    """Returns sorted files and folders below a directory or zip, relative to the root, and that root inside it."""
    path = os.fspath(directory)
    if not os.path.exists(path):
        beside = os.listdir(parent) if os.path.isdir(parent := os.path.dirname(os.path.abspath(path))) else []
        raise ValueError(
            f"There is no directory {path!r}.{suggest(os.path.basename(os.path.normpath(path)), beside)}"
        )
    if os.path.isdir(path):
        files, folders = _walk(path)
    elif zipfile.is_zipfile(path):
        files, folders = _walk_zip(path)
    else:
        raise ValueError(f"Expected a directory or a zip of one. Received: the file {path!r}.")
    root = ""
    while enter_single_folder and (single := _single_folder(files, folders)):
        root += single
        files, folders = (
            {n.removeprefix(single) for n in found if n.startswith(single)} for found in (files, folders)
        )
    return sorted(files), sorted(folders), root


def _single_folder(files, folders):
    """Returns `"name/"` of the one folder that holds all others and no image itself, or `""`."""
    tops = [folder for folder in folders if "/" not in folder]
    images = [file for file in files if _is_image(file)]
    return f"{tops[0]}/" if len(tops) == 1 and images and min(file.count("/") for file in images) > 1 else ""


def _walk(path):
    files, folders, visited = set(), set(), set()
    for folder, inner, names in os.walk(path, followlinks=True):
        if os.path.realpath(folder) in visited:  # A link to a folder above would be followed for ever.
            inner.clear()
            continue
        visited.add(os.path.realpath(folder))
        inner[:] = filter(_is_content, inner)
        below = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        folders.update(prefix + name for name in inner)
        files.update(prefix + name for name in names if _is_content(name))
    return files, folders


def _walk_zip(path):
    files, folders = set(), set()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            parts = pathlib.PurePosixPath(entry.filename).parts
            if not all(map(_is_content, parts)):
                continue
            if entry.flag_bits & 1:
                raise ValueError(f"The zip {path!r} is encrypted. Unpack it and give the directory.")
            folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
            (folders if entry.is_dir() else files).add("/".join(parts))
    return files, folders


def source_of(directory, names, root):
    """Returns the source of files by their names below a root, as `listing` gives both."""
    if os.path.isdir(directory):
        return FileSource(os.path.join(os.fspath(directory), root), names)
    return ZipSource(directory, names, root)


def _is_content(name):
    return not name.startswith(".") and name not in _NOT_CONTENT


def _is_image(file):
    return pathlib.PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES


def first_names(names, limit=5):
    """Returns the first few names as a text."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")

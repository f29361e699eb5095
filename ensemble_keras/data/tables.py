"""Tables: the images, labels and groups that a metadata table names."""

import collections
import os

import numpy as np
import pandas as pd

from ensemble_keras._validation import check_labels, rows_text, suggest
from ensemble_keras.data.class_names import labels_and_names
from ensemble_keras.data.scanning import first_names, listing, source_of
from ensemble_keras.data.splits import check_groups


def read_table(frame, directory, *, filename_column, label_column, group_column=None, class_names=None):
    """Finds the images of a table, see `ImageDataset.from_dataframe`.

    Returns:
        The source, in the order of the table; an int array of class indices; the list of class names; a string array
        of groups, or `None`.
    """
    filenames = column_of(frame, filename_column, "filename_column")
    labels = column_of(frame, label_column, "label_column")
    groups = None if group_column is None else column_of(frame, group_column, "group_column")
    if not len(frame):
        raise ValueError("Expected a table with a row per image. Received: no rows.")
    labels, class_names = _labels_of(labels, class_names)
    groups = check_groups(groups, len(frame))
    return scan_table(filenames, directory), labels, class_names, groups


def _labels_of(column, class_names):
    """Returns class indices and class names of a column of labels, by their string forms."""
    argument = f"frame[{column.name!r}]"
    values = column.astype(object).where(column.notna(), None) if column.isna().any() else column
    values = values.astype(str) if values.dtype == bool else values
    values = check_labels(values, len(column), argument)
    names = np.unique(values).astype(str) if class_names is None else class_names
    return labels_and_names(values.astype(str), len(column), names, argument)


def scan_table(filenames, directory):
    """Finds the files that a table names, by their path or, for bare names, anywhere below the directory.

    Args:
        filenames: `pandas.Series` of names or paths relative to `directory`.
        directory: Path of a directory or a zip.

    Returns:
        The source, in the order of the table.

    Raises:
        ValueError: If a name is missing, has no file or several, or stands in two rows; all are counted at once.
    """
    if filenames.isna().any():
        raise ValueError(
            f"Expected a file name in every row of {filenames.name!r}. "
            f"Received: none in {rows_text(np.flatnonzero(filenames.isna()))}."
        )
    files, _, root = listing(directory, enter_single_folder=False)
    at_path, by_name = set(files), collections.defaultdict(list)
    for file in files:
        by_name[file.rpartition("/")[2]].append(file)
    wanted = [os.path.normpath(str(name)).replace(os.sep, "/") for name in filenames]
    found = [[name] if name in at_path else by_name.get(name, []) for name in wanted]
    _check_matches(wanted, found, directory, filenames.name)
    return source_of(directory, [matches[0] for matches in found], root)


def _check_matches(wanted, found, directory, column):
    missing = [name for name, matches in zip(wanted, found, strict=True) if not matches]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(wanted)} rows name a file that is not below {os.fspath(directory)!r}: "
            f"{first_names(missing)}. Correct `directory` or the column {column!r}, or keep only rows with a file."
        )
    unclear = [matches for matches in found if len(matches) > 1]
    if unclear:
        raise ValueError(
            f"{len(unclear)} of {len(wanted)} rows name a file that stands in several folders, "
            f"such as {unclear[0][0]!r} and {unclear[0][1]!r}. Give the path below the directory in {column!r}."
        )
    twice = [file for file, count in collections.Counter(matches[0] for matches in found).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} files stand in several rows: {first_names(twice)}. Expected one row per image: "
            f"`frame.drop_duplicates({column!r})`, after a look at which row is right."
        )


def column_of(frame, column, argument):
    """Returns a column of a table as a `pandas.Series`, or raises `ValueError` with the nearest name."""
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"`frame` must be a pandas.DataFrame. Received: {type(frame).__name__}.")
    if column not in frame.columns:
        listed = ", ".join(map(repr, frame.columns))
        hint = suggest(column, frame.columns)
        raise ValueError(f"`{argument}` must be a column of the table: {listed}. Received: {column!r}.{hint}")
    return frame[column]

import shutil

import pandas as pd
import pytest

from ensemble_keras.data.tables import column_of, scan_table


def names_of(filenames, directory):
    return scan_table(pd.Series(filenames, name="file"), directory).names


def test_a_table_names_files_by_path_or_by_bare_name(folders):
    assert names_of(["dog/d0.png", "c1.png", "./cat/c2.png"], folders) == ["dog/d0.png", "cat/c1.png", "cat/c2.png"]


def test_a_table_may_name_entries_of_a_zip(folders, tmp_path):
    archive = shutil.make_archive(tmp_path / "packed", "zip", folders.parent, folders.name)
    source = scan_table(pd.Series(["d0.png"]), archive)
    assert source.read(0).content == (folders / "dog/d0.png").read_bytes()


def test_rows_without_their_file_are_one_error_with_count_and_names(folders):
    with pytest.raises(ValueError, match=r"2 of 3 rows name a file that is not below '.*pets': x.png, dog/c0.png. "):
        names_of(["c0.png", "x.png", "dog/c0.png"], folders)


def test_a_name_in_several_folders_is_an_error_unless_the_path_is_given(folders):
    shutil.copy(folders / "cat/c0.png", folders / "dog/c0.png")
    with pytest.raises(ValueError, match="stands in several folders, such as 'cat/c0.png' and 'dog/c0.png'"):
        names_of(["c0.png"], folders)
    assert names_of(["dog/c0.png"], folders) == ["dog/c0.png"]


def test_one_file_in_several_rows_is_an_error(folders):
    with pytest.raises(ValueError, match=r"1 files stand in several rows: cat/c0.png. .*drop_duplicates\('file'\)"):
        names_of(["c0.png", "cat/c0.png"], folders)


def test_rows_without_a_file_name_are_an_error(folders):
    with pytest.raises(ValueError, match="a file name in every row of 'file'. Received: none in 2 rows: 1, 2"):
        names_of(["c0.png", None, float("nan")], folders)


def test_a_column_that_is_not_there_is_an_error_with_a_suggestion():
    frame = pd.DataFrame({"X_ray_image_name": [], "Label": []})
    with pytest.raises(ValueError, match="`label_column` must be a column.*Received: 'label'. Did you mean 'Label'?"):
        column_of(frame, "label", "label_column")
    with pytest.raises(ValueError, match="`frame` must be a pandas.DataFrame. Received: str"):
        column_of("metadata.csv", "label", "label_column")

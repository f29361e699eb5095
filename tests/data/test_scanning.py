import os
import pathlib
import shutil
import zipfile

import pytest

from ensemble_keras.data.decoding import BadImagesError
from ensemble_keras.data.scanning import scan_class_folders

NAMES = ["cat/c0.png", "cat/c1.png", "cat/c2.png", "dog/d0.png", "dog/d1.png", "dog/d2.png"]


def packed(folder, path, *, inside=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, inside + file.relative_to(folder).as_posix())
    return path


def test_class_folders_give_sorted_names_and_labels(folders):
    source, labels, class_names, skipped = scan_class_folders(folders)
    assert (source.names, labels.tolist(), class_names, skipped) == (NAMES, [0, 0, 0, 1, 1, 1], ["cat", "dog"], {})


def test_given_class_names_decide_order_and_folders(folders):
    shutil.copytree(folders / "cat", folders / "bird")
    source, labels, class_names, _ = scan_class_folders(folders, ["dog", "bird"])
    assert class_names == ["dog", "bird"]
    assert [(name[:4], label) for name, label in zip(source.names, labels, strict=True)] == (
        [("dog/", 0)] * 3 + [("bird", 1)] * 3
    )


@pytest.mark.parametrize("wrapped", ["", "pets/", "download/pets/"])
def test_a_zip_is_read_as_the_directory(folders, tmp_path, wrapped):
    path = packed(folders, tmp_path / "pets.zip", inside=wrapped)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/pets/cat/._c0.png", b"x")
        archive.writestr(f"{wrapped}cat/.DS_Store", b"x")
    source, labels, class_names, _ = scan_class_folders(path)
    assert (source.names, labels.tolist(), class_names) == (NAMES, [0, 0, 0, 1, 1, 1], ["cat", "dog"])
    assert source.read(3).content == (folders / "dog/d0.png").read_bytes()


def test_a_single_folder_around_the_classes_is_entered(folders):
    (folders.parent / "outer").mkdir()
    shutil.move(folders, folders.parent / "outer" / "pets")
    (folders.parent / "outer" / "README.txt").write_text("pets")
    source, *_ = scan_class_folders(folders.parent / "outer")
    assert source.names == NAMES
    assert source.read(0).content


def test_folders_in_class_folders_belong_to_the_class(folders):
    (folders / "dog" / "puppies" / "2020").mkdir(parents=True)
    shutil.move(folders / "dog/d0.png", folders / "dog/puppies/2020/d0.PNG")
    source, labels, *_ = scan_class_folders(folders)
    assert source.names[-1] == "dog/puppies/2020/d0.PNG"
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_hidden_files_and_those_of_operating_systems_are_no_content(folders):
    for name in (
        ".DS_Store",
        "cat/.DS_Store",
        "cat/Thumbs.db",
        "dog/desktop.ini",
        ".git/x.png",
        "__MACOSX/cat/a.png",
    ):
        (folders / name).parent.mkdir(parents=True, exist_ok=True)
        (folders / name).write_bytes(b"x")
    assert scan_class_folders(folders)[0].names == NAMES


def test_links_are_followed_but_not_for_ever(folders, tmp_path):
    (tmp_path / "links").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "links" / name).symlink_to(folders / name, target_is_directory=True)
    (folders / "cat" / "self").symlink_to(folders / "cat", target_is_directory=True)
    assert scan_class_folders(tmp_path / "links")[0].names == NAMES


def test_files_that_are_no_images_are_listed_at_once_or_left_out(folders):
    (folders / "cat/README.txt").write_text("cats")
    (folders / "dog/scan").write_text("?")
    with pytest.raises(BadImagesError, match=r"2 files .*\n  cat/README.txt: not an image file \(.txt\)") as error:
        scan_class_folders(folders)
    source, _, _, skipped = scan_class_folders(folders, skip=True)
    assert source.names == NAMES
    assert skipped == error.value.failures
    assert skipped["dog/scan"] == "not an image file (no suffix)"


def test_a_folder_that_is_not_there_is_an_error_with_a_suggestion(folders):
    with pytest.raises(ValueError, match=r"There is no directory '.*pest'. Did you mean 'pets'?"):
        scan_class_folders(folders.parent / "pest")
    with pytest.raises(ValueError, match="There is no directory '/nowhere/at/all'"):
        scan_class_folders("/nowhere/at/all")


def test_a_file_is_no_directory(folders):
    with pytest.raises(ValueError, match=r"Expected a directory or a zip of one. Received: the file '.*c0.png'"):
        scan_class_folders(folders / "cat/c0.png")


def test_an_empty_directory_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"one folder of images per class in .*Received: no image file"):
        scan_class_folders(tmp_path)


def test_images_outside_of_class_folders_are_an_error(folders):
    with pytest.raises(
        ValueError, match=r"Received: 3 images outside of class folders: c0.png, c1.png, c2.png. Move"
    ):
        scan_class_folders(folders / "cat")
    shutil.copy(folders / "cat/c0.png", folders / "loose.png")
    with pytest.raises(ValueError, match=r"Received: 1 images outside of class folders: loose.png"):
        scan_class_folders(folders)


def test_an_empty_class_folder_is_an_error(folders):
    (folders / "fish").mkdir()
    with pytest.raises(ValueError, match=r"images in every class folder of .*Received: none in fish"):
        scan_class_folders(folders)
    assert scan_class_folders(folders, ["cat", "dog"])[0].names == NAMES


def test_folders_of_splits_are_not_taken_for_classes(folders, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(folders, tmp_path / "both" / split)
    with pytest.raises(
        ValueError, match="folders test, train, and each of these holds cat, dog, so they look like sp"
    ):
        scan_class_folders(tmp_path / "both")


def test_an_unknown_class_name_is_an_error_with_a_suggestion(folders):
    with pytest.raises(ValueError, match=r"No folder for class 'dgo' in .*Did you mean 'dog'?"):
        scan_class_folders(folders, ["cat", "dgo"])


def test_an_encrypted_zip_is_an_error(folders, tmp_path):
    path = packed(folders, tmp_path / "pets.zip")
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is encrypted. Unpack it"):
        scan_class_folders(path)


def test_a_path_object_will_do(folders):
    assert scan_class_folders(pathlib.Path(folders))[0].names == scan_class_folders(os.fspath(folders))[0].names

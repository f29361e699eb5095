import os
import pickle
import threading
import zipfile

import numpy as np
import pandas as pd
import pytest
from pictures import encoded, picture
from PIL import Image
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.utils import _safe_indexing

from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.data.decoding import BadImageError, BadImagesError, resize
from ensemble_keras.data.inputs import as_dataset


@pytest.fixture
def pets(folders):
    return ImageDataset.from_directory(folders)


@pytest.fixture
def arrays(images):
    return ImageDataset.from_arrays(images, ["cat", "dog"] * 6, groups=np.arange(12) // 3)


def spoil(folders):
    (folders / "cat/c1.png").write_bytes(b"")
    (folders / "dog/d0.png").write_bytes((folders / "dog/d0.png").read_bytes()[:90])
    (folders / "dog/d1.png").write_text("no image")


# Where images come from.


def test_a_directory_gives_names_labels_and_pixels(pets, folders):
    assert (len(pets), pets.shape, pets.class_names) == (6, (6,), ["cat", "dog"])
    assert pets.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pets.labels.dtype == np.int64
    expected = np.stack([np.asarray(Image.open(folders / name)) for name in pets.names])
    np.testing.assert_array_equal(pets.load(image_size=(20, 24)), expected)


def test_groups_come_from_a_function_of_the_path_or_a_sequence(folders):
    dataset = ImageDataset.from_directory(folders, groups=lambda path: path.split("/")[1][:2])
    assert dataset.groups.tolist() == ["c0", "c1", "c2", "d0", "d1", "d2"]
    assert ImageDataset.from_directory(folders, groups=[1, 1, 2, 2, 3, 3]).groups.tolist() == list("112233")
    with pytest.raises(ValueError, match="Received: 2 groups for 6 images"):
        ImageDataset.from_directory(folders, groups=["a", "b"])


def test_a_zip_gives_the_same_as_its_directory(pets, folders, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in pets.names:
            archive.write(folders / name, f"pets/{name}")
    zipped = ImageDataset.from_directory(tmp_path / "pets.zip")
    assert zipped.fingerprint() == pets.fingerprint()
    np.testing.assert_array_equal(zipped.load(image_size=8), pets.load(image_size=8))
    assert pickle.loads(pickle.dumps(zipped)).read(0).content == zipped.read(0).content
    copy = pickle.loads(pickle.dumps(zipped[[2, 4]]))
    np.testing.assert_array_equal(copy.load(image_size=8), pets.load([2, 4], image_size=8))


def test_a_damaged_zip_entry_is_a_bad_image(folders, tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("cat/c0.png", "dog/d0.png"):
            archive.write(folders / name, name)
    data = bytearray(path.read_bytes())
    data[data.find(b"IDAT") + 9] ^= 255
    path.write_bytes(data)
    with pytest.raises(BadImagesError, match=r"cat/c0.png: cannot be read from pets.zip \(Bad CRC-32"):
        ImageDataset.from_directory(path).verify()


@pytest.mark.parametrize(
    ("labels", "expected", "class_names"),
    [
        (["dog", "cat", "dog"], [1, 0, 1], ["cat", "dog"]),
        ([10, 9, 10], [1, 0, 1], ["9", "10"]),
        ([1.0, 0.0, 1.0], [1, 0, 1], ["0", "1"]),
        ([True, False, True], [1, 0, 1], ["False", "True"]),
        ([1, "1", "a"], [0, 0, 1], ["1", "a"]),
        (pd.Categorical(["b", "a", "b"]), [1, 0, 1], ["a", "b"]),
        (pd.array([2, 1, 2], "Int64"), [1, 0, 1], ["1", "2"]),
    ],
)
def test_a_table_gives_labels_and_groups_in_its_order(folders, labels, expected, class_names):
    frame = pd.DataFrame({"file": ["d0.png", "cat/c0.png", "d1.png"], "label": labels, "patient": [3.0, 4.0, 3.0]})
    columns = {"filename_column": "file", "label_column": "label", "group_column": "patient"}
    dataset = ImageDataset.from_dataframe(frame, folders, **columns)
    assert dataset.names == ["dog/d0.png", "cat/c0.png", "dog/d1.png"]
    assert (dataset.labels.tolist(), dataset.class_names) == (expected, class_names)
    assert dataset.groups.tolist() == ["3", "4", "3"]


def test_a_table_with_given_class_names(folders):
    frame = pd.DataFrame({"file": ["c0.png", "d0.png"], "label": ["cat", "dog"]})
    columns = {"filename_column": "file", "label_column": "label"}
    dataset = ImageDataset.from_dataframe(frame, folders, **columns, class_names=["dog", "cat"])
    assert (dataset.labels.tolist(), dataset.class_names, dataset.groups) == ([1, 0], ["dog", "cat"], None)
    with pytest.raises(ValueError, match=r"`frame\['label'\]` holds a label that is not among `class_names`: 'dog'"):
        ImageDataset.from_dataframe(frame, folders, **columns, class_names=["cat", "Dogs"])


@pytest.mark.parametrize("labels", [["a", None], [1.0, np.nan], pd.array([1, None], "Int64"), ["a", np.nan]])
def test_missing_labels_of_a_table_are_an_error_with_count_and_rows(folders, labels):
    frame = pd.DataFrame({"file": ["c0.png", "d0.png"], "label": labels})
    with pytest.raises(ValueError, match=r"`frame\['label'\]` must hold no missing label. .* in 1 row: 1"):
        ImageDataset.from_dataframe(frame, folders, filename_column="file", label_column="label")


def test_a_table_without_rows_or_with_a_misspelt_column_is_an_error(folders):
    frame = pd.DataFrame({"file": [], "label": []})
    with pytest.raises(ValueError, match="a row per image. Received: no rows"):
        ImageDataset.from_dataframe(frame, folders, filename_column="file", label_column="label")
    with pytest.raises(ValueError, match="`filename_column` must be a column.*Did you mean 'file'?"):
        ImageDataset.from_dataframe(frame, folders, filename_column="files", label_column="label")


def test_arrays_keep_integer_labels_and_name_rows(images):
    dataset = ImageDataset.from_arrays(images, np.arange(12) % 3 + 5)
    assert dataset.class_names is None
    assert dataset.labels.tolist() == [5, 6, 7] * 4
    assert dataset[[3, 5]].names == ["row 3", "row 5"]
    np.testing.assert_array_equal(dataset.load([4], image_size=32)[0], images[4])


def test_arrays_without_labels(images):
    dataset = ImageDataset.from_arrays(images)
    assert dataset.labels is None
    assert dataset[:3].labels is None
    assert repr(dataset) == "ImageDataset(12 images, unlabelled)"
    with pytest.raises(ValueError, match="A stratified split needs labels"):
        dataset.split()


def test_float_arrays_stay_floats_and_scaled_ones_are_refused(images):
    floats = ImageDataset.from_arrays(images * 0.75)
    assert floats.load(image_size=16).dtype == np.float32
    np.testing.assert_allclose(floats.load([2], image_size=16)[0], resize((images[2] * 0.75).astype("float32"), 16))
    with pytest.raises(ValueError, match=r"look scaled to \[0, 1\]"):
        ImageDataset.from_arrays(images / 255)


def test_files_without_labels(folders):
    dataset = ImageDataset.from_files([folders / "dog/d0.png", folders / "cat/c0.png"])
    assert dataset.labels is None
    assert dataset.names[1] == os.fspath(folders / "cat/c0.png")
    assert dataset.load(image_size=8).shape == (2, 8, 8, 3)


@pytest.mark.parametrize("way", ["directory", "dataframe"])
def test_another_way_with_bad_images_is_refused(folders, way):
    frame = pd.DataFrame({"f": ["c0.png"], "l": ["cat"]})
    columns = {"filename_column": "f", "label_column": "l"}
    with pytest.raises(ValueError, match="`on_bad_image` must be one of 'error', 'skip'. Received: 'ignore'"):
        if way == "directory":
            ImageDataset.from_directory(folders, on_bad_image="ignore")
        else:
            ImageDataset.from_dataframe(frame, folders, **columns, on_bad_image="ignore")


# Bad images.


def test_bad_images_are_listed_all_at_once(folders):
    spoil(folders)
    dataset = ImageDataset.from_directory(folders)
    for use in (dataset.verify, lambda: dataset.load(image_size=8)):
        with pytest.raises(BadImagesError, match="3 files are no readable images") as error:
            use()
        assert list(error.value.failures) == ["cat/c1.png", "dog/d0.png", "dog/d1.png"]
        assert error.value.failures["cat/c1.png"] == "the file is empty"
        assert error.value.failures["dog/d0.png"].startswith("damaged or truncated")
        assert error.value.failures["dog/d1.png"].startswith("not a JPEG")


def test_bad_images_are_skipped_and_named_when_asked_for(folders):
    spoil(folders)
    (folders / "cat/notes.txt").write_text("cats")
    dataset = ImageDataset.from_directory(folders, groups=lambda path: path[-5], on_bad_image="skip")
    assert dataset.names == ["cat/c0.png", "cat/c2.png", "dog/d2.png"]
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.groups.tolist() == ["0", "2", "2"]
    assert dataset.skipped["file"].tolist() == ["cat/notes.txt", "cat/c1.png", "dog/d0.png", "dog/d1.png"]
    assert dataset.skipped["reason"][1] == "the file is empty"
    assert dataset.load(image_size=8).shape == (3, 8, 8, 3)


def test_bad_images_of_a_table_are_skipped(folders):
    spoil(folders)
    frame = pd.DataFrame({"f": ["c0.png", "c1.png", "d2.png"], "l": ["cat", "cat", "dog"]})
    columns = {"filename_column": "f", "label_column": "l"}
    dataset = ImageDataset.from_dataframe(frame, folders, **columns, on_bad_image="skip")
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.skipped.values.tolist() == [["cat/c1.png", "the file is empty"]]


def test_nothing_to_skip_leaves_an_empty_table(folders):
    skipped = ImageDataset.from_directory(folders, on_bad_image="skip").skipped
    assert skipped.empty
    assert skipped.columns.tolist() == ["file", "reason"]


def test_only_bad_images_are_an_error_also_when_skipping(folders):
    for file in folders.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(BadImagesError, match="6 files"):
        ImageDataset.from_directory(folders, on_bad_image="skip")


def test_a_file_that_went_away_is_named(pets, folders):
    (folders / "cat/c0.png").unlink()
    with pytest.raises(BadImageError, match=r"'cat/c0.png': cannot be opened \(No such file"):
        pets.read(0)


# Indexing.


@pytest.mark.parametrize(
    "indices",
    [[3, 1], np.array([3, 1]), slice(1, 6, 2), np.arange(12) % 5 == 0, [-1, 0], [], np.array([], "int64")],
)
def test_indexing_gives_a_view_with_the_same_classes(arrays, images, indices):
    view = arrays[indices]
    rows = np.arange(12)[indices if len(np.shape(indices)) == 0 or len(indices) else slice(0)]
    assert isinstance(view, ImageDataset)
    assert view.class_names == ["cat", "dog"]
    np.testing.assert_array_equal(view.labels, arrays.labels[rows])
    np.testing.assert_array_equal(view.groups, arrays.groups[rows])
    np.testing.assert_array_equal(view.load(image_size=32), images[rows])
    assert view[::-1].names == [f"row {row}" for row in rows[::-1]]


@pytest.mark.parametrize("index", [0, np.int64(3), "row 1"])
def test_one_image_is_not_indexed(arrays, index):
    with pytest.raises(TypeError, match="by an index array, a list, a boolean mask or a slice"):
        arrays[index]


def test_an_index_that_is_not_there_is_an_error(arrays):
    with pytest.raises(IndexError):
        arrays[[12]]
    with pytest.raises(IndexError):
        arrays[[True, False]]


def test_rows_are_not_iterated(arrays):
    with pytest.raises(TypeError, match="not iterable"):
        iter(arrays)


def test_scikit_learn_indexes_it(arrays):
    part = _safe_indexing(arrays, np.array([5, 7]))
    assert isinstance(part, ImageDataset)
    assert part.names == ["row 5", "row 7"]
    train, test = train_test_split(arrays, test_size=0.25, stratify=arrays.labels, random_state=0)
    assert (len(train), len(test)) == (9, 3)
    for _, rows in StratifiedKFold(3).split(arrays, arrays.labels):
        assert arrays[rows].class_counts() == {"cat": 2, "dog": 2}


# Reading.


def test_reading_does_not_decode(pets, folders):
    image = pets.read(4)
    assert image.name == "dog/d1.png"
    assert image.content == (folders / "dog/d1.png").read_bytes()
    np.testing.assert_array_equal(image.decode((8, 9)), pets.load([4], image_size=(8, 9))[0])
    assert image.decode().shape == (20, 24, 3)


def test_digests_are_of_the_content_and_remembered_by_all_views(pets, folders):
    view = pets[[5, 3]]
    digests = pets.digests()
    assert [len(digest) for digest in digests] == [16] * 6
    assert digests[4] == digests[5]
    assert len(set(digests)) == 5
    for file in folders.rglob("*.png"):
        file.unlink()
    assert view.digests() == [digests[5], digests[3]]
    assert pets.digests([0]) == [digests[0]]


def test_digests_of_arrays_are_of_pixels_size_and_type(images):
    dataset = ImageDataset.from_arrays(np.concatenate([images, images[:1]]))
    assert dataset.digests()[0] == dataset.digests()[12]
    assert len(set(dataset.digests())) == 12
    assert ImageDataset.from_arrays(images.reshape(12, 16, 64, 3)).digests()[0] != dataset.digests()[0]
    assert ImageDataset.from_arrays(images.astype("float32")).digests()[0] != dataset.digests()[0]


def test_many_threads_may_read(pets):
    expected, results = pets.load(image_size=8), []

    def work():
        for _ in range(10):
            results.append(np.array_equal(pets.load(image_size=8), expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 40


def test_a_dataset_travels_to_other_processes_with_its_own_images_only(arrays, pets):
    view = arrays[[7, 2]]
    arrays.digests()
    copy = pickle.loads(pickle.dumps(view))
    assert copy.names == ["row 7", "row 2"]
    assert (copy.fingerprint(), copy.class_names) == (view.fingerprint(), ["cat", "dog"])
    assert copy.digests() == ImageDataset.from_arrays(copy.load(image_size=32)).digests()
    assert len(pickle.dumps(view)) < len(pickle.dumps(arrays)) / 3
    assert pickle.loads(pickle.dumps(pets)).fingerprint() == pets.fingerprint()
    assert pickle.loads(pickle.dumps(pets[[4, 1]])).names == ["dog/d1.png", "cat/c1.png"]


# Splits, checks, fingerprints.


def test_split_keeps_groups_and_identical_images_together(images):
    x = np.concatenate([images] * 4)
    x[12:36, 0, 0, 0] = np.arange(24)
    dataset = ImageDataset.from_arrays(x, np.arange(48) % 2, groups=np.arange(48) // 4)
    train, test = dataset.split(0.25, seed=1)
    assert len(train) + len(test) == 48
    assert not set(train.digests()) & set(test.digests())
    assert not set(train.groups) & set(test.groups)
    again = dataset.split(0.25, seed=1)[1]
    assert again.names == test.names
    assert test.names == sorted(test.names, key=dataset.names.index)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_what_is_no_seed_is_refused(arrays, seed):
    with pytest.raises(ValueError, match="`seed` must be an int of at least 0. Received: "):
        arrays.split(0.25, seed=seed)
    with pytest.raises(ValueError, match="`seed` must be an int of at least 0. Received: "):
        arrays.batches(image_size=8, batch_size=4, shuffle=True, seed=seed)


def test_split_names_the_class_that_is_too_small(images):
    dataset = ImageDataset.from_arrays(images, ["often"] * 11 + ["rare"])
    with pytest.raises(ValueError, match="no test image of rare"):
        dataset.split()


def test_check_finds_what_is_wrong(folders):
    for name in ("fish/f0.png", "cat/copy.png"):
        (folders / name).parent.mkdir(exist_ok=True)
        (folders / name).write_bytes((folders / "dog/d0.png").read_bytes())
    (folders / "cat/c2.png").write_bytes(b"")
    found = ImageDataset.from_directory(folders).check()
    assert found.columns.tolist() == ["problem", "where", "detail"]
    assert found.values.tolist() == [
        ["bad image", "cat/c2.png", "the file is empty"],
        ["class with one image", "fish", "1 of 8 images"],
        [
            "identical images, different labels",
            "cat/copy.png, dog/d0.png, fish/f0.png",
            "labelled cat and dog and fish",
        ],
        ["identical images", "dog/d1.png, dog/d2.png", "2 files with the same bytes"],
    ]


def test_check_finds_nothing_in_good_data_and_empty_classes_in_views(arrays, images):
    assert arrays.check().empty
    assert arrays[::2].check().values.tolist() == [["class without images", "dog", "0 of 6 images"]]
    assert ImageDataset.from_arrays(images).check().empty
    twice = ImageDataset.from_arrays(images[[0, 0, 1, 2]], [4, 6, 4, 6])
    assert twice.check().values.tolist() == [
        ["identical images, different labels", "row 0, row 1", "labelled 4 and 6"]
    ]


def test_the_fingerprint_depends_on_content_order_labels_and_groups(images):
    labels, groups = np.arange(12) % 2, np.arange(12) // 2
    base = ImageDataset.from_arrays(images, labels, groups=groups)
    changed = images.copy()
    changed[3, 1, 1, 1] ^= 1
    others = [
        base[::-1],
        ImageDataset.from_arrays(changed, labels, groups=groups),
        ImageDataset.from_arrays(images, 1 - labels, groups=groups),
        ImageDataset.from_arrays(images, labels, groups=groups // 2),
        ImageDataset.from_arrays(images, labels),
        ImageDataset.from_arrays(images),
        ImageDataset.from_arrays(images, labels, groups=groups, class_names=["a", "b"]),
    ]
    assert len({dataset.fingerprint() for dataset in [base, *others]}) == 8
    assert ImageDataset.from_arrays(images.copy(), labels, groups=groups).fingerprint() == base.fingerprint()


def test_the_text_of_a_dataset_counts_its_classes(arrays, images):
    assert repr(arrays) == "ImageDataset(12 images; cat: 6, dog: 6)"
    assert repr(arrays[:0]) == "ImageDataset(0 images; cat: 0, dog: 0)"
    assert repr(ImageDataset.from_arrays(images, [3] * 12)) == "ImageDataset(12 images; 3: 12)"


# as_dataset.


def test_a_dataset_passes_as_it_is(arrays, images):
    assert as_dataset(arrays) is arrays
    assert as_dataset(arrays, arrays.labels) is arrays
    assert as_dataset(arrays, ["cat", "dog"] * 6, groups=arrays.groups) is arrays
    assert as_dataset(images, ["b", "a"] * 6).class_names == ["a", "b"]
    unnamed = ImageDataset.from_arrays(images, [5, 6] * 6)
    assert as_dataset(unnamed, ["5", "6"] * 6) is unnamed


def test_what_a_dataset_lacks_is_added(images):
    bare = ImageDataset.from_arrays(images)
    full = as_dataset(bare, ["b", "a"] * 6, groups=np.arange(12))
    assert (full.labels.tolist(), full.class_names) == ([1, 0] * 6, ["a", "b"])
    assert full.groups.tolist() == [str(i) for i in range(12)]
    assert bare.labels is None
    named = as_dataset(ImageDataset.from_arrays(images, [0, 1] * 6), class_names=["a", "b"])
    assert named.class_names == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": ["cat", "dog"] * 5 + ["dog", "dog"]}, "`y` differs from the dataset's labels in 1 row: 10"),
        ({"y": [1, 0] * 6}, "`y` differs from the dataset's labels in 12 rows"),
        ({"y": [0, 1]}, r"one label per image. Received: shape \(2,\) for 12 images"),
        ({"groups": np.arange(12)}, "`groups` differ from the dataset's"),
        ({"class_names": ["dog", "cat"]}, "`class_names` differ from the dataset's"),
    ],
)
def test_what_contradicts_a_dataset_is_refused(arrays, arguments, message):
    with pytest.raises(ValueError, match=message):
        as_dataset(arrays, **arguments)


def test_a_path_is_no_dataset(folders):
    with pytest.raises(
        ValueError, match=r"Received: the path '.*pets'. Folders .* `ImageDataset.from_directory`, .* `from_files`"
    ):
        as_dataset(folders)


def test_other_labels_for_the_same_images(arrays):
    relabelled = arrays.with_labels(np.arange(12))
    assert (relabelled.class_names, relabelled.labels[11], arrays.labels[11]) == (None, 11, 1)
    assert arrays.with_labels(["x", "y"] * 6).class_names == ["x", "y"]


# Scale and memory.


def test_a_dataset_of_100_000_files_is_cheap(tmp_path):
    dataset = ImageDataset.from_files([f"images/{i:06}.png" for i in range(100_000)])
    part = dataset[np.arange(0, 100_000, 2)]
    assert len(part) == 50_000
    assert part[[1]].names == ["images/000002.png"]
    assert len(pickle.dumps(part)) < 2_000_000


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    tracemalloc = pytest.importorskip("tracemalloc")
    data = encoded(picture(0, (256, 256)))

    def peak(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            (folder / f"{i}.png").write_bytes(data)
        dataset = ImageDataset.from_files(sorted(folder.iterdir()))
        tracemalloc.start()
        try:
            dataset.verify()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # A decoded picture is 200 kB, a file about 60 kB: 240 more of them would be 14 MB at least.
    assert peak(300) - peak(60) < 3_000_000


# Real data.


@pytest.fixture
def x_rays(shared):
    return shared / "data/chest_xray"


@pytest.mark.shared
def test_the_csv_gives_the_same_images_as_the_folders(x_rays):
    frame = pd.read_csv(x_rays / "Chest_xray_Corona_Metadata.csv")
    columns = {"filename_column": "X_ray_image_name", "label_column": "Label"}
    table = ImageDataset.from_dataframe(frame[frame["Dataset_type"] == "TEST"], x_rays, **columns)
    folder = ImageDataset.from_directory(x_rays / "test")
    assert table.class_names == ["Normal", "Pnemonia"]
    order = np.argsort([os.path.basename(name) for name in table.names])
    other = np.argsort([os.path.basename(name) for name in folder.names])
    np.testing.assert_array_equal(table.labels[order], folder.labels[other])
    assert table[order].digests() == folder[other].digests()


@pytest.mark.shared
def test_the_full_csv_gives_one_error_with_the_count_and_the_first_names(x_rays):
    frame = pd.read_csv(x_rays / "metadata_all_rows.csv")
    columns = {"filename_column": "X_ray_image_name", "label_column": "Label"}
    with pytest.raises(
        ValueError, match="2390 of 5910 rows name a file that is not below .*: IM-0122-0001.jpeg, IM-"
    ):
        ImageDataset.from_dataframe(frame, x_rays, **columns)


@pytest.mark.shared
def test_the_13_surplus_copies_among_the_training_x_rays_share_a_fold(x_rays):
    from ensemble_keras.data.splits import make_folds

    dataset = ImageDataset.from_directory(x_rays / "train", groups=lambda path: path.split("/")[1].split("_")[0])
    digests = np.array(dataset.digests(), dtype=object)
    assert len(dataset) - len(set(digests)) == 13
    folds = make_folds(dataset.labels, groups=dataset.groups, digests=digests)
    for key in (digests, dataset.groups):
        assert len(set(zip(key, folds, strict=True))) == len(set(key))
    counts = np.stack([np.bincount(folds[dataset.labels == kind], minlength=5) for kind in (0, 1)])
    assert (np.ptp(counts, axis=1) <= 1).all()
    identical = dataset.check()
    assert identical["problem"].tolist() == ["identical images"] * 12

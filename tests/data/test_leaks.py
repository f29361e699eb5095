import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image, ImageEnhance

from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.data.decoding import BadImagesError, decode
from ensemble_keras.data.leaks import SeenImages, check_leaks, find_leaks


def arrays(seeds, groups=None):
    return ImageDataset.from_arrays(np.stack([np.asarray(picture(seed, (64, 64))) for seed in seeds]), groups=groups)


def test_no_pair_is_found_among_different_pictures():
    leaks = find_leaks(arrays(range(40)), arrays(range(100, 140)))
    assert leaks.columns.tolist() == ["train_file", "test_file", "train_index", "test_index", "kind", "distance"]
    assert leaks.empty


def test_byte_identical_files_are_exact_pairs(folders):
    dataset = ImageDataset.from_directory(folders)
    leaks = find_leaks(dataset[[0, 1, 4]], dataset[[5, 1]])
    assert leaks.values.tolist() == [
        ["dog/d1.png", "dog/d2.png", 2, 0, "exact", 0],
        ["cat/c1.png", "cat/c1.png", 1, 1, "exact", 0],
    ]


CHANGES = {
    "as JPEG": lambda image: Image.fromarray(decode(encoded(image, "JPEG", quality=60), "a")),
    "half the size": lambda image: image.resize((32, 32), Image.Resampling.BICUBIC),
    "other proportions": lambda image: image.resize((80, 60), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_near_pairs(change):
    changed = [np.asarray(CHANGES[change](picture(seed, (64, 64)))) for seed in range(5, 15)]
    leaks = find_leaks(arrays(range(20)), np.stack(changed))
    assert leaks["kind"].tolist() == ["near"] * 10
    assert leaks["train_index"].tolist() == list(range(5, 15))
    assert leaks["test_index"].tolist() == list(range(10))
    assert leaks["distance"].max() <= 10


def test_pictures_of_one_colour_are_no_near_pairs():
    flat = np.full((2, 16, 16, 3), [[[[10]]], [[[200]]]], "uint8")
    assert find_leaks(flat[:1], flat[1:]).empty


def test_a_shared_group_is_a_pair_for_each_test_image_of_it():
    leaks = find_leaks(arrays([0, 1, 2], ["p", "q", "q"]), arrays([10, 11, 12], ["q", "r", "q"]))
    assert leaks[["train_index", "test_index", "kind"]].values.tolist() == [[1, 0, "group"], [1, 2, "group"]]
    assert leaks["distance"].isna().all()


def test_pairs_are_found_across_blocks(monkeypatch):
    monkeypatch.setattr("ensemble_keras.data.leaks._BLOCK", 7)
    test = [np.asarray(CHANGES["darker"](picture(seed, (64, 64)))) for seed in range(29, -1, -1)]
    leaks = find_leaks(arrays(range(30)), np.stack(test))
    assert leaks[["train_index", "test_index"]].values.tolist() == [[29 - i, i] for i in range(30)]


def test_all_bad_images_of_a_side_are_listed(folders, monkeypatch):
    monkeypatch.setattr("ensemble_keras.data.leaks._BLOCK", 2)
    for name in ("cat/c0.png", "dog/d2.png"):
        (folders / name).write_bytes(b"")
    dataset = ImageDataset.from_directory(folders)
    with pytest.raises(BadImagesError, match="2 files"):
        find_leaks(dataset, dataset)


def test_leaks_are_warned_of_or_refused():
    train, test = arrays([0, 1]), arrays([1, 2])
    message = r"1 pairs of images .*\(1 exact\).*\n  row 1 = row 0 \(exact\)\n`find_leaks`"
    with pytest.warns(UserWarning, match=message):
        assert len(check_leaks(train, test)) == 1
    with pytest.raises(ValueError, match=message):
        check_leaks(train, test, leaks="error")
    assert check_leaks(arrays([0]), arrays([1]), leaks="error").empty
    with pytest.raises(ValueError, match=r"\n  …\n"):
        check_leaks(arrays(range(12)), arrays(range(12)), leaks="error")
    with pytest.raises(ValueError, match="`leaks` must be one of 'warn', 'error'"):
        check_leaks(train, test, leaks="eror")


def test_what_is_kept_of_training_images_knows_their_bytes_and_groups_again():
    def grouped(seeds, groups):
        return ImageDataset.from_arrays(np.stack([picture(seed, (64, 64)) for seed in seeds]), groups=groups)

    train, test = grouped([0, 1, 2], ["a", "b", "c"]), grouped([5, 1, 6], ["x", "y", "c"])
    seen = SeenImages(train)
    with pytest.warns(UserWarning, match=r"2 pairs of images .*\(1 exact, 1 group\)"):
        found = seen.check(test)
    assert found.equals(find_leaks(train, test))
    with pytest.raises(ValueError, match="2 pairs of images"):
        seen.check(test, leaks="error")
    assert seen.check(grouped([5, 6], ["x", "y"])).empty


@pytest.mark.shared
def test_real_x_rays_alike_as_they_are_make_no_pairs_but_their_changed_copies_do(shared):
    train = ImageDataset.from_directory(shared / "data/chest_xray/train")
    test = ImageDataset.from_directory(shared / "data/chest_xray/test")
    assert find_leaks(train, test).empty
    rows = np.arange(0, len(train), 160)
    pictures = [Image.fromarray(pixels) for pixels in train.load(rows, image_size=224)]
    for change in CHANGES:
        copies = np.stack([np.asarray(CHANGES[change](image)) for image in pictures])
        pairs = find_leaks(train[rows], copies)[["train_index", "test_index"]].values
        np.testing.assert_array_equal(pairs, np.stack([np.arange(len(rows))] * 2, axis=1), err_msg=change)

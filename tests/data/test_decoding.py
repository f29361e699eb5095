import contextlib
import pickle
import warnings

import numpy as np
import pytest
from pictures import encoded
from PIL import Image

from ensemble_keras.data.decoding import FILTER, BadImageError, BadImagesError, decode, resize


@pytest.fixture
def rgb():
    return np.array(Image.fromarray(np.random.default_rng(1).integers(0, 256, (3, 4, 3), "uint8")).resize((24, 16)))


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"big_tiff": True}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 100, "subsampling": 0}, 4),
        ("JPEG", {"quality": 100, "subsampling": 0, "progressive": True}, 4),
    ],
)
def test_every_kind_of_file_gives_its_pixels(rgb, kind, options, tolerance):
    pixels = decode(encoded(Image.fromarray(rgb), kind, **options), "a")
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), rgb, atol=tolerance)


def test_a_palette_gives_its_colours():
    image = Image.fromarray(np.array([[0, 1], [1, 2]], "uint8"), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    expected = [[[255, 0, 0], [0, 255, 0]], [[0, 255, 0], [0, 0, 255]]]
    for kind in ("PNG", "GIF", "BMP"):
        assert decode(encoded(image, kind), "a").tolist() == expected


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_grey_is_repeated_over_the_channels(rgb, kind):
    pixels = decode(encoded(Image.fromarray(rgb[..., 0]), kind), "a")
    np.testing.assert_array_equal(pixels, np.repeat(rgb[..., :1], 3, axis=-1))


def test_black_and_white_becomes_0_and_255():
    assert decode(encoded(Image.fromarray(np.array([[0, 255]], "uint8")).convert("1")), "a")[0, :, 0].tolist() == [
        0,
        255,
    ]


def test_transparency_lies_over_white(rgb):
    alpha = np.full((16, 24, 1), 64, "uint8")
    expected = np.rint(rgb * (64 / 255) + 255 * (1 - 64 / 255))
    for kind in ("PNG", "TIFF"):
        pixels = decode(encoded(Image.fromarray(np.concatenate([rgb, alpha], axis=-1)), kind), "a")
        np.testing.assert_allclose(pixels, expected, atol=1)
    grey = np.concatenate([rgb[..., :1], alpha], axis=-1)
    np.testing.assert_allclose(decode(encoded(Image.fromarray(grey)), "a")[..., 1], expected[..., 0], atol=1)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])])
def test_transparent_palette_colours_lie_over_white(transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], "uint8"), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 0])
    pixels = decode(encoded(image, transparency=transparency), "a")
    assert pixels[0, :2].tolist() == [[255, 0, 0], [255, 255, 255]]
    assert pixels[0, 2, 0] == (0 if transparency == 1 else 127)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_cut_off(kind):
    values = np.array([[0, 257, 25700, 65535]], "uint16")
    assert decode(encoded(Image.fromarray(values), kind), "a")[0, :, 2].tolist() == [0, 1, 100, 255]


def test_16_bit_tiffs_in_which_0_is_white_are_turned_round():
    image = Image.fromarray(np.array([[0, 65535]], "uint16"))
    data = bytearray(encoded(image, "TIFF"))
    entry = data.find(b"\x06\x01\x03\x00\x01\x00\x00\x00")  # the tag PhotometricInterpretation, one short
    data[entry + 8] = 0
    assert decode(bytes(data), "a")[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_32_bits_are_stretched_from_their_smallest_to_their_largest_value(dtype):
    values = np.array([[-1000, 0, 1000]], dtype)
    assert decode(encoded(Image.fromarray(values), "TIFF"), "a")[0, :, 0].tolist() == [0, 128, 255]
    assert decode(encoded(Image.fromarray(values[:, :1]), "TIFF"), "a").tolist() == [[[0, 0, 0]]]


def test_nan_pixels_of_a_float_tiff_are_refused():
    data = encoded(Image.fromarray(np.array([[0, np.nan]], "float32")), "TIFF")
    with pytest.raises(BadImageError, match=r"'a\.tif': damaged or truncated \(NaN or infinite pixels\)"):
        decode(data, "a.tif")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind):
    colours = Image.new("RGB", (16, 16), (200, 30, 90))
    pixels = decode(encoded(colours.convert("CMYK"), kind), "a")
    np.testing.assert_allclose(pixels.astype(int), np.asarray(colours), atol=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation_is_followed(rgb, kind, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    pixels = decode(encoded(Image.fromarray(rgb), kind, exif=exif, **options), "a")
    np.testing.assert_allclose(pixels.astype(int), upright(rgb), atol=4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_not_spoil_good_pixels(rgb):
    data = encoded(Image.fromarray(rgb), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0broken", quality=100)
    plain = decode(encoded(Image.fromarray(rgb), "JPEG", quality=100), "a")
    np.testing.assert_array_equal(decode(data, "a"), plain)


def test_exif_data_that_are_none_do_not_spoil_good_pixels(rgb):
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(rgb), exif=b"Exif\0\0no tags"), "a"), rgb)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animated_picture_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(data, "a"), np.broadcast_to([255, 0, 0], (8, 8, 3)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_named(rgb, kind, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8")
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadImageError, match=r"'scan\.x': damaged or truncated"):
        decode(data[: int(kept * len(data))], "scan.x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_damage_anywhere_is_a_bad_image_or_an_image(rgb, kind, rng):
    data = np.frombuffer(encoded(Image.fromarray(rgb), kind), "uint8")
    for _ in range(150):
        damaged = data.copy()
        damaged[rng.integers(4, len(data), 8)] = rng.integers(0, 256, 8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(BadImageError):
                assert decode(damaged.tobytes(), "a").dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "the file is empty"), (b"patient;finding\n1;none\n", "not a JPEG, PNG, BMP, GIF, TIFF or WebP image")],
)
def test_what_is_no_image_is_named(data, reason):
    with pytest.raises(BadImageError, match=f"Cannot read the image 'a.jpg': {reason}") as error:
        decode(data, "a.jpg")
    assert (error.value.name, error.value.reason) == ("a.jpg", reason)


def test_a_large_picture_passes_without_a_warning_and_a_huge_one_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encoded(Image.new("L", (10, 20))), "a").shape == (20, 10, 3)
    with pytest.raises(BadImageError, match="10 x 21 pixels are over the limit of 200"):
        decode(encoded(Image.new("L", (10, 21))), "a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(encoded(Image.new("L", (10, 21))), "a").shape == (21, 10, 3)


def test_decoding_to_a_size_is_decoding_and_resizing(rgb):
    data = encoded(Image.fromarray(rgb))
    np.testing.assert_array_equal(decode(data, "a", (8, 9)), resize(rgb, (8, 9)))


def test_resizing_is_antialiased_bilinear(rgb):
    assert FILTER == "bilinear"
    # Shrinking by 2: a triangle over 4 pixels with weights 1, 3, 3, 1, away from the edges.
    weights = np.array([1, 3, 3, 1]) / 8
    halved = resize(rgb.astype("float32"), (8, 12))
    window = rgb[3:7, 3:7].astype(float)
    np.testing.assert_allclose(halved[2, 2], np.einsum("i,j,ijc->c", weights, weights, window), atol=1e-3)


def test_floats_and_uint8_are_resized_alike(rgb):
    floats = resize(rgb.astype("float32"), (7, 30))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, resize(rgb, (7, 30)).astype(int), atol=1.01)


def test_an_equal_size_changes_nothing(rgb):
    assert resize(rgb, (16, 24)) is rgb


def test_many_bad_images_are_one_error_with_count_names_and_next_step():
    error = BadImagesError({f"{i}.png": "the file is empty" for i in range(12)})
    assert str(error).startswith("12 files are no readable images:\n  0.png: the file is empty\n")
    assert "… and 2 more" in str(error)
    assert "on_bad_image='skip'" in str(error)
    assert str(BadImagesError({"a": "b"})).startswith("1 file is no readable image:")


@pytest.mark.parametrize("error", [BadImageError("a", "b"), BadImagesError({"a": "b"})])
def test_errors_travel_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)

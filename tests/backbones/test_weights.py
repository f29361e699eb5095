import warnings

import keras
import numpy as np
import pytest

from ensemble_keras.backbones.registry import build_backbone
from ensemble_keras.backbones.weights import check_weights, keras_loading, load_weights

NAME, SHAPE = "CNN(filters=(4, 8))", (16, 16, 3)


@pytest.mark.parametrize("part", ["the backbone", "the network inside"])
@pytest.mark.parametrize(
    "suffix", [".weights.h5", ".keras", pytest.param(".h5", marks=pytest.mark.filterwarnings("ignore"))]
)
def test_a_file_of_either_kind_gives_the_same_features(part, suffix, images, tmp_path):
    trained = build_backbone(NAME, input_shape=SHAPE, weights=None)
    network = next(layer for layer in trained.layers if isinstance(layer, keras.Model))
    saved = trained if part == "the backbone" else network
    path = tmp_path / f"trained{suffix}"
    saved.save_weights(path) if suffix == ".weights.h5" else saved.save(path)

    for again in (
        build_backbone(NAME, input_shape=SHAPE, weights=path),
        build_backbone(f"CNN(filters=(4, 8), weights={str(path)!r})", input_shape=SHAPE),
    ):
        for a, b in zip(again.get_weights(), trained.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    build_backbone("CNN(filters=(4, 9))", input_shape=SHAPE, weights=None).save_weights(path)
    with pytest.raises(ValueError, match=r"other.weights.h5 does not fit CNN\(filters=\(4, 8\)\)\. .* Keras says: "):
        build_backbone(NAME, input_shape=SHAPE, weights=path)
    build_backbone("CNN(filters=(4,))", input_shape=SHAPE, weights=None).save_weights(tmp_path / "shallow.weights.h5")
    with pytest.raises(ValueError, match=r"shallow.weights.h5 does not fit"):
        build_backbone(NAME, input_shape=SHAPE, weights=tmp_path / "shallow.weights.h5")


class _HalfLoaded:
    def load_weights(self, path):
        warnings.warn("Skipping nested container at 'a': no matching group found in the saved file.", stacklevel=2)


def test_a_part_left_random_is_an_error():
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=r"half.weights.h5 does not fit X.* Skipping nested"),
    ):
        warnings.simplefilter("ignore")
        load_weights("half.weights.h5", _HalfLoaded(), _HalfLoaded(), "X")


def test_a_file_that_is_no_weights_file_is_named(tmp_path):
    path = tmp_path / "broken.weights.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match=r"broken.weights.h5 does not fit CNN"):
        build_backbone(NAME, input_shape=SHAPE, weights=path)
    path = path.rename(tmp_path / "broken.keras")
    with pytest.raises(ValueError, match=r"broken.keras does not fit CNN"):
        build_backbone(NAME, input_shape=SHAPE, weights=path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights file of VGG16 does not exist: .*absent.weights.h5"):
        build_backbone("VGG16", input_shape=(32, 32, 3), weights=tmp_path / "absent.weights.h5")


@pytest.mark.parametrize("backbone", ["Darknet19", "Darknet53", "CNN", "AlexNet"])
def test_a_network_without_imagenet_weights_says_so(backbone):
    with pytest.raises(ValueError, match=rf"{backbone} has no weights 'imagenet'. Use weights=None .* or the path"):
        build_backbone(backbone, input_shape=(32, 32, 3))


def test_other_names_are_refused():
    with pytest.raises(
        ValueError, match=r"VGG16 has no weights 'imagnet'. Did you mean 'imagenet'\? Use weights=None"
    ):
        check_weights("imagnet", ("imagenet",), "VGG16")
    with pytest.raises(ValueError, match=r"`weights` must be a name, a path or None. Received: True for VGG16"):
        check_weights(True, ("imagenet",), "VGG16")
    check_weights("anything", None, "Mine")


def test_weights_that_cannot_be_downloaded_say_where_the_file_belongs(monkeypatch, tmp_path):
    # Nothing listens on port 9: as good as no network, on any machine.
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(OSError, match="could not be downloaded") as error:
        build_backbone("MobileNet(alpha=0.5)", input_shape=(224, 224, 3))
    message = str(error.value)
    assert "imagenet weights of MobileNet(alpha=0.5)" in message
    assert "the file mobilenet_5_0_224_tf_no_top.h5 is not in" in message
    assert f"{tmp_path}/models" in message
    assert "weights=None" in message
    assert "path of a weights file" in message


def test_a_home_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "absent"))
    with pytest.raises(OSError, match=r"\.keras/models \(.*absent is not writable\)"), keras_loading("imagenet", "X"):
        raise Exception("URL fetch failure on https://host/dir/x.h5: None -- no route")


def test_other_failures_pass_unchanged():
    with pytest.raises(KeyError, match="inner"), keras_loading("imagenet", "X"):
        raise KeyError("inner")

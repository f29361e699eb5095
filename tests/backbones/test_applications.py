import gc
import importlib
import inspect

import keras
import numpy as np
import pytest
from contracts import check_backbone
from PIL import Image

from ensemble_keras.backbones.applications import APPLICATIONS
from ensemble_keras.backbones.registry import build_backbone, list_backbones

ROWS = {row.name: row for row in APPLICATIONS}
# One network of each family, as (backbone, Keras' own, side). The quick ones run every time.
QUICK = [("MobileNet(alpha=0.25)", {"alpha": 0.25}, 32), ("VGG16", {}, 32)]
SLOW = [
    ("Xception", {}, 71),
    ("VGG19", {}, 32),
    ("ResNet50", {}, 32),
    ("ResNet50V2", {}, 32),
    ("InceptionV3", {}, 75),
    ("InceptionResNetV2", {}, 75),
    ("MobileNetV2(alpha=0.35)", {"alpha": 0.35}, 32),
    ("MobileNetV3Small", {}, 32),
    ("DenseNet121", {}, 32),
    ("NASNetMobile", {}, 32),
    ("EfficientNetB0", {}, 32),
    ("EfficientNetV2B0", {}, 32),
    ("ConvNeXtTiny", {}, 32),
]
FAMILIES = [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)]


def test_the_table_holds_every_classifier_of_keras():
    classifiers = [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]
    assert sorted(ROWS) == sorted(classifiers)
    assert set(classifiers) <= set(list_backbones())


def test_one_network_of_each_family_is_compared_whole():
    compared = {ROWS[name.partition("(")[0]].module for name, _, _ in QUICK + SLOW}
    assert compared == {row.module for row in APPLICATIONS}


class _SizesError(Exception):
    """Carries the sizes out of Keras before it builds a network."""


# MobileNetV3 has its own check; the test of smaller images covers it.
@pytest.mark.parametrize(
    "row", [row for row in APPLICATIONS if row.module != "mobilenet_v3"], ids=lambda row: row.name
)
def test_sizes_are_those_in_keras_source(row, monkeypatch):
    def read(input_shape, default_size, min_size, **_):
        raise _SizesError(default_size, min_size)

    monkeypatch.setattr("keras.src.applications.imagenet_utils.obtain_input_shape", read)
    with pytest.raises(_SizesError) as sizes:
        row.builder(weights=None)
    assert sizes.value.args == (row.default_size, row.smallest)


@pytest.mark.parametrize("row", APPLICATIONS, ids=lambda row: row.name)
def test_smaller_images_are_refused_as_keras_refuses_them(row):
    side = row.smallest - 1
    with pytest.raises(ValueError, match="must be at least"):
        row.builder(input_shape=(side, side, 3), include_top=False, weights=None)
    with pytest.raises(ValueError, match=rf"{row.name} takes images of at least .* resize_to={row.default_size}"):
        build_backbone(row.name, input_shape=(side, 400, 3), weights=None)


@pytest.mark.parametrize(("backbone", "options", "side"), FAMILIES)
def test_features_are_those_of_keras_own_network(backbone, options, side, rng):
    row = ROWS[backbone.partition("(")[0]]
    images = rng.integers(0, 256, (3, side, side, 3), dtype="uint8")
    preprocess_input = importlib.import_module(f"keras.applications.{row.module}").preprocess_input

    keras.utils.set_random_seed(1)
    theirs = row.builder(input_shape=(side, side, 3), include_top=False, weights=None, **options)
    expected = theirs.predict(preprocess_input(images.astype("float32")), verbose=0).mean(axis=(1, 2))

    keras.utils.set_random_seed(1)
    ours = build_backbone(backbone, input_shape=(side, side, 3), weights=None)
    features = ours.predict(images, verbose=0)
    np.testing.assert_allclose(features, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("backbone", ["MobileNet(alpha=0.25)", "VGG16"])
def test_networks_of_keras_pass_the_contract(backbone, tmp_path):
    check_backbone(build_backbone(backbone, input_shape=(32, 40, 3), weights=None), (32, 40, 3), directory=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("row", APPLICATIONS, ids=lambda row: row.name)
def test_every_row_builds_at_its_smallest_size(row):
    side = row.smallest
    model = build_backbone(row.name, input_shape=(side, side, 3), weights=None)
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, model.layers[-2].output_shape[-1])
    del model
    keras.utils.clear_session()
    gc.collect()


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    "row", [ROWS[name.partition("(")[0]] for name, _, _ in QUICK + SLOW], ids=lambda row: row.name
)
def test_one_of_each_family_runs_on_x_rays_at_its_default_size(row, shared):
    folder = shared / "data" / "chest_xray"
    files = sorted(folder.rglob("*.jpeg"))[:3]
    size = (row.default_size, row.default_size)
    x_rays = np.stack([np.asarray(Image.open(file).convert("RGB").resize(size)) for file in files])
    features = build_backbone(row.name, input_shape=(*size, 3), weights=None).predict(x_rays, verbose=0)
    assert np.isfinite(features).all()
    assert (features[0] != features[1]).any()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("backbone", "function", "options"),
    [
        ("MobileNetV2", "MobileNetV2", {}),
        ("MobileNetV2(alpha=0.35)", "MobileNetV2", {"alpha": 0.35}),
        ("MobileNet(alpha=0.25)", "MobileNet", {"alpha": 0.25}),
    ],
)
def test_imagenet_weights_give_the_features_of_plain_keras(backbone, function, options, shared, rng):
    row = ROWS[function]
    images = rng.integers(0, 256, (2, 224, 224, 3), dtype="uint8")
    theirs = row.builder(input_shape=(224, 224, 3), include_top=False, pooling="avg", weights="imagenet", **options)
    preprocess_input = importlib.import_module(f"keras.applications.{row.module}").preprocess_input
    expected = theirs.predict(preprocess_input(images.astype("float32")), verbose=0)
    ours = build_backbone(backbone, input_shape=(224, 224, 3))
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, rtol=0, atol=1e-4)


@pytest.mark.shared
def test_weights_of_another_size_load_without_a_warning(shared):
    # Warnings are errors in these tests: Keras warns here that it takes the weights of 224 pixels.
    model = build_backbone("MobileNet(alpha=0.25)", input_shape=(112, 100, 3))
    same = build_backbone("MobileNet(alpha=0.25)", input_shape=(224, 224, 3))
    for a, b in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)

import keras
import numpy as np
import pytest
from contracts import check_backbone, predict_elsewhere
from PIL import Image

from ensemble_keras.backbones.assembly import assemble, warn_of_own_layers
from ensemble_keras.backbones.cnn import cnn
from ensemble_keras.backbones.registry import build_backbone

SHAPE = (32, 32, 3)


def build(backbone="CNN(filters=(4,))", *, input_shape=SHAPE, weights=None, **options):
    return build_backbone(backbone, input_shape=input_shape, weights=weights, **options)


def identity(shape=(None, None, 3)):
    """A network that shows what reaches it."""
    images = keras.Input(shape)
    return keras.Model(images, keras.layers.Identity()(images), name="identity")


def of_outputs(*outputs):
    images = keras.Input(SHAPE)
    return keras.Model(images, [output(images) for output in outputs], name="odd")


@pytest.mark.parametrize(("pooling", "pool"), [("avg", np.mean), ("max", np.max)])
def test_pooling_is_over_height_and_width(pooling, pool, images):
    features = build(identity(), pooling=pooling).predict(images, verbose=0)
    np.testing.assert_allclose(features, pool(images.astype("float64"), axis=(1, 2)), rtol=1e-5)


def test_without_pooling_the_feature_map_comes_out(images):
    model = build(identity(), pooling=None)
    np.testing.assert_array_equal(model.predict(images, verbose=0), images)


def test_vectors_are_not_pooled(images):
    flat = of_outputs(keras.layers.Flatten())
    for pooling in ("avg", "max", None):
        features = build(flat, pooling=pooling).predict(images, verbose=0)
        np.testing.assert_array_equal(features, images.reshape(len(images), -1))


def resized_by_pillow(images, height, width, filter_):
    bands = [[Image.fromarray(band.astype("float32")) for band in image.transpose(2, 0, 1)] for image in images]
    return np.asarray(
        [np.stack([band.resize((width, height), filter_) for band in image], axis=-1) for image in bands]
    )


@pytest.mark.parametrize(
    ("interpolation", "filter_"),
    [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC), ("lanczos3", Image.LANCZOS)],
)
@pytest.mark.parametrize("size", [(16, 8), (48, 40), (48, 16)])
def test_resizing_is_that_of_pillow_on_every_backend(size, interpolation, filter_, images):
    model = build(identity(), pooling=None, resize_to=size, interpolation=interpolation)
    expected = resized_by_pillow(images, *size, filter_)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=0.001)


@pytest.mark.parametrize(("interpolation", "tolerance"), [("nearest", 0), ("lanczos5", 2)])
def test_the_other_filters_enlarge_too(interpolation, tolerance, images):
    model = build(identity(), pooling=None, resize_to=64, interpolation=interpolation)
    enlarged = model.predict(images, verbose=0)
    assert enlarged.shape == (12, 64, 64, 3)
    blocks = enlarged.reshape(12, 32, 2, 32, 2, 3).mean(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(blocks, images.mean(axis=(1, 2)), atol=tolerance + 1e-3)


def test_no_resizing_where_the_size_is_the_same():
    assert not any(isinstance(layer, keras.layers.Resizing) for layer in build(resize_to=32).layers)


def test_resizing_brings_images_to_a_size_that_the_network_takes(tmp_path):
    assert build("VGG16", input_shape=(20, 24, 3), resize_to=32).output_shape == (None, 512)
    model = build(input_shape=(20, 24, 3), resize_to=(10, 48))
    check_backbone(model, (20, 24, 3), directory=tmp_path)


def test_features_are_float32_under_a_mixed_precision_policy(images):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        models = [build(), build(pooling=None), build(of_outputs(keras.layers.Flatten()))]
    finally:
        keras.config.set_dtype_policy(policy)
    for model in models:
        assert model.inputs[0].dtype == "float32"
        assert model.predict(images, verbose=0).dtype == np.float32


def test_a_model_is_nested_as_it_is_and_shares_its_weights(images, tmp_path):
    mine = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(4, 3, name="c")], name="mine")
    model = build(mine, weights="imagenet")
    assert model.name == "mine"
    assert model.get_layer("mine") is mine
    mine.get_layer("c").kernel.assign(mine.get_layer("c").kernel * 2)
    expected = mine.predict(images.astype("float32"), verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-4)
    check_backbone(model, SHAPE, directory=tmp_path)


def test_names(images):
    assert build("cnn(filters = (4,))").name == "CNN_filters_4"
    assert build(name="mine").name == "mine"
    pair = [build("CNN(filters=(4,))", name=name) for name in ("a", "b")]
    images_in = keras.Input(SHAPE)
    joined = keras.Model(images_in, keras.layers.concatenate([model(images_in) for model in pair]))
    assert joined.output_shape == (None, 8)


def test_the_same_seed_gives_the_same_weights():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return build("CNN(filters=(4, 4))").get_weights()

    first, again, other = weights(0), weights(0), weights(1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("input_shape", [32, (32, 32), (32, 32, 1), (3, 32, 32), (None, None, 3), (0, 8, 3), None])
def test_another_input_shape_is_refused(input_shape):
    with pytest.raises(ValueError, match=r"`input_shape` must be \(height, width, 3\), in pixels. Received: "):
        build(input_shape=input_shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "`pooling` must be one of 'avg', 'max', None. Received: 'mean'"),
        ({"interpolation": "area"}, "`interpolation` must be one of 'bilinear', 'nearest'"),
        ({"resize_to": 0}, r"`resize_to` must be one int or \(height, width\), in pixels, or None. Received: 0"),
        ({"resize_to": "big"}, "`resize_to` must be one int .* Received: 'big'"),
    ],
)
def test_other_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="Received: the image data format 'channels_first'"):
            build()
    finally:
        keras.config.set_image_data_format("channels_last")


class _OwnCall(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            identity((64, 32, 3)),
            r"identity takes images of shape \(None, 64, 32, 3\). .* by `resize_to=`, .* `keras.layers.Resizing`",
        ),
        (identity((None, None, 1)), r"identity takes images of shape \(None, None, None, 1\)"),
        (identity((32,)), r"identity takes images of shape \(None, 32\)"),
        (_OwnCall(name="own"), r"own must be a Functional or Sequential model .* Received: 0 inputs, 0 outputs"),
        (keras.Sequential(name="unbuilt"), "unbuilt must be a Functional or Sequential model with one input"),
        (of_outputs(keras.layers.Flatten(), keras.layers.Flatten()), "odd must be .* Received: 1 inputs, 2 outputs"),
        (
            of_outputs(keras.layers.Reshape((32, 96))),
            r"odd must give features of shape .* Received: \(None, 32, 96\)",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused(network, message):
    with pytest.raises(ValueError, match=message):
        build(network)


def test_a_model_that_would_cut_fractions_off_is_refused():
    images = keras.Input(SHAPE, dtype="uint8")
    cutting = keras.Model(images, keras.layers.Rescaling(1.0)(images), name="cutting")
    with pytest.raises(ValueError, match=r"cutting must take float32 images. Received: an input of dtype uint8"):
        build(cutting)


def test_a_model_keeps_its_own_weights(tmp_path):
    with pytest.raises(ValueError, match=r"The model 'identity' keeps its own weights. Load .*w.weights.h5 into it"):
        build(identity(), weights=tmp_path / "w.weights.h5")


def test_saved_backbones_open_where_the_package_is_not_installed(images, tmp_path):
    models = [
        assemble(
            cnn(network_shape, filters=(4,)),
            input_shape=SHAPE,
            network_shape=network_shape,
            preprocessing=preprocessing,
            pooling=pooling,
            interpolation="bicubic",
            name=f"{name}_{pooling}",
        )
        for pooling, network_shape in (("avg", (16, 24, 3)), ("max", SHAPE))
        for name, preprocessing in (
            *((kind, kind) for kind in ("tf", "torch", "caffe", "unit")),
            ("none", None),
            ("own", lambda x: keras.ops.sqrt(x + 1.0)),
        )
    ]
    for model, elsewhere in zip(models, predict_elsewhere(models, images, tmp_path), strict=True):
        np.testing.assert_array_equal(elsewhere, model.predict(images, verbose=0))


@pytest.mark.slow
def test_saved_backbones_open_on_another_backend(images, tmp_path):
    backend = "tensorflow" if keras.backend.backend() == "jax" else "jax"
    pytest.importorskip(backend)
    names = ["VGG16", "MobileNet(alpha=0.25)", "Darknet19(width=0.1)"]
    models = [build(name, resize_to=48, interpolation="bicubic") for name in names]
    for model, elsewhere in zip(models, predict_elsewhere(models, images, tmp_path, backend=backend), strict=True):
        features = model.predict(images, verbose=0)
        np.testing.assert_allclose(elsewhere, features, rtol=0, atol=1e-5 * np.abs(features).max())


@pytest.mark.parametrize(
    "head", [[keras.layers.Dense(5, "softmax")], [keras.layers.Dense(5), keras.layers.Softmax()]], ids=["one", "two"]
)
def test_a_network_with_its_head_is_warned_of(head):
    network = keras.Sequential([keras.Input(SHAPE), keras.layers.GlobalAveragePooling2D(), *head], name="whole")
    with pytest.warns(
        UserWarning, match=r"whole ends in class probabilities, .* softmax of 5 classes. Cut the head off"
    ):
        build(network)


def test_a_network_of_own_classes_is_warned_of():
    class Halved(keras.layers.Layer):
        def call(self, x):
            return x / 2

    own = keras.Sequential([keras.Input((8, 8, 3)), Halved()], name="inside")
    network = keras.Sequential([keras.Input(SHAPE), keras.layers.AveragePooling2D(4), own], name="own")
    with pytest.warns(
        UserWarning, match="own has layers of classes that are not Keras' own: Halved. A saved ensemble"
    ):
        warn_of_own_layers(network, "own")

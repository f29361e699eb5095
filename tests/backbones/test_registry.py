import keras
import numpy as np
import pytest
from contracts import check_backbone

from ensemble_keras.backbones import registry
from ensemble_keras.backbones.registry import (
    backbone_label,
    build_backbone,
    default_size,
    has_pretrained_weights,
    layer_name,
    list_backbones,
    parse_backbone,
    register_backbone,
)

SHAPE = (16, 16, 3)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What a test registers is gone afterwards."""
    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))


def tiny(input_shape, width=2):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(width, 3)])


def model(name="mine", side=None):
    images = keras.Input((side, side, 3))
    return keras.Model(images, keras.layers.Conv2D(2, 3)(images), name=name)


def test_names_are_listed_once():
    names = list_backbones()
    assert {"MobileNetV2", "Darknet19", "Darknet53", "CNN", "AlexNet"} <= set(names)
    assert len({name.lower() for name in names}) == len(names)


def test_look_up_ignores_case():
    spec = parse_backbone("mobilenetV2( ALPHA=1 )".replace("ALPHA", "alpha"))
    assert (spec.name, spec.options, spec.label) == ("MobileNetV2", {"alpha": 1}, "MobileNetV2(alpha=1)")
    assert backbone_label("resnet50") == "ResNet50"
    assert backbone_label(model("a")) == "a"
    assert layer_name(backbone_label("mobilenetv2(alpha=.35)")) == "MobileNetV2_alpha_0_35"


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"Unknown backbone 'resnet5'. Did you mean 'ResNet50'\? See list_backbones"):
        build_backbone("resnet5", input_shape=SHAPE)


def test_an_unknown_option_is_refused_with_those_that_are_taken():
    with pytest.raises(
        ValueError, match=r"MobileNetV2 takes the options weights, resize_to, interpolation, alpha. Received: 'width'"
    ):
        parse_backbone("MobileNetV2(width=1)")
    with pytest.raises(
        ValueError, match=r"CNN takes the options weights, resize_to, .* filters, dropout. Received: 'input_shape'"
    ):
        parse_backbone("CNN(input_shape=(1, 1, 3))")
    with pytest.raises(
        ValueError, match=r"ConvNeXtTiny takes the options .* interpolation. Received: 'include_preprocessing'"
    ):
        parse_backbone("ConvNeXtTiny(include_preprocessing=False)")


def test_what_is_no_backbone_is_refused():
    with pytest.raises(ValueError, match=r"A backbone must be a name, .* or a keras.Model. Received: 3"):
        parse_backbone(3)


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("VGG16", "imagenet", True),
        ("VGG16", None, False),
        ("VGG16(weights=None)", "imagenet", False),
        ("VGG16(weights='imagenet')", None, True),
        ("VGG16", "mine.weights.h5", True),
        ("Darknet19", "imagenet", False),
        ("Darknet19", "darknet.keras", True),
        ("Darknet53", None, False),
        ("CNN", "imagenet", False),
        ("AlexNet", "imagenet", False),
    ],
)
def test_which_backbones_are_pretrained(backbone, weights, expected):
    assert has_pretrained_weights(backbone, weights) is expected


def test_a_model_counts_as_pretrained():
    assert has_pretrained_weights(model(), "imagenet")
    assert has_pretrained_weights(model(), None)


def test_default_sizes():
    assert default_size("VGG16") == 224
    assert default_size("nasnetlarge(weights=None)") == 331
    assert default_size(model(side=48)) == 48
    assert default_size(model()) == 224


def test_weights_none_in_the_name_wins():
    # The default, "imagenet", would be refused.
    assert build_backbone("CNN(weights=None)", input_shape=SHAPE).name == "CNN_weights_None"


@pytest.mark.parametrize("filter_name", ["bicubic", "lanczos3"])
def test_resizing_options_in_the_name_are_those_of_build_backbone(images, filter_name):
    text = f"CNN(resize_to=48, interpolation={filter_name!r}, filters=(4, 8))"
    given = {"input_shape": (32, 32, 3), "weights": None}
    built = build_backbone(text, **given)
    plain = build_backbone("CNN(filters=(4, 8))", resize_to=48, interpolation=filter_name, **given)
    plain.set_weights(built.get_weights())
    np.testing.assert_array_equal(built.predict(images, verbose=0), plain.predict(images, verbose=0))
    bilinear = build_backbone("CNN(filters=(4, 8), resize_to=48)", **given)
    bilinear.set_weights(built.get_weights())
    assert np.abs(built.predict(images, verbose=0) - bilinear.predict(images, verbose=0)).max() > 1e-5


def test_resizing_options_are_part_of_the_label_and_win_over_arguments():
    spec = parse_backbone("cnn(resize_to=(8, 12), interpolation='nearest')")
    assert spec.label == "CNN(interpolation='nearest', resize_to=(8, 12))"
    built = build_backbone(spec.label, input_shape=SHAPE, resize_to=16, interpolation="bilinear", weights=None)
    assert built.name == "CNN_interpolation_nearest_resize_to_8_12"
    resizing = next(layer for layer in built.layers if isinstance(layer, keras.layers.Resizing))
    assert (resizing.height, resizing.width, resizing.interpolation) == (8, 12, "nearest")


def test_resizing_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="'bicubc'. Did you mean 'bicubic'"):
        build_backbone("CNN(resize_to=32, interpolation='bicubc')", input_shape=SHAPE, weights=None)
    with pytest.raises(ValueError, match="`resize_to` must be one int or .* Received: 'large'"):
        build_backbone("CNN(resize_to='large')", input_shape=SHAPE, weights=None)
    with pytest.raises(ValueError, match="which resizes nothing. Add the side, as in resize_to=64"):
        build_backbone("CNN(interpolation='bicubic')", input_shape=SHAPE, weights=None)


def test_a_builder_that_has_such_an_option_itself_gets_it():
    received = []

    def scaled(input_shape, resize_to=1):
        received.append(resize_to)
        return tiny(input_shape)

    register_backbone("Scaled", scaled, preprocessing=None, default_size=16)
    built = build_backbone("Scaled(resize_to=3)", input_shape=SHAPE)
    assert received == [3]
    assert not [layer for layer in built.layers if isinstance(layer, keras.layers.Resizing)]


def test_a_registered_backbone_is_one_like_any_other(tmp_path, images):
    register_backbone("Tiny", tiny, preprocessing="tf", default_size=32, weights=())
    assert list_backbones()[-1] == "Tiny"
    assert default_size("tiny") == 32
    assert not has_pretrained_weights("Tiny", "imagenet")
    built = build_backbone("tiny(width=5)", input_shape=(32, 32, 3), weights=None)
    assert (built.name, built.output_shape) == ("Tiny_width_5", (None, 5))
    check_backbone(built, (32, 32, 3), directory=tmp_path)
    inner = next(layer for layer in built.layers if isinstance(layer, keras.Model))
    expected = inner.predict(images / np.float32(127.5) - 1, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(built.predict(images, verbose=0), expected, atol=1e-5)


def test_pretrained_weights_of_a_registered_backbone():
    received = []

    def knows(input_shape, weights):
        received.append(weights)
        return tiny(input_shape)

    register_backbone("Any", knows, preprocessing=None, default_size=16)
    register_backbone("Two", knows, preprocessing=None, default_size=16, weights=("imagenet", "x_rays"))
    register_backbone("Brings", lambda: model(side=16), preprocessing=None, default_size=16)
    assert has_pretrained_weights("Any", "whatever")
    assert has_pretrained_weights("Two", "x_rays")
    assert not has_pretrained_weights("Two", "whatever")
    assert has_pretrained_weights("Brings", "imagenet")
    for backbone, weights in [("Any", "whatever"), ("Two", "x_rays"), ("Two", None), ("Brings", "imagenet")]:
        build_backbone(backbone, input_shape=SHAPE, weights=weights)
    assert received == ["whatever", "x_rays", None]
    with pytest.raises(ValueError, match=r"Two has no weights 'x_ray'. Did you mean 'x_rays'\? Use weights=None"):
        build_backbone("Two", input_shape=SHAPE, weights="x_ray")


def test_a_weights_file_is_loaded_for_the_builder(tmp_path):
    register_backbone("Tiny", tiny, preprocessing=None, default_size=16)
    trained = build_backbone("Tiny", input_shape=SHAPE)
    trained.save_weights(tmp_path / "tiny.weights.h5")
    again = build_backbone("Tiny", input_shape=SHAPE, weights=tmp_path / "tiny.weights.h5")
    np.testing.assert_array_equal(again.get_weights()[0], trained.get_weights()[0])


def test_the_same_function_may_register_again():
    register_backbone("Tiny", tiny, preprocessing="tf", default_size=32)
    register_backbone("Tiny", tiny, preprocessing=None, default_size=64)
    assert default_size("Tiny") == 64

    def edited():
        """As a notebook's cell does, run twice."""

        def build(shape):
            return tiny(shape)

        return build

    register_backbone("Edited", edited(), preprocessing=None, default_size=16)
    register_backbone("edited", edited(), preprocessing=None, default_size=32)
    assert default_size("Edited") == 32


@pytest.mark.parametrize(("name", "builder"), [("vgg16", tiny), ("VGG16", keras.applications.VGG16)])
def test_a_built_in_name_is_taken(name, builder):
    with pytest.raises(ValueError, match="The name 'VGG16' is taken by another backbone"):
        register_backbone(name, builder, preprocessing=None, default_size=16)


def test_another_function_cannot_take_a_registered_name():
    register_backbone("Tiny", lambda shape: tiny(shape), preprocessing=None, default_size=16)
    with pytest.raises(ValueError, match="The name 'Tiny' is taken"):
        register_backbone("TINY", lambda shape: tiny(shape, 3), preprocessing=None, default_size=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Two words"}, "A backbone must be a name"),
        ({"name": "Tiny(a=1)"}, "`name` must be one word without brackets. Received: 'Tiny"),
        ({"name": 3}, "`name` must be one word without brackets. Received: 3"),
        ({"builder": None}, "`builder` must be a function that returns a keras.Model. Received: None"),
        ({"default_size": (32, 32)}, r"`default_size` must be one int, in pixels. Received: \(32, 32\)"),
        ({"preprocessing": "tensorflow"}, "`preprocessing` must be one of 'tf'"),
    ],
)
def test_a_malformed_registration_is_refused(change, message):
    arguments = {"name": "Tiny", "builder": tiny, "preprocessing": "tf", "default_size": 32} | change
    with pytest.raises(ValueError, match=message):
        register_backbone(arguments.pop("name"), arguments.pop("builder"), **arguments)


def test_a_builder_with_a_fixed_size_says_which():
    register_backbone("Fixed", lambda: model(side=24), preprocessing=None, default_size=24)
    with pytest.raises(ValueError, match=r"Fixed takes images of shape \(None, 24, 24, 3\). .* by `resize_to=`"):
        build_backbone("Fixed", input_shape=SHAPE)
    assert build_backbone("Fixed", input_shape=SHAPE, resize_to=24).output_shape == (None, 2)


@pytest.mark.shared
def test_squeezenet_cut_at_a_layer_gives_its_features(shared, tmp_path, rng):
    path = shared / "data" / "models" / "squeezenet1.1_imagenet.keras"

    def squeezenet():
        whole = keras.saving.load_model(path)
        return keras.Model(whole.input, whole.get_layer("fire9_concat").output, name="squeezenet")

    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    register_backbone("SqueezeNet", squeezenet, preprocessing=lambda x: (x / 255 - mean) / std, default_size=224)
    register_backbone("SqueezeNetTorch", squeezenet, preprocessing="torch", default_size=224)
    assert has_pretrained_weights("SqueezeNet", "imagenet")

    images = rng.integers(0, 256, (2, 224, 224, 3), dtype="uint8")
    expected = squeezenet().predict((images / np.float32(255) - mean) / std, verbose=0).mean(axis=(1, 2))
    for name in ("SqueezeNet", "SqueezeNetTorch"):
        features = build_backbone(name, input_shape=(224, 224, 3)).predict(images, verbose=0)
        np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(ValueError, match=r"SqueezeNet takes images of shape \(None, 224, 224, 3\)"):
        build_backbone("SqueezeNet", input_shape=(96, 96, 3))
    smaller = build_backbone("SqueezeNet", input_shape=(48, 48, 3), resize_to=224)
    check_backbone(smaller, (48, 48, 3), directory=tmp_path)

import keras
import numpy as np
import pytest
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras.members.member import backbone_of, set_head


def test_a_member_is_backbone_then_head():
    backbone = random_backbone("a")
    member = ek.build_member(backbone, 3)
    x, _ = pictures(6)
    features = backbone.predict(x, verbose=0)
    kernel, bias = member.get_layer("predictions").get_weights()
    logits = features @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(member.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-6)
    named = keras.Model(member.inputs, member.get_layer("features").output)
    np.testing.assert_allclose(named.predict(x, verbose=0), features, rtol=1e-5, atol=1e-6)
    assert member.name == "a"
    assert backbone_of(member).count_params() == backbone.count_params()


def test_the_mlp_head_has_a_hidden_layer_and_dropout_acts_in_training_only():
    member = ek.build_member(random_backbone("a"), 3, head="mlp", dropout=0.5, name="mine")
    assert member.name == "mine"
    assert [layer.units for layer in member.layers if isinstance(layer, keras.layers.Dense)] == [256, 3]
    x, _ = pictures(6)
    np.testing.assert_array_equal(member.predict(x, verbose=0), member.predict(x, verbose=0))
    trained = keras.ops.convert_to_numpy(member(x.astype("float32"), training=True))
    assert np.abs(trained - member.predict(x, verbose=0)).max() > 1e-4


def test_a_named_backbone_gets_its_own_size_unless_told_otherwise():
    assert ek.build_member("CNN", 2, weights=None).input_shape == (None, 64, 64, 3)
    assert ek.build_member("CNN", 2, weights=None, image_size=(32, 48)).input_shape == (None, 32, 48, 3)


def test_a_given_backbone_brings_its_own_number_of_channels():
    images = keras.Input((8, 8, 1))
    backbone = keras.Model(images, keras.layers.Conv2D(4, 3)(images), name="grey")
    member = ek.build_member(backbone, 3)
    assert member.input_shape == (None, 8, 8, 1)
    # Around it stands the pooling, and the features are those of the map.
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype("float32")
    features = keras.Model(member.inputs, member.get_layer("features").output).predict(x, verbose=0)
    np.testing.assert_allclose(features, backbone.predict(x, verbose=0).mean(axis=(1, 2)), rtol=1e-5)
    resized = ek.build_backbone(backbone, input_shape=(16, 16, 1), resize_to=8)
    assert resized.output_shape == (None, 4)
    with pytest.raises(ValueError, match=r"grey takes images of shape .* Received: input_shape=\(8, 8, 3\)"):
        ek.build_backbone(backbone, input_shape=(8, 8, 3))
    with pytest.raises(ValueError, match=r"must be \(height, width, 3\), in pixels. Received: \(32, 32, 1\)"):
        ek.build_backbone("CNN", input_shape=(32, 32, 1), weights=None)


def test_set_head_sets_what_fits():
    member = ek.build_member(random_backbone("a"), 3)
    kernel, bias = np.ones((32, 3), "float32"), np.arange(3, dtype="float32")
    set_head(member, [(kernel, bias)])
    np.testing.assert_array_equal(member.get_layer("predictions").get_weights()[0], kernel)
    with pytest.raises(ValueError, match="zip"):
        set_head(member, [(kernel, bias), (kernel, bias)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be an int of at least 2. Received: 1"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\)"),
        ({"head": "liner"}, "Did you mean 'linear'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ek.build_member(random_backbone("a"), **{"num_classes": 3, **arguments})

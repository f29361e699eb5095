import keras
import numpy as np
import pytest
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.members import unfreezing
from ensemble_keras.members.trainer import Trainer


class Composite(keras.layers.Layer):
    """A convolution and its normalisation as one layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(4, 3)
        self.norm = keras.layers.BatchNormalization()

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, x, training=False):
        return self.norm(self.conv(x), training=training)


def member(depth=3, name="m"):
    x = inputs = keras.Input((16, 16, 3))
    for number in range(1, depth + 1):
        x = keras.layers.Conv2D(4, 3, name=f"block{number}_conv")(x)
    return ek.build_member(keras.Model(inputs, keras.layers.Flatten()(x), name=name), 3)


def composite_member():
    inputs = keras.Input((16, 16, 3))
    x = Composite(name="block1")(keras.layers.Rescaling(1 / 255)(inputs))
    return ek.build_member(keras.Model(inputs, keras.layers.Flatten()(x), name="composite"), 3)


def factors_of(model, rates):
    return {
        layer.name: [rates[id(weight)] for weight in layer.weights]
        for layer in unfreezing.leaves(model)
        if layer.weights and id(layer.weights[0]) in rates
    }


def test_deeper_blocks_learn_slower_with_layer_decay():
    model = member()
    with unfreezing.unfrozen(model, ek.FineTuning(layer_decay=0.5)) as rates:
        pass
    assert factors_of(model, rates) == {f"block{n}_conv": [0.5 ** (4 - n)] * 2 for n in (1, 2, 3)}


def test_members_with_layers_of_the_same_names_have_rates_of_their_own():
    members = [member(2, "shallow"), member(4, "deep")]
    with unfreezing.unfrozen(ek.build_ensemble(members, ek.SoftVoting()), ek.FineTuning(layer_decay=0.5)) as rates:
        pass
    shallow, deep = (factors_of(model, rates) for model in members)
    assert (shallow["block1_conv"], deep["block1_conv"]) == ([0.25] * 2, [0.0625] * 2)


def test_batch_norms_inside_of_other_layers_stay_as_they_are():
    model = composite_member()
    norm = model.layers[1].get_layer("block1").norm
    before = [np.array(value) for value in norm.get_weights()]
    kernel = np.array(model.layers[1].get_layer("block1").conv.kernel)
    settings = ek.FineTuning(epochs=1, batch_size=16, learning_rate=0.01, warmup_epochs=0.0)
    Trainer(model, settings, verbose=0).run(ek.ImageDataset.from_arrays(*pictures(30)), None, seed=0)
    for left, right in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert np.abs(np.array(model.layers[1].get_layer("block1").conv.kernel) - kernel).max() > 0
    assert norm.trainable


@pytest.mark.parametrize("unfreeze", [1, "all"])
def test_a_backbone_without_weights_has_nothing_to_unfreeze(unfreeze):
    inputs = keras.Input((16, 16, 3))
    pixels = keras.Model(inputs, keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)), name="pixels")
    model = ek.build_member(pixels, 3)
    with unfreezing.unfrozen(model, ek.FineTuning(unfreeze=unfreeze, layer_decay=0.5)) as rates:
        assert len(model.trainable_variables) == 2
    assert rates == {}


def test_what_trained_before_trains_after_an_error():
    model = composite_member()
    model.layers[1].get_layer("block1").norm.trainable = False
    flags = [layer.trainable for layer in model._flatten_layers()]
    with pytest.raises(RuntimeError, match="no room"), unfreezing.unfrozen(model, ek.FineTuning(unfreeze=1)):
        assert [layer.trainable for layer in model._flatten_layers()] != flags
        raise RuntimeError("no room")
    assert [layer.trainable for layer in model._flatten_layers()] == flags


def test_blocks_of_keras_applications():
    counts = {}
    for name in ("MobileNetV2(alpha=0.35)", "VGG16", "ResNet50"):
        network = ek.build_backbone(name, input_shape=(64, 64, 3), weights=None)
        blocks = unfreezing.blocks_of(unfreezing.leaves(network))
        counts[name] = [layer.name for layer in blocks[-1]]
        assert sum(len(block) for block in blocks) == sum(bool(layer.weights) for layer in unfreezing.leaves(network))
    assert counts["MobileNetV2(alpha=0.35)"] == ["Conv_1", "Conv_1_bn"]
    assert counts["VGG16"] == ["block5_conv1", "block5_conv2", "block5_conv3"]
    assert all(name.startswith("conv5_block3") for name in counts["ResNet50"])


def test_an_operation_before_the_first_weights_does_not_train():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(keras.ops.flip(inputs, axis=-1))
    backbone = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="flipped")
    model = ek.build_member(backbone, 3)
    bottom, top = unfreezing.split_where_training_starts(model)
    assert not bottom.weights
    images = pictures(4, size=8)[0].astype("float32")
    np.testing.assert_allclose(top(bottom([images])), model(images), atol=1e-6)

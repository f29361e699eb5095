import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from tiny_members import tiny_member

from ensemble_keras.backbones.registry import build_backbone
from ensemble_keras.measures import mac_rules
from ensemble_keras.measures.architecture import _FAMILIES, describe_architecture
from ensemble_keras.measures.macs import count_macs


def model_of(function, shape, name=None):
    inputs = keras.Input(shape)
    return keras.Model(inputs, function(inputs), name=name)


def test_a_network_is_told_by_its_layers():
    def branches(x):
        x = layers.DepthwiseConv2D(3)(layers.Conv2D(4, 3)(x))
        x = layers.Add()([layers.Conv2D(4, 1)(layers.Conv2D(4, 1)(x)), layers.Conv2D(4, 1)(x)])
        return layers.Dense(2, "softmax")(layers.GlobalAveragePooling2D()(x))

    model = model_of(branches, (12, 8, 3))
    found = describe_architecture(model)
    assert found["convolution"] == pytest.approx(4 / 6)
    assert found["depthwise"] == found["dense"] == pytest.approx(1 / 6)
    assert found["recurrent"] == found["attention"] == 0
    assert found["depth"] == 5  # the longer branch
    assert found["log_parameters"] == pytest.approx(math.log10(model.count_params()))
    assert found["log_macs"] == pytest.approx(math.log10(count_macs(model).total))
    assert found["input_size"] == pytest.approx(math.sqrt(12 * 8))
    assert "skill" not in found


def test_recurrence_and_attention_have_families_also_in_wrappers_and_operations():
    def function(x):
        x = layers.TimeDistributed(layers.Conv1D(4, 3))(x)
        x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(layers.Reshape((7, -1))(x))
        x = layers.MultiHeadAttention(2, 2)(x, x)
        return ops.matmul(x, ops.transpose(x, (0, 2, 1)))

    found = describe_architecture(model_of(function, (7, 5, 2)))
    assert (found["convolution"], found["recurrent"], found["attention"]) == (0.25, 0.25, 0.5)
    assert found["depth"] == 4


def test_every_kind_that_is_counted_has_one_family():
    wrappers = {"Bidirectional", "TimeDistributed"}
    counted = {kind.__name__ for kind in mac_rules._RULES} | set(mac_rules._OPERATIONS)
    families = [kind for family in _FAMILIES.values() for kind in family]
    assert len(families) == len(set(families))
    assert set(families) == counted - wrappers


def test_a_member_with_a_nested_backbone_is_its_backbone_and_a_dense_layer():
    backbone = build_backbone("MobileNet(alpha=0.25)", input_shape=(64, 64, 3), weights=None)
    member = model_of(lambda x: layers.Dense(2, "softmax")(backbone(x)), (64, 64, 3))
    alone, found = describe_architecture(backbone), describe_architecture(member, skill=0.75)
    assert (alone["convolution"], alone["depthwise"]) == (14 / 27, 13 / 27)
    assert found["depth"] == alone["depth"] + 1 == 28
    assert found["depthwise"] == pytest.approx(13 / 28)
    assert found["dense"] == pytest.approx(1 / 28)
    assert found["skill"] == 0.75
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())


def test_layers_that_are_not_known_do_not_hinder_it():
    class Own(keras.Model):
        def call(self, x):
            return 2.0 * x

        def compute_output_shape(self, shape):
            return shape

    plain = tiny_member("a")
    found = describe_architecture(model_of(lambda x: Own(name="own")(plain(x)), (8, 8, 3)))
    assert found == describe_architecture(plain)


def test_other_inputs_than_images_have_a_size_too():
    assert describe_architecture(model_of(layers.Dense(3), (5,)))["input_size"] == 1.0
    assert describe_architecture(model_of(layers.LSTM(3), (9, 5)))["input_size"] == 9.0


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="must be a functional or built sequential model"):
        describe_architecture(keras.Sequential([layers.Dense(2)]))

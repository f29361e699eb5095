import random

import keras
import numpy as np
import pytest
from keras import layers

from ensemble_keras.backbones.applications import APPLICATIONS
from ensemble_keras.backbones.folding import fold_batch_norms
from ensemble_keras.backbones.registry import build_backbone

QUICK = ["MobileNet"]
FAMILIES = {row.module: row for row in reversed(APPLICATIONS)}.values()


def norms_of(model):
    """The batch normalisations of a model, those of nested models, too."""
    found = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    return found + [norm for part in model.layers if isinstance(part, keras.Model) for norm in norms_of(part)]


def with_statistics(model):
    """Gives a model's normalisations the statistics and factors of a trained one."""
    rng = np.random.default_rng(0)
    for norm in norms_of(model):
        for variable in norm.variables:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def graph_of(function, shape=(8, 8, 3)):
    images = keras.Input(shape)
    return with_statistics(keras.Model(images, function(images)))


def outputs_agree(one, other, shape, tolerance=1e-5):
    images = np.random.default_rng(1).uniform(0, 255, (3, *shape)).astype("float32")
    expected, found = (keras.ops.convert_to_numpy(model(images, training=False)) for model in (one, other))
    assert expected.std() > 0
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    "row", [pytest.param(r, id=r.name, marks=() if r.name in QUICK else pytest.mark.slow) for r in FAMILIES]
)
def test_networks_of_every_family_give_the_same_features(row):
    shape = (row.smallest + 13, row.smallest + 13, 3)
    model = with_statistics(build_backbone(row.name, input_shape=shape, weights=None))
    folded = fold_batch_norms(model)
    outputs_agree(model, folded, shape)
    assert (folded is model) == (not norms_of(model))
    # What is left follows an addition or a concatenation, not a convolution.
    assert len(norms_of(folded)) <= 0.6 * len(norms_of(model))


@pytest.mark.parametrize(
    "convolution",
    [
        lambda: layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
        lambda: layers.Conv2D(6, 3, groups=3),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scale": False, "center": False, "epsilon": 0.1}])
def test_each_kind_of_convolution_takes_the_normalisation_in(convolution, options):
    model = graph_of(lambda x: layers.ReLU()(layers.BatchNormalization(**options)(convolution()(x))))
    folded = fold_batch_norms(model)
    assert len(norms_of(model)) == 1
    assert not norms_of(folded)
    outputs_agree(model, folded, (8, 8, 3))


def test_nested_models_are_folded_and_the_given_ones_left_as_they_are():
    inner = graph_of(lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    plain = keras.Sequential([layers.Conv2D(2, 1), layers.BatchNormalization()])
    model = graph_of(lambda x: plain(inner(layers.Rescaling(1 / 255)(x))))
    before = [value.copy() for value in model.get_weights()]
    folded = fold_batch_norms(model)
    outputs_agree(model, folded, (8, 8, 3))
    # Those of a sequential model stay.
    assert (len(norms_of(model)), len(norms_of(folded))) == (2, 1)
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_what_stands_beside_operations_and_adapted_layers_is_copied():
    normalisation = layers.Normalization()
    normalisation.adapt(np.random.default_rng(0).uniform(0, 255, (20, 8, 8, 3)))
    model = graph_of(lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3)(normalisation(x)[:, ::-1] * 2.0)))
    folded = fold_batch_norms(model)
    assert not norms_of(folded)
    outputs_agree(model, folded, (8, 8, 3))


class OwnLayer(layers.Layer):
    def call(self, x):
        return x + 1


def two_readers(x):
    map_ = layers.Conv2D(3, 1)(x)
    return layers.Add()([layers.BatchNormalization()(map_), map_])


def called_twice(x):
    convolution = layers.Conv2D(3, 1)
    return convolution(layers.BatchNormalization()(convolution(x)))


def shared_norm(x):
    norm = layers.BatchNormalization()
    return norm(norm(layers.Conv2D(3, 1)(x)))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(two_readers, id="convolution read by another layer"),
        pytest.param(called_twice, id="convolution called twice"),
        pytest.param(shared_norm, id="normalisation called twice"),
        pytest.param(
            lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1, activation="relu")(x)), id="activation"
        ),
        pytest.param(lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(3, 1)(x)), id="over rows"),
        pytest.param(lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1)(x), training=True), id="of the batch"),
        pytest.param(lambda x: OwnLayer()(layers.BatchNormalization()(layers.Conv2D(3, 1)(x))), id="own layer"),
        pytest.param(
            lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1, dtype="mixed_bfloat16")(x)), id="precision"
        ),
    ],
)
def test_what_cannot_be_folded_with_certainty_is_left_alone(function):
    model = graph_of(function)
    assert fold_batch_norms(model) is model


def test_a_compiled_model_and_one_whose_convolution_is_an_output_are_left_alone():
    def both(x):
        map_ = layers.Conv2D(3, 1)(x)
        return [layers.BatchNormalization()(map_), map_]

    model = graph_of(both)
    assert fold_batch_norms(model) is model
    compiled = graph_of(lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1)(x)))
    compiled.compile("sgd", "mse")
    assert fold_batch_norms(compiled) is compiled


def test_the_model_works_on_after_its_copy_has_predicted(rng):
    model = graph_of(lambda x: layers.Dense(2)(layers.BatchNormalization()(layers.SeparableConv2D(3, 1)(x))))
    images = rng.uniform(0, 1, (2, *model.input_shape[1:])).astype("float32")
    found = fold_batch_norms(model).predict(images, verbose=0)
    np.testing.assert_allclose(model.predict(images, verbose=0), found, atol=1e-5)


def test_the_users_random_state_is_left_as_it_is():
    model = graph_of(lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1)(x)))
    state = random.getstate()
    assert fold_batch_norms(model) is not model
    assert random.getstate() == state

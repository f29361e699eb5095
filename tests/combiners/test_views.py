"""Test-time augmentation inside an ensemble's graph: the mean over views, in a file that needs Keras alone."""

import contracts
import keras
import numpy as np
import pytest
from PIL import Image
from tiny_members import tiny_member

from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.parts import member_tensors
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting, SoftVoting

ALL = ("horizontal_flip", "vertical_flip", "zoom")


@pytest.fixture(scope="module")
def members():
    return [tiny_member(name, 3, size=16, width=width) for name, width in (("a", 4), ("b", 5))]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 16, 16, 3), dtype="uint8")


def zoomed(images):
    middle = images[:, 1:15, 1:15].astype("float32")
    sized = [
        np.stack([np.array(Image.fromarray(image[..., c]).resize((16, 16), Image.BILINEAR)) for c in range(3)], -1)
        for image in middle
    ]
    return np.stack(sized)


BY_HAND = {"horizontal_flip": lambda x: x[:, :, ::-1], "vertical_flip": lambda x: x[:, ::-1], "zoom": zoomed}


@pytest.mark.parametrize("names", [*((name,) for name in ALL), ALL])
@pytest.mark.parametrize("combiner", [SoftVoting([2, 1]), ConcatenateDense(3)], ids=["predictions", "features"])
def test_an_ensemble_with_views_is_the_mean_over_them(members, images, names, combiner):
    plain = build_ensemble(members, combiner)
    views = [images, *(BY_HAND[name](images) for name in names)]
    expected = np.mean([plain.predict(view.astype("float32"), verbose=0) for view in views], axis=0)
    model = build_ensemble(members, combiner, test_time_augmentation=names)
    result = model.predict(images, verbose=0)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(result.sum(axis=1), 1, atol=1e-5)
    assert result.dtype == np.float32
    assert model.layers[-1].name == "predictions"
    assert np.abs(result - plain.predict(images, verbose=0)).max() > 1e-4


def test_no_views_change_nothing(members):
    plain = build_ensemble(members, SoftVoting())
    for nothing in (None, ()):
        again = build_ensemble(members, SoftVoting(), test_time_augmentation=nothing)
        assert [type(layer) for layer in again.layers] == [type(layer) for layer in plain.layers]


def test_one_name_is_taken_as_it_is(members, images):
    one = build_ensemble(members, SoftVoting(), test_time_augmentation="horizontal_flip")
    np.testing.assert_allclose(one.predict(images, verbose=0), one.predict(images[:, :, ::-1], verbose=0), atol=1e-6)


def test_the_report_finds_each_members_view_of_the_image_as_it_is(members, images):
    model = build_ensemble(members, GeometricVoting(), test_time_augmentation=ALL)
    for member in members:
        seen = keras.Model(model.inputs, member_tensors(model)[member.name])
        np.testing.assert_allclose(seen.predict(images, verbose=0), member.predict(images, verbose=0), atol=1e-6)


def test_views_share_the_weights_of_members_and_combiner(members):
    combiner = StackedMetaLearner(3, units=(4,))
    plain = build_ensemble(members, combiner)
    model = build_ensemble(members, combiner, test_time_augmentation=ALL)
    assert model.count_params() == plain.count_params()
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in plain.trainable_variables}


def test_the_file_loads_with_keras_alone(members, images, tmp_path):
    models = [
        build_ensemble(members, combiner, name=f"with_{combiner.name}", test_time_augmentation=ALL)
        for combiner in (SoftVoting(name="soft"), ConcatenateDense(3, name="dense"))
    ]
    for model in models:
        contracts.assert_stock_only(model)
        model.save(tmp_path / "again.keras")
        again = keras.saving.load_model(tmp_path / "again.keras")
        np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))


@pytest.mark.slow
def test_the_file_is_exact_in_a_process_without_this_package(members, images, tmp_path):
    models = [
        build_ensemble(members, combiner, name=f"with_{combiner.name}", test_time_augmentation=ALL)
        for combiner in (SoftVoting(name="soft"), ConcatenateDense(3, name="dense"))
    ]
    read = contracts.predict_elsewhere(models, images, tmp_path)
    for model, result in zip(models, read, strict=True):
        np.testing.assert_array_equal(result, model.predict(images, verbose=0))


def test_what_is_no_view_is_refused(members):
    with pytest.raises(ValueError, match="Received: 'horizontal'. Did you mean 'horizontal_flip'"):
        build_ensemble(members, SoftVoting(), test_time_augmentation=("horizontal",))
    with pytest.raises(ValueError, match="must name each view once"):
        build_ensemble(members, SoftVoting(), test_time_augmentation=("zoom", "zoom"))
    inputs = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    any_size = keras.Model(inputs, keras.layers.Dense(2, "softmax")(pooled), name="any_size")
    build_ensemble([any_size], SoftVoting(), test_time_augmentation="vertical_flip")
    with pytest.raises(ValueError, match='"zoom" needs members of a fixed image size'):
        build_ensemble([any_size], SoftVoting(), test_time_augmentation="zoom")

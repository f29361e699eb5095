import keras
import numpy as np
import pytest
from tiny_members import tiny_member

from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.voting import SoftVoting
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.evaluation.prediction import predict_with_members


@pytest.fixture
def dataset(rng):
    return ImageDataset.from_arrays(rng.integers(0, 256, (11, 8, 8, 3), dtype="uint8"), np.arange(11) % 3)


@pytest.fixture
def members():
    return [tiny_member("a", 3), tiny_member("b", 3)]


def check(model, members, dataset):
    found, by_name = predict_with_members(model, dataset, batch_size=4)
    images = dataset.load(image_size=8)
    np.testing.assert_allclose(found, model.predict(images, verbose=0), atol=1e-6)
    assert list(by_name) == [member.name for member in members]
    for member in members:
        np.testing.assert_allclose(by_name[member.name], member.predict(images, verbose=0), atol=1e-6)


def test_one_pass_gives_the_ensembles_and_the_members_predictions(members, dataset):
    check(build_ensemble(members, SoftVoting()), members, dataset)


def test_a_member_of_two_ensembles_is_found_in_both(members, dataset):
    other = build_ensemble([*members, tiny_member("c", 3)], SoftVoting())
    check(build_ensemble(members, SoftVoting()), members, dataset)
    check(other, [*members, next(layer for layer in other.layers if layer.name == "c")], dataset)


def test_a_reloaded_file_still_shows_its_members(members, dataset, tmp_path):
    build_ensemble(members, SoftVoting()).save(tmp_path / "ensemble.keras")
    check(keras.saving.load_model(tmp_path / "ensemble.keras"), members, dataset)


def test_members_without_their_own_heads_are_not_shown(dataset):
    members = [tiny_member("a", 3, width=3), tiny_member("b", 3, width=3)]
    found, by_name = predict_with_members(build_ensemble(members, ConcatenateDense(3)), dataset)
    assert found.shape == (11, 3)
    assert by_name == {}


def test_a_single_model_has_no_members(dataset):
    model = tiny_member("a", 3)
    found, by_name = predict_with_members(model, dataset)
    np.testing.assert_allclose(found, model.predict(dataset.load(image_size=8), verbose=0), atol=1e-6)
    assert by_name == {}


def test_a_model_of_any_size_needs_image_size(dataset):
    images = keras.Input((None, None, 3))
    outputs = keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(images))
    model = keras.Model(images, outputs)
    with pytest.raises(ValueError, match=r"Give `image_size`: .* Received: input shape \(None, None, None, 3\)"):
        predict_with_members(model, dataset)
    assert predict_with_members(model, dataset, image_size=(6, 8))[0].shape == (11, 3)


def test_a_subclassed_model_is_evaluated_as_a_whole(dataset):
    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = tiny_member("a", 3)

        def call(self, images):
            return self.inner(images)

    model = Wrapped()
    found, by_name = predict_with_members(model, dataset, image_size=8)
    np.testing.assert_allclose(found, model.inner.predict(dataset.load(image_size=8), verbose=0), atol=1e-6)
    assert by_name == {}

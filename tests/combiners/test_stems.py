import keras
import numpy as np
import pytest
from tiny_members import heads_on, tiny_backbone, tiny_member

from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.parts import member_tensors
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.stems import shared_stems
from ensemble_keras.combiners.voting import GeometricVoting, SoftVoting
from ensemble_keras.members.unfreezing import backbones_of

COMBINERS = {
    "predictions": lambda: SoftVoting([3, 2, 1]),
    "logarithms": GeometricVoting,
    "features": lambda: ConcatenateDense(2),
    "both": lambda: StackedMetaLearner(2, passthrough=True),
}


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 8, 8, 3), dtype="uint8")


@pytest.mark.parametrize("takes", COMBINERS)
@pytest.mark.parametrize("copies", [False, True])
def test_a_shared_stem_runs_once_and_changes_no_prediction(takes, copies, images, tmp_path):
    backbones = [tiny_backbone(), tiny_backbone(name="copy")] if copies else [tiny_backbone()] * 2
    members = [*heads_on(backbones[0], "a"), tiny_member("other"), *heads_on(backbones[1], "b")]
    combiner = COMBINERS[takes]()
    apart = build_ensemble(members, combiner, share_stems=False)
    expected = apart.predict(images, verbose=0)
    model = build_ensemble(members, combiner)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=0, atol=1e-6)
    assert [stem and stem.name for stem in shared_stems(members)] == ["a_stem", None, "a_stem"]
    assert "a_stem" in [layer.name for layer in model.layers]
    assert "a_stem" not in [layer.name for layer in apart.layers]
    assert len({id(v) for v in model.weights}) == len(model.weights)
    assert len(apart.weights) - len(model.weights) == (len(backbones[1].weights) if copies else 0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))


def test_views_run_the_stem_once_each(images):
    members = heads_on(tiny_backbone(), "a", "b")
    options = {"test_time_augmentation": ["horizontal_flip", "zoom"]}
    expected = build_ensemble(members, SoftVoting(), share_stems=False, **options).predict(images, verbose=0)
    model = build_ensemble(members, SoftVoting(), **options)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=0, atol=1e-6)
    assert len(model.get_layer("a_stem")._inbound_nodes) == 3


def test_members_are_found_behind_their_stem(images):
    members = [*heads_on(tiny_backbone(), "a", "b"), tiny_member("c")]
    model = build_ensemble(members, SoftVoting(), test_time_augmentation="horizontal_flip")
    tensors = member_tensors(model)
    assert sorted(tensors) == ["a", "b", "c"]
    for member in members:
        alone = keras.Model(model.inputs, tensors[member.name]).predict(images, verbose=0)
        np.testing.assert_allclose(alone, member.predict(images, verbose=0), rtol=0, atol=1e-6)


def test_the_stem_trains_once_for_all_its_members(images):
    members = heads_on(shared := tiny_backbone(), "a", "b")
    model = build_ensemble(members, SoftVoting())
    assert [len(layers) for layers in backbones_of(model)] == [len(shared.layers) + 1]
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    before = [keras.ops.convert_to_numpy(v).copy() for v in shared.trainable_variables]
    model.fit(images, np.arange(6) % 2, verbose=0)
    changed = [not np.array_equal(b, v) for b, v in zip(before, shared.trainable_variables, strict=True)]
    assert all(changed)
    mean = np.mean([member.predict(images, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(model.predict(images, verbose=0), mean, rtol=0, atol=1e-6)


def test_what_differs_is_not_shared():
    other_weights = heads_on(tiny_backbone(seed=1), "a")[0]
    other_size = heads_on(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()], name="flat"), "b")[0]
    frozen = tiny_backbone()
    frozen.trainable = False
    unlike = [*heads_on(tiny_backbone(), "c"), other_weights, other_size, *heads_on(frozen, "d")]
    assert shared_stems(unlike) == [None] * 4


class Scaled(keras.layers.Layer):
    """A layer whose config does not tell all that it computes."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


def test_copies_of_a_layer_of_ones_own_are_not_taken_for_equal():
    def backbone(layer):
        return keras.Sequential([keras.Input((8, 8, 3)), layer, keras.layers.GlobalAveragePooling2D()])

    one, two = Scaled(), Scaled()
    two.factor = 2.0
    members = [heads_on(backbone(layer), name)[0] for layer, name in ((one, "a"), (two, "b"), (one, "c"))]
    assert [stem and stem.name for stem in shared_stems(members)] == ["a_stem", None, "a_stem"]


def test_a_member_whose_head_sees_more_than_its_features_is_not_cut():
    images = keras.Input((8, 8, 3))
    features = keras.layers.Flatten(name="features")(images)
    skip = keras.layers.GlobalAveragePooling2D()(images)
    models = [
        keras.Model(images, keras.layers.Dense(2, "softmax")(keras.layers.Concatenate()([features, skip])), name=name)
        for name in ("a", "b")
    ]
    assert shared_stems(models) == [None, None]
    assert shared_stems([tiny_member("a", features="pooled"), tiny_member("a", features="pooled")]) == [None, None]

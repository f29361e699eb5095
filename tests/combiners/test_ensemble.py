import importlib.util

import contracts
import keras
import numpy as np
import pytest
from tiny_members import tiny_member

from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.gating import ArchitectureGate
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting, HardVoting, SoftVoting

# Each with whether the order of the members counts.
COMBINERS = {
    "soft": (lambda: SoftVoting(), False),
    "soft_weighted": (lambda: SoftVoting([2, 1, 0]), True),
    "hard": (lambda: HardVoting(), False),
    "geometric": (lambda: GeometricVoting(), False),
    "concatenate": (lambda: ConcatenateDense(2), True),
    "concatenate_sigmoid": (lambda: ConcatenateDense(1, units=(3,), activation="sigmoid"), True),
    "stacking": (lambda: StackedMetaLearner(2, units=(4,)), True),
    "architecture_gate": (lambda: drawn_gate([{"depth": 16.0}] * 3), False),
    "architecture_gate_described": (lambda: drawn_gate([{"depth": 9.0}, {"depth": 50.0}, {"depth": 121.0}]), True),
}


def drawn_gate(descriptors):
    """A gate with random weights: one that is not fitted treats all members alike."""
    gate, rng = ArchitectureGate(descriptors), np.random.default_rng(0)
    gate.build([(None, 2)] * len(descriptors))
    gate.set_weights([rng.normal(size=w.shape) for w in gate.get_weights()])
    return gate


class Gate(keras.layers.Layer):
    """A combiner of a user's own: weights per image, from the features, for the members' predictions."""

    takes = "both"

    def __init__(self, members, **kwargs):
        super().__init__(**kwargs)
        self.members = members
        self.gate = keras.layers.Dense(members, "softmax")

    def build(self, predictions_shape, features_shape):
        self.gate.build((None, sum(shape[-1] for shape in features_shape)))

    def call(self, predictions, features):
        weights = self.gate(keras.ops.concatenate(features, axis=-1))
        return keras.ops.einsum("bm,bmc->bc", weights, keras.ops.stack(predictions, axis=1))

    def get_config(self):
        return {**super().get_config(), "members": self.members}


class Scaled(keras.layers.Layer):
    """A combiner that owns a variable."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(2,), initializer="ones", name="scale")

    def call(self, predictions):
        return keras.ops.softmax(sum(predictions) * self.scale)


class Squared(keras.layers.Layer):
    def call(self, x):
        return keras.ops.softmax(x * x)


class Foreign(keras.layers.Layer):
    """A combiner with a sublayer that Keras does not know."""

    def __init__(self):
        super().__init__()
        self.squared = Squared(name="squared")

    def call(self, predictions):
        return self.squared(predictions[0])


@pytest.fixture(scope="module")
def members():
    return [tiny_member(name, width=width) for name, width in (("a", 4), ("b", 5), ("c", 6))]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (12, 8, 8, 3), dtype="uint8")


@pytest.mark.parametrize("name", COMBINERS)
def test_combiners_keep_the_contract(name, members, images, tmp_path):
    make, order_matters = COMBINERS[name]
    contracts.check_combiner(make(), members, images, directory=tmp_path, order_matters=order_matters)


def test_a_combiner_of_ones_own_keeps_the_contract(members, images, tmp_path):
    contracts.check_combiner(Gate(3), members, images, directory=tmp_path, order_matters=True)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_files_stand_alone(backend, members, images, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    models = [build_ensemble(members, make(), name=name) for name, (make, _) in COMBINERS.items()]
    models.append(build_ensemble(members, Gate(3), name="gate"))
    same = backend == keras.backend.backend()
    elsewhere = contracts.predict_elsewhere(models, images, tmp_path, backend=backend)
    for model, predictions in zip(models, elsewhere, strict=True):
        np.testing.assert_allclose(predictions, model.predict(images, verbose=0), rtol=0, atol=1e-6 if same else 1e-5)


@pytest.mark.parametrize("weights", [None, [2, 1, 1], [0, 0, 1]])
def test_soft_voting_is_the_weighted_mean_of_the_members(members, images, weights):
    expected = np.average([m.predict(images, verbose=0) for m in members], axis=0, weights=weights)
    model = build_ensemble(members, SoftVoting(weights))
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-6)


def test_a_gate_gets_predictions_and_features(members, images):
    model = build_ensemble(members, gate := Gate(3))
    features = [keras.Model(m.inputs, m.get_layer("features").output).predict(images, verbose=0) for m in members]
    predictions = [m.predict(images, verbose=0) for m in members]
    expected = keras.ops.convert_to_numpy(gate(predictions, features))
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-6)


def test_one_sigmoid_unit_joins_members_of_two_classes(members, images):
    sigmoid = tiny_member("sigmoid", 1, activation="sigmoid")
    model = build_ensemble([members[0], sigmoid], SoftVoting())
    p = sigmoid.predict(images, verbose=0)
    expected = (members[0].predict(images, verbose=0) + np.hstack([1 - p, p])) / 2
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-6)


def test_a_stock_layer_is_a_combiner_of_predictions(members, images):
    model = build_ensemble(members, keras.layers.Average())
    expected = np.mean([m.predict(images, verbose=0) for m in members], axis=0)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-6)


def test_an_ensemble_may_be_a_member(members, images):
    inner = build_ensemble(members[:2], SoftVoting(), name="inner")
    outer = build_ensemble([inner, members[2]], SoftVoting([2, 1]))
    expected = np.mean([m.predict(images, verbose=0) for m in members], axis=0)
    np.testing.assert_allclose(outer.predict(images, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["soft", "geometric", "concatenate", "concatenate_sigmoid", "stacking", "gate"])
def test_fit_trains_members_and_combiner_together(name, images):
    members = [tiny_member("a"), tiny_member("b")]
    combiner = Gate(2) if name == "gate" else COMBINERS[name][0]()
    model = build_ensemble(members, combiner)
    if combiner.weights and name != "gate":
        combiner.draw_weights(0)
    assert {id(v) for v in combiner.weights} <= {id(v) for v in model.trainable_weights}
    before = {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.trainable_weights}
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images, np.arange(12) % 2, epochs=2, verbose=0)
    still = [v.path for v in model.trainable_weights if np.array_equal(before[v.path], keras.ops.convert_to_numpy(v))]
    assert still == []
    # The models that went in share the trained weights.
    x = [m.predict(images, verbose=0) for m in members]
    if name == "soft":
        np.testing.assert_allclose(model.predict(images, verbose=0), np.mean(x, axis=0), atol=1e-6)


def test_features_alone_leave_the_members_heads_out(members):
    model = build_ensemble(members, ConcatenateDense(2))
    heads = {id(v) for m in members for v in m.get_layer("predictions").weights}
    assert heads.isdisjoint({id(v) for v in model.weights})


def test_mixed_precision_members_give_float32(images):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        members = [tiny_member("a"), tiny_member("b")]
        models = [build_ensemble(members, c) for c in (GeometricVoting(), ConcatenateDense(2), StackedMetaLearner(2))]
    finally:
        keras.config.set_dtype_policy(policy)
    for model in models:
        predictions = model.predict(images, verbose=0)
        assert predictions.dtype == np.float32
        np.testing.assert_allclose(predictions.sum(axis=1), 1, atol=1e-3)


def test_no_members_are_refused():
    with pytest.raises(ValueError, match="`members` must hold at least one model. Received: an empty list"):
        build_ensemble([], SoftVoting())


@pytest.mark.parametrize(("member", "kind"), [("VGG16", "str"), (keras.Model, "the class Model")])
def test_what_is_no_model_is_refused(member, kind, members):
    with pytest.raises(TypeError, match=f"must hold `keras.Model`s. Received: {kind} at index 1"):
        build_ensemble([members[0], member], SoftVoting())


def test_two_members_of_one_name_are_refused(members):
    with pytest.raises(ValueError, match="unique names. Received: 2 members named 'a'"):
        build_ensemble([*members, tiny_member("a")], SoftVoting())


def test_members_of_other_image_sizes_are_refused(members):
    with pytest.raises(ValueError, match=r"'a' \(8, 8, 3\).*'big' \(9, 9, 3\).*same `image_size`.*resize_to"):
        build_ensemble([*members, tiny_member("big", size=9)], SoftVoting())


def test_members_of_other_classes_are_refused(members):
    with pytest.raises(ValueError, match=r"same number of classes. Received: 'a' 2, .*'three' 3"):
        build_ensemble([*members, tiny_member("three", 3)], SoftVoting())


def test_a_member_that_gives_logits_is_refused():
    with pytest.raises(ValueError, match="'a' must give probabilities. Received: a last layer 'predictions'"):
        build_ensemble([tiny_member("a", activation=None)], SoftVoting())


@pytest.mark.parametrize(("units", "activation"), [(3, "sigmoid"), (1, "softmax")])
def test_a_member_whose_rows_do_not_sum_to_1_is_refused(units, activation):
    with pytest.raises(
        ValueError, match=f"'a' must give probabilities that sum to 1, .* {units} units with {activation}"
    ):
        build_ensemble([tiny_member("a", units, activation=activation)], SoftVoting())


def test_a_member_that_is_no_classifier_of_images_is_refused(members):
    feature_map = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)], name="map")
    with pytest.raises(ValueError, match=r"Member 'map' must map one batch of images to one tensor"):
        build_ensemble([members[0], feature_map], SoftVoting())
    with pytest.raises(ValueError, match="Member 'unbuilt' must .* built sequential model. Received: 0 inputs"):
        build_ensemble([keras.Sequential([keras.layers.Dense(2)], name="unbuilt")], SoftVoting())


def test_a_member_without_features_is_refused_where_they_are_taken(members):
    plain = tiny_member("plain", features="pooled")
    build_ensemble([members[0], plain], SoftVoting())
    with pytest.raises(ValueError, match="member 'plain' has no layer named 'features'"):
        build_ensemble([members[0], plain], ConcatenateDense(2))


def test_features_that_are_no_vectors_are_refused(members):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="features")(images)
    model = keras.Model(images, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(x)), name="map")
    with pytest.raises(ValueError, match=r"of member 'map' must give vectors .* Received: shape \(None, 6, 6, 2\)"):
        build_ensemble([members[0], model], ConcatenateDense(2))


def test_a_wrong_number_of_weights_is_refused(members):
    with pytest.raises(ValueError, match=r"Expected one weight per member\. Received: 2 weights for 3 members\."):
        build_ensemble(members, SoftVoting([2, 1]))


def test_a_class_in_place_of_a_layer_is_refused(members):
    with pytest.raises(TypeError, match=r"Received: the class SoftVoting. Make one of it: `SoftVoting\(...\)`"):
        build_ensemble(members, SoftVoting)
    with pytest.raises(TypeError, match="must be a layer, such as .* Received: 'soft'"):
        build_ensemble(members, "soft")


def test_a_combiner_of_other_classes_is_refused(members):
    with pytest.raises(ValueError, match=r"shape \(batch, 2\). Received: shape \(None, 3\)"):
        build_ensemble(members, ConcatenateDense(3))


def test_a_combiner_that_takes_something_else_is_refused(members):
    combiner = SoftVoting()
    combiner.takes = "pixels"
    with pytest.raises(ValueError, match=r"`combiner.takes` must be one of .* Received: 'pixels'"):
        build_ensemble(members, combiner)


def test_a_combiner_that_owns_a_variable_is_refused(members):
    with pytest.raises(ValueError, match=r"would freeze into constants. Received: scaled\S*/scale"):
        build_ensemble(members, Scaled())


def test_a_combiner_with_a_layer_of_its_own_code_is_refused(members):
    with pytest.raises(ValueError, match="Received: layer 'squared' of class Squared"):
        build_ensemble(members, Foreign())

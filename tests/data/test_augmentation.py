"""Augmentation: what each policy may and may not change, seeds, labels, and the compiled training step."""

import json
import random

import keras
import numpy as np
import pytest

from ensemble_keras.data.augmentation import augmentation_config, build_augmentation, has_strength, list_augmentations
from ensemble_keras.data.rand_augment import RandAugment

# On JAX every new operation takes its time to compile.
FAST = ("rotation", "flip", "crop", "brightness", "mixup")
NAMES = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in list_augmentations()
    if name != "none"
]


def augmented(policy, images, labels=None, *, seed=0, training=True):
    data = {"images": images} if labels is None else {"images": images, "labels": labels}
    result = build_augmentation(policy, seed=seed)(data, training=training)
    return {name: np.asarray(keras.ops.convert_to_numpy(value)) for name, value in result.items()}


@pytest.fixture
def labels():
    return np.eye(3, dtype="float32")[np.arange(12) % 3]


@pytest.fixture
def half_bright():
    """Eight images whose left half is white, whose right half is black."""
    x = np.zeros((8, 32, 32, 3), "uint8")
    x[:, :, :16] = 255
    return x


@pytest.mark.parametrize("name", NAMES)
def test_images_keep_shape_and_range_and_a_seed_its_result(name, images, labels):
    first, second = (augmented(name, images, labels, seed=3) for _ in range(2))
    other = augmented(name, images, labels, seed=4)
    assert first["images"].shape == images.shape
    assert first["images"].dtype == first["labels"].dtype == "float32"
    assert first["images"].min() >= 0
    assert first["images"].max() <= 255
    np.testing.assert_allclose(first["labels"].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(first["images"], second["images"])
    np.testing.assert_array_equal(first["labels"], second["labels"])
    assert (first["images"] != images).any()
    assert (first["images"] != other["images"]).any()


def test_the_users_random_state_is_left_alone():
    states = random.getstate(), np.random.get_state()[1].tolist()
    build_augmentation("strong")
    augmentation_config("medical")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_equalizing_spreads_the_levels_of_each_image_on_its_own(images):
    layer = RandAugment(seed=0).equalization
    images = np.concatenate([images[:3] // 4 + 40, np.full((1, 32, 32, 3), 17, "uint8")])
    result = keras.ops.convert_to_numpy(layer.transform_images(images.astype("float32")))
    for image, equalized in zip(images, result, strict=True):
        for channel in range(3):
            values, counts = np.unique(image[..., channel], return_counts=True)
            below = np.cumsum(counts)
            levels = np.rint((below - below[0]) * 255 / max(below[-1] - below[0], 1)) if len(values) > 1 else values
            expected = levels[np.searchsorted(values, image[..., channel])]
            np.testing.assert_allclose(equalized[..., channel], expected, atol=1)


@pytest.mark.parametrize(
    "kind", ["RandomShear", "RandomPerspective", "RandomHue", "RandomSharpness", "RandomErasing"]
)
def test_keras_layers_are_taken_by_their_config(kind, images):
    layer = getattr(keras.layers, kind)(0.5)
    first, second = (augmented(layer, images[:2], seed=1)["images"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2, 32, 32, 3)


@pytest.mark.parametrize("name", list_augmentations())
def test_a_strength_of_1_is_the_policy_as_it_stands(name):
    assert augmentation_config(f"{name}(strength=1)") == augmentation_config(name)
    for strength in ("0.01", "0.5", "2"):
        build_augmentation(f"{name}(strength={strength})")
        assert (augmentation_config(f"{name}(strength={strength})") != augmentation_config(name)) == has_strength(
            name
        )


@pytest.mark.parametrize(
    ("name", "argument"), [("rotation", "factor"), ("crop", "width_factor"), ("contrast", "factor")]
)
def test_a_strength_multiplies_what_an_operation_does(name, argument):
    (plain,), (double,) = (augmentation_config(text) for text in (name, f" {name.upper()} ( strength = 2.0 ) "))
    np.testing.assert_allclose(double["config"][argument], 2 * np.asarray(plain["config"][argument]))
    other = [{k: v for k, v in layer["config"].items() if "factor" not in k} for layer in (plain, double)]
    assert other[0] == other[1]


def test_images_change_more_at_a_higher_strength(images):
    weak, plain, strong = (
        np.abs(augmented(f"brightness(strength={s})", images // 2 + 64)["images"] - (images // 2 + 64.0)).mean()
        for s in (0.01, 1, 2)
    )
    assert 0 < weak < 0.02 * plain
    assert strong == pytest.approx(2 * plain, rel=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("light(strength=0)", "The strength of an augmentation must be above 0, at most 2. Received: 0"),
        ("light(strength=2.1)", "must be above 0, at most 2. Received: 2.1"),
        ("light(strength=much)", "must be above 0, at most 2. Received: much"),
        ("light(strong=1)", r"Unknown augmentation 'light\(strong=1\)'.*given as in 'light\(strength=0.5\)'"),
        ("lihgt(strength=1)", "Unknown augmentation.*Did you mean 'light'"),
    ],
)
def test_a_strength_out_of_its_range_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        build_augmentation(text)


@pytest.mark.slow
def test_randaugment_stays_within_the_ranges_of_its_paper(half_bright):
    layer = build_augmentation("randaugment").layers[0]
    data = {"images": half_bright.astype("float32")}
    drawn = {}
    for _ in range(20):
        for name, values in layer.get_random_transformation(data)["transforms"].items():
            drawn.setdefault(name, []).append(values)

    def values(name, key):
        return np.concatenate([np.ravel(keras.ops.convert_to_numpy(v[key])) for v in drawn[name]])

    # Half of 30 degrees, and so on; both ways.
    for name, key, limit in (
        ("random_rotation", "angle", 15),
        ("random_translation", "translations", 0.15 * 32),
        ("random_shear", "shear_factor", 0.15),
    ):
        assert 0.8 * limit < values(name, key).max() <= limit
        assert -0.8 * limit > values(name, key).min() >= -limit
    assert set(values("random_posterization", "shift_factor")) == {1, 2}


@pytest.mark.parametrize("name", ["medical", "strong"])
def test_nothing_changes_outside_training(name, images, labels):
    layer = build_augmentation(name)
    before = [np.array(keras.ops.convert_to_numpy(state)) for state in layer.random_states]
    for arguments in ({}, {"training": False}):
        result = layer({"images": images, "labels": labels}, **arguments)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(result["images"]), images)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(result["labels"]), labels)
    np.testing.assert_array_equal([keras.ops.convert_to_numpy(state) for state in layer.random_states], before)


def test_none_is_no_layer():
    assert build_augmentation(None) is None
    assert build_augmentation("none") is None
    assert build_augmentation([]) is None
    assert augmentation_config(None) == augmentation_config("none") == []


@pytest.mark.parametrize(("policy", "swaps"), [("medical", False), ("light", True), ("cifar", True)])
def test_the_medical_policy_never_swaps_left_and_right(half_bright, policy, swaps):
    layer = build_augmentation(policy, seed=0)
    brighter_left = []
    for _ in range(8):
        result = keras.ops.convert_to_numpy(layer({"images": half_bright}, training=True)["images"])
        brighter_left += (result[:, :, :16].mean(axis=(1, 2, 3)) > result[:, :, 16:].mean(axis=(1, 2, 3))).tolist()
    assert all(brighter_left) is not swaps
    assert any(brighter_left)


def test_contrast_falls_as_well_as_rises(half_bright):
    # Of one factor Keras takes the upper half of the range only.
    grey = half_bright // 4 + 90
    spread = augmented("contrast", grey)["images"].std(axis=(1, 2, 3)) / grey.std(axis=(1, 2, 3))
    assert spread.min() < 0.97
    assert spread.max() > 1.03
    assert np.abs(spread - 1).max() <= 0.2 + 1e-4


def test_shifts_differ_within_a_batch_and_blur_nothing(rng):
    image = rng.integers(0, 256, (1, 32, 32, 3))
    shifted = augmented("crop", np.repeat(image, 8, axis=0))["images"]
    assert len(np.unique(shifted.reshape(8, -1), axis=0)) > 4
    assert set(np.unique(shifted)) <= set(np.unique(image).astype("float32"))


@pytest.mark.parametrize(("policy", "tolerance"), [("mixup", 1e-4), ("cutmix", 0.08)])
def test_labels_are_mixed_as_the_images_are(policy, tolerance):
    # White images of class 1 and black ones of class 0: the mean brightness is the share of class 1.
    white = np.arange(32) % 2
    x = np.broadcast_to(255 * white[:, None, None, None], (32, 32, 32, 3)).astype("uint8")
    result = augmented(policy, x, np.eye(2, dtype="float32")[white], seed=1)
    share = result["images"].mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(result["labels"][:, 1], share, atol=tolerance)
    assert ((share > 0.02) & (share < 0.98)).any()


def test_mixing_without_labels_is_refused(images):
    with pytest.raises(ValueError, match="need the labels"):
        augmented("strong", images)


def test_half_precision_does_not_round_pixels(images, labels):
    expected = augmented("medical", images, labels)["images"]
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        result = augmented("medical", images, labels)["images"]
    finally:
        keras.config.set_dtype_policy(policy)
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize(
    "policy",
    ["cifar", *(pytest.param(p, marks=pytest.mark.slow) for p in ("medical", "strong", ["crop", "mixup", "cutmix"]))],
)
def test_it_trains_inside_a_compiled_graph(policy, images, labels):
    inputs = {"images": keras.Input((32, 32, 3), name="images"), "labels": keras.Input((3,), name="labels")}
    layer = build_augmentation(policy)
    changed = layer(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(changed["images"]))
    outputs = keras.layers.Concatenate()([keras.layers.Dense(3, "softmax")(x), changed["labels"]])
    model = keras.Model(inputs, outputs)

    def loss(_, joined):
        return keras.losses.categorical_crossentropy(joined[:, 3:], joined[:, :3])

    model.compile("sgd", loss=loss, jit_compile="auto")
    # The last batch is smaller than the others.
    data = {"images": images.astype("float32"), "labels": labels}
    states = [np.array(keras.ops.convert_to_numpy(state)) for state in layer.random_states]
    history = model.fit(data, np.zeros(12), batch_size=5, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    moved = [np.array(keras.ops.convert_to_numpy(state)) for state in layer.random_states]
    assert not np.array_equal(states, moved)
    np.testing.assert_array_equal(model.predict(data, verbose=0)[:, 3:], labels)
    if keras.backend.backend() == "jax":
        assert model.jit_compile


def test_reseeding_forgets_what_was_drawn_before(images):
    layer = build_augmentation("light", seed=5)

    def draw():
        return np.asarray(keras.ops.convert_to_numpy(layer({"images": images}, training=True)["images"]))

    layer.reseed(0, 7)
    first, second = draw(), draw()
    layer.reseed(0, 8)
    other = draw()
    layer.reseed(0, 7)
    np.testing.assert_array_equal(draw(), first)
    np.testing.assert_array_equal(draw(), second)
    assert (first != second).any()
    assert (first != other).any()


def test_layers_of_ones_own_are_copied_and_seeded(images, labels):
    class Invert(keras.layers.Layer):
        def call(self, images):
            return 255 - images

    own = keras.layers.RandomRotation(0.1)
    policy = ["flip", keras.Sequential([own, Invert()])]
    first, second = augmented(policy, images, labels), augmented(policy, images, labels)
    np.testing.assert_array_equal(first["images"], second["images"])
    np.testing.assert_array_equal(first["labels"], labels)
    layer = build_augmentation(policy)
    assert [type(part).__name__ for part in layer.layers] == ["RandomFlip", "RandomRotation", "Invert"]
    assert own not in layer.layers
    assert own.seed is None
    np.testing.assert_array_equal(augmented(Invert(), images)["images"], 255 - images.astype("float32"))


def test_a_layers_own_seed_is_kept(images):
    policy = keras.layers.RandomFlip("horizontal", seed=7)
    np.testing.assert_array_equal(
        augmented(policy, images, seed=0)["images"], augmented(policy, images, seed=1)["images"]
    )


def test_values_out_of_range_are_cut_off(images):
    result = augmented(keras.layers.Rescaling(2.0, offset=-100), images)["images"]
    np.testing.assert_array_equal(result, np.clip(2.0 * images - 100, 0, 255))


def test_a_layer_that_changes_the_shape_is_refused(images):
    with pytest.raises(ValueError, match="must keep the shape"):
        augmented(keras.layers.RandomCrop(28, 28), images)


def test_a_config_determines_the_policy_and_survives_json():
    configs = [augmentation_config(name) for name in list_augmentations()]
    assert json.loads(json.dumps(configs)) == configs
    assert len({json.dumps(config) for config in configs}) == len(configs)
    assert augmentation_config("medical") == augmentation_config("Medical")
    factors = [
        augmentation_config(keras.layers.RandomRotation(f, name=n)) for f, n in ((0.1, "a"), (0.1, "b"), (0.2, "c"))
    ]
    assert factors[0] == factors[1] != factors[2]
    assert augmentation_config(["crop", "flip"]) == augmentation_config("cifar")


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(ValueError, match=r"Unknown augmentation 'medcal'. Did you mean 'medical'\?"):
        build_augmentation("medcal")
    with pytest.raises(ValueError, match="'rotate'. Did you mean 'rotation'"):
        augmentation_config(["flip", "rotate"])
    with pytest.raises(ValueError, match="a name, a Keras layer, or a list of these"):
        build_augmentation(3)

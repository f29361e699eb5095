import gc
import weakref

import keras
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from tiny_members import heads_on, tiny_backbone, tiny_member

from ensemble_keras.artifact import load_ensemble, save_ensemble
from ensemble_keras.combiners.calibration import apply_temperature
from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting, HardVoting, SoftVoting
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.evaluation import explain
from ensemble_keras.evaluation.explain import grad_cam, member_grad_cams
from ensemble_keras.evaluation.occlusion import occlusion
from ensemble_keras.evaluation.randomization import randomized_map_similarity
from ensemble_keras.members.member import build_member

CLASSES = 3


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (5, 8, 8, 3), dtype="uint8")


@pytest.fixture
def members():
    return [tiny_member("a", CLASSES), tiny_member("b", CLASSES, width=6), tiny_member("c", CLASSES)]


def predictions(members, pixels):
    """The members' probabilities, `(members, n, classes)`."""
    return np.array([member.predict(pixels, verbose=0) for member in members])


def upsampled(maps, size):
    """Bilinear interpolation between the middles of pixels."""
    at = [(np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(maps.shape[1:], size, strict=True)]
    grid = np.meshgrid(*at, indexing="ij")
    return np.array([map_coordinates(one, grid, order=1, mode="nearest") for one in maps])


def class_activation_map(member, pixels, chosen):
    """What Grad-CAM is for an average of a map and a dense layer on it (Zhou et al., 2016), by arrays alone."""
    convolution = next(layer for layer in member._flatten_layers() if isinstance(layer, keras.layers.Conv2D))
    network = next(m for m in [member, *member.layers] if convolution in getattr(m, "layers", ()))
    maps = keras.Model(network.inputs, convolution.output).predict(pixels, verbose=0)
    kernel = keras.ops.convert_to_numpy(member.layers[-1].kernel)
    if kernel.shape[1] == 1:
        kernel = np.hstack([-kernel, kernel])
    weights = (kernel - kernel.mean(axis=1, keepdims=True))[:, chosen].T
    cam = np.maximum(np.einsum("nhwc,nc->nhw", maps, weights), 0)
    cam = upsampled(cam, pixels.shape[1:3])
    largest = cam.max(axis=(1, 2), keepdims=True)
    return cam / np.where(largest > 0, largest, 1)


def mean_of(maps, votes):
    """The mean of maps `(members, n, h, w)` weighted by votes `(members, n)`."""
    return (maps * (votes / votes.sum(axis=0))[:, :, None, None]).sum(axis=0)


def mean_of_maps(members, pixels, chosen, votes):
    return mean_of(np.array([class_activation_map(member, pixels, chosen) for member in members]), votes)


def of_chosen(tables, chosen):
    return tables[:, np.arange(len(chosen)), chosen]


def test_a_members_map_is_the_class_activation_map(pixels):
    member = tiny_member("a", CLASSES)
    chosen = member.predict(pixels, verbose=0).argmax(axis=1)
    found = grad_cam(member, pixels)
    assert found.dtype == np.float32
    assert found.any()
    np.testing.assert_allclose(found, class_activation_map(member, pixels, chosen), atol=1e-5)
    other = class_activation_map(member, pixels, np.full(5, 2))
    np.testing.assert_allclose(grad_cam(member, pixels, class_index=2), other, atol=1e-5)


def test_a_sigmoid_unit_explains_both_classes(pixels):
    member = tiny_member("a", 1, activation="sigmoid")
    for chosen in ([0] * 5, [1] * 5, [0, 1, 1, 0, 1]):
        found = grad_cam(member, pixels, class_index=chosen)
        np.testing.assert_allclose(found, class_activation_map(member, pixels, chosen), atol=1e-5)


def test_a_map_inside_a_nested_backbone_is_found(pixels):
    backbone = tiny_backbone()
    nested = keras.Sequential([keras.Input((8, 8, 3)), backbone], name="outer")
    member = build_member(nested, 2)
    assert grad_cam(member, pixels).any()
    by_name = grad_cam(member, pixels, layer=backbone.layers[-2].name)
    np.testing.assert_allclose(by_name, grad_cam(member, pixels), atol=1e-6)


def test_slopes_are_those_of_the_head(pixels):
    """Finite differences of a head that is neither linear nor an average."""
    images = keras.Input((8, 8, 3))
    start = keras.initializers.HeNormal(seed=1)
    maps = keras.layers.Conv2D(2, 3, strides=2, activation="relu", kernel_initializer=start, name="map")(images)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(3)(maps))
    x = keras.layers.Dense(5, activation="tanh", kernel_initializer=start)(x)
    member = keras.Model(images, keras.layers.Dense(CLASSES, "softmax", kernel_initializer=start)(x))
    pixels = pixels.astype("float32") / 100
    head = keras.Model(maps, member.output)
    values = keras.Model(images, maps).predict(pixels, verbose=0)

    def score(values):
        logits = np.log(head.predict(values, verbose=0).astype("float64"))
        return logits[:, 1] - logits.mean(axis=1)

    steps = 1e-2 * np.eye(values[0].size, dtype="float32").reshape(-1, *values[0].shape)
    ahead, back = (score(np.concatenate(values[:, None] + way * steps)) for way in (1, -1))
    slopes = ((ahead - back) / 2e-2).reshape(values.shape)
    cam = np.maximum((slopes.mean(axis=(1, 2), keepdims=True) * values).sum(axis=-1), 0)
    cam = upsampled(cam, (8, 8))
    cam /= np.maximum(cam.max(axis=(1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(grad_cam(member, pixels, class_index=1), cam, atol=0.02)


def saved(model, path, class_names="xyz"):
    save_ensemble(model, path, card={"class_names": list(class_names), "filter": "bilinear"}, verbose=0)
    return [load_ensemble(path)[0], keras.saving.load_model(path)]


def test_soft_voting_is_the_mean_of_the_members_maps_by_their_votes_also_reloaded(members, pixels, tmp_path):
    model = build_ensemble(members, SoftVoting(weights=[3, 1, 2]))
    p = predictions(members, pixels)
    chosen = np.average(p, axis=0, weights=[3, 1, 2]).argmax(axis=1)
    votes = np.array([[3], [1], [2]]) * of_chosen(p, chosen)
    own = np.array([grad_cam(member, pixels, class_index=chosen) for member in members])
    for one in [model, *saved(model, tmp_path / "ensemble.keras")]:
        maps, shares = member_grad_cams(one, pixels)
        assert list(maps) == list(shares) == ["a", "b", "c"]
        np.testing.assert_allclose(list(shares.values()), votes / votes.sum(axis=0), atol=1e-5)
        np.testing.assert_allclose(list(maps.values()), own, atol=1e-5)
    np.testing.assert_allclose(grad_cam(one, pixels), mean_of(own, votes), atol=1e-5)


@pytest.mark.parametrize("views", [None, "horizontal_flip"])
def test_temperatures_and_views_leave_the_members_maps_as_they_are(members, pixels, views):
    temperatures = [0.5, 1, 2]
    model = build_ensemble(
        members,
        SoftVoting(weights=[3, 1, 2]),
        member_temperatures=temperatures,
        temperature=1.5,
        test_time_augmentation=views,
    )
    p = [apply_temperature(q, t) for q, t in zip(predictions(members, pixels), temperatures, strict=True)]
    votes = np.array([[3], [1], [2]]) * of_chosen(np.array(p), np.ones(5, int))
    expected = mean_of_maps(members, pixels, np.ones(5, int), votes)
    np.testing.assert_allclose(grad_cam(model, pixels, class_index=1), expected, atol=1e-5)


def test_geometric_voting_weighs_maps_as_it_weighs_members(members, pixels):
    model = build_ensemble(members, GeometricVoting(weights=[3, 1, 2]))
    chosen = model.predict(pixels, verbose=0).argmax(axis=1)
    expected = mean_of_maps(members, pixels, chosen, np.array([[3.0], [1], [2]]) * np.ones(5))
    np.testing.assert_allclose(grad_cam(model, pixels), expected, atol=1e-5)


def test_counted_votes_are_the_votes(rng):
    members = [tiny_member(name, CLASSES) for name in "abcde"]
    pixels = np.repeat(rng.integers(0, 256, (5, 8, 8, 3), dtype="uint8"), CLASSES, axis=0)
    chosen = np.tile(np.arange(CLASSES), 5)
    ballots = predictions(members, pixels).argmax(axis=2)
    counts = np.array([np.bincount(column, minlength=CLASSES) for column in ballots.T])
    first = counts == counts.max(axis=1, keepdims=True)
    # Where classes tie for the first place, the mean of their probabilities decides, and that has slopes.
    clear = (first.sum(axis=1) == 1) | ~first[np.arange(15), chosen]
    maps, votes = member_grad_cams(build_ensemble(members, HardVoting()), pixels, class_index=chosen)
    expected = (ballots == chosen) / np.maximum((ballots == chosen).sum(axis=0), 1)
    assert {0, 1} <= set(expected[:, clear].max(axis=0))
    np.testing.assert_allclose(np.array(list(votes.values()))[:, clear], expected[:, clear], atol=1e-5)
    assert maps["a"].shape == (15, 8, 8)


def test_a_learned_combiner_weighs_maps_by_its_slopes(members, pixels):
    combiner = StackedMetaLearner(CLASSES)
    model = build_ensemble(members, combiner)
    kernel = np.zeros((3, CLASSES, CLASSES), "float32")
    # Each class by its own logarithms alone, the third member against it: no vote.
    kernel[0], kernel[1], kernel[2] = np.eye(3), 2 * np.eye(3), -np.eye(3)
    combiner.head.set_weights([kernel.reshape(9, CLASSES), np.zeros(CLASSES)])
    chosen = model.predict(pixels, verbose=0).argmax(axis=1)
    expected = mean_of_maps(members, pixels, chosen, np.array([[1.0], [2], [0]]) * np.ones(5))
    np.testing.assert_allclose(grad_cam(model, pixels), expected, atol=1e-5)


def test_members_of_one_stem_have_maps_of_their_own(pixels, tmp_path):
    members = heads_on(tiny_backbone(), "one", "other")
    model = build_ensemble(members, SoftVoting())
    assert "one_stem" in [layer.name for layer in model.layers]
    model.save(tmp_path / "ensemble.keras")
    for one in [model, keras.saving.load_model(tmp_path / "ensemble.keras")]:
        maps, _ = member_grad_cams(one, pixels, class_index=1)
        for member in members:
            np.testing.assert_allclose(maps[member.name], grad_cam(member, pixels, class_index=1), atol=1e-5)


def test_joined_features_add_what_each_place_adds_to_the_score(pixels):
    members = [tiny_member("a", CLASSES, width=3), tiny_member("b", CLASSES, width=4)]
    combiner = ConcatenateDense(CLASSES)
    model = build_ensemble(members, combiner)
    kernel = keras.ops.convert_to_numpy(combiner.head.kernel)
    weights = np.split(kernel[:, 1] - kernel.mean(axis=1), [3])
    found = 0
    for member, own in zip(members, weights, strict=True):
        convolution = next(layer for layer in member.layers if isinstance(layer, keras.layers.Conv2D))
        maps = keras.Model(member.inputs, convolution.output).predict(pixels, verbose=0)
        found = found + upsampled(np.maximum(maps @ own, 0), (8, 8))
    found /= np.maximum(found.max(axis=(1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(grad_cam(model, pixels, class_index=1), found, atol=1e-5)


def test_batches_and_dtypes_do_not_count(members, pixels):
    model = build_ensemble(members, SoftVoting())
    whole = grad_cam(model, pixels)
    np.testing.assert_allclose(grad_cam(model, pixels, batch_size=2), whole, atol=1e-6)
    np.testing.assert_allclose(grad_cam(model, pixels.astype("float32")), whole, atol=1e-6)
    before = model.get_weights()
    covered = occlusion(model, pixels, window=4)
    np.testing.assert_allclose(occlusion(model, pixels, window=4, batch_size=7), covered, atol=1e-6)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_explaining_leaves_the_models_graph_as_it_is(members, pixels):
    model = build_ensemble(members, SoftVoting())

    def nodes():
        return [len(layer._inbound_nodes) + len(layer._outbound_nodes) for layer in model._flatten_layers()]

    before = nodes()
    grad_cam(model, pixels)
    assert nodes() == before


def test_maps_of_half_precision_are_explained_in_single(pixels):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(4, 3, activation="relu", dtype="mixed_bfloat16")(x)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    member = keras.Model(images, keras.layers.Dense(2, "softmax")(x))
    found = grad_cam(member, pixels, class_index=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, class_activation_map(member, pixels, [1] * 5), atol=0.02)


def test_pooling_at_the_end_is_left_for_the_finer_map_before_it(pixels):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="map")(images)
    x = keras.layers.SpatialDropout2D(0.5)(keras.layers.MaxPooling2D(2, name="pooled")(x))
    member = keras.Model(images, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(x)))
    np.testing.assert_array_equal(grad_cam(member, pixels), grad_cam(member, pixels, layer="map"))
    assert not np.array_equal(grad_cam(member, pixels), grad_cam(member, pixels, layer="pooled"))


def test_a_member_that_is_sure_beyond_float32_is_explained(pixels):
    for units, activation in ((CLASSES, "softmax"), (1, "sigmoid")):
        member = tiny_member("a", units, activation=activation)
        kernel, bias = member.layers[-1].get_weights()
        expected = grad_cam(member, pixels, class_index=1)
        member.layers[-1].set_weights([1e5 * kernel, bias])
        assert set(np.unique(member.predict(pixels, verbose=0))) <= {0, 1}
        np.testing.assert_allclose(grad_cam(member, pixels, class_index=1), expected, atol=1e-5)


def test_a_classifier_that_ends_otherwise_is_explained_by_its_probabilities(pixels):
    member = tiny_member("a", CLASSES)
    divided = keras.Model(member.inputs, member.output / keras.ops.sum(member.output, axis=-1, keepdims=True))
    np.testing.assert_allclose(grad_cam(divided, pixels), grad_cam(member, pixels), atol=1e-5)


def test_another_layer_is_asked_for_by_name(members, pixels):
    model = build_ensemble(members, SoftVoting())
    names = {member.name: member.layers[2].name for member in members}
    np.testing.assert_allclose(grad_cam(model, pixels, layer=names), grad_cam(model, pixels), atol=1e-6)
    with pytest.raises(ValueError, match="no layer 'conv9' in 'a'"):
        grad_cam(model, pixels, layer="conv9")
    with pytest.raises(ValueError, match="must give a map .* Received: 'features' of 'a', which gives shape"):
        grad_cam(members[0], pixels, layer="features")
    with pytest.raises(ValueError, match=r"members of 'ensemble', which are \['a', 'b', 'c'\]. Received: 'd'"):
        grad_cam(model, pixels, layer={"d": "conv"})


def sequence_member(name):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Reshape((8, 24))(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(CLASSES, "softmax")(keras.layers.GRU(4)(x)), name=name)


def test_members_without_a_map_are_refused_by_name_and_occlusion_explains_them(members, pixels):
    model = build_ensemble([*members, sequence_member("reader")], SoftVoting())
    with pytest.raises(ValueError, match=r"Received: 'reader', which has none .* `occlusion` explains it"):
        grad_cam(model, pixels)
    assert occlusion(model, pixels, window=4).any()


def test_a_model_without_a_graph_is_refused_and_occlusion_explains_it(pixels):
    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = tiny_member("a", CLASSES)

        def call(self, images):
            return self.inner(images)

    model = Wrapped()
    with pytest.raises(ValueError, match="functional or built sequential model of one input. Received: <Wrapped"):
        grad_cam(model, pixels)
    np.testing.assert_allclose(occlusion(model, pixels), occlusion(model.inner, pixels), atol=1e-6)


def test_occlusion_is_the_mean_loss_over_the_squares_that_cover_a_pixel(pixels):
    member = tiny_member("a", CLASSES)
    whole = member.predict(pixels, verbose=0)[:, 1]
    total, times = np.zeros((5, 8, 8)), np.zeros((8, 8))
    for top in (0, 3, 4):
        for left in (0, 2, 4, 5):
            covered = pixels.copy()
            covered[:, top : top + 4, left : left + 3] = [10, 20, 30]
            lost = whole - member.predict(covered, verbose=0)[:, 1]
            total[:, top : top + 4, left : left + 3] += lost[:, None, None]
            times[top : top + 4, left : left + 3] += 1
    found = occlusion(member, pixels, class_index=1, window=(4, 3), stride=(3, 2), fill=(10, 20, 30))
    np.testing.assert_allclose(found, total / times, atol=1e-6)


def test_images_and_arguments_are_checked(pixels):
    member = tiny_member("a", CLASSES)
    for explained_by in (grad_cam, occlusion):
        with pytest.raises(ValueError, match=r"must be of the model's size, \(8, 8\). Received: \(4, 8\)"):
            explained_by(member, pixels[:, :4])
        with pytest.raises(ValueError, match="`class_index`"):
            explained_by(member, pixels, class_index=3)
        with pytest.raises(ValueError, match="look scaled to"):
            explained_by(member, pixels / 255)
    for name in ("window", "stride"):
        with pytest.raises(ValueError, match=f"`{name}` must be one int or a pair of ints, from 1 to"):
            occlusion(member, pixels, **{name: 9})
    with pytest.raises(ValueError, match=r"`fill` must be a number in \[0, 255\]"):
        occlusion(member, pixels, fill=(1, 2))


def planted(n, seed=0):
    """Noise; of class 1 a checkered patch stands somewhere, and where it does: images, labels, masks."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(60, 200, (n, 16, 16, 3)), np.arange(n) % 2
    masks = np.zeros((n, 16, 16), bool)
    for image, mask, label in zip(x, masks, y, strict=True):
        top, left = rng.integers(0, 12, 2)
        if label:
            image[top : top + 5, left : left + 5] = 255 * (np.indices((5, 5)).sum(axis=0) % 2)[..., None]
            mask[top : top + 5, left : left + 5] = True
    return x.astype("uint8"), y, masks


@pytest.fixture(scope="module")
def detector():
    """A small network that was trained to tell whether the patch is there."""
    keras.utils.set_random_seed(0)
    x, y, _ = planted(256)
    images = keras.Input((16, 16, 3))
    h = keras.layers.Rescaling(1 / 64, offset=-2)(images)
    h = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(h)
    h = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(h)
    h = keras.layers.GlobalAveragePooling2D()(h)
    model = keras.Model(images, keras.layers.Dense(2, "softmax")(h), name="detector")
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(x, y, epochs=12, batch_size=32, verbose=0)
    return model


def share_in(masks, maps):
    """The share of the maps' mass, each cut off below 0, that lies within the masks."""
    maps = np.maximum(maps, 0)
    return (maps * masks).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))


def test_a_patch_that_decides_explains_the_decision(detector):
    x, y, masks = planted(40, seed=1)
    x, masks = x[y == 1], masks[y == 1]
    p = detector.predict(x, verbose=0)[:, 1]
    assert (p > 0.9).mean() > 0.9
    x, masks = x[p > 0.9], masks[p > 0.9]
    assert masks.mean() < 0.1
    # A map may reach as far beyond the patch as the two convolutions see.
    assert np.median(share_in(masks, grad_cam(detector, x))) > 0.5
    assert np.median(share_in(masks, occlusion(detector, x, window=3, stride=1))) > 0.5


def test_maps_change_when_the_weights_are_shuffled(detector):
    x, y, _ = planted(20, seed=2)
    x = x[y == 1]
    before = detector.get_weights()
    similarity = randomized_map_similarity(detector, x)
    assert similarity.shape == (10,)
    assert np.abs(similarity).mean() < 0.5
    np.testing.assert_array_equal(similarity, randomized_map_similarity(detector, x, seed=0))
    for old, new in zip(before, detector.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_maps_of_a_reloaded_ensemble_change_too(members, pixels, tmp_path):
    build_ensemble(members, SoftVoting()).save(tmp_path / "ensemble.keras")
    model = keras.saving.load_model(tmp_path / "ensemble.keras")
    one, other = (randomized_map_similarity(model, pixels, seed=seed) for seed in (0, 1))
    assert np.abs(one).max() < 0.99
    assert not np.array_equal(one, other)


def test_an_explanation_by_edges_is_found_out(detector):
    x, _, _ = planted(6, seed=3)

    def edges(model, images, class_index):
        return np.abs(np.diff(images.astype("float32").mean(axis=-1), axis=1))

    np.testing.assert_allclose(randomized_map_similarity(detector, x, explain=edges), 1)
    blank = randomized_map_similarity(detector, x, explain=lambda model, images, class_index: np.ones((6, 4, 4)))
    np.testing.assert_array_equal(blank, 0)


@pytest.mark.slow
@pytest.mark.shared
def test_an_ensemble_of_pretrained_backbones_is_explained_as_its_members_are(shared, tmp_path):
    folder = shared / "data" / "chest_xray" / "test"
    dataset = ImageDataset.from_directory(folder)
    pixels = dataset.load(np.arange(0, len(dataset), 80), image_size=224)
    members = [build_member(name, 2) for name in ("MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)")]
    model = build_ensemble(members, SoftVoting(weights=[2, 1]))
    [_, reloaded] = saved(model, tmp_path / "ensemble.keras", "xy")
    chosen = np.zeros(len(pixels), int)
    own = np.array([grad_cam(member, pixels, class_index=chosen) for member in members])
    votes = np.array([[2], [1]]) * of_chosen(predictions(members, pixels), chosen)
    np.testing.assert_allclose(grad_cam(reloaded, pixels, class_index=chosen), mean_of(own, votes), atol=1e-5)


def test_a_model_is_compiled_once_and_forgotten_when_it_goes(members, pixels, monkeypatch):
    made = []

    class Counted(explain.CamNetwork):
        def call(self, inputs):
            made.append(self.name)
            return super().call(inputs)

    monkeypatch.setattr(explain, "CamNetwork", Counted)
    model = build_ensemble(members, SoftVoting(), name="explained")
    first = grad_cam(model, pixels[:1])
    once = len(made)
    assert once
    np.testing.assert_array_equal(grad_cam(model, pixels[:1]), first)
    assert len(made) == once
    # New weights are seen by what is compiled.
    members[0].set_weights([-weight for weight in members[0].get_weights()])
    grad_cam(model, pixels[:1])
    assert len(made) == once
    expected, _ = member_grad_cams(members[0], pixels[:1], class_index=0)
    np.testing.assert_allclose(member_grad_cams(model, pixels[:1], class_index=0)[0]["a"], expected["a"], atol=1e-5)
    # Another layer is another network.
    kept = grad_cam(members[1], pixels[:1])
    convolution = next(layer for layer in members[1].layers if isinstance(layer, keras.layers.Conv2D))
    np.testing.assert_allclose(grad_cam(members[1], pixels[:1], layer=convolution.name), kept)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None

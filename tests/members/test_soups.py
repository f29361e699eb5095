import keras
import numpy as np
import pytest
from tiny_members import tiny_backbone, tiny_member

import ensemble_keras as ek
from ensemble_keras.members.member import build_member


def crossed(n, seed):
    """Pictures with a patch of two rows, two columns and two colours, whose four classes are where these agree.

    The classes are no linear function of the pixels, so each network finds hidden units of its own.
    """
    rng = np.random.default_rng(seed)
    x, (row, column, colour) = rng.integers(0, 120, (n, 16, 16, 3)), rng.integers(0, 2, (3, n))
    for image, i, j, k in zip(x, row, column, colour, strict=True):
        image[8 * i : 8 * i + 8, 8 * j : 8 * j + 8, k] += 100
    return x.astype("uint8"), 2 * (column ^ colour) + (colour ^ row)


def network(name="net"):
    x = images = keras.Input((16, 16, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x))
    for units in (32, 32):
        x = keras.layers.Dense(units, activation="relu")(x)
    return build_member(keras.Model(images, x, name="trunk"), 4, name=name)


TEST = crossed(200, seed=9)


def accuracy(model, data=TEST):
    return np.mean(model.predict(data[0], verbose=0).argmax(axis=1) == data[1])


def train(member, epochs, settings=ek.Training, **options):
    settings = settings(epochs=epochs, batch_size=20, learning_rate=0.01)
    return ek.deep_ensemble(member, *crossed(300, seed=0), settings=settings, verbose=0, **options)


@pytest.fixture(scope="module")
def seeds():
    """Two networks trained from different random weights."""
    return train(network(), 15, size=2)


@pytest.fixture(scope="module")
def fine_tuned():
    """Three networks trained on from the weights of one that is not there yet."""
    [start] = train(network(), 5, size=1)
    return train(start, 4, ek.FineTuning, size=3, probe=True)


def with_weights(model, name, change):
    copy = keras.models.clone_model(model)
    copy.name = name
    copy.set_weights([change(weight) for weight in model.get_weights()])
    return copy


@pytest.mark.slow
def test_weights_of_fine_tunings_from_one_start_may_be_averaged_and_those_of_two_seeds_may_not(seeds, fine_tuned):
    assert min(map(accuracy, seeds)) > 0.9
    assert accuracy(ek.average_weights(seeds)) < min(map(accuracy, seeds)) - 0.15
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(*(m.get_weights() for m in fine_tuned[:2]), strict=True))
    assert accuracy(ek.average_weights(fine_tuned)) >= min(map(accuracy, fine_tuned))


def test_the_mean_is_that_of_every_weight_and_leaves_the_members_as_they_are(fine_tuned):
    before = [member.get_weights() for member in fine_tuned]
    soup = ek.average_weights(fine_tuned)
    assert soup.name == "net_1_1_soup"
    for mean, *parts in zip(soup.get_weights(), *before, strict=True):
        np.testing.assert_allclose(mean, np.mean(parts, axis=0), atol=1e-6)
    for member, weights in zip(fine_tuned, before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(member.get_weights(), weights, strict=True))
    np.testing.assert_allclose(
        ek.average_weights(fine_tuned[:1]).predict(TEST[0], verbose=0),
        fine_tuned[0].predict(TEST[0], verbose=0),
        atol=1e-6,
    )


def test_a_greedy_soup_keeps_what_does_not_harm_the_held_out_accuracy(fine_tuned, capsys):
    harmful = with_weights(fine_tuned[0], "harmful", lambda weight: -9 * weight)
    members = [harmful, *fine_tuned]
    soup = ek.soup(members, *TEST)
    assert len(soup.ingredients) > 0
    assert "harmful" not in soup.ingredients
    assert accuracy(soup) >= max(map(accuracy, members))
    kept = [member for member in members if member.name in soup.ingredients]
    for a, b in zip(soup.get_weights(), ek.average_weights(kept).get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert f"A soup of {len(kept)} of 4 members" in capsys.readouterr().out


def test_a_soup_tries_the_most_accurate_first_and_equals_in_their_order(fine_tuned):
    best = fine_tuned[0]
    noise = np.random.default_rng(0)
    worse = with_weights(best, "worse", lambda w: w + noise.normal(0, 0.3, w.shape))
    same = with_weights(best, "same", lambda w: w)
    assert accuracy(worse) < accuracy(best)
    soup = ek.soup([worse, best, same], *TEST, name="pot", verbose=0)
    assert soup.name == "pot"
    assert soup.ingredients[:2] == (best.name, "same")


def test_batch_statistics_are_taken_anew_from_given_images():
    x = np.random.default_rng(0).integers(0, 256, (160, 8, 8, 3), "uint8")
    members = [build_member(tiny_backbone(seed, f"trunk_{seed}"), 2, name=f"m{seed}") for seed in (0, 1)]
    soup = ek.average_weights(members, batch_norm_images=x)
    convolution, norm = _layers_of(soup)
    outputs = keras.ops.convert_to_numpy(convolution(x.astype("float32")))
    batches = [outputs[:64], outputs[64:128], outputs[128:]]
    shares = [0.4, 0.4, 0.2]
    means = np.average([b.mean(axis=(0, 1, 2)) for b in batches], axis=0, weights=shares)
    variances = np.average([b.var(axis=(0, 1, 2)) for b in batches], axis=0, weights=shares)
    np.testing.assert_allclose(norm.moving_mean, means, rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, variances, rtol=1e-3)
    assert norm.momentum == 0.99
    # Untouched where no images are given, and of a single member.
    _, averaged = _layers_of(ek.average_weights(members))
    np.testing.assert_allclose(averaged.moving_mean, 0)
    _, single = _layers_of(ek.average_weights(members[:1], batch_norm_images=x))
    np.testing.assert_allclose(single.moving_mean, 0)


def _layers_of(member):
    layers = {type(layer): layer for layer in member._flatten_layers()}
    return layers[keras.layers.Conv2D], layers[keras.layers.BatchNormalization]


def test_what_tells_of_training_alone_may_differ():
    frozen = tiny_member("frozen")
    frozen.trainable = False
    soup = ek.average_weights([tiny_member("a"), frozen])
    assert soup.trainable_weights
    trunk = tiny_backbone()
    ek.average_weights([build_member(trunk, 2, name="a", dropout=0.1), build_member(trunk, 2, name="b", dropout=0.5)])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (tiny_member("b", width=5), r"weights of equal shapes. Received: .* of 'a' with \(3, 3, 3, 4\)"),
        (tiny_member("b", 3), "weights of equal shapes"),
        (tiny_member("b", activation="sigmoid"), "'a' and 'b', whose layers or their options differ"),
        (build_member(tiny_backbone(), 2, name="b"), "'a' with 4 arrays of weights, 'b' with 8"),
    ],
)
def test_other_architectures_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        ek.average_weights([tiny_member("a"), other])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`members` must hold at least one model"):
        ek.average_weights([])
    with pytest.raises(ValueError, match="Labels are needed"):
        ek.soup([tiny_member("a")], np.zeros((4, 8, 8, 3), "uint8"))

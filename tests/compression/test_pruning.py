import keras
import numpy as np
import pytest
from keras import layers
from search_problems import Killed
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.compression.importance import Widths
from ensemble_keras.compression.pruning import least_important
from ensemble_keras.compression.slicing import remove_channels

ONE = ek.FineTuning(epochs=1, train_batch_norm=True)


def classifier(norm=True, name="member", width=16):
    """A small network on pictures of 16 pixels, with a layer in the middle that can lose channels."""
    start = keras.initializers.HeNormal(seed=0)
    x = images = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, -1)(x)
    for number in (1, 2):
        x = layers.Conv2D(width, 3, padding="same", kernel_initializer=start, name=f"conv{number}")(x)
        x = layers.BatchNormalization(momentum=0.8, name=f"norm{number}")(x) if norm else x
        x = layers.MaxPooling2D()(layers.ReLU()(x))
    x = layers.Flatten(name="features")(x)
    outputs = layers.Dense(3, "softmax", kernel_initializer=start, name="predictions")(x)
    return keras.Model(images, outputs, name=name)


def accuracy(model, x, y):
    return np.mean(model.predict(x, verbose=0).argmax(axis=1) == y)


def trained(model, seed=0):
    x, y = pictures(180, seed=seed)
    ek.fine_tune(model, x, y, settings=ek.FineTuning(epochs=6, train_batch_norm=True, learning_rate=3e-3), verbose=0)
    return model


@pytest.mark.parametrize(
    "penalty", ["group_lasso", *(pytest.param(name, marks=pytest.mark.slow) for name in ("l1", "slimming"))]
)
def test_a_pruned_network_is_small_and_as_good(penalty):
    model = trained(classifier())
    before, (x, y) = model.get_weights(), pictures(180)
    narrow = ek.prune_model(
        model,
        x,
        y,
        penalty=penalty,
        remove_macs=0.5,
        remove_parameters=0.3,
        settings=ek.FineTuning(epochs=3, train_batch_norm=True, learning_rate=3e-3),
        verbose=0,
    )
    assert ek.count_macs(narrow).total <= 0.5 * ek.count_macs(model).total
    assert narrow.count_params() <= 0.7 * model.count_params()
    assert {narrow.get_layer(f"conv{number}").filters for number in (1, 2)} <= {8, 16}
    assert narrow.name == model.name
    assert len(narrow.history.history["val_loss"]) == 3
    test_x, test_y = pictures(120, seed=5)
    assert accuracy(narrow, test_x, test_y) >= accuracy(model, test_x, test_y) - 0.05
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_network_without_normalisation_and_an_ensemble_are_pruned_as_a_whole():
    members = [trained(classifier(norm=False, name="a")), trained(classifier(name="b"))]
    model = ek.build_ensemble(members, ek.SoftVoting())
    x, y = pictures(60)
    narrow = ek.prune_model(model, x, y, settings=ONE, verbose=0)
    assert ek.count_macs(narrow).total <= 0.5 * ek.count_macs(model).total
    assert {"a", "b"} <= {layer.name for layer in narrow.layers}
    np.testing.assert_allclose(narrow.predict(x, verbose=0).sum(axis=1), 1, atol=1e-5)


def test_equal_seeds_give_equal_networks(capsys):
    x, y = pictures(60)
    one, other = (ek.prune_model(classifier(), x, y, settings=ONE, seed=3, verbose=v) for v in (0, 1))
    assert "Pruned 'member': 3,667 parameters, now 1,259 (-66%)" in capsys.readouterr().out
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def two_layers(scales=(1.0, 1.0)):
    """Two layers of 16 channels of equal importance within each: the second's is large and cheap."""
    x = images = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 5, padding="same", name="dear")(x)
    x = layers.BatchNormalization(gamma_initializer=keras.initializers.Constant(scales[0]))(x)
    x = layers.Conv2D(16, 1, name="cheap")(layers.MaxPooling2D(4)(layers.ReLU()(x)))
    x = layers.BatchNormalization(gamma_initializer=keras.initializers.Constant(scales[1]))(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(images, layers.Dense(2, "softmax", name="predictions")(x))


def removed(model, **target):
    channels = least_important(model, "slimming", target, Widths(floor=0.1, round_to=1))
    narrow = remove_channels(model, channels)
    gone = (
        1 - ek.count_macs(narrow).total / ek.count_macs(model).total,
        1 - narrow.count_params() / model.count_params(),
    )
    return {name: len(lost) for name, lost in channels.items()}, gone


def test_channels_go_where_they_save_most():
    lost, (macs, _) = removed(two_layers(), macs=0.45, parameters=0.0)
    assert lost == {"dear": 8, "cheap": 0}
    assert macs >= 0.45
    lost, (_, parameters) = removed(two_layers(), macs=0.0, parameters=0.5)
    assert lost["dear"] > lost["cheap"]
    assert parameters >= 0.5


def test_both_targets_are_met_and_layers_of_other_scales_compare():
    lost, (macs, parameters) = removed(two_layers(), macs=0.3, parameters=0.6)
    assert macs >= 0.3
    assert parameters >= 0.6
    assert removed(two_layers(scales=(1e-3, 5.0)), macs=0.3, parameters=0.6)[0] == lost


def test_the_network_before_teaches_the_narrow_one():
    model, (x, y) = trained(classifier()), pictures(120)
    options = {"settings": ONE, "fine_tuning": ek.FineTuning(epochs=4, learning_rate=3e-3, train_batch_norm=True)}
    wrong = (y + 1) % 3
    narrow = ek.prune_model(model, x, wrong, alpha=0.0, validation_data=(x, y), verbose=0, **options)
    assert accuracy(narrow, x, y) > 0.7
    alone = ek.prune_model(model, x, wrong, alpha=1.0, validation_data=(x, wrong), verbose=0, **options)
    assert accuracy(alone, x, wrong) > accuracy(narrow, x, wrong) + 0.1


def test_it_is_said_where_the_training_with_the_penalty_failed(capsys):
    wild = ek.Training(epochs=2, learning_rate=1e30, optimizer="sgd")
    model, options = classifier(norm=False), {"penalty": "group_lasso", "fine_tuning": ONE}
    narrow = ek.prune_model(model, *pictures(30), settings=wild, **options)
    assert narrow.history.note.startswith("with the penalty: loss became NaN in epoch ")
    assert narrow.history.note in capsys.readouterr().out


class KillAt(keras.callbacks.Callback):
    """Ends the process, as it were, after so many epochs of all trainings."""

    def __init__(self, epochs):
        super().__init__()
        self.left = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_killed_run_goes_on_where_it_was(epochs, tmp_path):
    x, y = pictures(60)
    two = ek.FineTuning(epochs=2, train_batch_norm=True)
    options = {"settings": two, "directory": tmp_path, "verbose": 0}
    with pytest.raises(Killed):
        ek.prune_model(classifier(), x, y, callbacks=[KillAt(epochs)], **options)
    counted = KillAt(100)
    narrow = ek.prune_model(classifier(), x, y, callbacks=[counted], **options)
    assert 100 - counted.left == 4 - epochs
    whole = ek.prune_model(classifier(), x, y, settings=two, verbose=0)
    for one, other in zip(narrow.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert narrow.history.history == whole.history.history


def without_channels():
    images = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(images)
    return keras.Model(images, layers.Dense(3, "softmax", name="predictions")(x), name="member")


def of_pairs():
    first, second = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    shared = classifier()
    outputs = layers.Average()([shared(first), shared(second)])
    return keras.Model([first, second], outputs, name="pairs")


def of_scores():
    model = classifier()
    return keras.Model(model.input, model.get_layer("features").output, name="scores")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            classifier(norm=False),
            {"penalty": "slimming"},
            "penalty='slimming' needs channels that pass a batch normalisation",
        ),
        (without_channels(), {"penalty": "l1"}, r"No channel .* of 'predictions': 'predictions' \(Dense\) norm"),
        (classifier(), {"remove_macs": 0.999}, "No more than .* % of the multiply-accumulates .* lower `floor`"),
        (classifier(), {"penalty": "l2"}, "`penalty` must be one of 'slimming', 'l1', 'group_lasso'"),
        (classifier(), {"strength": 0}, "`strength` must be above 0"),
        (classifier(), {"remove_macs": 1.0}, r"`remove_macs` must be in \[0, 1\). Received: 1.0"),
        (classifier(), {"remove_macs": 0}, "must be above 0. Received: 0 for both"),
        (classifier(), {"floor": 0}, r"`floor` must be in \(0, 1\]"),
        (classifier(), {"temperature": 0}, "`temperature` must be above 0"),
        (classifier(), {"alpha": 1.5}, r"`alpha` must be in \[0, 1\]"),
        (classifier(), {"settings": 5}, "`settings` must be None or Training settings"),
        (classifier(), {"fine_tuning": 5}, "`fine_tuning` must be None or Training settings"),
        (classifier(), {"fine_tuning": ek.FineTuning(unfreeze="last")}, "names a layer that no backbone has: 'last'"),
        (of_pairs(), {}, "Expected a model from images .* Received: 'pairs' with 2 inputs and 1 outputs"),
        (of_scores(), {"penalty": "l1", "remove_macs": 0.3}, "`the predictions of 'scores'` must hold one row"),
        (classifier(), {"sampling": "up"}, "`sampling` must be one of"),
        (classifier(), {"seed": -1}, "`seed` must be an int of at least 0"),
    ],
)
def test_wrong_arguments_are_refused_before_the_work(model, options, message):
    x, y = pictures(12)
    with pytest.raises(ValueError, match=message):
        ek.prune_model(model, x, y, callbacks=[KillAt(1)], **options)


def test_labels_of_other_classes_are_refused():
    x, y = pictures(12, classes=4)
    with pytest.raises(ValueError, match="class"):
        ek.prune_model(classifier(), x, y)

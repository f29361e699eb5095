import dataclasses

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.features.keys import array_digest
from ensemble_keras.members import unfreezing
from ensemble_keras.members.member import backbone_of
from ensemble_keras.members.trainer import Trainer

QUICK = ek.FineTuning(epochs=3, batch_size=16, learning_rate=0.01)


def backbone(name="trunk", seed=0):
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    for number in (1, 2, 3):
        kernel = keras.initializers.HeNormal(seed=seed + number)
        x = keras.layers.Conv2D(6, 3, padding="same", kernel_initializer=kernel, name=f"block{number}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"block{number}_bn")(x)
        # A way around: the only cuts are between the blocks.
        x = keras.layers.Add(name=f"block{number}_add")([keras.layers.ReLU(name=f"block{number}_relu")(x), x])
        x = keras.layers.MaxPooling2D(name=f"block{number}_pool")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name=name)


def member(name="m", seed=0, **options):
    # Nested as the networks of `build_backbone` are.
    images = keras.Input((16, 16, 3), name="images")
    trunk = keras.Model(images, backbone(f"{name}_network", seed)(images), name=name)
    return ek.build_member(trunk, 3, **options)


def weights_by_layer(model):
    return {
        layer.name: [np.array(w) for w in layer.get_weights()] for layer in unfreezing.leaves(model) if layer.weights
    }


def moved(before, after):
    return {
        name
        for name, values in before.items()
        if any(np.abs(a - b).max() > 0 for a, b in zip(values, after[name], strict=True))
    }


@pytest.fixture(scope="module")
def data():
    return pictures(90)


def fine_tune(model, x, y, settings=QUICK, **arguments):
    return ek.fine_tune(model, x, y, settings=settings, **{"verbose": 0, **arguments})


def train(model, data, settings):
    """Trains without validation data: the last epoch is kept."""
    return Trainer(model, settings, verbose=0).run(ek.ImageDataset.from_arrays(*data), None, seed=0)


def log_loss(model, x, y):
    return -np.log(model.predict(x, verbose=0)[np.arange(len(y)), y]).mean()


def test_a_member_gets_its_probe_first_and_then_improves_on_it(data):
    model = member()
    history = fine_tune(model, *data, validation_data=pictures(45, seed=1))
    assert history.best_epoch > 0
    assert history.note == ""
    assert min(history.history["val_loss"]) < history.start["val_loss"] < np.log(3)
    assert log_loss(model, *pictures(45, seed=1)) == pytest.approx(min(history.history["val_loss"]), rel=1e-3)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy", "val_auc"}


def test_where_no_epoch_beats_the_probe_the_probe_is_kept_and_said(data):
    x, y = data
    model, alone = member(), member()
    ek.fine_tune(alone, x, y, settings=ek.FineTuning(epochs=1, learning_rate=1e-12, batch_size=16), verbose=0)
    history = fine_tune(
        model, x, y, ek.FineTuning(epochs=2, learning_rate=100.0, global_clipnorm=None, batch_size=16)
    )
    assert history.best_epoch == 0
    assert "start is kept" in history.note or "weights of epoch 0 kept" in history.note
    np.testing.assert_allclose(model.predict(x, verbose=0), alone.predict(x, verbose=0), atol=1e-4)


@pytest.mark.parametrize(
    ("unfreeze", "trained"),
    [
        ("all", {1, 2, 3}),
        (1, {3}),
        (2, {2, 3}),
        (99, {1, 2, 3}),
        ("block2_conv", {2, 3}),
        ("block2_relu", {3}),
    ],
)
def test_what_is_unfrozen_trains_and_nothing_else(data, unfreeze, trained):
    model = member()
    before = weights_by_layer(model)
    train(model, data, dataclasses.replace(QUICK, unfreeze=unfreeze, epochs=1))
    assert moved(before, weights_by_layer(model)) == {f"block{n}_conv" for n in trained} | {"predictions"}
    assert all(layer.trainable for layer in unfreezing.leaves(model))


def test_batch_norms_train_only_when_asked(data):
    model = member()
    before = weights_by_layer(model)
    train(model, data, dataclasses.replace(QUICK, train_batch_norm=True, unfreeze=2, epochs=1))
    assert {"block2_bn", "block3_bn"} <= moved(before, weights_by_layer(model))
    assert "block1_bn" not in moved(before, weights_by_layer(model))


@pytest.mark.parametrize("unfreeze", [1, 2, "block3_bn"])
def test_activations_below_the_cut_are_computed_once_and_give_the_same(data, monkeypatch, unfreeze):
    x, y = data
    settings, given = dataclasses.replace(QUICK, unfreeze=unfreeze, epochs=2), []
    of = unfreezing.Activations.of.__func__
    monkeypatch.setattr(
        unfreezing.Activations, "of", classmethod(lambda *a, **k: given.append(of(*a, **k)) or given[-1])
    )
    cached, whole = member(), member()
    fine_tune(cached, x, y, settings)
    assert [len(activations) for activations in given] == [81, 9]
    monkeypatch.setattr(unfreezing, "_HELD_BYTES", 0)
    fine_tune(whole, x, y, settings)
    assert given[2:] == [None] * 2
    for a, b in zip(cached.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_a_rate_of_nothing_moves_nothing(data):
    model = member()
    before = weights_by_layer(model)
    train(model, data, dataclasses.replace(QUICK, layer_decay=1e-12, weight_decay=0.0))
    after = weights_by_layer(model)
    assert np.abs(after["block1_conv"][0] - before["block1_conv"][0]).max() < 1e-9
    assert np.abs(after["predictions"][0] - before["predictions"][0]).max() > 1e-3


class KilledError(Exception):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch, step):
        super().__init__()
        self.at, self.epoch = (epoch, step), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KilledError


@pytest.mark.parametrize("options", [{}, {"ema_momentum": 0.5}, {"unfreeze": 1}])
def test_killed_and_started_again_it_ends_with_the_same_weights(data, tmp_path, options):
    settings = dataclasses.replace(QUICK, epochs=4, **options)
    arguments = {"augmentation": None if "unfreeze" in options else "light", "seed": 3}
    whole, killed, again = (member(dropout=0.3) for _ in range(3))
    expected = fine_tune(whole, *data, settings, **arguments)
    seen = []
    with pytest.raises(KilledError):
        fine_tune(killed, *data, settings, directory=tmp_path, callbacks=[Kill(2, 1)], **arguments)
    counter = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(epoch))
    history = fine_tune(again, *data, settings, directory=tmp_path, callbacks=[counter], **arguments)
    assert seen == [2, 3]
    assert history.history.keys() == expected.history.keys()
    np.testing.assert_allclose(history.history["val_loss"], expected.history["val_loss"], rtol=1e-4)
    for a, b in zip(again.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert not list(tmp_path.glob("units/*.checkpoint.npz"))


def test_a_finished_run_is_not_trained_again(data, tmp_path):
    first, second = member(), member()
    a = fine_tune(first, *data, directory=tmp_path)
    b = fine_tune(second, *data, directory=tmp_path, callbacks=[Kill(0, 0)])
    assert a.history == b.history
    assert (a.best_epoch, a.note, a.start) == (b.best_epoch, b.note, b.start)
    for left, right in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_averaged_weights_are_what_is_validated_and_kept(data):
    model, twin = member(), member()
    x, y = pictures(30, seed=1)
    settings = dataclasses.replace(QUICK, ema_momentum=0.9, epochs=2)
    history = fine_tune(model, *data, settings, validation_data=(x, y))
    assert log_loss(model, x, y) == pytest.approx(min(history.history["val_loss"]), rel=1e-3)
    fine_tune(twin, *data, dataclasses.replace(settings, ema_momentum=None), validation_data=(x, y))
    assert np.abs(model.get_weights()[0] - twin.get_weights()[0]).max() > 0


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "focal"},
        {"label_smoothing": 0.1},
        {"optimizer": "sgd"},
        {"optimizer": "lion"},
        {"optimizer": "optimizer object"},
        {"mixed_precision": True},
        {"warmup_epochs": 0.0, "weight_decay": 0.0, "global_clipnorm": None},
    ],
)
def test_settings_train(data, options):
    if options.get("optimizer") == "optimizer object":
        options = {"optimizer": keras.optimizers.Adam(0.003, beta_1=0.8)}
    model = member()
    before = weights_by_layer(model)
    result = train(model, data, dataclasses.replace(QUICK, learning_rate=0.003, **options))
    assert len(moved(before, weights_by_layer(model))) == 4
    result_loss = result.history["loss"]
    assert result_loss[-1] < result_loss[0]
    assert model.predict(data[0][:2], verbose=0).dtype == np.float32


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "val_auc"])
def test_the_best_epoch_is_the_best_by_what_is_monitored(data, monitor):
    model, (x, y) = member(), pictures(45, seed=1)
    model.get_layer("predictions").set_weights([np.zeros((6, 3)), np.zeros(3)])
    settings = dataclasses.replace(QUICK, monitor=monitor, epochs=4)
    history = fine_tune(model, *data, settings, validation_data=(x, y), probe=False)
    values = history.history[monitor]
    best = min(values) if monitor == "val_loss" else max(values)
    assert history.best_epoch == values.index(best) + 1
    p = model.predict(x, verbose=0)
    figures = {
        "val_loss": log_loss(model, x, y),
        "val_accuracy": np.mean(p.argmax(1) == y),
        "val_auc": np.mean([roc_auc_score(y == k, p[:, k]) for k in range(3)]),
    }
    assert figures[monitor] == pytest.approx(best, rel=1e-4)


def test_joint_training_moves_every_member_and_the_combiner(data):
    members = [member("a"), member("b", seed=7)]
    combiner = ek.StackedMetaLearner(3)
    ensemble = ek.build_ensemble(members, combiner)
    before = weights_by_layer(ensemble)
    history = fine_tune(ensemble, *data, dataclasses.replace(QUICK, epochs=2, learning_rate=0.003))
    assert len(history.history["loss"]) == 2
    moved_layers = moved(before, weights_by_layer(ensemble))
    convolutions = [layer for layer in unfreezing.leaves(ensemble) if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 6
    after = [array_digest(layer.get_weights()[0]) for layer in convolutions]
    fresh = [
        layer for m in (member("a"), member("b", seed=7)) for layer in unfreezing.leaves(m) if "conv" in layer.name
    ]
    assert not set(after) & {array_digest(layer.get_weights()[0]) for layer in fresh}
    assert {"predictions"} < moved_layers
    assert any(np.abs(w).max() > 0 for w in combiner.get_weights())


def test_class_weights_and_sampling_shift_what_is_learnt(data):
    x, y = data
    rare = np.flatnonzero((y != 2) | (np.arange(len(y)) % 9 == 2))
    x, y = x[rare], y[rare]
    dataset, probabilities = ek.ImageDataset.from_arrays(x, y), {}
    for name, options in {"plain": {}, "weights": {"class_weight": [1, 1, 30]}, "over": {"sampling": "over"}}.items():
        model = member()
        model.get_layer("predictions").set_weights([np.zeros((6, 3)), np.zeros(3)])
        Trainer(model, dataclasses.replace(QUICK, epochs=2), verbose=0, **options).run(dataset, None, seed=0)
        probabilities[name] = model.predict(data[0], verbose=0)[:, 2].mean()
    assert probabilities["weights"] > probabilities["plain"] + 0.1
    assert probabilities["over"] > probabilities["plain"] + 0.1


def test_no_group_is_on_both_sides(data, monkeypatch):
    from ensemble_keras.members import fine_tuning

    seen = []
    run = Trainer.run
    monkeypatch.setattr(
        Trainer,
        "run",
        lambda self, images, validation, **k: seen.append((images, validation)) or run(self, images, validation, **k),
    )
    assert fine_tuning.Trainer is Trainer
    fine_tune(member(), *data, dataclasses.replace(QUICK, epochs=1), groups=np.arange(90) // 3)
    [(images, validation)] = seen
    assert len(images) + len(validation) == 90
    assert not set(images.groups) & set(validation.groups)


def test_the_probe_takes_its_features_from_the_store(data, tmp_path):
    store = ek.FeatureStore(tmp_path / "f.sqlite")
    model = member()
    settings = dataclasses.replace(QUICK, epochs=1)
    fine_tune(model, *data, settings, store=store)
    vectors = store.stats()["vectors"]
    assert vectors == 81
    other = member()
    ek.extract_features([backbone_of(other)], data[0], image_size=16, store=store, verbose=0)
    assert store.stats()["vectors"] == 90


def test_wrong_arguments_are_refused_before_any_training(data):
    x, y = data
    with pytest.raises(
        ValueError, match=r"`unfreeze` names a layer that no backbone has: 'block9_conv'. Did you mean"
    ):
        fine_tune(member(), x, y, ek.FineTuning(unfreeze="block9_conv"))
    with pytest.raises(ValueError, match="class indices from 0 to 2"):
        fine_tune(member(), x, y + 1)
    with pytest.raises(ValueError, match="The model has 3 classes. Received: data with 2: a, b"):
        fine_tune(member(), x, np.array(["a", "b"])[y % 2])
    with pytest.raises(ValueError, match="`sampling` must be one of"):
        fine_tune(member(), x, y, sampling="smote")
    with pytest.raises(ValueError, match="Unknown augmentation"):
        fine_tune(member(), x, y, augmentation="heavy")
    with pytest.raises(ValueError, match="`seed` must be an int of at least 0. Received: -1"):
        fine_tune(member(), x, y, seed=-1)
    with pytest.raises(ValueError, match="`model` must be a `keras.Model`. Received: 'CNN'"):
        fine_tune("CNN", x, y)
    with pytest.raises(ValueError, match="Labels are needed"):
        fine_tune(member(), x, None)


@pytest.mark.parametrize("refit", [True, False])
def test_fine_tuned_members_in_the_whole_pipeline(data, tmp_path, refit):
    x, y = data
    groups, trunk = np.arange(90) // 2, backbone("a")
    arguments = {"image_size": 16, "cv": 3, "verbose": 0, "refit": refit, "directory": tmp_path / "run"}
    fitted = ek.EnsembleClassifier(
        [trunk, backbone("b", seed=5)], fine_tune={"a": dataclasses.replace(QUICK, epochs=2)}, **arguments
    ).fit(x, y, groups=groups)
    assert [m["trained"] for m in fitted.card_["members"]] == ["fine-tuned", "head"]
    assert set(fitted.history_) == {"a"}
    expected = np.mean([m.predict(x, verbose=0) for m in fitted.members_], axis=0)
    np.testing.assert_allclose(fitted.predict_proba(x), expected, atol=1e-5)
    convolutions = [m for m in unfreezing.leaves(fitted.members_[0]) if isinstance(m, keras.layers.Conv2D)]
    assert len(convolutions) == (3 if refit else 9)
    fitted.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), fitted.predict_proba(x), atol=1e-5)
    # The user's own model is what it was.
    for a, b in zip(trunk.get_weights(), backbone("a").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_members_trained_per_fold_see_no_group_of_the_held_out_fold(data, monkeypatch):
    x, y = data
    seen = []
    run = Trainer.run

    def spy(self, images, validation, **options):
        seen.append((set(images.groups), set() if validation is None else set(validation.groups)))
        return run(self, images, validation, **options)

    monkeypatch.setattr(Trainer, "run", spy)
    settings = dataclasses.replace(QUICK, epochs=1)
    arguments = {"image_size": 16, "cv": 3, "verbose": 0, "fine_tune": settings}
    p = ek.out_of_fold_predictions(backbone("a"), x, y, groups=np.arange(90) // 3, **arguments)
    assert p.shape == (90, 3)
    assert len(seen) == 4  # the folds, and all images
    held_out = [set(map(str, range(30))) - train - validation for train, validation in seen[:3]]
    assert [len(groups) for groups in held_out] == [10] * 3
    assert set.union(*held_out) == set(map(str, range(30)))
    assert not any(train & validation for train, validation in seen)


def test_an_average_of_folds_has_no_features_for_a_combiner(data):
    with pytest.raises(ValueError, match="'concatenate' takes features.*refit=True or a combiner of predictions"):
        ek.EnsembleClassifier(
            [backbone("a")], combiner="concatenate", fine_tune=True, refit=False, image_size=16, verbose=0
        ).fit(*data)
    with pytest.raises(ValueError, match="`fine_tune` must be one of 'a'"):
        ek.EnsembleClassifier([backbone("a")], fine_tune={"CNN": True}, image_size=16, verbose=0).fit(*data)
    with pytest.raises(ValueError, match="`fine_tune` must be True, None or FineTuning"):
        ek.EnsembleClassifier([backbone("a")], fine_tune=3, image_size=16, verbose=0).fit(*data)


def test_a_head_that_starts_far_off_learns(data):
    model = member()
    kernel, bias = model.get_layer("predictions").get_weights()
    model.get_layer("predictions").set_weights([kernel * 0, bias + np.array([0, 40, 0])])
    losses = train(model, data, QUICK).history["loss"]
    assert losses[-1] < losses[0] - 0.1


def test_validation_data_have_the_classes_of_the_training_data(data):
    x, y = data
    names, seen = np.array(["ant", "bee", "cat"]), np.flatnonzero(y > 0)
    by_name, by_index = member(), member()
    settings = dataclasses.replace(QUICK, epochs=1)
    # A class that has no validation image does not shift the others.
    a = fine_tune(by_name, x, names[y], settings, validation_data=(x[seen], names[y[seen]]))
    b = fine_tune(by_index, x, y, settings, validation_data=(x[seen], y[seen]))
    assert a.history["val_loss"] == pytest.approx(b.history["val_loss"])
    with pytest.raises(ValueError, match="Labels that are not in the training data: dog. Classes: ant, bee, cat"):
        fine_tune(member(), x, names[y], validation_data=(x, np.array(["bee", "cat", "dog"])[y]))
    with pytest.raises(ValueError, match="Labels that are not in the training data: 3"):
        fine_tune(member(), x, y, validation_data=(x, y + 1))
    with pytest.raises(ValueError, match=r"must be \(x, y\) or an ImageDataset. Received: a sequence of 3"):
        fine_tune(member(), x, y, validation_data=(x, y, y))
    with pytest.raises(ValueError, match="Labels are needed"):
        fine_tune(member(), x, y, validation_data=ek.ImageDataset.from_arrays(x))


@pytest.mark.parametrize("settings", [{"epochs": 3}, ek.Training()])
def test_other_settings_than_fine_tuning_are_refused(data, settings):
    with pytest.raises(ValueError, match="`settings` must be None or FineTuning settings"):
        fine_tune(member(), *data, settings)

import random

import keras
import numpy as np
import pytest
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras.members import trainer
from ensemble_keras.members.initialisation import reinitialised
from ensemble_keras.members.trainer import Trainer
from ensemble_keras.members.training import Trainee, train


def member(name="m"):
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.MaxPooling2D(4)(x)
    x = keras.layers.Dropout(0.2)(x)
    return ek.build_member(keras.Model(inputs, keras.layers.Flatten()(x), name=name), 3)


@pytest.fixture
def datasets():
    return ek.ImageDataset.from_arrays(*pictures(90)), ek.ImageDataset.from_arrays(*pictures(30, seed=1))


def test_training_learns_and_records_curves(datasets):
    model = reinitialised(member(), seed=0)
    settings = ek.Training(epochs=8, learning_rate=0.01, batch_size=16)
    result = Trainer(model, settings, verbose=0).run(*datasets, seed=0)
    assert {len(values) for values in result.history.values()} == {8}
    assert result.history["loss"][-1] < result.history["loss"][0] / 2
    assert result.note == ""


def test_no_epochs_show_no_bar(datasets, capsys):
    trainer = Trainer(member(), ek.FineTuning(epochs=1), verbose=1)
    assert trainer.run(datasets[0], None, seed=0, epochs=0).best_epoch == 0
    assert capsys.readouterr().out == ""


def test_slow_batch_norms_know_the_images_after_an_epoch(datasets):
    inputs = keras.Input((16, 16, 3))
    norm = keras.layers.BatchNormalization(momentum=0.999)
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(norm(inputs)))
    model = keras.Model(inputs, outputs)
    Trainer(model, ek.Training(epochs=1, batch_size=2), verbose=0).run(datasets[0], None, seed=0)
    mean = datasets[0].load(image_size=16).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=0.1)
    assert norm.momentum == 0.999


def test_the_best_weights_are_kept_not_the_last(datasets):
    train, validation = datasets
    model = reinitialised(member(), seed=0)
    settings = ek.Training(epochs=12, learning_rate=0.05, batch_size=16)
    result = Trainer(model, settings, verbose=0).run(train, validation, seed=0)
    losses = result.history["val_loss"]
    assert result.best_epoch == np.argmin(losses) + 1
    p = model.predict(validation.load(image_size=16), verbose=0)
    log_loss = -np.log(p[np.arange(30), validation.labels]).mean()
    assert log_loss == pytest.approx(min(losses), rel=1e-3)


def test_training_stops_when_patience_is_over(datasets):
    train, validation = datasets
    wrong = validation.with_labels((validation.labels + 1) % 3)  # it gets worse with every epoch
    model = reinitialised(member(), seed=0)
    settings = ek.Training(epochs=30, patience=2, learning_rate=0.01, batch_size=16)
    result = Trainer(model, settings, verbose=0).run(train, wrong, seed=0)
    assert len(result.history["loss"]) == result.best_epoch + 2 < 30


def test_without_validation_data_all_epochs_are_run_and_the_last_is_kept(datasets):
    model = reinitialised(member(), seed=0)
    result = Trainer(model, ek.Training(epochs=20), verbose=0).run(datasets[0], None, seed=0, epochs=3)
    assert len(result.history["loss"]) == result.best_epoch == 3
    assert "val_loss" not in result.history


def test_a_loss_that_becomes_nan_ends_training_with_finite_weights(datasets):
    model = reinitialised(member(), seed=0)
    settings = ek.Training(epochs=5, learning_rate=1e30)
    result = Trainer(model, settings, verbose=0).run(*datasets, seed=0)
    assert result.note.startswith("loss became NaN in epoch")
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_new_weights_depend_on_the_seed_alone():
    state = random.getstate(), np.random.get_state()[1].copy()
    first, second, other = (reinitialised(member(), seed) for seed in (3, 3, 4))
    for a, b, c in zip(first.get_weights(), second.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim < 2 or np.abs(a - c).max() > 0
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])


def test_new_weights_have_the_distribution_of_the_layers_initializers():
    model = reinitialised(member(), seed=0)
    kernel = next(layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Conv2D)).kernel
    limit = np.sqrt(6 / (3 * 9 + 8 * 9))
    values = np.abs(keras.ops.convert_to_numpy(kernel))
    assert limit * 0.9 < values.max() <= limit


def test_copies_do_not_share_weights_and_keep_layer_names():
    original = member()
    copy = reinitialised(original, seed=0)
    assert [w.path for w in copy.weights] == [w.path for w in original.weights]
    before = [w.copy() for w in original.get_weights()]
    copy.set_weights([w + 1 for w in copy.get_weights()])
    for a, b in zip(before, original.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_small_sets_are_held_decoded_and_large_ones_are_not(datasets, monkeypatch):
    held = trainer.hold_decoded(datasets[0], (8, 8))
    assert held.load(image_size=8).shape == (90, 8, 8, 3)
    np.testing.assert_array_equal(held.load(image_size=8), datasets[0].load(image_size=8))
    assert held.labels.tolist() == datasets[0].labels.tolist()
    monkeypatch.setattr(trainer, "_HELD_BYTES", 90 * 8 * 8 * 3 - 1)
    assert trainer.hold_decoded(datasets[0], (8, 8)) is datasets[0]


def test_the_part_for_early_stopping_takes_no_group_apart_and_needs_no_rare_class():
    x, y = pictures(60)
    y[:59] %= 2
    y[59] = 2  # one image of a class: it stays with the training part
    dataset = ek.ImageDataset.from_arrays(x, y, groups=np.arange(60) // 3)
    rows, held = trainer.inner_split(dataset, ek.Training(validation_split=0.2), seed=0)
    train, validation = dataset[rows], dataset[held]
    assert len(train) + len(validation) == 60
    assert not set(train.groups) & set(validation.groups)
    assert 2 in train.labels
    assert {0, 1} <= set(validation.labels)


def test_too_few_groups_leave_no_validation_part():
    x, y = pictures(12)
    dataset = ek.ImageDataset.from_arrays(x, y, groups=np.repeat(["a", "b"], 6))
    rows, held = trainer.inner_split(dataset, ek.Training(validation_split=0.1), seed=0)
    assert rows.tolist() == list(range(12))
    assert len(held) == 0


def test_backbones_of_ones_own_are_not_drawn_anew():
    x, y = pictures(30)
    backbone = random_backbone("mine")
    before = [w.copy() for w in backbone.get_weights()]
    ek.out_of_fold_predictions(backbone, x, y, cv=3, image_size=16, verbose=0)
    for a, b in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class Recorder:
    """An `ImageDataset` that keeps which rows it was asked for."""

    def __init__(self, dataset):
        self.dataset, self.labels, self.rows = dataset, dataset.labels, []

    def __len__(self):
        return len(self.dataset)

    def load(self, rows, *, image_size):
        self.rows.append(rows.tolist())
        return self.dataset.load(rows, image_size=image_size)


@pytest.mark.parametrize("batch_size", [16, 90])
def test_the_order_of_the_images_is_a_function_of_seed_and_epoch(datasets, batch_size):
    trainee, orders = Trainee(member(), ek.Training(epochs=3, batch_size=batch_size)), []
    for _ in range(2):  # Keras looks at batches in advance the first time
        images = Recorder(datasets[0])
        train(trainee, images, None, seed=5, verbose=0)
        orders.append(np.concatenate(images.rows)[-270:].tolist())
    expected = [np.random.default_rng([5, epoch]).permutation(90) for epoch in range(3)]
    assert orders == [np.concatenate(expected).tolist()] * 2


def test_the_learning_rate_of_each_training_falls_over_its_own_steps(datasets):
    images, rates = datasets[0], []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(trainee.optimizer.learning_rate))
    )
    trainee = Trainee(member(), ek.Training(epochs=2, batch_size=10, learning_rate=0.1))
    for rows in (slice(0, 90), slice(0, 30), slice(0, 60)):
        train(trainee, images[np.arange(90)[rows]], None, seed=0, callbacks=[watch], verbose=0)
    np.testing.assert_allclose(rates, [0.05, 0] * 3, atol=1e-7)


def test_training_again_with_another_number_of_steps_is_as_if_it_were_the_first(datasets):
    images, weights = datasets[0], []
    for earlier in ([], [90]):
        model = reinitialised(member(), seed=0)
        start = model.get_weights()
        trainer = Trainer(model, ek.Training(epochs=2, batch_size=10), augmentation="light", verbose=0)
        for count in [*earlier, 40]:
            model.set_weights(start)
            trainer.run(images[np.arange(count)], None, seed=0)
        weights.append(model.get_weights())
    for first, again in zip(*weights, strict=True):
        np.testing.assert_allclose(first, again, atol=1e-6)


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = True


def test_a_callback_of_the_users_stops_training_within_an_epoch(datasets):
    trainer = Trainer(member(), ek.Training(epochs=5, batch_size=16), callbacks=[Stop()], verbose=0)
    assert len(trainer.run(*datasets, seed=0).history["loss"]) == 1


def test_keras_backup_and_checkpoint_callbacks_work(datasets, tmp_path):
    callbacks = [
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.weights.h5", save_weights_only=True, save_best_only=True, monitor="val_loss"
        ),
    ]
    settings = ek.FineTuning(epochs=2, batch_size=16, layer_decay=0.5, ema_momentum=0.9)
    Trainer(member(), settings, callbacks=callbacks, augmentation="light", verbose=0).run(*datasets, seed=0)
    assert (tmp_path / "best.weights.h5").exists()


def test_an_area_under_the_curve_needs_two_classes(datasets):
    images, validation = datasets
    one = validation[np.flatnonzero(validation.labels == 1)]
    with pytest.raises(
        ValueError, match="`monitor='val_auc'` needs validation images of two classes.*all of class 1"
    ):
        Trainer(member(), ek.Training(monitor="val_auc"), verbose=0).run(images, one, seed=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 5.0]])
@pytest.mark.parametrize("loss", ["crossentropy", "focal"])
def test_the_loss_is_keras_own_also_with_mixed_labels(loss, smoothing, weights, rng):
    p = rng.dirichlet(np.ones(3), 6).astype("float32")
    labels = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]]
    labels[3:] = 0.3 * labels[3:] + 0.7 * labels[:3]  # as of MixUp
    trainee = Trainee(member(), ek.Training(loss=loss, label_smoothing=smoothing), class_weight=weights)
    found = trainee.compute_loss(y_pred={"predictions": p, "labels": labels})
    own = (
        keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0, label_smoothing=smoothing)
        if loss == "focal"
        else keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    )
    expected = own(labels, p, sample_weight=None if weights is None else labels @ np.array(weights, "float32"))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_validation_figures_are_of_unchanged_images_and_the_plain_weighted_loss(datasets):
    weights = [1.0, 2.0, 5.0]
    settings = ek.FineTuning(epochs=1, batch_size=16, loss="focal", label_smoothing=0.3, learning_rate=1e-9)
    model, (images, validation) = reinitialised(member(), seed=0), datasets
    result = Trainer(model, settings, class_weight=weights, augmentation="strong", verbose=0).run(
        images, validation, seed=0
    )
    p = model.predict(validation.load(image_size=16), verbose=0)
    loss = -np.log(p[np.arange(30), validation.labels])
    expected = np.average(loss, weights=np.array(weights)[validation.labels])
    assert result.start["val_loss"] == pytest.approx(expected, rel=1e-4)
    assert result.history["val_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_half_precision_resumes_and_ends_the_same(datasets, tmp_path):
    images, validation = datasets
    settings, weights = ek.FineTuning(epochs=3, batch_size=30, learning_rate=0.01, mixed_precision=True), []
    for stops in ([3], [2, 3]):
        model, path = reinitialised(member(), seed=0), tmp_path / f"{len(stops)}.npz"
        start = model.get_weights()
        for epochs in stops:
            model.set_weights(start)
            Trainer(model, settings, verbose=0).run(images, validation, seed=0, epochs=epochs, checkpoint=path)
        weights.append(model.get_weights())
        assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}
    for whole, resumed in zip(*weights, strict=True):
        np.testing.assert_allclose(whole, resumed, atol=1e-6)

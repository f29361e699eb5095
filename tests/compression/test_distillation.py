import dataclasses
import logging

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras.compression import distillation
from ensemble_keras.compression.lessons import Lessons, answers_of
from ensemble_keras.features.extraction import predict_in_batches
from ensemble_keras.features.store import FeatureStore
from ensemble_keras.features.views import Views

QUICK = ek.Training(epochs=2, batch_size=16, learning_rate=0.01)


@pytest.fixture(scope="module")
def data():
    return pictures(60)


@pytest.fixture(scope="module")
def teacher(data):
    """An ensemble of two members that know the classes."""
    members = []
    for seed in (0, 1):
        member = ek.build_member(random_backbone(f"teacher_{seed}", seed=seed), 3)
        ek.fine_tune(member, *data, settings=ek.FineTuning(epochs=1, unfreeze=1, batch_size=16), verbose=0)
        members.append(member)
    return ek.build_ensemble(members, ek.SoftVoting())


def small(name="small", size=16, seed=5):
    return random_backbone(name, units=2, size=size, seed=seed)


def classifier(seed=3, units=3, activation="softmax"):
    images = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.AveragePooling2D(8)(x)
    kernel = keras.initializers.HeNormal(seed=seed)
    x = keras.layers.Dense(units, activation, kernel_initializer=kernel)(keras.layers.Flatten()(x))
    return keras.Model(images, x, name="classifier")


def distil(teacher, student, x, y, settings=QUICK, **arguments):
    return ek.distill(teacher, student, x, y, settings=settings, **{"verbose": 0, **arguments})


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def test_the_student_comes_to_say_what_the_teacher_says_without_any_label(teacher, data):
    x, y = data
    new = pictures(60, seed=9)
    settings = ek.Training(epochs=25, batch_size=16, learning_rate=0.05)
    student = distil(teacher, classifier(), x, np.roll(y, 1), settings, alpha=0.0, validation_data=new)
    before, after = (model.predict(new[0], verbose=0) for model in (classifier(), student))
    said = teacher.predict(new[0], verbose=0)
    agreement = [np.mean(p.argmax(axis=1) == said.argmax(axis=1)) for p in (before, after)]
    assert agreement[1] > max(0.8, agreement[0] + 0.2)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.0), (4.0, 0.0), (3.0, 0.25), (2.0, 1.0)])
def test_the_loss_is_that_of_the_paper(temperature, alpha, rng):
    network = classifier()
    trainee = distillation._Student(network, ek.Training(), temperature=temperature, alpha=alpha)
    images = rng.integers(0, 256, (5, 16, 16, 3)).astype("float32")
    answers = rng.dirichlet([1, 1, 1], 5).astype("float32")
    labels = np.array([0, 2, 1, -1, -1])
    outputs = trainee({"images": images, "labels": np.column_stack([labels, answers]).astype("float32")})
    loss = float(trainee.compute_loss(y_pred=outputs))
    p = network.predict(images, verbose=0).astype("float64")
    soft, student = softmax(np.log(answers) / temperature, axis=1), log_softmax(np.log(p) / temperature, axis=1)
    divergence = (soft * (np.log(soft) - student)).sum(axis=1).mean()
    of_labels = -np.log(p[np.arange(3), labels[:3]]).sum() / 5
    assert loss == pytest.approx(alpha * of_labels + (1 - alpha) * temperature**2 * divergence, rel=1e-4, abs=1e-6)


def test_accuracy_is_against_labels_and_where_there_are_none_against_the_teacher(teacher, data):
    x, y = data
    settings = dataclasses.replace(QUICK, learning_rate=1e-9)
    options = {"validation_data": data, "alpha": 0.5}
    wrong = np.roll(y, 1)
    exact = np.mean(teacher.predict(x, verbose=0).argmax(axis=1) == wrong)
    assert exact < 0.5
    alone = distil(teacher, teacher, x, wrong, settings, **options)
    mixed = distil(teacher, teacher, x, wrong, settings, unlabelled=pictures(60, seed=4)[0], **options)
    np.testing.assert_allclose(alone.history.history["accuracy"], exact, atol=0.02)
    np.testing.assert_allclose(mixed.history.history["accuracy"], (exact + 1) / 2, atol=0.02)


@pytest.mark.parametrize("size", [32, 64])
def test_teacher_and_student_see_the_same_view(rng, size):
    """The student's images, of its own size, are those on which the teacher was asked."""
    coarse = ek.ImageDataset.from_arrays(rng.integers(0, 256, (12, 4, 4, 3), dtype="uint8"))
    dataset = ek.ImageDataset.from_arrays(coarse.load(image_size=64), np.arange(12) % 3)
    views = [Views("light(strength=2)", 3, 7) for _ in range(2)]
    own = dataset.load(image_size=32)
    shown = np.stack([own, *(views[0].of(own, dataset.digests(), view, 12) for view in (1, 2))], axis=1)
    answers = rng.dirichlet([1, 1, 1], (12, 3)).astype("float32")
    lessons = Lessons([dataset], [answers], views=views[1], image_size=(size, size))
    rows = rng.permutation(36)
    loaded = lessons.load(rows, image_size=(size, size)).astype("float64")
    loaded = loaded.reshape(36, 32, size // 32, 32, size // 32, 3).mean(axis=(2, 4))
    shown = shown.reshape(36, -1)
    for row, image in zip(rows, loaded, strict=True):
        likeness = [np.corrcoef(image.ravel(), other)[0, 1] for other in shown]
        assert likeness[row] > (0.9999 if size == 32 else 0.99)
        assert np.argmax(likeness) == row
        number, view = divmod(row, 3)
        np.testing.assert_array_equal(lessons.labels[row], [number % 3, *answers[number, view]])


def test_lessons_are_labels_and_answers_of_all_parts(data, teacher):
    x, y = data
    parts = [ek.ImageDataset.from_arrays(x[:10], y[:10]), ek.ImageDataset.from_arrays(x[10:14])]
    answers = [answers_of(teacher, part, image_size=(16, 16), verbose=0) for part in parts]
    lessons = Lessons(parts, answers, views=None, image_size=(16, 16))
    assert len(lessons) == 14
    np.testing.assert_array_equal(lessons.labels[:, 0], [*y[:10], -1, -1, -1, -1])
    np.testing.assert_allclose(lessons.labels[:, 1:], teacher.predict(x[:14], verbose=0), atol=1e-6)
    rows = np.array([13, 2, 10, 9])
    np.testing.assert_array_equal(lessons.load(rows, image_size=(16, 16)), x[rows])


def test_a_teacher_of_one_sigmoid_unit_has_two_classes(data):
    x = data[0][:6]
    teacher = classifier(units=1, activation="sigmoid")
    p = answers_of(teacher, ek.ImageDataset.from_arrays(x), image_size=(16, 16), verbose=0)
    assert p.shape == (6, 1, 2)
    np.testing.assert_allclose(p[:, 0, 1], teacher.predict(x, verbose=0)[:, 0], atol=1e-6)


def test_the_teacher_is_asked_once_for_each_view(teacher, data, tmp_path, monkeypatch):
    x, y = data
    asked = []

    def counted(model, pixels, batch_size):
        asked.append((model.name, len(pixels)))
        return predict_in_batches(model, pixels, batch_size)

    monkeypatch.setattr("ensemble_keras.features.extraction.predict_in_batches", counted)
    validation = pictures(9, seed=2)
    options = {
        "views": 3,
        "augmentation": "flip",
        "validation_data": validation,
        "store": tmp_path / "answers.sqlite",
    }
    student = distil(teacher, classifier(), x, y, dataclasses.replace(QUICK, epochs=3), **options)
    assert sum(count for name, count in asked if name == teacher.name) == 3 * 60
    assert len(student.history.history["loss"]) == 3
    asked.clear()
    distil(teacher, classifier(seed=4), x, y, **options)
    assert not [count for name, count in asked if name == teacher.name]
    assert FeatureStore(tmp_path / "answers.sqlite").stats()["vectors"] == 180


def test_a_given_model_stays_as_it_is_and_its_copy_starts_from_its_weights(teacher, data):
    model = classifier()
    before = weights(model)
    student = distil(teacher, model, *data, dataclasses.replace(QUICK, learning_rate=1e-9))
    np.testing.assert_array_equal(weights(model), before)
    np.testing.assert_allclose(weights(student), before, atol=1e-6)
    assert student.name == model.name
    backbone = small()
    before = weights(backbone)
    student = distil(teacher, backbone, *data, dataclasses.replace(QUICK, learning_rate=1e-9))
    np.testing.assert_array_equal(weights(backbone), before)
    np.testing.assert_allclose(weights(student)[: len(before)], before, atol=1e-6)
    assert student.output_shape == (None, 3)


def test_a_backbone_by_name_takes_the_size_that_is_asked_for(teacher, data):
    x, y = data
    options = {"weights": None, "settings": dataclasses.replace(QUICK, epochs=1)}
    assert distil(teacher, "CNN(filters=(4,))", x, y, **options).input_shape == (None, 16, 16, 3)
    student = distil(teacher, "CNN(filters=(4,))", x, y, image_size=32, **options)
    assert student.input_shape == (None, 32, 32, 3)


def test_a_backbone_without_pretrained_weights_starts_from_random_ones():
    network, is_new = distillation._student("CNN(filters=(4,))", 3, None, (16, 16), "imagenet", 0)
    assert is_new
    assert network.input_shape == (None, 16, 16, 3)
    with pytest.raises(ValueError, match="MobileNetV2 has no weights 'imagnet', only 'imagenet'"):
        distillation._student("MobileNetV2", 3, None, (32, 32), "imagnet", 0)


def test_a_given_backbone_of_any_size_takes_images_of_the_ensemble_s():
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(images))
    for backbone, expected in ((keras.Model(images, pooled, name="any"), 16), (small(size=24), 24)):
        network, is_new = distillation._student(backbone, 3, None, (16, 16), "imagenet", 0)
        assert is_new
        assert network.input_shape == (None, expected, expected, 3)


def test_the_same_seed_gives_the_same_student(teacher, data):
    made = [
        distil(teacher, "CNN(filters=(4,))", *data, QUICK, weights=None, views=2, augmentation="flip", seed=seed)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(weights(made[0]), weights(made[1]))
    assert np.abs(weights(made[0]) - weights(made[2])).max() > 1e-3


def test_fine_tuning_solves_a_new_head_first(teacher, data):
    settings = ek.FineTuning(epochs=1, learning_rate=1e-9, batch_size=16)
    student = distil(teacher, random_backbone("wide", seed=5), *data, settings)
    assert student.history.start["val_accuracy"] > 0.8
    assert student.history.best_epoch in (0, 1)


@pytest.mark.slow
def test_the_same_call_goes_on_after_a_kill(teacher, data, tmp_path):
    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    settings = dataclasses.replace(QUICK, epochs=3)
    options = {"views": 2, "augmentation": "flip", "weights": None}
    whole = distil(teacher, "CNN(filters=(4,))", *data, settings, **options)
    with pytest.raises(KeyboardInterrupt):
        distil(teacher, "CNN(filters=(4,))", *data, settings, directory=tmp_path, callbacks=[Killed()], **options)
    assert FeatureStore(tmp_path / "answers.sqlite").stats()["vectors"] == 2 * 54
    assert list((tmp_path / "units").glob("*.checkpoint.npz"))
    again = distil(teacher, "CNN(filters=(4,))", *data, settings, directory=tmp_path, **options)
    np.testing.assert_allclose(weights(again), weights(whole), atol=1e-6)
    assert len(again.history.history["loss"]) == 3
    # A finished run is read, not trained.
    third = distil(teacher, "CNN(filters=(4,))", *data, settings, directory=tmp_path, callbacks=[Killed()], **options)
    np.testing.assert_array_equal(weights(third), weights(again))


def test_a_loss_that_becomes_nan_keeps_the_best_weights_and_says_so(teacher, data, capsys):
    settings = ek.Training(epochs=3, learning_rate=1e30, batch_size=16, optimizer="sgd")
    student = ek.distill(teacher, "CNN(filters=(4,))", *data, weights=None, settings=settings)
    assert "loss became NaN" in student.history.note
    assert student.history.note in capsys.readouterr().out
    assert np.isfinite(weights(student)).all()


def test_where_memory_runs_out_the_batch_is_halved(teacher, data, monkeypatch, caplog):
    sizes, real = [], distillation._Teaching.new_trainee

    def scarce(self, network, settings):
        sizes.append(settings.batch_size)
        if settings.batch_size > 8:
            raise MemoryError
        return real(self, network, settings)

    monkeypatch.setattr(distillation._Teaching, "new_trainee", scarce)
    with caplog.at_level(logging.WARNING, "ensemble_keras"):
        distil(teacher, classifier(), *data)
    assert sizes == [16, 8]
    assert "going on with 8" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0}, "`temperature` must be a number above 0. Received: 0"),
        ({"temperature": float("inf")}, "`temperature` must be a number above 0"),
        ({"alpha": 1.5}, r"`alpha` must be a number in \[0, 1\]. Received: 1.5"),
        ({"views": 0}, "`views` must be an int of at least 1. Received: 0"),
        ({"augmentation": "lihgt"}, "Unknown augmentation 'lihgt'. Did you mean 'light'"),
        (
            {"ensemble": classifier(activation="linear")},
            "`the predictions of 'classifier'` must hold one row of class",
        ),
        ({"seed": -1}, "`seed` must be an int of at least 0"),
        ({"settings": "long"}, "`settings` must be None or Training settings"),
        ({"views": 2, "augmentation": "strong"}, "MixUp and CutMix mix an image"),
        ({"student": classifier(units=4)}, "must have the ensemble's 3 classes. Received: 'classifier' with 4"),
        ({"y": None}, "Labels are needed"),
        ({"ensemble": "ensemble.keras"}, "`ensemble` must be a functional `keras.Model`"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(teacher, data, wrong, message):
    arguments = {"ensemble": teacher, "student": classifier(), "x": data[0], "y": data[1], "settings": QUICK}
    with pytest.raises(ValueError, match=message):
        ek.distill(**{**arguments, **wrong}, verbose=0)

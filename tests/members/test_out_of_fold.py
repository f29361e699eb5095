import numpy as np
import pytest
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras.members import mlp, out_of_fold


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_out_of_fold_predictions_of_a_frozen_backbone(head, monkeypatch):
    monkeypatch.setattr(mlp, "_EPOCHS", 15)
    x, y = pictures(90)
    p = ek.out_of_fold_predictions(random_backbone("a"), x, y, cv=3, image_size=16, head=head, verbose=0)
    assert p.shape == (90, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert np.mean(p.argmax(axis=1) == y) > 0.8


def test_out_of_fold_predictions_of_a_trained_backbone():
    x, y = pictures(90)
    settings = ek.Training(epochs=30, learning_rate=0.01, batch_size=16)
    p = ek.out_of_fold_predictions("CNN(filters=(8, 16))", x, y, cv=2, image_size=16, training=settings, verbose=0)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert np.mean(p.argmax(axis=1) == y) > 0.6


def test_images_may_be_taller_than_wide():
    x, y = pictures(30)
    x, settings = np.repeat(x, 2, axis=1), ek.Training(epochs=1)
    arguments = {"cv": 2, "image_size": (32, 16), "weights": None, "verbose": 0}
    p = ek.out_of_fold_predictions("CNN(filters=(4, 8))", x, y, training=settings, **arguments)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    member = ek.build_member("CNN(filters=(4, 8))", 3, image_size=(32, 16), weights=None)
    assert member.input_shape == (None, 32, 16, 3)


@pytest.mark.parametrize("backbone", ["frozen", "CNN(filters=(8, 16))"])
def test_labels_that_mean_nothing_are_not_predicted(backbone):
    # A member that were asked about images it trained on would do far better than chance.
    x, _ = pictures(120, classes=2)
    y = np.random.default_rng(1).permutation(np.arange(120) % 2)
    backbone = random_backbone("frozen", 32) if backbone == "frozen" else backbone
    settings = ek.Training(epochs=5, learning_rate=0.01)
    p = ek.out_of_fold_predictions(backbone, x, y, cv=3, image_size=16, training=settings, verbose=0)
    assert 0.3 < np.mean(p.argmax(axis=1) == y) < 0.7


def test_a_group_is_never_on_both_sides():
    # Every group has an image of its own, repeated with noise, and labels that only the group tells.
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 200, (20, 16, 16, 3))
    x = np.clip(np.repeat(scenes, 6, axis=0) + rng.integers(0, 20, (120, 16, 16, 3)), 0, 255).astype("uint8")
    groups = np.repeat(np.arange(20), 6)
    y = np.repeat(rng.permutation(np.arange(20) % 2), 6)
    backbone = random_backbone("a", 32)
    by_image, by_group = (
        ek.out_of_fold_predictions(backbone, x, y, groups=g, cv=5, image_size=16, verbose=0) for g in (None, groups)
    )
    assert np.mean(by_image.argmax(axis=1) == y) > 0.95
    assert np.mean(by_group.argmax(axis=1) == y) < 0.8


def test_strings_are_sorted_and_image_size_is_the_backbones_own():
    x, y = pictures(30)
    names = np.array(["zebra", "ant", "bee"])[y]
    p = ek.out_of_fold_predictions(random_backbone("a"), x, names, cv=3, verbose=0)
    assert np.mean(np.array(["ant", "bee", "zebra"])[p.argmax(axis=1)] == names) > 0.8


def test_bad_arguments_are_refused():
    x, y = pictures(30)
    with pytest.raises(ValueError, match="as many images of each class as folds"):
        ek.out_of_fold_predictions(random_backbone("a"), x, y, cv=20, verbose=0)
    with pytest.raises(ValueError, match="Labels are needed"):
        ek.out_of_fold_predictions(random_backbone("a"), x, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "lineal"}, "`head` must be one of 'linear', 'mlp'"),
        ({"sampling": "smote"}, "`sampling` must be one of"),
        ({"training": 5}, "`training` must be None or Training settings"),
        ({"fine_tune": 5}, "`fine_tune` must be True, None or FineTuning settings"),
        ({"fine_tune": True, "augmentation": "lihgt"}, "Unknown augmentation 'lihgt'"),
        ({"fine_tune": ek.FineTuning(unfreeze="block_9")}, "block_9"),
        ({"fine_tune": True, "backbone": "CNN"}, "`fine_tune` is of backbones with pretrained weights"),
        ({"augmentation": "light"}, "all backbones stay frozen"),
        ({"seed": 0.5}, "`seed` must be an int of at least 0"),
        ({"views": 0}, "`views` must be an int of at least 1"),
        ({"class_weight": "balance"}, "Did you mean 'balanced'"),
    ],
)
def test_a_slip_is_said_before_any_work(arguments, message, monkeypatch):
    monkeypatch.setattr(out_of_fold, "extract_features", None)
    backbone = arguments.pop("backbone", None) or random_backbone("a")
    with pytest.raises(ValueError, match=message):
        ek.out_of_fold_predictions(backbone, *pictures(30), cv=3, image_size=16, verbose=0, **arguments)


def test_weights_of_an_unknown_name_are_refused_not_drawn_at_random():
    with pytest.raises(ValueError, match="imagnet"):
        ek.out_of_fold_predictions("MobileNetV2", *pictures(30), image_size=32, weights="imagnet", verbose=0)

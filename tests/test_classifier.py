import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import zipfile

import keras
import numpy as np
import pandas as pd
import psutil
import pytest
from little_memory import refuse_batches
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras import pipeline
from ensemble_keras.backbones import registry
from ensemble_keras.combiners import budget
from ensemble_keras.combiners.calibration import calibrated, cross_calibrated
from ensemble_keras.data.splits import make_folds
from ensemble_keras.members import fold_training, mlp
from ensemble_keras.members.head_fitting import fit_head
from ensemble_keras.members.member import HEADS

NAMES = np.array(["ant", "bee", "cat"])
SHORT = ek.Training(epochs=2, batch_size=16)


def classifier(**arguments):
    backbones = arguments.pop("backbones", None) or [random_backbone("a"), random_backbone("b", 6, seed=1)]
    return ek.EnsembleClassifier(backbones, **{"image_size": 16, "cv": 3, "verbose": 0, **arguments})


@pytest.fixture(scope="module")
def data():
    return pictures()


@pytest.fixture(scope="module")
def fitted(data):
    x, y = data
    return classifier().fit(x, NAMES[y])


@pytest.fixture
def folder(data, tmp_path):
    for i, (image, label) in enumerate(zip(*data, strict=True)):
        path = tmp_path / "data" / NAMES[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "data"


def test_it_learns_and_predicts_names(fitted, data):
    x, y = pictures(30, seed=1)
    assert fitted.classes_.tolist() == NAMES.tolist()
    assert fitted.score(x, NAMES[y]) >= 0.9
    assert set(fitted.predict(x)) <= set(NAMES)
    probabilities = fitted.predict_proba(x)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(probabilities, fitted.model_.predict(x, verbose=0), atol=1e-6)


def test_soft_voting_is_the_mean_of_the_members(fitted, data):
    x, _ = data
    expected = np.mean([member.predict(x, verbose=0) for member in fitted.members_], axis=0)
    np.testing.assert_allclose(fitted.predict_proba(x), expected, atol=1e-6)


def test_out_of_fold_predictions_are_those_of_heads_fitted_without_the_fold(data):
    x, y = data
    backbone = random_backbone("a")
    fitted = classifier(backbones=[backbone]).fit(x, y)
    folds = make_folds(y, cv=3, seed=0, digests=ek.ImageDataset.from_arrays(x).digests())
    features = backbone.predict(x, verbose=0)
    strength = fitted.card_["members"][0]["strength"]
    for fold in range(3):
        held = folds == fold
        plain = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        expected = plain.fit(features[~held], y[~held]).predict_proba(features[held])
        # The scale is taken over all images, not over those of the other folds: a small difference.
        np.testing.assert_allclose(fitted.out_of_fold_[held, 0], expected, atol=0.06)


def test_ints_come_back_as_ints_and_need_not_start_at_0(data):
    x, y = data
    fitted = classifier().fit(x, (y + 5)[:, None])
    assert fitted.classes_.tolist() == [5, 6, 7]
    assert fitted.predict(x[:4]).dtype.kind == "i"
    assert fitted.score(x, y + 5) > 0.9


def test_folders_give_class_names_and_the_same_result_as_arrays(folder, fitted, data):
    dataset = ek.ImageDataset.from_directory(folder)
    from_folder = classifier().fit(dataset)
    x, y = data
    order = np.argsort(y, kind="stable")
    assert from_folder.classes_.tolist() == NAMES.tolist()
    assert from_folder.score(dataset) == from_folder.score(x[order], NAMES[y[order]])
    assert from_folder.score(dataset, dataset.labels) == from_folder.score(dataset)


def test_the_leaderboard_says_what_each_is_worth(fitted, data):
    _, y = data
    board = fitted.leaderboard_.set_index("name")
    assert board.index.tolist() == ["a", "b", "soft_voting"]
    assert board["kind"].tolist() == ["member", "member", "ensemble"]
    for number, name in enumerate("ab"):
        expected = np.mean(fitted.out_of_fold_[:, number].argmax(axis=1) == y)
        assert board.loc[name, "accuracy"] == pytest.approx(expected)
        assert board.loc[name, "parameters"] == fitted.members_[number].count_params()
    voted = np.mean(fitted.out_of_fold_.mean(axis=1).argmax(axis=1) == y)
    assert board.loc["soft_voting", "accuracy"] == pytest.approx(voted)
    best = board[board["kind"] == "member"]["accuracy"].max()
    np.testing.assert_allclose(board["difference"], board["accuracy"] - best, atol=1e-9)
    assert (board["low"] <= board["difference"]).all()
    assert (board["difference"] <= board["high"]).all()
    assert board.loc["soft_voting", "chosen"]
    assert (board["seconds"] >= 0).all()


def test_the_verdict_says_when_one_model_would_do(data):
    x, y = data
    twins = classifier(backbones=[random_backbone("a"), random_backbone("twin")]).fit(x, y)
    assert twins.verdict_.startswith("One model would do: a alone")
    assert "Soft voting of 2 members gives +0.0 points" in twins.verdict_
    alone = classifier(backbones=[random_backbone("a")]).fit(x, y)
    assert alone.verdict_.startswith("One member: a, out-of-fold accuracy")


def test_auto_leaves_out_what_adds_nothing(data, tmp_path):
    x, y = data
    backbones = [random_backbone("good"), random_backbone("twin"), random_backbone("coarse", 1, seed=4)]
    fitted = classifier(backbones=backbones, combiner="auto").fit(x, NAMES[y])
    board = fitted.leaderboard_.set_index("name")
    assert board.loc["best_member", "chosen"]
    names = ["good", "twin", "coarse"]
    best = max(names, key=lambda name: (board.loc[name, "accuracy"], -board.loc[name, "log_loss"]))
    assert board.loc["best_member", "parameters"] == board.loc[best, "parameters"]
    assert fitted.verdict_.startswith(f"One model would do: {best} alone has")
    assert [member.name for member in fitted.members_] == names
    alone = fitted.members_[names.index(best)]
    np.testing.assert_allclose(fitted.predict_proba(x), alone.predict(x, verbose=0), atol=1e-6)
    assert [member["name"] for member in fitted.card_["members"]] == [best]
    assert fitted.card_["left_out"] == [name for name in names if name != best]
    fitted.save(tmp_path / "model.keras")
    model, _ = ek.load_ensemble(tmp_path / "model.keras")
    assert [layer.name for layer in model.layers if isinstance(layer, keras.Model)] == [best]


@pytest.mark.parametrize(
    "combiner",
    [
        "hard_voting",
        "geometric_voting",
        "weighted_voting",
        "greedy",
        "best_member",
        "concatenate",
        "stacking",
        "gated",
        "auto",
    ],
)
def test_every_combiner_makes_one_model(data, combiner, tmp_path):
    x, y = data
    fitted = classifier(combiner=combiner).fit(x, NAMES[y])
    assert fitted.score(x, NAMES[y]) > 0.9
    fitted.save(tmp_path / "model.keras")
    model, card = ek.load_ensemble(tmp_path / "model.keras")
    np.testing.assert_allclose(model.predict(x, verbose=0), fitted.predict_proba(x), atol=1e-6)
    assert card["class_names"] == NAMES.tolist()
    tried = fitted.leaderboard_[fitted.leaderboard_["kind"] == "ensemble"]
    assert tried["chosen"].sum() == 1
    assert len(tried) == (7 if combiner == "auto" else 1)


def test_a_layer_of_keras_own_joins_predictions(fitted, data):
    x, y = data
    averaged = classifier(combiner=keras.layers.Average()).fit(x, NAMES[y])
    np.testing.assert_allclose(averaged.predict_proba(x), fitted.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("combiner", ["soft_voting", "stacking", "concatenate"])
def test_calibrated_members_and_ensemble_are_brought_to_their_temperatures(data, combiner):
    x, y = data
    y = np.where(np.arange(len(y)) % 4 == 0, (y + 1) % 3, y)  # A quarter of the labels is noise.
    fitted = classifier(combiner=combiner, calibrate=True).fit(x, NAMES[y])
    temperature, of_members = fitted.card_["temperature"], fitted.card_["member_temperatures"]
    if combiner == "concatenate":
        assert of_members is None
        raw = ek.build_ensemble(fitted.members_, fitted.combiner_).predict(x, verbose=0)
    else:
        np.testing.assert_allclose(of_members, ek.fit_temperatures(fitted.out_of_fold_, y), rtol=1e-6)
        given = [m.predict(x, verbose=0) for m in fitted.members_]
        raw = fitted.combiner_([ek.apply_temperature(p, t) for p, t in zip(given, of_members, strict=True)])
    expected = ek.apply_temperature(raw, temperature)
    np.testing.assert_allclose(fitted.predict_proba(x), keras.ops.convert_to_numpy(expected), atol=1e-5)
    plain = classifier(combiner=combiner).fit(x, NAMES[y])
    assert plain.card_["temperature"] is None
    assert plain.card_["suggested_temperature"] == ek.fit_temperature(plain.ensemble_out_of_fold_, y)
    assert fitted.card_["suggested_temperature"] is None
    # What is fitted on is left as it is.
    np.testing.assert_array_equal(plain.out_of_fold_, fitted.out_of_fold_)
    # The figures are of what the model gives, each fold at a temperature of the others.
    told = fitted.card_["validation"]["out_of_fold"]["log_loss"]
    if combiner == "soft_voting":
        vote = calibrated(fitted.out_of_fold_, of_members).mean(axis=1)
        folds = make_folds(y, digests=ek.ImageDataset.from_arrays(x, y).digests(), cv=3, seed=0)
        assert told == pytest.approx(log_loss(y, cross_calibrated(vote, y, folds)), rel=1e-4)
        assert told != pytest.approx(log_loss(y, vote), rel=1e-2)
    assert fitted.leaderboard_.set_index("name").loc[combiner, "log_loss"] == pytest.approx(told)


def test_a_combiner_layer_is_rebuilt_and_not_changed(data):
    x, y = data
    layer = ek.SoftVoting(weights=[3, 1])
    fitted = classifier(combiner=layer).fit(x, y)
    assert fitted.combiner_ is not layer
    expected = np.average([m.predict(x, verbose=0) for m in fitted.members_], axis=0, weights=[3, 1])
    np.testing.assert_allclose(fitted.predict_proba(x), expected, atol=1e-6)


def test_members_without_weights_are_trained_end_to_end(data):
    x, y = data
    fitted = classifier(
        backbones=["CNN(filters=(8, 16))", random_backbone("a")], training=SHORT, combiner="concatenate"
    )
    fitted.fit(x, y)
    assert list(fitted.history_) == ["CNN(filters=(8, 16))"]
    history = fitted.history_["CNN(filters=(8, 16))"]
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "val_auc"}
    assert len(history["loss"]) == 2
    assert fitted.card_["members"][0]["trained"] == "end to end"
    assert fitted.out_of_fold_.shape == (60, 2, 3)
    np.testing.assert_allclose(fitted.out_of_fold_.sum(axis=-1), 1, atol=1e-5)


def test_the_same_seed_gives_the_same_model_and_leaves_the_users_random_state(data):
    x, y = data
    np.random.seed(7)
    state = np.random.get_state()[1].copy()
    first, second = (
        classifier(backbones=["CNN(filters=(8, 16))"], training=SHORT, cv=2).fit(x, y).predict_proba(x)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    other = classifier(backbones=["CNN(filters=(8, 16))"], training=SHORT, cv=2, seed=1).fit(x, y).predict_proba(x)
    assert np.abs(other - first).max() > 1e-4


def test_it_is_a_scikit_learn_classifier(data):
    x, y = data
    original = classifier(combiner="stacking", cv=2, seed=3)
    copy = clone(original)
    assert copy is not original
    assert copy.get_params()["combiner"] == "stacking"
    assert copy.get_params()["cv"] == 2
    assert copy.set_params(seed=4).seed == 4
    scores = cross_val_score(classifier(cv=2), x, NAMES[y], cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.8


def test_cross_val_score_takes_a_dataset(folder):
    dataset = ek.ImageDataset.from_directory(folder)
    for y, scoring in [(None, None), (dataset.labels, None), (NAMES[dataset.labels], "accuracy")]:
        cv = KFold(3, shuffle=True, random_state=0) if y is None else 3
        assert cross_val_score(classifier(cv=2), dataset, y, cv=cv, scoring=scoring).mean() > 0.8


def test_groups_and_identical_images_share_a_fold(data):
    x, y = data
    x = x.copy()
    x[3] = x[0]
    groups = np.arange(60) // 4
    folds = GroupKFold(3)
    fitted = classifier(backbones=[random_backbone("a")], cv=folds)
    with pytest.warns(UserWarning, match="1 sets of byte-identical images"):
        # A splitter decides alone, so a pair that it separates is only said.
        classifier(cv=KFold(3)).fit(np.concatenate([x, x[:1]]), np.append(y, y[0]))
    fitted.fit(x, y, groups=groups)
    assert fitted.card_["data"]["groups"] == 15


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_frozen_members_learn_from_views_and_predict_the_images_as_they_are(data, head, monkeypatch):
    monkeypatch.setattr(mlp, "_EPOCHS", 5)
    x, y = data
    backbone, options = random_backbone("a"), {"views": 3, "augmentation": "light"}
    fitted = classifier(backbones=[backbone], combiner="concatenate", head=head, **options).fit(x, y)
    features = ek.extract_features([backbone], x, image_size=16, verbose=0, **options)["a"]
    folds = make_folds(y, cv=3, seed=0, digests=ek.ImageDataset.from_arrays(x).digests())
    expected = fit_head(features, y, folds, num_classes=3, units=HEADS[head])
    np.testing.assert_allclose(fitted.out_of_fold_[:, 0], expected.out_of_fold, atol=1e-5)
    np.testing.assert_allclose(fitted.members_[0].get_weights()[-1], expected.layers[-1][1], atol=1e-5)
    assert fitted.card_["members"][0]["views"] == 3


def test_views_of_an_image_share_its_fold():
    # Labels that mean nothing: whoever saw another view of an image would know its label.
    x, _ = pictures(90, classes=2)
    y = np.random.default_rng(1).permutation(np.arange(90) % 2)
    backbone, options = random_backbone("a", 64), {"views": 4, "augmentation": "brightness"}
    fitted = classifier(backbones=[backbone], **options).fit(x, y)
    p = ek.out_of_fold_predictions(backbone, x, y, cv=3, image_size=16, verbose=0, **options)
    np.testing.assert_array_equal(fitted.out_of_fold_[:, 0], p)
    assert np.mean(p.argmax(axis=1) == y) < 0.7


def test_what_is_fine_tuned_sees_images_as_they_are_beside_views_of_the_frozen(data, tmp_path):
    x, y = data
    backbones = [random_backbone("a"), random_backbone("b", seed=1)]
    settings = ek.FineTuning(epochs=1)
    options = {"backbones": backbones, "fine_tune": {"b": settings}, "augmentation": "light", "cv": 2}
    fitted = classifier(views=2, store=tmp_path / "f.sqlite", **options).fit(x, y)
    spaces = ek.FeatureStore(tmp_path / "f.sqlite").stats()["spaces"]
    assert sorted((space["backbone"], "view" in space) for space in spaces) == [("a", 0), ("a", 1), ("b", 0)]
    assert [member["trained"] for member in fitted.card_["members"]] == ["head", "fine-tuned"]


def test_class_weight_moves_the_members(data):
    x, y = data
    keep = (y != 2) | (np.arange(60) % 4 == 0)
    plain = classifier().fit(x[keep], NAMES[y[keep]])
    weighted = classifier(class_weight={"cat": 20}).fit(x[keep], NAMES[y[keep]])
    test, _ = pictures(60, seed=2)
    assert weighted.predict_proba(test)[:, 2].mean() > plain.predict_proba(test)[:, 2].mean()
    with pytest.raises(
        ValueError, match="`class_weight` names a class that is not there: 'cats'.*Did you mean 'cat'"
    ):
        classifier(class_weight={"cats": 2}).fit(x, NAMES[y])


@pytest.mark.parametrize("combiner", ["stacking", "concatenate"])
def test_sampling_counts_in_the_combiner_too(data, combiner):
    x, y = data
    keep = (y != 2) | (np.arange(60) % 4 == 0)
    sampled = classifier(combiner=combiner, sampling="over").fit(x[keep], y[keep])
    weighted = classifier(combiner=combiner, class_weight={2: 4}).fit(x[keep], y[keep])
    for ours, theirs in zip(sampled.model_.get_weights(), weighted.model_.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(sampled.ensemble_out_of_fold_, weighted.ensemble_out_of_fold_)


def test_validation_data_are_looked_at_and_leaks_are_said(data):
    x, y = data
    with pytest.warns(UserWarning, match="6 pairs of images are in the training and the test data"):
        classifier().fit(x, y, validation_data=(x[:6], y[:6]))
    with pytest.raises(ValueError, match="6 pairs of images are in the training and the test data"):
        classifier(leaks="error").fit(x, y, validation_data=(x[:6], y[:6]))
    other_x, other_y = pictures(12, seed=5)
    assert classifier().fit(x, y, validation_data=[other_x, other_y]).score(other_x, other_y) > 0.8
    with pytest.raises(ValueError, match="Labels that are not in the training data: 9"):
        classifier().fit(x, y, validation_data=(other_x, np.full(12, 9)))


def test_accuracy_on_validation_data_stands_on_the_leaderboard_and_in_the_card(data, capsys):
    x, y = data
    other_x, other_y = pictures(31, seed=5)
    backbones = [random_backbone("a"), "CNN(filters=(4, 8))"]
    fitted = classifier(backbones=backbones, training=SHORT, combiner=["soft_voting", "concatenate"], cv=2)
    fitted.set_params(verbose=1).fit(x, NAMES[y], validation_data=(other_x, NAMES[other_y])).set_params(verbose=0)
    board = fitted.leaderboard_.set_index("name")["validation_accuracy"]
    tables = [member.predict(other_x, verbose=0) for member in fitted.members_]
    expected = [np.mean(table.argmax(axis=1) == other_y) for table in [*tables, np.mean(tables, axis=0)]]
    np.testing.assert_allclose(board[["a", "CNN(filters=(4, 8))", "soft_voting"]], expected)
    chosen = fitted.leaderboard_.query("chosen")["name"].item()
    assert board[chosen] == pytest.approx(fitted.score(other_x, NAMES[other_y]))
    assert [member["validation_accuracy"] for member in fitted.card_["members"]] == pytest.approx(expected[:2])
    assert fitted.card_["validation"]["validation_data"] == {"accuracy": board[chosen], "n": 31}
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Accuracy on the validation data: a {expected[0]:.4f}, CNN(filters=(4, 8)) {expected[1]:.4f}" in shown
    fitted.fit(x, y)
    assert "validation_accuracy" not in fitted.leaderboard_
    assert fitted.card_["validation"]["validation_data"] is None


@pytest.mark.parametrize("second", [None, "CNN(filters=(4, 8))"])
def test_concatenation_is_validated_too(data, second):
    # Of a network that was trained the final features are joined, not those of its folds.
    x, y = data
    other = pictures(30, seed=5)
    backbones = [random_backbone("a"), second or random_backbone("b", 6, seed=1)]
    fitted = classifier(backbones=backbones, combiner="concatenate", training=SHORT, cv=2)
    fitted.fit(x, y, validation_data=other)
    found = fitted.leaderboard_.set_index("name").loc["concatenate", "validation_accuracy"]
    assert found == pytest.approx(fitted.score(*other))


def test_members_whose_features_alone_are_joined_are_evaluated_too(data):
    x, y = data
    other = pictures(30, seed=5)
    joined = classifier(combiner="concatenate").fit(x, y).evaluate(*other)
    voting = classifier(combiner="soft_voting").fit(x, y).evaluate(*other)
    assert list(joined.members.index) == list(voting.members.index) == ["a", "b", "ensemble"]
    for name, probabilities in voting.member_probabilities.items():
        np.testing.assert_allclose(joined.member_probabilities[name], probabilities, atol=1e-6)


def test_evaluate_says_which_images_it_was_trained_on(data, tmp_path):
    x, y = data
    groups = np.arange(60) // 4
    fitted = classifier().fit(x, y, groups=groups)
    new = ek.ImageDataset.from_arrays(*pictures(8, seed=3), groups=np.arange(12, 20))
    mixed = ek.ImageDataset.from_arrays(np.concatenate([new.load(image_size=16), x[:2]]), [*new.labels, *y[:2]])
    with pytest.warns(UserWarning, match=r"2 pairs of images .*\(2 exact\), so figures .* will be too good"):
        report = fitted.evaluate(mixed)
    assert "2 of these 10 images (pairs: 2 exact)" in report.notes[0]
    assert report.leaks[["train_index", "test_index"]].to_numpy().tolist() == [[0, 8], [1, 9]]
    report.to_html(tmp_path / "r.html")
    assert "Training images among the test images" in (tmp_path / "r.html").read_text()
    with pytest.warns(UserWarning, match=r"3 pairs of images .*\(3 group\)"):
        fitted.evaluate(new)
    with pytest.raises(ValueError, match="2 pairs of images"):
        fitted.set_params(leaks="error").evaluate(mixed)
    clean = fitted.evaluate(*pictures(8, seed=3))
    assert not clean.notes
    clean.to_html(tmp_path / "clean.html")
    assert "Looked for and not found: training images among the test images" in (tmp_path / "clean.html").read_text()


def test_a_fit_that_fails_leaves_the_last_one_as_it_was(data):
    x, y = data
    fitted = classifier().fit(x, NAMES[y])
    before = fitted.predict(x)
    with pytest.raises(ValueError, match="takes images of shape"):
        fitted.set_params(image_size=32).fit(x, np.array(["x", "y", "z"])[y])
    assert fitted.classes_.tolist() == NAMES.tolist()
    assert fitted.predict(x).tolist() == before.tolist()
    with pytest.raises(ValueError, match="not in the training data: 7"):
        fitted.set_params(image_size=16).fit(x, y, validation_data=(x, np.full(60, 7)))
    assert fitted.score(x, NAMES[y]) > 0.9


def test_class_weight_takes_the_keys_that_numpy_gives(data, tmp_path):
    x, y = data
    weights = dict(zip(*np.unique(y + 5, return_counts=True), strict=True))
    fitted = classifier(class_weight=weights, directory=tmp_path).fit(x, y + 5)
    plain = classifier(class_weight={"5": 20, 6: 20, 7: 20}).fit(x, y + 5)
    np.testing.assert_array_equal(fitted.predict_proba(x), plain.predict_proba(x))


def test_images_may_be_taller_than_wide(data):
    x, y = data
    arguments = {"backbones": ["CNN(filters=(4, 8))"], "weights": None, "training": SHORT, "image_size": (12, 20)}
    fitted = classifier(cv=2, **arguments).fit(x, y)
    assert fitted.model_.input_shape == (None, 12, 20, 3)
    resized = ek.ImageDataset.from_arrays(x).load(image_size=(12, 20))
    np.testing.assert_allclose(fitted.predict_proba(x), fitted.model_.predict(resized, verbose=0), atol=1e-6)


class OwnVariable(keras.layers.Layer):
    takes = "predictions"

    def build(self, shapes):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, predictions):
        return keras.ops.multiply(self.scale, predictions[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"combiner": ek.SoftVoting(weights=[2, 1, 1], name="mine")},
            "The combiner 'mine' does not fit 2 members of 3 classes.* Expected one weight per member. Received: 3 "
            "weights for 2 members",
        ),
        ({"combiner": ek.ConcatenateDense(10)}, r"shape \(batch, 3\). Received: shape \(None, 10\)"),
        ({"combiner": OwnVariable()}, "must keep its variables in stock Keras layers"),
        ({"combiner": ["soft_voting", "soft_voting"]}, "must hold different ones"),
        ({"backbones": [random_backbone("a-b"), random_backbone("a_b")]}, "'a-b' and 'a_b' would be layers 'a_b'"),
        ({"backbones": [random_backbone("images")]}, "may not be called 'images'"),
        ({"backbones": ["AlexNet(width='a')"]}, r"AlexNet\(width='a'\) cannot be built with these options"),
        ({"fine_tune": ek.FineTuning(unfreeze="block_9")}, "block_9"),
        ({"fine_tune": {"b": ek.FineTuning(unfreeze="conv_9")}}, "conv_9"),
        ({"test_time_augmentation": ("horizontal",)}, "`test_time_augmentation` must be one of 'horizontal_flip'"),
    ],
)
def test_what_would_fail_after_the_training_is_said_before_it(data, arguments, message, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("work has begun")

    monkeypatch.setattr(pipeline, "extract", refuse)
    x, y = data
    with pytest.raises(ValueError, match=message):
        classifier(**arguments).fit(x, NAMES[y])


def test_a_named_class_without_images_is_said_before_any_work(data):
    x, y = data
    with pytest.raises(ValueError, match="60 images of 3 of 4 classes, none of dog"):
        classifier().fit(ek.ImageDataset.from_arrays(x, y, class_names=[*NAMES, "dog"]))


def test_a_layer_may_have_the_name_of_another_combiner(data):
    x, y = data
    layer = ek.SoftVoting(weights=[2, 1], name="soft_voting")
    fitted = classifier(combiner=["soft_voting", layer]).fit(x, y)
    names = fitted.leaderboard_.query("kind == 'ensemble'")["name"].tolist()
    assert names == ["soft_voting", "soft_voting_2"]


def test_weights_that_one_backbone_knows_are_refused_for_the_others(data, monkeypatch):
    x, y = data
    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))
    build = lambda input_shape, weights: random_backbone("inner")  # noqa: E731
    ek.register_backbone("Mine", build, preprocessing=None, default_size=16, weights=("x_rays",))
    with pytest.raises(
        ValueError, match="MobileNetV2 has no weights 'x_rays', only 'imagenet', and would be trained"
    ):
        classifier(backbones=["Mine", "MobileNetV2"], weights="x_rays").fit(x, y)
    with pytest.raises(ValueError, match=r"Mine has no weights 'imagenet'.*: \"Mine\(weights='x_rays'\)\""):
        classifier(backbones=["Mine", "VGG16"]).fit(x, y)
    assert classifier(backbones=["Mine(weights='x_rays')"]).fit(x, y).history_ == {}


def test_a_run_that_is_started_again_computes_nothing(data, tmp_path, monkeypatch):
    x, y = data
    arguments = {"backbones": ["CNN(filters=(8, 16))", random_backbone("a")], "training": SHORT}
    first = classifier(directory=tmp_path / "run", **arguments).fit(x, y)
    from ensemble_keras.members import head_fitting, trainer

    def refuse(*_, **__):
        raise AssertionError("was finished already")

    monkeypatch.setattr(trainer, "train", refuse)
    monkeypatch.setattr(head_fitting, "solve_linear_head", refuse)
    again = classifier(directory=tmp_path / "run", **arguments).fit(x, y)
    np.testing.assert_array_equal(first.predict_proba(x), again.predict_proba(x))
    with (
        pytest.warns(UserWarning, match="seed: 0 then, 1 now"),
        pytest.raises(AssertionError, match="finished already"),
    ):
        classifier(directory=tmp_path / "run", seed=1, **arguments).fit(x, y)


def test_a_directory_says_in_short_what_was_changed(data, tmp_path):
    x, y = data
    options = {"backbones": [random_backbone("a")], "cv": 2, "directory": tmp_path}
    classifier(augmentation="flip", fine_tune=ek.FineTuning(epochs=1), **options).fit(x, y)
    expected = (
        r"\(augmentation: 'flip' then, 'none' now; fine_tune.a: \{'epochs': 1\} then, None now; "
        r"refit: True then, False now\)"
    )
    with pytest.warns(UserWarning, match=expected):
        classifier(refit=False, **options).fit(x, y)


def test_folds_that_kept_more_than_is_wanted_are_taken_up(data, tmp_path, monkeypatch):
    x, y = data
    options = {"backbones": [random_backbone("a")], "fine_tune": ek.FineTuning(epochs=1), "cv": 2}
    average = classifier(directory=tmp_path, refit=False, **options).fit(x, y)
    done, run = [], fold_training.Trainer.run
    monkeypatch.setattr(
        fold_training.Trainer, "run", lambda self, *a, **k: done.append(self.name) or run(self, *a, **k)
    )
    with pytest.warns(UserWarning, match="refit: False then, True now"):
        refitted = classifier(directory=tmp_path, refit=True, **options).fit(x, y)
    assert done == ["a, all images"]
    np.testing.assert_array_equal(refitted.out_of_fold_, average.out_of_fold_)
    assert refitted.members_[0].count_params() < average.members_[0].count_params()
    alone = classifier(**options).fit(x, y)
    np.testing.assert_allclose(refitted.predict_proba(x), alone.predict_proba(x), atol=1e-6)


TRAINED = {
    "backbones": [random_backbone("a"), "CNN(filters=(4, 8))"],
    "fine_tune": ek.FineTuning(epochs=1),
    "training": SHORT,
    "augmentation": "flip",
    "cv": 2,
}


def assert_same_fit(fitted, other, x):
    # JAX adds up in another order with another number of threads.
    tolerance = 0 if keras.backend.backend() == "tensorflow" else 1e-6
    np.testing.assert_allclose(fitted.out_of_fold_, other.out_of_fold_, rtol=0, atol=tolerance)
    np.testing.assert_allclose(fitted.predict_proba(x), other.predict_proba(x), rtol=0, atol=tolerance)
    assert fitted.history_.keys() == other.history_.keys()


def test_an_executor_gives_the_same_members_and_keeps_what_is_done(data, tmp_path, monkeypatch):
    x, y = data
    here = classifier(**TRAINED).fit(x, y)
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        there = classifier(executor=executor, directory=tmp_path, **TRAINED).fit(x, y)
        assert_same_fit(there, here, x)
        journal = pd.read_json(tmp_path / "journal.jsonl", lines=True)
        units = [f"{name} {part}" for name in there.history_ for part in ("fold 0", "fold 1", "final")]
        assert sorted(journal["unit"]) == sorted(units)
        assert (journal["seconds"] > 0).all()
        assert not list(tmp_path.rglob("*.checkpoint.npz"))
        monkeypatch.setattr(fold_training.Trainer, "run", None)
        again = classifier(executor=executor, directory=tmp_path, **TRAINED).fit(x, y)
    assert_same_fit(again, there, x)


def test_out_of_fold_predictions_may_be_computed_in_an_executor(data):
    x, y = data
    options = {"image_size": 16, "cv": 2, "training": SHORT, "verbose": 0}
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        there = ek.out_of_fold_predictions("CNN(filters=(4, 8))", x, y, executor=executor, **options)
    here = ek.out_of_fold_predictions("CNN(filters=(4, 8))", x, y, **options)
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)


def test_what_goes_wrong_in_an_executor_is_said_here(data, monkeypatch):
    x, y = data

    def fail(trainer, *_, **__):
        raise (MemoryError if trainer.network.name == "a" else ValueError)("no room")

    monkeypatch.setattr(fold_training.Trainer, "run", fail)
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        options = {"executor": executor, "fine_tune": {"a": True}}
        fitted = classifier(**options).fit(x, y)
        assert fitted.leaderboard_.set_index("name").loc["a", "note"] == "no room"
        with pytest.raises(
            RuntimeError, match="'CNN.* fold 0' could not be trained: ValueError: no room. What is done"
        ):
            classifier(**options | {"backbones": ["CNN(filters=(4, 8))"], "fine_tune": None}).fit(x, y)
    with pytest.raises(TypeError, match="`executor` must be None, a number of processes.*Received: 'dask'"):
        classifier(executor="dask").fit(x, y)
    with pytest.raises(TypeError, match="`executor` must be None, a number of processes.*Received: 'dask'"):
        ek.out_of_fold_predictions("CNN", x, y, executor="dask")


@pytest.mark.slow
def test_a_killed_process_changes_nothing(data, tmp_path, monkeypatch):
    """With as many threads there as here, so that TensorFlow adds up in the same order."""
    x, y = data
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, str(os.cpu_count())))
    options = {"backbones": ["CNN(filters=(4, 8))"], "training": ek.Training(epochs=10, batch_size=8), "cv": 2}
    here = classifier(**options).fit(x, y)
    killed, done = [], threading.Event()

    def kill_one():
        while not killed and not done.is_set():
            if list(tmp_path.rglob("CNN*.checkpoint.npz")):
                killed.append(
                    next(p for p in psutil.Process().children() if "popen_loky_posix" in "".join(p.cmdline()))
                )
                killed[0].kill()
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    there = classifier(executor=2, directory=tmp_path, **options).fit(x, y)
    done.set()
    killer.join()
    assert not killed[0].is_running()
    assert_same_fit(there, here, x)
    assert len(pd.read_json(tmp_path / "journal.jsonl", lines=True)) == 3


def test_evaluate_reports_and_the_page_is_written(fitted, tmp_path):
    x, y = pictures(30, seed=1)
    report = fitted.evaluate(x, NAMES[y])
    assert report.summary["accuracy"] == pytest.approx(fitted.score(x, NAMES[y]))
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "soft_voting" in page
    assert fitted.verdict_.split(":")[0] in page
    assert "at the temperature of the out-of-fold predictions" in page
    # Without validation data nobody looked for pictures in them.
    assert fitted.card_["data"]["leaks"] is None
    assert "both the training and the validation data" not in page


def test_the_arguments_that_a_fit_is_repeated_with_are_on_the_card(data):
    fitted = classifier(combiner=["soft_voting", "stacking"], class_weight={"ant": 2.0}).fit(data[0], NAMES[data[1]])
    settings = fitted.card_["settings"]
    assert settings["combiners"] == ["soft_voting", "stacking"]
    assert settings["class_weight"] == {"ant": 2.0}
    assert settings["backbones"] == fitted.leaderboard_["name"][fitted.leaderboard_["kind"] == "member"].tolist()
    for name in ("image_size", "weights", "head", "seed", "views", "sampling", "refit", "calibrate"):
        assert settings[name] == getattr(fitted, name)
    assert json.dumps(settings)


def test_the_model_averages_over_views_and_its_file_says_so(data, tmp_path):
    x, y = data
    fitted = classifier(test_time_augmentation="horizontal_flip").fit(x, y)
    expected = [member.predict(images, verbose=0) for member in fitted.members_ for images in (x, x[:, :, ::-1])]
    np.testing.assert_allclose(fitted.predict_proba(x), np.mean(expected, axis=0), atol=1e-6)
    fitted.save(tmp_path / "m.keras")
    model, card = ek.load_ensemble(tmp_path / "m.keras")
    assert card["test_time_augmentation"] == ["horizontal_flip"]
    np.testing.assert_allclose(model.predict(x, verbose=0), np.mean(expected, axis=0), atol=1e-6)


def test_the_card_says_how_it_was_made(fitted, tmp_path):
    fitted.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as file:
        assert "ensemble.json" in file.namelist()
    _, card = ek.load_ensemble(tmp_path / "m.keras")
    assert card["image_size"] == [16, 16]
    assert card["filter"] == "bilinear"
    assert [member["name"] for member in card["members"]] == ["a", "b"]
    assert card["data"]["images"] == 60
    assert card["data"]["per_class"] == [20, 20, 20]
    assert card["validation"]["out_of_fold"]["accuracy"] == pytest.approx(
        fitted.leaderboard_.set_index("name").loc["soft_voting", "accuracy"]
    )


def test_the_file_opens_where_this_library_is_not_installed(fitted, data, tmp_path):
    x, _ = data
    fitted.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys; sys.modules['ensemble_keras'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1] + '/m.keras')\n"
        "np.save(sys.argv[1] + '/p.npy', model.predict(np.load(sys.argv[1] + '/x.npy'), verbose=0))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, stderr=subprocess.DEVNULL)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), fitted.predict_proba(x), atol=1e-6)


def test_the_model_trains_end_to_end(data):
    x, y = data
    fitted = classifier(combiner="stacking").fit(x, y)
    before = [np.copy(w) for w in fitted.model_.get_weights()]
    fitted.model_.compile("adam", "sparse_categorical_crossentropy")
    fitted.model_.fit(x, y, epochs=1, verbose=0)
    assert all(
        np.abs(a - b).max() > 0 for a, b in zip(before, fitted.model_.get_weights(), strict=True) if a.ndim > 1
    )


def test_a_member_that_becomes_nan_says_so(data):
    x, y = data
    training = dataclasses.replace(SHORT, learning_rate=1e30)
    fitted = classifier(backbones=["CNN(filters=(8, 16))", random_backbone("a")], training=training).fit(x, y)
    note = fitted.leaderboard_.set_index("name").loc["CNN(filters=(8, 16))", "note"]
    assert note.startswith("fold 1: loss became NaN in epoch")
    assert np.isfinite(fitted.predict_proba(x)).all()


def test_a_member_without_memory_is_skipped_with_its_reason(data, monkeypatch):
    x, y = data
    refuse_batches(monkeypatch, lambda model, _: model.name == "a")
    fitted = classifier().fit(x, y)
    row = fitted.leaderboard_.set_index("name").loc["a"]
    assert "out of memory even with one image" in row["note"]
    assert pd.isna(row["accuracy"])
    assert len(fitted.members_) == 1
    with pytest.raises(MemoryError, match="No member could be fitted"):
        classifier(backbones=[random_backbone("a")]).fit(x, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbones": ["ResNet5"]}, "Unknown backbone 'ResNet5'. Did you mean 'ResNet50'"),
        ({"backbones": [random_backbone("a"), random_backbone("a")]}, "Two backbones are called 'a'"),
        ({"combiner": "stackin"}, "Unknown combiner 'stackin'.*Did you mean 'stacking'"),
        ({"combiner": 3}, "Unknown combiner 3"),
        ({"combiner": ek.SoftVoting}, r"Unknown combiner .* Give an instance: `SoftVoting\(\)`"),
        ({"combiner": keras.layers.Dense(2)}, "The combiner .* does not fit 2 members"),
        ({"image_size": (16,)}, "`image_size` must be"),
        ({"head": "lineal"}, "`head` must be one of 'linear', 'mlp'.*Did you mean 'linear'"),
        ({"leaks": "ignore"}, "`leaks` must be one of"),
        ({"cv": 50}, "as many images of each class as folds. Received: cv=50; class 'ant' has 20"),
        ({"cv": 1}, "`cv` must be"),
        ({"class_weight": "balance"}, "Did you mean 'balanced'"),
        ({"class_weight": {"ant": 0}}, "must be above 0"),
        ({"image_size": 32}, "takes images of shape"),
        ({"sampling": "smote"}, "`sampling` must be one of None, 'over', 'under'"),
        ({"training": {"epochs": 3}}, "`training` must be None or Training settings"),
        ({"fine_tune": "yes"}, "`fine_tune` must be True, None or FineTuning settings"),
        ({"fine_tune": {"VGG16": True}}, "`fine_tune` must be one of 'a', 'b'. Received: 'VGG16'"),
        (
            {"fine_tune": True, "backbones": ["CNN"]},
            "backbones with pretrained weights. Received: CNN, weights='image",
        ),
        ({"fine_tune": True, "augmentation": "lihgt"}, "Unknown augmentation 'lihgt'. Did you mean 'light'"),
        ({"augmentation": "light"}, "all backbones stay frozen. Give `views`"),
        ({"augmentation": "light", "views": 2, "fine_tune": True}, "no backbone stays frozen"),
        ({"views": 2}, "Views need an augmentation"),
        ({"refit": "yes"}, "`refit` must be one of True, False"),
        ({"seed": -1}, "`seed` must be an int of at least 0. Received: -1"),
        ({"seed": None}, "`seed` must be an int of at least 0. Received: None"),
    ],
)
def test_a_bad_argument_is_said_before_any_work(data, arguments, message):
    x, y = data
    with pytest.raises(ValueError, match=message):
        classifier(**arguments).fit(x, NAMES[y])


def test_bad_data_are_said_before_any_work(data):
    x, y = data
    for images, labels, message in [
        (x / 255.0, y, r"look scaled to \[0, 1\]"),
        (x[..., 0], y, "Repeat grey images"),
        (x, y[:-1], "one label per image"),
        (x, np.zeros(60), "[Aa]t least two classes"),
        (x, np.where(np.arange(60) == 7, np.nan, y), "NaN or None in 1 row: 7"),
        (x, None, "Labels are needed"),
    ]:
        with pytest.raises(ValueError, match=message):
            classifier().fit(images, labels)
    for backbones, hint in [([], ""), ("VGG16", r"Put it into one: \['VGG16'\]"), (random_backbone("a"), "")]:
        with pytest.raises(ValueError, match=f"`backbones` must be a list.*{hint}"):
            ek.EnsembleClassifier(backbones).fit(x, y)


def test_a_combiner_that_its_config_does_not_build_is_refused_before_any_work(data):
    class Narrow(keras.layers.Layer):
        takes = "predictions"

        def __init__(self, width):
            super().__init__(name="narrow")

    with pytest.raises(
        TypeError, match=r"'narrow' cannot be built again from its config. `Narrow.__init__` must take"
    ):
        classifier(combiner=Narrow(2)).fit(*data)


def test_a_classifier_given_for_its_model_is_told_where_that_is(fitted, data):
    train = ek.ImageDataset.from_arrays(*data)
    for call in (
        lambda: ek.grad_cam(fitted, data[0]),
        lambda: ek.count_macs(fitted),
        lambda: ek.distill(fitted, "CNN", train, weights=None),
        lambda: ek.quantize_model(fitted),
        lambda: ek.prune_model(fitted, train),
    ):
        with pytest.raises(ValueError, match="A fitted classifier's model is its `model_`"):
            call()


def test_what_is_not_fitted_says_so(data):
    from sklearn.exceptions import NotFittedError

    for use in (lambda c: c.predict(data[0]), lambda c: c.save("x.keras"), lambda c: c.evaluate(*data)):
        with pytest.raises(NotFittedError):
            use(classifier())


def test_labels_that_were_not_trained_are_refused_in_score(fitted, data):
    x, _ = data
    with pytest.raises(ValueError, match="Labels that are not in the training data: dog. Classes: ant, bee, cat"):
        fitted.score(x[:2], ["ant", "dog"])
    with pytest.raises(ValueError, match="Labels are needed"):
        fitted.score(x[:2])


def test_training_settings_are_checked():
    for arguments, message in [
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"learning_rate": 0}, "`learning_rate` must be above 0"),
        ({"validation_split": 1}, "`validation_split` must be between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            ek.Training(**arguments)


def test_a_slip_in_weights_is_refused_before_it_means_training_from_scratch():
    x, y = pictures(12)
    with pytest.raises(ValueError, match="`weights` must be 'imagenet', None, or what .* Received: 'imagnet'"):
        ek.EnsembleClassifier(["MobileNetV2"], weights="imagnet", image_size=32, cv=2, verbose=0).fit(x, y)


def three(middle=6):
    """Backbones of falling cost."""
    sizes = {"large": 8, "middle": middle, "small": 2}
    return [random_backbone(name, units, seed=units) for name, units in sizes.items()]


@pytest.mark.parametrize("combiner", ["soft_voting", "greedy", "stacking", "concatenate", "gated", "auto"])
def test_within_a_budget_only_what_fits_is_joined(data, combiner, tmp_path):
    x, y = data
    macs = {b.name: ek.count_macs(ek.build_member(b, 3)).total for b in three()}
    limit = macs["large"] + macs["small"]
    fitted = classifier(backbones=three(), combiner=combiner, max_macs=limit).fit(x, NAMES[y])
    board = fitted.leaderboard_.set_index("name")
    assert board.loc[list(macs), "macs"].to_dict() == macs
    assert (board["macs"] <= limit).all()
    cost = ek.count_macs(fitted.model_).total
    assert cost <= limit
    assert f"It costs {cost:,} multiply-accumulates of at most {limit:,}" in fitted.verdict_
    joined = [layer.name for layer in fitted.model_.layers if isinstance(layer, keras.Model)]
    assert {member["name"] for member in fitted.card_["members"]} == set(joined) < set(macs)
    assert fitted.card_["limits"] == {"max_macs": limit}
    fitted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), fitted.predict_proba(x), atol=1e-6)
    assert fitted.score(x, NAMES[y]) > 0.9


def test_a_combiner_for_which_there_is_no_room_is_not_tried(data):
    member = ek.build_member(three()[2], 3)
    arguments = {"backbones": three(), "max_macs": ek.count_macs(member).total}
    fitted = classifier(combiner="auto", **arguments).fit(*data)
    tried = fitted.leaderboard_.query("kind == 'ensemble'")["name"].tolist()
    assert tried == ["best_member", "soft_voting", "weighted_voting", "greedy"]
    assert ek.count_macs(fitted.model_).total == arguments["max_macs"]
    with pytest.raises(ValueError, match="Not one member is within `max_macs` of .* The cheapest is 'small' with"):
        classifier(combiner="stacking", **arguments).fit(*data)


def test_a_member_that_is_too_costly_alone_is_not_fitted_and_its_place_in_the_combiner_goes(data, monkeypatch):
    x, y = data
    seen = []
    extract = pipeline.extract
    monkeypatch.setattr(
        pipeline, "extract", lambda found, *a, **k: seen.append(list(found)) or extract(found, *a, **k)
    )
    sizes = [ek.build_member(backbone, 3).count_params() for backbone in three(middle=4)]
    vote = ek.SoftVoting(weights=[5, 1, 3])
    fitted = classifier(backbones=three(middle=4), combiner=vote, max_parameters=sizes[0] - 1).fit(
        x, y, validation_data=pictures(30, seed=1)
    )
    assert seen == [["middle", "small"]]
    assert [member.name for member in fitted.members_] == ["middle", "small"]
    expected = np.average([m.predict(x, verbose=0) for m in fitted.members_], axis=0, weights=[1, 3])
    np.testing.assert_allclose(fitted.predict_proba(x), expected, atol=1e-6)
    note = fitted.leaderboard_.set_index("name").loc["large", "note"]
    assert note == f"left out: too costly with {sizes[0]:,} parameters"
    assert fitted.verdict_.endswith("Too costly: large.")
    assert fitted.leaderboard_["validation_accuracy"].notna().tolist() == [True, True, True, False]


def test_a_budget_of_time_is_measured_before_the_fit_and_stands_on_the_leaderboard(data, monkeypatch):
    x, y = data
    monkeypatch.setattr(budget, "measure_latencies", lambda models: [3.0, 2.0, 1.5][: len(models)])
    fitted = classifier(backbones=three(), max_latency_ms=3.6).fit(x, y)
    board = fitted.leaderboard_.set_index("name")
    assert board["latency_ms"].tolist() == [3.0, 2.0, 1.5, board.loc["soft_voting", "latency_ms"]]
    assert board.loc["soft_voting", "latency_ms"] <= 3.6
    assert "ms of at most 3.6 ms." in fitted.verdict_
    twice = classifier(backbones=three(), max_latency_ms=3.6, test_time_augmentation="zoom").fit(x, y)
    assert [member.name for member in twice.members_] == ["small"]


def test_where_no_member_is_within_the_budget_the_cheapest_is_said_before_any_work(data, monkeypatch):
    monkeypatch.setattr(pipeline, "extract", lambda *a, **k: pytest.fail("the features are computed"))
    size = ek.build_member(three()[2], 3).count_params()
    with pytest.raises(
        ValueError, match=f"`max_parameters` of {size - 1}. The cheapest is 'small' with {size} param"
    ):
        classifier(backbones=three(), max_parameters=size - 1).fit(*data)
    with pytest.raises(ValueError, match="`max_latency_ms` must be a number above 0"):
        classifier(max_latency_ms=0).fit(*data)


def test_the_average_of_a_trained_members_folds_costs_as_many_networks(data):
    size = ek.build_member("CNN(filters=(4, 8))", 3, image_size=16, weights=None).count_params()
    arguments = {"backbones": ["CNN(filters=(4, 8))"], "training": SHORT, "max_parameters": 2 * size}
    assert classifier(**arguments).fit(*data).model_.count_params() == size
    with pytest.raises(ValueError, match=f"with {3 * size:,} parameters"):
        classifier(refit=False, **arguments).fit(*data)

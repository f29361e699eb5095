import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from synthetic import random_backbone

import ensemble_keras as ek
from ensemble_keras.members import head_fitting, mlp
from ensemble_keras.members.fitting import fit_frozen_member
from ensemble_keras.members.head_fitting import fit_head, solve_head
from ensemble_keras.members.member import HEADS, build_member
from ensemble_keras.runs import Run


@pytest.fixture
def views(rng):
    """Two classes 3 apart in one of four features, and two noisy copies of every image: `(60, 3, 4)`."""
    y = np.arange(60) % 2
    images = rng.normal(size=(60, 1, 4)) + 3 * y[:, None, None] * np.eye(4)[0]
    noise = rng.normal(scale=0.5, size=(60, 3, 4)) * (np.arange(3) > 0)[:, None]
    return (images + noise).astype("float32"), y, rng.permutation(60) % 3


def test_a_head_learns_from_all_views_of_the_other_folds_and_predicts_the_first(views):
    features, y, folds = views
    head = fit_head(features, y, folds, num_classes=2)
    scaler = StandardScaler().fit(features.reshape(-1, 4))
    for fold in range(3):
        rest = folds != fold
        plain = LogisticRegression(C=head.strength, tol=1e-8, max_iter=1000)
        plain.fit(scaler.transform(features[rest].reshape(-1, 4)), np.repeat(y[rest], 3))
        expected = plain.predict_proba(scaler.transform(features[~rest, 0]))
        np.testing.assert_allclose(head.out_of_fold[~rest], expected, atol=5e-3)


def test_one_view_is_the_image(views):
    features, y, folds = views
    one, plain = (fit_head(x, y, folds, num_classes=2) for x in (features[:, :1], features[:, 0]))
    np.testing.assert_array_equal(one.out_of_fold, plain.out_of_fold)
    np.testing.assert_array_equal(one.layers[0][0], plain.layers[0][0])


def test_hidden_units_stop_early_by_images_of_which_they_saw_no_view(views, monkeypatch):
    features, y, folds = views
    monkeypatch.setattr(mlp, "_EPOCHS", 3)
    parts, split = [], mlp._split
    monkeypatch.setattr(mlp, "_split", lambda *given: parts.append(split(*given)) or parts[-1])
    assert fit_head(features, y, folds, num_classes=2, units=(4,)).out_of_fold.shape == (60, 2)
    assert len(parts) == 3
    for rest, held in parts:
        assert not set(rest // 3) & set(held // 3)
        assert len(held) == 3 * len(set(held // 3)) == 12
        assert set(y[held // 3]) == {0, 1}


def test_hidden_units_stop_early_by_patients_they_did_not_see(rng, monkeypatch):
    monkeypatch.setattr(mlp, "_EPOCHS", 3)
    monkeypatch.setitem(HEADS, "mlp", (4,))
    sides, split = [], mlp._split
    monkeypatch.setattr(mlp, "_split", lambda *given: sides.append(split(*given)) or sides[-1])
    pixels, y = rng.integers(256, size=(40, 8, 8, 3), dtype="uint8"), np.arange(40) // 4 % 2
    patients = np.arange(40) // 4
    options = {"image_size": 8, "head": "mlp", "cv": 2, "verbose": 0}
    ek.out_of_fold_predictions(random_backbone("a", size=8), pixels, y, groups=patients, **options)
    ek.EnsembleClassifier([random_backbone("a", size=8)], **options).fit(pixels, y, groups=patients)
    assert len(sides) == 4
    for rest, held in sides:
        assert not set(patients[rest]) & set(patients[held])
        assert set(y[held]) == {0, 1}


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_head_is_the_same_wherever_it_is_fitted(rng, head, monkeypatch):
    monkeypatch.setattr(mlp, "_EPOCHS", 5)
    features, y, folds = rng.normal(size=(40, 32)).astype("float32"), np.arange(40) % 2, np.arange(40) // 4 % 2
    options = {"class_weight": [1.0, 3.0], "seed": 3}
    trunk = random_backbone("a")
    frozen = fit_frozen_member("a", trunk, features, y, folds, num_classes=2, head=head, run=Run(None, {}), **options)
    member = build_member(trunk, 2, head=head)
    solve_head(member, features, y, folds, **options)
    for ours, theirs in zip(member.get_weights(), frozen.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(fit_head(features, y, folds, num_classes=2, units=HEADS[head]).layers) == len(HEADS[head]) + 1


def test_sampling_counts_as_class_weights(rng, monkeypatch):
    seen = []
    fit = head_fitting.fit_head
    monkeypatch.setattr(head_fitting, "fit_head", lambda *a, **k: seen.append(k["class_weight"]) or fit(*a, **k))
    features, y = rng.normal(size=(40, 32)).astype("float32"), (np.arange(40) % 4 == 0).astype(int)
    member = build_member(random_backbone("a"), 2)
    solve_head(member, features, y, np.arange(40) // 4 % 2, class_weight=[1.0, 2.0], sampling="over")
    assert seen == [[1.0, 6.0]]

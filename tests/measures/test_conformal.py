import dataclasses
import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ensemble_keras.measures.conformal import METHODS, ConformalSets, fit_conformal, set_figures


def sample(rng, n, num_classes=5, temperature=0.5):
    """Probabilities that are too sure of themselves, and labels."""
    p = rng.dirichlet(np.full(num_classes, 0.5), n)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=num_classes - 1)
    sharpened = p ** (1 / temperature) + 1e-9
    return sharpened / sharpened.sum(axis=1, keepdims=True), y


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_the_promise_is_kept_on_average_over_calibration_sets(method, coverage):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        p, y = sample(rng, 150)
        sets = fit_conformal(p[:50], y[:50], coverage=coverage, method=method).predict(p[50:])
        held.append(sets[np.arange(100), y[50:]].mean())
    # Between the promise and 1 / 51 more; three standard errors of 400 draws are 0.9 points.
    assert coverage - 0.01 < np.mean(held) < coverage + 1 / 51 + 0.01


@pytest.mark.parametrize("n", [9, 50, 51, 199])
@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_the_threshold_is_the_corrected_quantile(rng, n, coverage):
    p, y = sample(rng, n)
    scores = np.sort(1 - p[np.arange(n), y])
    expected = scores[int(np.ceil((n + 1) * coverage)) - 1]
    assert fit_conformal(p, y, coverage=coverage).thresholds == pytest.approx([expected] * 5)


def test_scores_are_those_of_the_papers():
    p = np.array([[0.1, 0.6, 0.3]])
    for method, scores in {"lac": [0.9, 0.4, 0.7], "aps": [0.9, 0, 0.6], "raps": [1.3, 0, 0.8]}.items():
        for threshold in (0.1, 0.5, 0.65, 0.85, 1.2, 1.5):
            sets = ConformalSets(method, 0.9, [threshold] * 3, 0.2, 1, 10).predict(p)
            assert sets.tolist() == [[score <= threshold for score in scores]]


def test_too_few_images_leave_only_the_set_of_all_classes(rng):
    p, y = sample(rng, 8)
    conformal = fit_conformal(p, y, coverage=0.9)
    assert conformal.thresholds == [None] * 5
    assert conformal.predict(p).all()
    assert fit_conformal(*sample(rng, 9), coverage=0.9).thresholds[0] is not None


def test_each_class_keeps_the_promise_by_itself():
    rng = np.random.default_rng(1)
    p, y = sample(rng, 20_000)
    hard = y == 0
    # Class 0 gets half of its probability only: a promise on average would be broken for it.
    p[hard, 0] *= 0.3
    p /= p.sum(axis=1, keepdims=True)
    new, y_new = p[10_000:], y[10_000:]
    for per_class, kept in ((False, False), (True, True)):
        sets = fit_conformal(p[:10_000], y[:10_000], per_class=per_class).predict(new)
        coverage = set_figures(sets, y_new)["coverage"]
        assert coverage["all"] == pytest.approx(0.9, abs=0.015)
        assert (np.abs(coverage - 0.9) < 0.025).all() == kept


def test_a_class_without_images_is_in_every_set(rng):
    p, y = sample(rng, 100)
    sets = fit_conformal(p[y != 3], y[y != 3], per_class=True).predict(p)
    assert sets[:, 3].all()


def test_groups_of_one_image_change_nothing(rng):
    p, y = sample(rng, 120)
    alone, grouped = fit_conformal(p, y), fit_conformal(p, y, groups=rng.permutation(120))
    assert alone == grouped


def test_new_groups_keep_the_promise():
    """Patients with one to ten images that are alike: the promise is for an image of a new patient."""
    rng = np.random.default_rng(2)

    def patients(count):
        sizes = rng.choice([1, 10], count)
        p, y = sample(rng, count)
        groups = np.repeat(np.arange(count), sizes)
        return p[groups], y[groups], groups

    held = {True: [], False: []}
    for _ in range(300):
        p, y, groups = patients(30)
        new, y_new, new_groups = patients(100)
        for told in held:
            sets = fit_conformal(p, y, groups=groups if told else None).predict(new)
            covered = sets[np.arange(len(y_new)), y_new]
            held[told].append(np.mean([covered[new_groups == g][0] for g in range(100)]))
    assert 0.89 < np.mean(held[True]) < 0.9 + 1 / 31 + 0.01
    # Images taken as independent fall short.
    assert np.mean(held[False]) < np.mean(held[True]) - 0.01


def test_it_travels_as_json(rng):
    conformal = fit_conformal(*sample(rng, 30), coverage=0.97, method="raps")
    again = ConformalSets(**json.loads(json.dumps(dataclasses.asdict(conformal))))
    assert again == conformal
    p, _ = sample(rng, 20)
    np.testing.assert_array_equal(again.predict(p), conformal.predict(p))


def test_two_classes_may_come_as_one_column(rng):
    p, y = sample(rng, 100, 2)
    column = fit_conformal(p[:, 1], y)
    assert column.thresholds == pytest.approx(fit_conformal(p, y).thresholds)
    np.testing.assert_array_equal(column.predict(p[:, 1]), column.predict(p))


def test_the_figures_are_counted(rng):
    sets = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], bool)
    table = set_figures(sets, [0, 0, 1, 1])
    assert table.index.tolist() == ["all", 0, 1]
    assert table["coverage"].tolist() == [0.75, 1.0, 0.5]
    assert table.loc["all", ["size", "single", "empty", "images"]].tolist() == [1.0, 0.5, 0.25, 4]
    assert (table["low"] < table["coverage"]).all()
    grouped = set_figures(sets, [0, 0, 1, 1], groups=[0, 0, 1, 2])
    # The images of class 0 are of one group, which tells nothing of others.
    assert grouped["low"].isna().tolist() == [False, True, False]


def test_out_of_fold_predictions_of_digits_keep_the_promise():
    x, y = load_digits(return_X_y=True)
    x, x_new, y, y_new = train_test_split(x, y, test_size=0.5, random_state=0, stratify=y)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=500))
    out_of_fold = cross_val_predict(model, x, y, cv=5, method="predict_proba")
    p = model.fit(x, y).predict_proba(x_new)
    accuracy = (p.argmax(axis=1) == y_new).mean()
    for method in METHODS:
        figures = set_figures(fit_conformal(out_of_fold, y, method=method).predict(p), y_new).loc["all"]
        # The most probable class is always in the sets of the other two.
        promised = 0.9 if method == "lac" else max(0.9, accuracy)
        assert figures["coverage"] == pytest.approx(promised, abs=0.03)
        assert (figures["empty"] > 0) == (method == "lac")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverage": 90}, "`coverage` must lie between 0 and 1. Received: 90"),
        ({"method": "apps"}, "`method` must be one of 'lac', 'aps', 'raps'"),
        ({"penalty": -1}, "`penalty` must be a number of at least 0. Received: -1"),
        ({"groups": [1, 2]}, "one group per image"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit_conformal([0.1, 0.2, 0.9], [0, 0, 1], **options)
    with pytest.raises(ValueError, match="one column for each of 2 classes"):
        fit_conformal([0.1, 0.2, 0.9], [0, 0, 1]).predict(np.full((2, 3), 1 / 3))

import functools
import random

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ensemble_keras.combiners import fitting, training
from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.fitting import combine, fit_combiner, fit_out_of_fold, out_of_fold_combined
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting, HardVoting, SoftVoting
from ensemble_keras.data.splits import make_folds

N = 240


def log_loss(y, probabilities):
    return -np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-7)).mean()


@pytest.fixture
def y(rng):
    return rng.permutation(np.arange(N) % 3)


@pytest.fixture
def predictions(rng, y):
    """Three members: a good one, one that takes the first class for the second, and one that knows nothing."""
    logits = rng.normal(size=(N, 3, 3))
    logits[:, 0] += 2 * np.eye(3)[y]
    logits[:, 1] += 3 * np.eye(3)[np.where(y == 0, 1, y)]
    odds = np.exp(logits)
    return (odds / odds.sum(axis=2, keepdims=True)).astype("float32")


@pytest.fixture
def features(rng, y):
    centres = rng.normal(size=(3, 6))
    return [(centres[y] + rng.normal(size=(N, 6))).astype("float32"), rng.normal(size=(N, 4)).astype("float32")]


@pytest.fixture
def folds(y):
    return make_folds(y, cv=4, seed=0)


@pytest.fixture
def few_epochs(monkeypatch):
    """For facts that do not need the end of the training."""
    monkeypatch.setattr(training, "EPOCHS", 4)


@pytest.mark.parametrize("voting", [SoftVoting(), SoftVoting([1, 0, 2]), GeometricVoting(), HardVoting()])
def test_a_vote_has_nothing_to_learn(voting, predictions, y, folds):
    assert fit_combiner(voting, predictions, y) is voting
    combined = combine(voting, predictions)
    np.testing.assert_array_equal(out_of_fold_combined(voting, predictions, y, folds), combined)
    fitted, out_of_fold = fit_out_of_fold(voting, predictions, y, folds)
    assert fitted is voting
    np.testing.assert_array_equal(out_of_fold, combined)


def test_linear_stacking_reaches_the_optimum(predictions, y, folds):
    logs = np.log(np.maximum(predictions, 1e-7)).reshape(N, -1)
    reference = np.empty((N, 3))
    for fold in range(4):
        fit = LogisticRegression(C=1, max_iter=5000).fit(logs[folds != fold], y[folds != fold])
        reference[folds == fold] = fit.predict_proba(logs[folds == fold])
    combined = out_of_fold_combined(StackedMetaLearner(3), predictions, y, folds)
    # Strength and scaling of ours are chosen out of fold: it may be better than C = 1, not worse.
    assert log_loss(y, combined) < log_loss(y, reference) + 0.01
    fitted = combine(fit_combiner(StackedMetaLearner(3), predictions, y, folds=folds), predictions)
    assert log_loss(y, fitted) < log_loss(y, reference)
    assert log_loss(y, fitted) < log_loss(y, combine(SoftVoting(), predictions)) - 0.1


def test_linear_concatenation_reaches_the_optimum(features, y, folds):
    joined = np.hstack(features)
    combined = out_of_fold_combined(ConcatenateDense(3), None, y, folds, features=features)
    reference = np.empty((N, 3))
    for fold in range(4):
        fit = LogisticRegression(C=0.1, max_iter=5000).fit(joined[folds != fold], y[folds != fold])
        reference[folds == fold] = fit.predict_proba(joined[folds == fold])
    assert log_loss(y, combined) < log_loss(y, reference) + 0.01


def test_one_sigmoid_unit_is_the_softmax_of_two(features, y, folds):
    labels = (y == 0).astype(int)
    one, two = (
        combine(fit_combiner(layer, None, labels, features=features, folds=folds), None, features)
        for layer in (ConcatenateDense(1, activation="sigmoid"), ConcatenateDense(2))
    )
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert (two.argmax(axis=1) == labels).mean() > 0.8


@pytest.mark.parametrize("units", [(), (4,)], ids=["linear", "hidden"])
def test_rows_of_a_fold_do_not_teach_their_own_combiner(units, predictions, y, monkeypatch, few_epochs):
    """Two labels exchanged in fold 0 change what is predicted elsewhere, not in fold 0."""
    # One strength: choosing among several looks at all rows.
    monkeypatch.setattr(fitting, "solve_linear_head", functools.partial(fitting.solve_linear_head, strengths=[0.1]))
    folds = make_folds(y, cv=2)
    held = folds == 0
    exchanged = y.copy()
    exchanged[[np.flatnonzero(held & (y == label))[0] for label in (0, 2)]] = [2, 0]
    first, second = (
        out_of_fold_combined(StackedMetaLearner(3, units), predictions, labels, folds) for labels in (y, exchanged)
    )
    np.testing.assert_allclose(first[held], second[held], atol=1e-3)
    assert np.abs(first[~held] - second[~held]).max() > 0.01


def test_hidden_units_learn_what_a_line_cannot(rng):
    x = rng.normal(size=(600, 2)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    fitted = fit_combiner(ConcatenateDense(2, units=(16,)), None, y, features=[x[:, :1], x[:, 1:]])
    assert (combine(fitted, None, [x[:, :1], x[:, 1:]]).argmax(axis=1) == y).mean() > 0.9


def test_the_same_seed_gives_the_same_fit_and_the_users_random_state_is_not_read(predictions, y, few_epochs):
    fits = []
    for state, seed in ((1, 0), (2, 0), (1, 1)):
        random.seed(state)
        np.random.seed(state)
        keras.utils.set_random_seed(state)
        fits.append(combine(fit_combiner(StackedMetaLearner(3, units=(4,)), predictions, y, seed=seed), predictions))
    np.testing.assert_array_equal(fits[0], fits[1])
    assert not np.allclose(fits[0], fits[2])


@pytest.mark.parametrize("units", [(), (4,)], ids=["linear", "hidden"])
def test_the_layer_that_came_in_is_not_changed(units, predictions, y, few_epochs):
    layer = StackedMetaLearner(3, units, name="meta")
    fitted = fit_combiner(layer, predictions, y)
    assert fitted is not layer
    assert fitted.get_config() == layer.get_config()
    assert layer.weights == []


def test_a_combiner_of_ones_own_is_trained(predictions, y, features):
    fitted = fit_combiner(_Weighted(), predictions[:, :2], y, features=features)
    before, after = (log_loss(y, combine(c, predictions[:, :2], features)) for c in (_Weighted(), fitted))
    assert after < before - 0.1


def test_a_start_that_training_does_not_better_is_kept(y, features, few_epochs):
    sure = [np.where(np.eye(3)[labels] == 1, 0.8, 0.1).astype("float32") for labels in (y, (y + 1) % 3)]
    layer, inputs = _Weighted(), [sure, features]
    before = keras.ops.convert_to_numpy(layer(*inputs))
    # It starts with the second member, which is right about the rows watched, and trains where it is wrong.
    training.train_layer(layer, (inputs, y, np.ones(N)), (inputs, (y + 1) % 3, np.ones(N)), seed=0)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(*inputs)), before)


def test_class_weights_move_predictions_to_the_class(predictions, y):
    unsure = predictions[:, 2:]
    for units in ((), (4,)):
        layer = StackedMetaLearner(3, units)
        plain, weighted = (combine(fit_combiner(layer, unsure, y, class_weight=w), unsure) for w in (None, [1, 1, 8]))
        assert plain[:, 2].mean() == pytest.approx(1 / 3, abs=0.05)
        assert weighted[:, 2].mean() == pytest.approx(8 / 10, abs=0.05)


def test_fitting_and_predicting_out_of_fold_at_once_is_the_same(predictions, y, folds, few_epochs):
    folds = np.minimum(folds, 1)
    for units in ((), (4,)):
        layer = StackedMetaLearner(3, units)
        fitted, out_of_fold = fit_out_of_fold(layer, predictions, y, folds)
        alone = fit_combiner(layer, predictions, y, folds=folds)
        np.testing.assert_array_equal(combine(fitted, predictions), combine(alone, predictions))
        np.testing.assert_array_equal(out_of_fold, out_of_fold_combined(layer, predictions, y, folds))


def test_two_folds_leave_one_to_train_on(predictions, y):
    folds = make_folds(y, cv=2)
    combined = out_of_fold_combined(StackedMetaLearner(3, units=(8,)), predictions, y, folds)
    assert (combined.argmax(axis=1) == y).mean() > 0.6
    rest = folds == 1
    fitted = fit_combiner(StackedMetaLearner(3), predictions[rest], y[rest], folds=folds[rest])
    assert (combine(fitted, predictions).argmax(axis=1) == y).mean() > 0.6


def test_many_rows_are_combined_in_parts(rng):
    predictions = rng.dirichlet([1, 1], size=(9000, 2)).astype("float32")
    np.testing.assert_allclose(combine(SoftVoting(), predictions), predictions.mean(axis=1), atol=1e-6)


def change(table, index, value):
    table = table.copy()
    table[index] = value
    return table


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: change(p, (3, 1, 0), np.nan), "NaN from member 1 in 1 row: 3"),
        (lambda p: change(p, (slice(4, 6), 2), 0.5), r"do not sum to 1 from member 2 in 2 rows: 4, 5 .*sums to 1\.5"),
        (lambda p: change(p, (7, 0), [-1, 1, 1]), r"outside \[0, 1\] from member 0 in 1 row: 7"),
        (lambda p: p * [[[1], [2], [2]]], r"from member 1 in \d+ rows: .*; 1 more members have such rows"),
        (lambda p: p[:, 0], r"shape \(n, members, num_classes\). Received: shape \(240, 3\)"),
        (lambda p: p[:0], r"Received: shape \(0, 3, 3\)"),
        (lambda p: None, r"Received: None. Join those of the members by `np.stack\(predictions, axis=1\)`"),
    ],
)
def test_a_bad_table_is_refused_by_member_and_row(make, message, predictions, y):
    for call in (lambda p: fit_combiner(SoftVoting(), p, y), lambda p: combine(SoftVoting(), p)):
        with pytest.raises(ValueError, match=message):
            call(make(predictions))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda y: y[:-1], "shape .239,. for 240 images"),
        (lambda y: np.where(np.arange(N) == 5, 3, y), "indices 0 … 2, .* Received: 3 and the like in 1 row: 5"),
        (lambda y: np.where(np.arange(N) < 2, -1, y), "Received: -1 and the like in 2 rows: 0, 1"),
        (lambda y: np.where(y == 2, 0, y), "all 3 classes. Received: 240 rows, none of class 2"),
        (lambda y: np.array(["cat", "dog", "cow"])[y], "class indices 0 … 2. Received: names such as"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(make, message, predictions, y):
    with pytest.raises(ValueError, match=message):
        fit_combiner(StackedMetaLearner(3), predictions, make(y))


@pytest.mark.parametrize("layer", [SoftVoting(), StackedMetaLearner(3), StackedMetaLearner(3, units=(4,))])
def test_columns_in_another_order_are_refused_by_member_and_row(layer, predictions, y):
    shuffled = np.stack([predictions[:, 0], predictions[:, 0][:, [1, 0, 2]]], axis=1)
    with pytest.raises(ValueError, match=r"from member 1 columns that look shuffled: where `y` is 0, as in row \d+"):
        fit_combiner(layer, shuffled, y)


def test_features_must_be_given_and_fit(predictions, features, y):
    layer = ConcatenateDense(3)
    with pytest.raises(ValueError, match=r"`ConcatenateDense` takes features. Give `features`"):
        fit_combiner(layer, predictions, y)
    with pytest.raises(ValueError, match=r"equal n. Received: shapes \[\(240, 6\), \(239, 4\)\]"):
        fit_combiner(layer, None, y, features=[features[0], features[1][1:]])
    with pytest.raises(ValueError, match="NaN or infinite values from member 1 in 1 row: 9"):
        fit_combiner(layer, None, y, features=[features[0], change(features[1], (9, 0), np.inf)])
    with pytest.raises(ValueError, match="same members and images. Received: 3 members with 240 rows, and 2"):
        fit_combiner(_Weighted(), predictions, y, features=features)


def test_other_arguments_are_refused(predictions, y):
    layer = StackedMetaLearner(3)
    with pytest.raises(ValueError, match=r"one fold number per row. Received: shape \(3,\) for 240 rows"):
        fit_combiner(layer, predictions, y, folds=[0, 1, 2])
    for wrong in ([1, 2], {0: 1.0, 1: 2.0, 2: 1.0}, "balanced"):
        with pytest.raises(ValueError, match="`class_weight` must be 3 numbers above 0, one per class"):
            fit_combiner(layer, predictions, y, class_weight=wrong)
    with pytest.raises(ValueError, match="gives 4 classes. Received: predictions of 3 classes"):
        fit_combiner(StackedMetaLearner(4), predictions, y)
    with pytest.raises(TypeError, match="Received: the class StackedMetaLearner"):
        fit_combiner(StackedMetaLearner, predictions, y)
    with pytest.raises(ValueError, match="`seed` must be an int of at least 0. Received: -1"):
        fit_combiner(layer, predictions, y, seed=-1)
    with pytest.raises(ValueError, match="This StackedMetaLearner has no weights yet. Call `fit_combiner` first"):
        combine(layer, predictions)


class _Weighted(keras.layers.Layer):
    """A combiner of a user's own that takes both, and starts with the wrong member."""

    takes = "both"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gate = keras.layers.Dense(2, "softmax", kernel_initializer="zeros")

    def build(self, predictions_shape, features_shape):
        self.gate.build((None, sum(shape[-1] for shape in features_shape)))
        self.gate.set_weights([np.zeros(self.gate.kernel.shape), np.array([0.0, 2.0])])

    def call(self, predictions, features):
        weights = self.gate(keras.ops.concatenate(features, axis=-1))
        return keras.ops.einsum("bm,bmc->bc", weights, keras.ops.stack(predictions, axis=1))

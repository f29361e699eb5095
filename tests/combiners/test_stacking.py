import json

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from ensemble_keras.combiners.fitting import combine, fit_combiner, out_of_fold_combined
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting


def test_it_sees_log_probabilities_of_at_least_1e_7(rng):
    predictions = [np.array([[1, 0], [0.25, 0.75]], "float32"), np.array([[0.5, 0.5], [0.1, 0.9]], "float32")]
    joined = np.asarray(StackedMetaLearner(2).join(predictions))
    np.testing.assert_allclose(joined, np.log(np.maximum(np.hstack(predictions), 1e-7)), rtol=1e-5, atol=1e-6)


def test_equal_weights_make_it_geometric_voting(rng):
    predictions = list(rng.dirichlet([1, 1, 1], size=(2, 20)).astype("float32"))
    layer = StackedMetaLearner(3)
    layer(predictions)
    layer.set_weights([np.vstack([np.eye(3)] * 2) / 2, np.zeros(3)])
    np.testing.assert_allclose(np.asarray(layer(predictions)), np.asarray(GeometricVoting()(predictions)), atol=1e-6)


def test_one_sigmoid_column_counts_as_two_classes(rng):
    p = rng.random((20, 1)).astype("float32")
    layer = StackedMetaLearner(2)
    one = layer([p, p])
    two = layer([np.hstack([1 - p, p])] * 2)
    np.testing.assert_allclose(np.asarray(one), np.asarray(two), atol=1e-6)


def test_the_config_makes_the_layer_again():
    layer = StackedMetaLearner(4, units=(8,))
    again = StackedMetaLearner.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.num_classes, again.units) == (4, (8,))


@pytest.mark.parametrize("units", [8, "8", None])
def test_units_that_are_no_widths_are_refused(units):
    with pytest.raises(ValueError, match="`units` must be a tuple of widths, one per hidden layer. Received: "):
        StackedMetaLearner(3, units=units)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match='Expected `activation="softmax"` with 2 or more classes'):
        StackedMetaLearner(1)


def tables_of(rng, n=300, num_classes=3, members=2):
    """Labels, out-of-fold predictions that know something of them, and features that know something else."""
    y = rng.integers(0, num_classes, n)
    scores = rng.normal(size=(n, members, num_classes)) + 1.5 * np.eye(num_classes)[y][:, None]
    features = [
        np.hstack([rng.normal(size=(n, 3)), (y == k)[:, None] * 2.0 + rng.normal(size=(n, 1))]) for k in (0, 1)
    ]
    return softmax(scores, axis=2).astype("float32"), y, [f.astype("float32") for f in features[:members]]


def test_with_passthrough_it_is_a_linear_classifier_on_both(rng):
    predictions, y, features = tables_of(rng)
    layer = fit_combiner(StackedMetaLearner(3, passthrough=True), predictions, y, features=features)
    joined = np.hstack([np.log(predictions).reshape(len(y), -1), *features])
    kernel, bias = layer.head.get_weights()
    np.testing.assert_allclose(
        combine(layer, predictions, features), softmax(joined @ kernel + bias, axis=1), atol=1e-5
    )
    alone = out_of_fold_combined(StackedMetaLearner(3), predictions, y, np.arange(300) % 5)
    both = out_of_fold_combined(
        StackedMetaLearner(3, passthrough=True), predictions, y, np.arange(300) % 5, features=features
    )
    assert np.mean(both.argmax(axis=1) == y) > np.mean(alone.argmax(axis=1) == y) + 0.02


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(C=0.1, tol=1e-8),
        make_pipeline(StandardScaler(), PCA(3), LogisticRegression(tol=1e-8)),
        make_pipeline(MinMaxScaler(), LinearDiscriminantAnalysis()),
    ],
)
def test_a_linear_estimator_becomes_the_layer_exactly(estimator, num_classes, rng):
    predictions, y, _ = tables_of(rng, num_classes=num_classes)
    layer = fit_combiner(StackedMetaLearner(num_classes, final_estimator=estimator), predictions, y)
    x = np.log(np.maximum(predictions, 1e-7)).reshape(len(y), -1).astype("float64")
    expected = clone(estimator).fit(x, y).predict_proba(x)
    np.testing.assert_allclose(combine(layer, predictions), expected, atol=2e-5)
    # What is kept is a plain layer: its config is JSON, and the estimator given is not fitted.
    assert layer.get_config()["final_estimator"] is None
    json.dumps(layer.get_config())
    assert not hasattr(estimator, "classes_")


def test_an_estimator_is_fitted_out_of_fold_and_with_class_weights(rng):
    predictions, y, _ = tables_of(rng)
    folds, estimator = np.arange(len(y)) % 3, LogisticRegression(tol=1e-8)
    x = np.log(predictions).reshape(len(y), -1).astype("float64")
    weights = np.array([1.0, 5.0, 1.0])
    layer = StackedMetaLearner(3, final_estimator=estimator)
    found = out_of_fold_combined(layer, predictions, y, folds, class_weight=weights)
    for fold in range(3):
        rest = folds != fold
        expected = clone(estimator).fit(x[rest], y[rest], sample_weight=weights[y[rest]]).predict_proba(x[~rest])
        np.testing.assert_allclose(found[~rest], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (DecisionTreeClassifier(), "DecisionTreeClassifier has no coefficients"),
        (LinearSVC(), "it gives no probabilities"),
        (
            make_pipeline(PolynomialFeatures(), LinearDiscriminantAnalysis()),
            "the step before it, PolynomialFeatures, is not affine",
        ),
        (SGDClassifier(loss="log_loss"), "its probabilities are not the softmax of its linear scores"),
    ],
)
def test_an_estimator_that_is_not_a_layer_is_refused_with_the_reason(estimator, reason, rng):
    predictions, y, _ = tables_of(rng)
    with pytest.raises(ValueError, match=f"`final_estimator` must be exactly a dense layer.*{reason}"):
        fit_combiner(StackedMetaLearner(3, final_estimator=estimator), predictions, y)


def test_an_estimator_that_float32_cannot_hold_is_refused(rng):
    predictions, y, _ = tables_of(rng)
    # Hardly anything but rounding: what `StandardScaler` divides by is next to nothing.
    predictions[:, 0] = (1 / 3 + 1e-7 * rng.normal(size=(len(y), 1)) * [1, -1, 0]).astype("float32")
    estimator = make_pipeline(StandardScaler(), LogisticRegression())
    with pytest.raises(ValueError, match="Pipeline: its weights are too large for float32"):
        fit_combiner(StackedMetaLearner(3, final_estimator=estimator), predictions, y)


def test_other_wrong_estimators_are_refused(rng):
    predictions, y, _ = tables_of(rng)
    with pytest.raises(TypeError, match="must be a scikit-learn classifier. Received: <class"):
        fit_combiner(StackedMetaLearner(3, final_estimator=LogisticRegression), predictions, y)
    with pytest.raises(ValueError, match="`final_estimator` takes the place of all dense layers"):
        StackedMetaLearner(3, units=(4,), final_estimator=LogisticRegression())

import numpy as np
import pytest
from sklearn import metrics as sk

from ensemble_keras.measures import metrics


def softmax_of(rng, y, num_classes, strength=1.5):
    logits = rng.normal(size=(len(y), num_classes))
    logits[np.arange(len(y)), y] += strength
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_the_figures_are_those_of_scikit_learn(rng, num_classes):
    y = rng.integers(0, num_classes, 300)
    p = softmax_of(rng, y, num_classes)
    summary = metrics.metric_summary(y, p)
    predicted = p.argmax(axis=1)
    assert summary["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert summary["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, predicted))
    assert summary["log_loss"] == pytest.approx(sk.log_loss(y, p))
    expected = sk.roc_auc_score(y, p[:, 1]) if num_classes == 2 else sk.roc_auc_score(y, p, multi_class="ovr")
    assert summary["roc_auc"] == pytest.approx(expected)
    for average in ("macro", "weighted"):
        assert summary[f"precision_{average}"] == pytest.approx(sk.precision_score(y, predicted, average=average))
        assert summary[f"recall_{average}"] == pytest.approx(sk.recall_score(y, predicted, average=average))
        assert summary[f"f1_{average}"] == pytest.approx(sk.f1_score(y, predicted, average=average))


def test_a_sure_and_wrong_float32_row_costs_what_it_costs_in_scikit_learn():
    p = np.array([[0, 1], [0.5, 0.5]], "float32")
    assert metrics.metric_summary([0, 1], p)["log_loss"] == pytest.approx(sk.log_loss([0, 1], p))


def test_a_class_without_images_makes_roc_auc_nan_and_is_named(rng):
    y = rng.integers(0, 2, 40)
    with pytest.warns(UserWarning, match="no image of class 2, 3"):
        summary = metrics.metric_summary(y, softmax_of(rng, y, 4))
    assert {name for name, value in summary.items() if np.isnan(value)} == {"roc_auc", "average_precision"}


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_column_is_the_probability_of_class_1(shape):
    p = np.array([0.25, 0.0, 1.0], "float32").reshape(shape)
    checked = metrics.check_probabilities(p)
    np.testing.assert_array_equal(checked, np.array([[0.75, 0.25], [1, 0], [0, 1]], "float32"))
    assert checked.dtype == np.float32


def test_a_right_table_passes_unchanged(rng):
    p = softmax_of(rng, rng.integers(0, 3, 20), 3)
    np.testing.assert_array_equal(metrics.check_probabilities(p, 3), p)
    assert metrics.check_probabilities(p.astype("float16")).dtype == np.float64


def _with(value, row=1):
    p = np.full((4, 2), 0.5)
    p[row] = value
    return p


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_with(np.nan), "NaN or infinity in 1 row: 1"),
        (_with([0.5, 0.6]), r"a sum other than 1 in 1 row: 1. The first: \[0.5, 0.6\]"),
        (_with([-0.5, 1.5]), r"values outside \[0, 1\] in 1 row: 1"),
        (np.array([0.5, 1.2]), r"values outside \[0, 1\] in 1 row: 1"),
        (np.full((3, 5), 7.0), r"in 3 rows: 0, 1, 2. The first: \[7, 7, 7, 7, …\]"),
        (np.full((4, 3), 1 / 3), r"one column for each of 2 classes. Received: shape \(4, 3\)"),
        (np.zeros((0, 2)), r"shape \(0, 2\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.float64(0.5), r"shape \(\)"),
        (np.array([["a", "b"]]), "dtype <U1"),
    ],
)
def test_another_table_is_refused_with_its_name_and_its_rows(table, message):
    with pytest.raises(ValueError, match=message):
        metrics.check_probabilities(table, 2)
    with pytest.raises(ValueError, match=r"`members\['VGG16'\]` must hold one row of class probabilities per image"):
        metrics.check_probabilities(table, 2, "members['VGG16']")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 2, -1], r"class indices from 0 to 1. Received: 2 \(2 rows: 1, 2\)"),
        (["a", "b", "a"], "labels such as 'a'"),
        ([0, 1], r"shape \(2,\) for 3 images"),
    ],
)
def test_labels_that_are_no_columns_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        metrics.metric_summary(y, np.full((3, 2), 0.5))


def test_one_class_alone_has_no_correlation_and_no_warning_of_scikit_learns():
    with pytest.warns(UserWarning, match="`roc_auc` and `average_precision` are NaN") as said:
        assert metrics.metric_summary([1, 1], [0.8, 0.9])["mcc"] == 0
    assert len(said) == 1

import numpy as np
import pytest
from sklearn import metrics as sk

from ensemble_keras.measures import bootstrap
from ensemble_keras.measures.calibration import expected_calibration_error
from ensemble_keras.measures.metrics import metric_summary
from ensemble_keras.measures.weighted import METRICS


def table(rng, y, num_classes, strength=1.2):
    logits = rng.normal(size=(len(y), num_classes))
    logits[np.arange(len(y)), y] += strength
    # Rounded, so that some scores are level.
    p = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2) + 1e-3
    return p / p.sum(axis=1, keepdims=True)


def one_against_rest(function, y, p, w):
    """The mean of a metric of class 1, or of each class that there is against the rest."""
    classes = [1] if p.shape[1] == 2 else np.unique(y[w > 0])
    return np.mean([function(y == k, p[:, k], sample_weight=w) for k in classes])


def averaged(part):
    return lambda y, p, w, average: sk.precision_recall_fscore_support(
        y[w > 0], p[w > 0].argmax(1), sample_weight=w[w > 0], average=average, zero_division=0
    )[part]


def of_class(function, k):
    return lambda y, p, w: function(y, p.argmax(1), sample_weight=w, pos_label=k)


def brier(y, p, w):
    if p.shape[1] == 2:
        return sk.brier_score_loss(y, p[:, 1], sample_weight=w)
    return np.average(((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1), weights=w)


def calibration(y, p, w):
    return expected_calibration_error(np.repeat(p, w, axis=0), np.repeat(y, w))


# Each metric as scikit-learn has it, of weighted rows.
EXPECTED = {
    "accuracy": lambda y, p, w: sk.accuracy_score(y, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, p, w: sk.recall_score(
        y, p.argmax(1), sample_weight=w, labels=np.unique(y[w > 0]), average="macro"
    ),
    "roc_auc": lambda y, p, w: one_against_rest(sk.roc_auc_score, y, p, w),
    "average_precision": lambda y, p, w: one_against_rest(sk.average_precision_score, y, p, w),
    "log_loss": lambda y, p, w: sk.log_loss(y, p, sample_weight=w, labels=range(p.shape[1])),
    "brier_score": brier,
    "calibration_error": calibration,
    "mcc": lambda y, p, w: sk.matthews_corrcoef(y, p.argmax(1), sample_weight=w),
    **{
        f"{name}_{average}": lambda y, p, w, part=part, average=average: averaged(part)(y, p, w, average)
        for part, name in enumerate(("precision", "recall", "f1"))
        for average in ("macro", "weighted")
    },
    "f1": of_class(sk.f1_score, 1),
    "sensitivity": of_class(sk.recall_score, 1),
    "specificity": of_class(sk.recall_score, 0),
    "positive_predictive_value": of_class(sk.precision_score, 1),
    "negative_predictive_value": of_class(sk.precision_score, 0),
}


def test_every_metric_is_held_against_scikit_learn():
    assert EXPECTED.keys() == METRICS.keys()


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_a_metric_of_weighted_rows_is_scikit_learns(rng, name, num_classes):
    metric = METRICS[name]
    if metric.two_classes and num_classes > 2:
        return
    y = rng.integers(0, num_classes, 150)
    p = table(rng, y, num_classes)
    weights = rng.integers(0, 4, (150, 5))
    weights[y == num_classes - 1, 4] *= num_classes == 2  # a resample that lacks a class
    found = metric.weighted(y, p)(weights.astype(float))
    np.testing.assert_allclose(found, [EXPECTED[name](y, p, w) for w in weights.T], atol=1e-12)
    assert metric.value(y, p) == pytest.approx(EXPECTED[name](y, p, np.ones(150, int)), abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_summary_has_the_same_figures(rng, num_classes):
    y = rng.integers(0, num_classes, 150)
    p = table(rng, y, num_classes)
    summary = metric_summary(y, p)
    assert len(summary) >= 10
    for name, value in summary.items():
        assert value == pytest.approx(METRICS[name].value(y, p), abs=1e-12)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.share])
def test_a_share_is_of_counted_images(rng, name):
    y = rng.integers(0, 2, 150)
    p = table(rng, y, 2)
    right, whole = METRICS[name].share(y, p)
    assert right[whole].mean() == pytest.approx(METRICS[name].value(y, p))
    expected = {"accuracy": 150, "sensitivity": (y == 1).sum(), "specificity": (y == 0).sum()}
    said = p.argmax(1)
    expected |= {"positive_predictive_value": said.sum(), "negative_predictive_value": (1 - said).sum()}
    assert whole.sum() == expected[name]


def test_what_images_do_not_define_is_nan(rng):
    y, p = np.ones(4, int), np.array([[0.2, 0.8]] * 4)
    defined = {name: np.isfinite(METRICS[name].value(y, p)) for name in METRICS}
    assert {name for name, known in defined.items() if not known} == {
        "roc_auc",
        "specificity",
        "negative_predictive_value",
    }
    assert METRICS["mcc"].value(y, p) == 0


@pytest.mark.parametrize("grouped", [False, True])
def test_resamples_draw_whole_units_with_replacement(rng, grouped):
    y = rng.integers(0, 2, 200)
    p = table(rng, y, 2)
    units = np.arange(200) // 4 if grouped else np.arange(200)
    functions = [METRICS["roc_auc"].weighted(y, p), METRICS["mcc"].weighted(y, p)]
    found = bootstrap.resampled(functions, units, 8, np.random.default_rng(3))
    weights = np.concatenate(list(bootstrap._weights(units, 8, np.random.default_rng(3))), axis=1).astype(int)
    assert (weights.sum(axis=0) == 200).all()
    for resample, times in enumerate(weights.T):
        assert not grouped or (times.reshape(50, 4) == times[::4, None]).all()
        rows = np.repeat(np.arange(200), times)
        expected = [sk.roc_auc_score(y[rows], p[rows, 1]), sk.matthews_corrcoef(y[rows], p[rows].argmax(1))]
        np.testing.assert_allclose(found[:, resample], expected, atol=1e-12)

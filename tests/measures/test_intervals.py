import numpy as np
import pytest
from scipy import stats

from ensemble_keras.measures.intervals import metric_interval, metric_intervals
from ensemble_keras.measures.metrics import metric_summary
from ensemble_keras.measures.weighted import METRICS

SHARES = [name for name, metric in METRICS.items() if metric.share]


def table(rng, y, num_classes=2, strength=1.2):
    logits = rng.normal(size=(len(y), num_classes))
    logits[np.arange(len(y)), y] += strength
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.fixture
def y(rng):
    return rng.integers(0, 2, 200)


@pytest.fixture
def p(rng, y):
    return table(rng, y)


@pytest.mark.parametrize("name", SHARES)
def test_the_interval_of_a_share_is_wilsons(p, y, name):
    said = p.argmax(1)
    whole = {"accuracy": said >= 0, "sensitivity": y == 1, "specificity": y == 0}
    whole |= {"positive_predictive_value": said == 1, "negative_predictive_value": said == 0}
    right = int((said == y)[whole[name]].sum())
    expected = stats.binomtest(right, int(whole[name].sum())).proportion_ci(0.9, method="wilson")
    found = metric_interval(p, y, metric=name, confidence=0.9)
    assert found == pytest.approx((right / whole[name].sum(), expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("grouped", [False, True])
def test_an_interval_holds_its_value(p, y, name, grouped):
    groups = np.arange(200) // 2 if grouped else None
    value, low, high = metric_interval(p, y, metric=name, groups=groups, resamples=500)
    assert value == pytest.approx(METRICS[name].value(y, p))
    assert low < value < high


def test_all_intervals_are_those_of_each_metric(p, y):
    groups = np.arange(200) // 2
    for options in ({}, {"groups": groups, "seed": 3}):
        found = metric_intervals(p, y, resamples=2000, **options)
        assert list(found.index) == list(METRICS)
        assert (found.index.name, list(found.columns)) == ("metric", ["value", "low", "high"])
        for name, row in found.iterrows():
            expected = metric_interval(p, y, metric=name, **options)
            assert row["value"] == pytest.approx(expected[0])
            # Means of rows are drawn by another way to the same distribution.
            close = 0.01 + 0.1 * (expected[2] - expected[1])
            assert row.tolist() == pytest.approx(expected, abs=close if METRICS[name].rows else 1e-12)


def test_the_figures_of_several_classes_have_intervals(rng):
    y = np.arange(120) % 3
    p = table(rng, y, 3)
    found = metric_intervals(p, y, resamples=200)
    assert "sensitivity" not in found.index
    for name, value in metric_summary(y, p).items():
        assert found.loc[name, "value"] == pytest.approx(value)
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()


def test_what_images_do_not_define_has_no_interval(rng):
    found = metric_intervals([0.9, 0.8, 0.7], [1, 1, 1], groups=[0, 1, 2])
    assert found.loc[["roc_auc", "average_precision", "specificity"]].isna().all(axis=None)
    # None of the resamples differs from another: each of three groups counts as an image.
    bounds = stats.binomtest(3, 3).proportion_ci(0.95, method="wilson")
    assert found.loc["sensitivity"].tolist() == pytest.approx([1, bounds.low, bounds.high])
    assert metric_intervals([0.9, 0.8], [1, 1], metrics=["specificity"]).isna().all(axis=None)
    with pytest.raises(ValueError, match="There is no specificity where"):
        metric_interval([0.9, 0.8], [1, 1], metric="specificity")


@pytest.mark.parametrize(
    ("groups", "units"),
    [
        (None, {"accuracy": 5, "sensitivity": 2, "specificity": 3}),
        ([0, 0, 1, 2, 2], {"accuracy": 3, "sensitivity": 1, "specificity": 2}),
    ],
)
def test_resamples_that_agree_do_not_tell_how_sure_a_value_is(groups, units):
    p, y = [0.1, 0.2, 0.3, 0.8, 0.9], [0, 0, 0, 1, 1]
    found = metric_intervals(p, y, groups=groups)
    for name in ("roc_auc", "average_precision", "f1_macro", "balanced_accuracy"):
        assert found.loc[name].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)
        assert metric_interval(p, y, metric=name, groups=groups) == pytest.approx((1, np.nan, np.nan), nan_ok=True)
    for name, n in units.items():
        low = stats.binomtest(n, n).proportion_ci(0.95, method="wilson").low
        assert found.loc[name].tolist() == pytest.approx([1, low, 1])
        assert metric_interval(p, y, metric=name, groups=groups) == pytest.approx((1, low, 1))


@pytest.mark.parametrize("groups", [["a", None, "b"], [1, np.nan, np.nan], np.array([1, np.nan, 2])])
def test_a_missing_group_is_refused(groups):
    with pytest.raises(ValueError, match="`groups` must hold one group per image. Received: none in . rows?: 1"):
        metric_intervals([0.1, 0.9, 0.8], [0, 1, 1], groups=groups)


def test_wrong_options_are_refused(p, y):
    with pytest.raises(ValueError, match="`metrics` must be one of .* Received: 'acuracy'"):
        metric_intervals(p, y, metrics=["acuracy"])
    with pytest.raises(ValueError, match="`metrics` must be one of .* Received: 'f1'"):
        metric_intervals(np.full((3, 3), 1 / 3), [0, 1, 2], metrics=["f1"])


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_95_of_100_intervals_hold_the_true_value(grouped):
    """Simulated: 300 images, alone or as patients with three images each that look alike."""
    rng = np.random.default_rng(0)

    def sample(n):
        patients = np.repeat(np.arange(n // 3), 3) if grouped else np.arange(n)
        ill = rng.integers(0, 2, patients.max() + 1)
        evident = rng.normal(size=patients.max() + 1)
        y = ill[patients]
        score = 1.1 * (2 * y - 1) + 0.8 * evident[patients] + rng.normal(size=n)
        # More sure of itself than it should be, so that its calibration error is not 0.
        return 1 / (1 + np.exp(-2 * score)), y, patients if grouped else None

    many, labels, _ = sample(1_200_000)
    many = np.stack([1 - many, many], axis=1)
    truth = {name: metric.value(labels, many) for name, metric in METRICS.items()}
    held = dict.fromkeys(METRICS, 0)
    runs = 300
    for _ in range(runs):
        p, y, groups = sample(300)
        table = metric_intervals(p, y, groups=groups, resamples=400)
        for name in METRICS:
            held[name] += table.loc[name, "low"] <= truth[name] <= table.loc[name, "high"]
    # Three standard errors of 300 draws are 3.8 points; percentile intervals of 100 groups are a little short, and
    # that of the calibration error is more so.
    least = {name: 0.85 if name == "calibration_error" else 0.9 for name in METRICS}
    short = {name: count / runs for name, count in held.items() if not least[name] < count / runs < 0.99}
    assert not short

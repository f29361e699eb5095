import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ensemble_keras.measures import bootstrap
from ensemble_keras.measures.metrics import log_losses
from ensemble_keras.measures.significance import METRICS, Comparison, compare, drop_p_value, metric_interval


def table(rng, y, num_classes, strength):
    logits = rng.normal(size=(len(y), num_classes))
    logits[np.arange(len(y)), y] += strength
    # Rounded, so that some scores are level.
    p = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2) + 1e-3
    return p / p.sum(axis=1, keepdims=True)


@pytest.fixture(params=[2, 4])
def two_tables(request, rng):
    y = rng.integers(0, request.param, 200)
    return table(rng, y, request.param, 1.5), table(rng, y, request.param, 1.0), y


def auc(y, p):
    return sk.roc_auc_score(y, p[:, 1]) if p.shape[1] == 2 else sk.roc_auc_score(y, p, multi_class="ovr")


def drawn_rows(units, resamples, seed):
    """The rows of each resample, counted from the weights that the bootstrap uses."""
    weights = np.concatenate(list(bootstrap._weights(units, resamples, np.random.default_rng(seed))), axis=1)
    return [np.repeat(np.arange(len(units)), w.astype(int)) for w in weights.T]


def test_the_value_is_the_difference_of_scikit_learns_figures(two_tables):
    a, b, y = two_tables
    accuracy = np.mean(a.argmax(1) == y) - np.mean(b.argmax(1) == y)
    assert compare(a, b, y).difference == pytest.approx(accuracy)
    assert compare(a, b, y, metric="roc_auc").difference == pytest.approx(auc(y, a) - auc(y, b))
    assert compare(a, b, y, metric="log_loss").difference == pytest.approx(sk.log_loss(y, b) - sk.log_loss(y, a))


@pytest.mark.parametrize("grouped", [False, True])
def test_a_resampled_auc_is_scikit_learns_on_the_rows_drawn(two_tables, grouped):
    a, b, y = two_tables
    units = np.arange(200) // 4 if grouped else np.arange(200)
    found = bootstrap.resampled_aucs([a, b], y, units, 8, np.random.default_rng(3))
    for resample, rows in enumerate(drawn_rows(units, 8, 3)):
        np.testing.assert_allclose(found[:, resample], [auc(y[rows], p[rows]) for p in (a, b)], atol=1e-12)


def test_a_class_that_a_resample_lacks_is_left_out_of_its_mean(rng):
    y = np.array([0] * 20 + [1] * 20 + [2])
    p = table(rng, y, 3, 1.0)
    found = bootstrap.resampled_aucs([p], y, np.arange(41), 20, np.random.default_rng(0))[0]
    drawn = drawn_rows(np.arange(41), 20, 0)
    assert any(2 not in y[rows] for rows in drawn)
    for value, rows in zip(found, drawn, strict=True):
        there = np.unique(y[rows])
        assert value == pytest.approx(np.mean([sk.roc_auc_score(y[rows] == k, p[rows, k]) for k in there]))


def test_a_resampled_mean_is_the_mean_of_the_rows_drawn(rng):
    score, units = rng.normal(size=400), np.arange(400) // 3
    found = bootstrap.resampled_means(score, units, 8, np.random.default_rng(3))
    expected = [score[rows].mean() for rows in drawn_rows(units, 8, 3)]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("size", [1, 4])
def test_drawing_kinds_and_drawing_rows_give_the_same_interval(rng, size):
    units, score = np.arange(600) // size, rng.choice([-1.0, 0.0, 1.0], 600, p=[0.1, 0.7, 0.2])
    kinds = bootstrap.resampled_means(score, units, 20_000, rng)
    rows = [score[rows].mean() for rows in drawn_rows(units, 4000, 0)]
    np.testing.assert_allclose(np.quantile(kinds, [0.025, 0.975]), np.quantile(rows, [0.025, 0.975]), atol=0.004)


def test_the_p_value_of_accuracy_is_mcnemars_exact_one():
    y = np.ones(100, int)
    a, b = np.full(100, 0.9), np.full(100, 0.9)
    a[:4], b[4:18] = 0.1, 0.1
    assert compare(a, b, y).p_value == pytest.approx(stats.binomtest(14, 18).pvalue)
    assert compare(a, a, y).p_value == 1
    assert compare(a, a, y).high == 0


def test_the_bootstrap_p_value_of_no_difference_is_1(two_tables):
    a, _, y = two_tables
    assert compare(a, a, y, metric="roc_auc").p_value == 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("grouped", [False, True])
def test_swapping_the_two_turns_the_sign(two_tables, metric, grouped):
    a, b, y = two_tables
    groups = np.arange(200) // 3 if grouped else None
    one, other = (compare(*pair, y, metric=metric, groups=groups) for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(
        [one.difference, one.low, one.high, one.p_value],
        [-other.difference, -other.high, -other.low, other.p_value],
        atol=1e-12,
    )
    assert one.low < one.difference < one.high


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_seed_gives_the_same_interval(two_tables, metric):
    a, b, y = two_tables
    assert compare(a, b, y, metric=metric) == compare(a, b, y, metric=metric, seed=0)
    assert compare(a, b, y, metric=metric) != compare(a, b, y, metric=metric, seed=1)


def test_groups_that_repeat_an_image_widen_the_interval(rng):
    y = rng.integers(0, 2, 100)
    a, b = table(rng, y, 2, 1.5), table(rng, y, 2, 1.0)
    single = compare(a, b, y)
    repeated = [np.repeat(values, 10, axis=0) for values in (a, b, y)]
    grouped = compare(*repeated, groups=np.repeat(np.arange(100), 10))
    naive = compare(*repeated)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.1)
    assert naive.high - naive.low < 0.5 * (grouped.high - grouped.low)


def test_accuracys_own_interval_is_wilsons(two_tables):
    a, _, y = two_tables
    right = int((a.argmax(1) == y).sum())
    expected = stats.binomtest(right, 200).proportion_ci(0.9, method="wilson")
    assert metric_interval(a, y, confidence=0.9) == (right / 200, expected.low, expected.high)


@pytest.mark.parametrize("metric", METRICS)
def test_an_interval_holds_its_value(two_tables, metric):
    a, _, y = two_tables
    value, low, high = metric_interval(a, y, metric=metric, groups=np.arange(200) // 2)
    expected = {"accuracy": np.mean(a.argmax(1) == y), "roc_auc": auc(y, a), "log_loss": log_losses(y, a).mean()}
    assert value == pytest.approx(expected[metric])
    assert low < value < high


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_95_of_100_intervals_hold_the_true_difference(metric):
    rng = np.random.default_rng(0)

    def sample(n):
        y = rng.integers(0, 2, n)
        common = rng.normal(size=n)
        scores = [(2 * y - 1) * gain + common + rng.normal(size=n) for gain in (1.2, 0.9)]
        return *(1 / (1 + np.exp(-score)) for score in scores), y

    truth = compare(*sample(400_000), metric=metric, resamples=1).difference
    found = [compare(*sample(300), metric=metric, resamples=500) for _ in range(600)]
    covered = np.mean([c.low <= truth <= c.high for c in found])
    # Three standard errors of 600 draws are 2.7 points.
    assert 0.923 < covered < 0.977


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            (0.009, 0.0031, 0.0149, 0.004, "accuracy", 0.95),
            "+0.9 points of accuracy, 95 % interval +0.3 to +1.5, p = 0.004",
        ),
        (
            (-0.0123, -0.02, -0.001, 0.0004, "roc_auc", 0.9),
            "-0.012 of ROC AUC, 90 % interval -0.020 to -0.001, p < 0.001",
        ),
        ((0, 0, 0, 1.0, "accuracy", 0.95), "+0.0 points of accuracy, 95 % interval +0.0 to +0.0, p = 1"),
    ],
)
def test_a_comparison_reads_as_a_sentence(values, sentence):
    assert str(Comparison(*values)) == sentence


def test_a_drop_is_tested_exactly():
    table = [[272, 41], [3104, 103]]
    assert drop_p_value(272, 313, 3104 / 3207, 3207) == pytest.approx(stats.fisher_exact(table, "less").pvalue)
    assert drop_p_value(90, 100, 0.95) == pytest.approx(stats.binom.cdf(90, 100, 0.95))
    assert drop_p_value(97, 100, 0.95, 1000) > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acuracy"}, "`metric` must be one of .* Did you mean 'accuracy'"),
        ({"confidence": 95}, "`confidence` must lie between 0 and 1. Received: 95"),
        ({"resamples": 0}, "`resamples` must be at least 1"),
        ({"groups": [1, 2]}, r"one group per image. Received: shape \(2,\) for 3 images"),
        ({"groups": ["a", "a", "a"]}, "at least two groups. Received: only 'a'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compare([0.1, 0.2, 0.9], [0.1, 0.2, 0.9], [0, 0, 1], **options)


def test_wrong_tables_are_refused():
    with pytest.raises(ValueError, match="Received: 3 and 2 rows"):
        compare([0.1, 0.2, 0.9], [0.1, 0.2], [0, 0, 1])
    with pytest.raises(ValueError, match=r"`probabilities_b` .* Received: shape \(3, 3\)"):
        compare([0.1, 0.2, 0.9], np.full((3, 3), 1 / 3), [0, 0, 1])
    with pytest.raises(ValueError, match=r"ROC AUC needs images of every class\. Received: none of class 1"):
        compare([0.1, 0.2, 0.9], [0.1, 0.2, 0.9], [0, 0, 0], metric="roc_auc")

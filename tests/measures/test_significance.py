import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ensemble_keras.measures import bootstrap
from ensemble_keras.measures.delong import delong_p_value
from ensemble_keras.measures.significance import (
    Comparison,
    compare,
    compare_all,
    design_effect,
    drop_p_value,
    holm,
    mcnemar_p_value,
)
from ensemble_keras.measures.weighted import METRICS

# Means of rows, and what is not.
SOME = ("accuracy", "roc_auc", "log_loss", "calibration_error", "mcc")


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
    assert compare(a, a, y, metric="mcc").p_value == 1


@pytest.mark.parametrize("metric", SOME)
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


@pytest.mark.parametrize("metric", SOME)
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


@pytest.mark.slow
@pytest.mark.parametrize("metric", SOME)
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
    # Three standard errors of 600 draws are 2.7 points. Resamples add noise to the difference of calibration errors.
    assert 0.923 < covered < (1 if metric == "calibration_error" else 0.977)


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


def test_mcnemars_test_is_that_of_a_published_table():
    # Approval of the Prime Minister (Agresti, 1990, "Categorical data analysis", page 350): 86 and 150 changed.
    both_ways = sum(math.comb(236, k) for k in range(87)) / 2**235
    assert mcnemar_p_value(86, 150) == pytest.approx(both_ways, rel=1e-9) == pytest.approx(3.716e-05, rel=1e-3)
    assert mcnemar_p_value(150, 86) == mcnemar_p_value(86, 150)
    assert mcnemar_p_value(0, 0) == 1


def test_each_p_value_says_its_test(two_tables):
    a, b, y = two_tables
    binary = a.shape[1] == 2
    assert compare(a, b, y).test == "McNemar's exact test"
    found = compare(a, b, y, metric="roc_auc")
    assert found.test == ("DeLong's test" if binary else "paired bootstrap")
    if binary:
        assert found.p_value == delong_p_value(y, a[:, 1], b[:, 1])
    grouped = np.arange(200) // 2
    assert {compare(a, b, y, metric=m, groups=grouped).test for m in SOME} == {"paired bootstrap"}


def test_delongs_test_and_the_bootstrap_agree(rng):
    y = rng.integers(0, 2, 400)
    a, b = table(rng, y, 2, 1.2), table(rng, y, 2, 1.0)
    exact = compare(a, b, y, metric="roc_auc")
    # Groups of one image: the bootstrap's p-value.
    drawn = compare(a, b, y, metric="roc_auc", groups=np.arange(400))
    assert (exact.low, exact.high) == (drawn.low, drawn.high)
    assert exact.p_value == pytest.approx(drawn.p_value, abs=0.03)


def test_one_image_of_a_class_leaves_the_bootstrap_to_decide():
    found = compare([0.1, 0.2, 0.9, 0.3], [0.3, 0.2, 0.25, 0.1], [0, 0, 1, 0], metric="roc_auc")
    assert found.test == "paired bootstrap"


def test_few_images_cannot_tell_what_a_resampling_seems_to_be_sure_of():
    y, perfect, constant = [0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.5] * 4
    found = compare(perfect, constant, y, metric="roc_auc")
    assert (found.test, found.p_value) == ("DeLong's test", 2**-3)
    assert compare(perfect, constant, y, metric="log_loss").p_value == 2**-3
    # Every sign of four differences is as likely as any other: both extremes are 2 of 16.
    assert stats.binomtest(4, 4).pvalue == 2**-3
    grouped = compare(perfect, constant, y, metric="log_loss", groups=[0, 1, 0, 1])
    assert grouped.p_value == 2**-1


def test_holms_correction_is_that_of_published_examples():
    # Holm (1979) goes through the p-values from the smallest; these are of R's `p.adjust(p, "holm")`.
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.04]), [0.04, 0.06, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.04, 0.001, 0.5]), [0.08, 0.003, 0.5])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02])
    assert holm([]).shape == (0,)


def test_all_comparisons_are_those_of_each_pair(two_tables):
    a, b, y = two_tables
    tables = {"a": a, "b": b, "mean": (a + b) / 2}
    frame = compare_all(tables, y, metric="log_loss")
    assert frame[["first", "second"]].values.tolist() == [["a", "b"], ["a", "mean"], ["b", "mean"]]
    for row in frame.itertuples():
        found = compare(tables[row.first], tables[row.second], y, metric="log_loss")
        assert (row.difference, row.low, row.high, row.p_value, row.test) == (
            found.difference,
            found.low,
            found.high,
            found.p_value,
            found.test,
        )
    np.testing.assert_array_equal(frame["p_holm"], holm(frame["p_value"]))
    against = compare_all(tables, y, reference="b", groups=np.arange(200) // 2)
    assert against[["first", "second"]].values.tolist() == [["b", "a"], ["b", "mean"]]


def test_comparisons_of_nothing_are_refused(two_tables):
    a, b, y = two_tables
    with pytest.raises(ValueError, match="`tables` must hold two classifiers or more. Received: 1"):
        compare_all({"a": a}, y)
    with pytest.raises(ValueError, match="`reference` must be one of 'a', 'b'. Received: 'c'"):
        compare_all({"a": a, "b": b}, y, reference="c")


def test_a_drop_is_tested_exactly():
    table = [[272, 41], [3104, 103]]
    assert drop_p_value(272, 313, 3104 / 3207, 3207) == pytest.approx(stats.fisher_exact(table, "less").pvalue)
    assert drop_p_value(90, 100, 0.95) == pytest.approx(stats.binom.cdf(90, 100, 0.95))
    assert drop_p_value(97, 100, 0.95, 1000) > 0.5


def test_the_design_effect_tells_how_many_images_are_as_one(rng):
    right = rng.random(300) < 0.8
    assert design_effect(right) == 1
    assert design_effect(np.ones(4, bool), [0, 0, 1, 1]) == 1
    # Images that are repeated tell nothing new; m / (m - 1) for so many groups.
    repeated = design_effect(np.repeat(right, 5), np.repeat(np.arange(300), 5))
    assert repeated == pytest.approx(5 * 300 / 299)
    assert design_effect(right, np.arange(300)) == pytest.approx(300 / 299)
    # The variance is the squared standard error of the bootstrap over groups.
    groups = rng.integers(0, 60, 300)
    right = rng.random(300) < rng.beta(3, 1, 60)[groups]
    drawn = bootstrap.resampled_means(right.astype(float), np.unique(groups, return_inverse=True)[1], 20_000, rng)
    share = right.mean()
    assert design_effect(right, groups) == pytest.approx(drawn.var() / (share * (1 - share) / 300), rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acuracy"}, "`metric` must be one of .* Did you mean 'accuracy'"),
        ({"confidence": 95}, "`confidence` must lie between 0 and 1. Received: 95"),
        ({"resamples": 0}, "`resamples` must be an int of at least 1"),
        ({"seed": -1}, "`seed` must be an int of at least 0. Received: -1"),
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
    with pytest.raises(ValueError, match=r"`metric='f1'` is of two classes\. Received: probabilities of 3 classes"):
        compare(np.full((3, 3), 1 / 3), np.full((3, 3), 1 / 3), [0, 1, 2], metric="f1")
    with pytest.raises(ValueError, match="There is no specificity where no image is of the class"):
        compare([0.1, 0.9], [0.1, 0.9], [1, 1], metric="specificity")


def test_every_metric_can_be_compared(two_tables):
    a, b, y = two_tables
    for name, metric in METRICS.items():
        if metric.two_classes and a.shape[1] > 2:
            continue
        found = compare(a, b, y, metric=name, resamples=50)
        sign = -1 if metric.lower_is_better else 1
        assert found.difference == pytest.approx(sign * (metric.value(y, a) - metric.value(y, b)))
        assert metric.text in str(found)

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from ensemble_keras.measures.delong import auc_covariance, delong_p_value

# Albumin, total protein, K-G score (lower is better) and outcome of the patients of DeLong et al. (1988) for whom all
# three are known, with SAS's published figures for them (SAS/STAT, PROC LOGISTIC, "Comparing ROC curves").
PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


@pytest.fixture
def patients():
    albumin, protein, kg_score, outcome = np.array(PATIENTS.split(), float).reshape(-1, 4).T
    return outcome == 1, np.stack([albumin, -kg_score, protein])


def by_definition(y, scores):
    """Equations 3 to 5 of DeLong et al.: all pairs of a positive and a negative, compared one by one."""
    pairs = [np.sign(s[y][:, None] - s[~y][None]) / 2 + 0.5 for s in np.asarray(scores)]
    positives, negatives = (np.stack([pair.mean(axis=axis) for pair in pairs]) for axis in (1, 0))
    covariance = np.cov(positives) / y.sum() + np.cov(negatives) / (~y).sum()
    return np.array([pair.mean() for pair in pairs]), np.atleast_2d(covariance)


def test_areas_and_errors_are_the_published_ones(patients):
    areas, covariance = auc_covariance(*patients)
    np.testing.assert_allclose(areas, [0.7366, 0.7258, 0.6478], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.0927, 0.1028, 0.1000], atol=5e-5)


def test_p_values_are_the_published_ones(patients):
    y, (albumin, kg_score, protein) = patients
    assert delong_p_value(y, albumin, kg_score) == pytest.approx(0.9102, abs=5e-5)
    assert delong_p_value(y, protein, kg_score) == pytest.approx(0.4561, abs=5e-5)


@pytest.mark.parametrize("level", [False, True])
def test_midranks_give_what_the_definition_gives(rng, level):
    y = rng.random(150) < 0.3
    scores = rng.normal(size=(3, 150)) + y
    scores = np.round(scores) if level else scores
    areas, covariance = auc_covariance(y, scores)
    expected, expected_covariance = by_definition(y, scores)
    np.testing.assert_allclose(areas, expected, atol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-12)
    np.testing.assert_allclose(areas, [roc_auc_score(y, s) for s in scores])
    z = (areas[0] - areas[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert delong_p_value(y, scores[0], scores[1]) == pytest.approx(2 * stats.norm.cdf(-abs(z)))


def test_equal_areas_have_p_1_and_certain_differences_p_0(patients):
    y, scores = patients
    assert delong_p_value(y, scores[0], 2 * scores[0] + 1) == 1
    assert delong_p_value([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.5] * 4) == 0


def test_under_the_null_p_values_are_uniform():
    rng = np.random.default_rng(1)
    y = np.arange(200) < 80
    p_values = []
    for _ in range(500):
        common = rng.normal(size=200) + y
        p_values.append(delong_p_value(y, *(common + rng.normal(size=(2, 200)))))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_one_image_of_a_class_is_refused():
    with pytest.raises(ValueError, match="two images of either class. Received: 1 positive, 3 negative"):
        auc_covariance([0, 0, 1, 0], [[0.1, 0.2, 0.3, 0.4]])

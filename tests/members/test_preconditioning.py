import numpy as np
import pytest

from ensemble_keras.members.preconditioning import Hessian, rotate


def test_rotated_features_are_uncorrelated_and_of_the_same_length(rng):
    features = (rng.normal(size=(2100, 6)) @ rng.normal(size=(6, 6))).astype("float32")
    rotated = features.copy()
    variances, axes = rotate(rotated)
    np.testing.assert_allclose(rotated, features @ axes, atol=1e-4)
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(rotated.T @ rotated / 2100, np.diag(variances), atol=1e-4 * variances.max())


@pytest.mark.parametrize("coupled", [False, True])
def test_dividing_by_the_estimate_solves_its_equations(coupled, rng):
    variances, penalties, curvatures = rng.uniform(0.5, 2, 4), np.array([0.1, 0.3]), rng.uniform(0.1, 1, (2, 3))
    offsets, gradients = (rng.normal(size=(4, 2, 3)) if coupled else None), rng.normal(size=(5, 2, 3))
    steps = Hessian(variances, penalties, curvatures, offsets).divide(gradients)
    for p, k in np.ndindex(2, 3):
        c = curvatures[p, k]
        block = np.diag([*(c * variances + penalties[p]), 0.1 * c if coupled else c])
        if coupled:
            u = np.append(offsets[:, p, k], 1)
            block = block + c * np.outer(u, u)
        np.testing.assert_allclose(block @ steps[:, p, k], gradients[:, p, k])

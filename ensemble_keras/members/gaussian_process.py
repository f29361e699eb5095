"""Gaussian process: how good the next trial of a Bayesian search may be (Snoek et al., 2012)."""

import warnings

import threadpoolctl
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern


def lower_bounds(x, y, points, *, seed, alpha=1e-4, beta=2.6):
    """Returns lower confidence bounds: mean minus `beta` deviations of a Gaussian process with a Matérn kernel.

    Args:
        x: Array `(n, d)` of the points that were tried, in [0, 1].
        y: Array `(n,)`, what came of them; lower is better.
        points: Array `(m, d)` of points to be judged.
        seed: Int. Where the fit of the kernel's scale begins anew, twice.
        alpha: Float, the variance of the noise in standardised `y`. Defaults to `1e-4`.
        beta: Float; higher looks more into the unknown. Defaults to 2.6.

    Returns:
        Array `(m,)`.
    """
    process = GaussianProcessRegressor(
        Matern(nu=2.5), n_restarts_optimizer=2, normalize_y=True, alpha=alpha, random_state=seed
    )
    # The matrices are small. A scale at the end of its range is no reason to stop.
    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        mean, deviation = process.fit(x, y).predict(points, return_std=True)
    return mean - beta * deviation

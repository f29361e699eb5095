"""Selection from a large pool: 1,000 members, 50,000 rows, 10 classes. Seconds, peak memory, and another way's time.

    python benchmarks/selection_scale.py

The pool is made: members of different skill whose errors go together, as those of one search do. The other way calls
scikit-learn's `log_loss` on the mean of probabilities for every candidate of every pick (timed for 20 candidates),
and SciPy's SLSQP on the simplex for the weights of 300 members.
"""

import argparse
import os
import resource
import sys
import time

import numpy as np
from _tables import save_table
from scipy import optimize
from sklearn.metrics import log_loss

import ensemble_keras as ek
from ensemble_keras.combiners.scores import true_class_probabilities

# SciPy's solver gets so many members.
_FEW = 300


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=50000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="a hundredth of it; saved under another name")
    options = parser.parse_args()
    if options.quick:
        options.members, options.rows = options.members // 10, options.rows // 10
    load = os.getloadavg()[0]
    # What is loaded on first use is not what is measured.
    for call in (ek.select_members, ek.convex_weights):
        call(*pool(2, 100, 2))
    predictions, y = pool(options.members, options.rows, options.classes)
    table = memory()
    rows = []
    weights = timed(rows, "select_members", lambda: ek.select_members(predictions, y))
    rows[-1].append(ratio(one_by_one(predictions, y), rows[-1][1]))
    convex = timed(rows, "convex_weights", lambda: ek.convex_weights(predictions, y))
    part = np.ascontiguousarray(predictions[:, :_FEW])
    start = time.perf_counter()
    ours = ek.convex_weights(part, y)
    rows[-1].append(ratio(slsqp(part, y, ours), time.perf_counter() - start) + f" ({_FEW} members)")
    timed(rows, 'select_members(metric="accuracy")', lambda: ek.select_members(predictions, y, metric="accuracy"))
    rows[-1].append("")
    best = min(loss(predictions, y, np.eye(options.members)[i]) for i in best_few(predictions, y))
    save_table(
        "selection_scale_quick" if options.quick else "selection_scale",
        f"Selecting from {options.members:,} members, {options.rows:,} rows, {options.classes} classes",
        ["call", "seconds", "CPU seconds, all threads", "peak memory, GiB", "another way ÷ ours"],
        rows,
        notes=[
            f"All checks of the predictions included. The table alone: {predictions.nbytes / 2**30:.2f} GiB; the "
            f"process with it, before the first call: {table:.2f} GiB",
            f"Log loss of the best member {best:.4f}; of the vote of {np.count_nonzero(weights)} selected members "
            f"{loss(predictions, y, weights):.4f}; of {np.count_nonzero(convex)} by convex weights "
            f"{loss(predictions, y, convex):.4f}",
            "Another way: scikit-learn's `log_loss` for each candidate, timed for 20 of them; SciPy's SLSQP; neither "
            "checks the predictions",
            f"Other work on the machine: load average {load:.1f} before the start, on {os.cpu_count()} cores; above "
            "that number the CPU seconds tell more than the seconds",
        ],
    )


def pool(members, n, classes, seed=0):
    """Returns predictions `(n, members, classes)`, float32, and labels; made in blocks of rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    skills = rng.uniform(1.3, 3.5, members).astype("float32")
    predictions = np.empty((n, members, classes), "float32")
    for start in range(0, n, 500):
        block = predictions[start : start + 500]
        rng.standard_normal(out=block, dtype="float32")
        block += rng.standard_normal((len(block), 1, classes), dtype="float32")
        block[np.arange(len(block)), :, y[start : start + 500]] += skills
        np.exp(block, out=block)
        block /= block.sum(axis=2, keepdims=True)
    return predictions, y


def timed(rows, name, call):
    start, busy = time.perf_counter(), time.process_time()
    result = call()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    rows.append([name, round(seconds, 2), round(busy, 2), f"{memory():.2f}"])
    return result


def one_by_one(predictions, y, picks=100, tried=20):
    """Returns the seconds of as many calls of `log_loss` as a selection has candidates, from those of a few."""
    total = predictions[:, 0].copy()
    start = time.perf_counter()
    for member in range(tried):
        log_loss(y, (total + predictions[:, member]) / 2)
    # Ten picks in twenty bags of half of the members.
    return (time.perf_counter() - start) / tried * predictions.shape[1] * picks


def slsqp(predictions, y, ours):
    """Returns the seconds that SciPy's general solver takes for the convex weights."""
    p = true_class_probabilities(predictions, y).T.astype("float64")
    start = time.perf_counter()
    found = optimize.minimize(
        lambda w: -np.log(p @ w).mean(),
        np.full(p.shape[1], 1 / p.shape[1]),
        jac=lambda w: -(p / (p @ w)[:, None]).mean(axis=0),
        method="SLSQP",
        bounds=[(0, 1)] * p.shape[1],
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-9, "maxiter": 500},
    )
    seconds = time.perf_counter() - start
    assert -np.log(p @ ours).mean() < found.fun + 1e-6
    return seconds


def best_few(predictions, y, few=5):
    return np.argsort(-np.log(true_class_probabilities(predictions, y)).mean(axis=1))[:few]


def loss(predictions, y, weights):
    used = np.flatnonzero(weights)
    p = sum(np.float32(weights[i]) * predictions[:, i] for i in used)
    return -np.log(p[np.arange(len(y)), y]).mean()


def ratio(seconds, ours):
    return f"{seconds / ours:.2g}" if seconds < 10 * ours else f"{seconds / ours:.0f}"


def memory():
    """Peak memory of the process in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


if __name__ == "__main__":
    main()

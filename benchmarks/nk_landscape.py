"""Search without training: how many trials the searches take on tabulated NK landscapes, and what their options do.

    python benchmarks/nk_landscape.py             # 30 seeds of 300 trials on landscape 0, and on others
    python benchmarks/nk_landscape.py --variants  # the options of the genetic search, on the other landscapes

An NK landscape (Kauffman, 1989) gives 12 genes of 4 values a fitness: the mean of one number per gene, which is
looked up by the gene and the 3 after it in a table of uniform random numbers. The target is what random search has
found after 300 trials, in the mean over the seeds. A search that misses it in 300 trials counts as 300.

The defaults of the genetic search were compared by the variants on landscapes other than 0; the first trials that led
to them (one changed gene per mutation) had landscape 0 among theirs.
"""

import argparse
import functools
import itertools
import pathlib
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from _tables import RESULTS, save_table

from ensemble_keras.search.baselines import RandomOracle
from ensemble_keras.search.genetic import MODES, GeneticOracle
from ensemble_keras.search.local import LocalOracle

# The landscape is that of the tests.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
from search_problems import nk_landscape, nk_space, trials

TRIALS = 300
SEARCHES = {
    "random": RandomOracle,
    "genetic, aging": GeneticOracle,
    "genetic, generational": functools.partial(GeneticOracle, mode="generational"),
    "local": LocalOracle,
}
VARIANTS = [
    {},
    *({"population_size": size} for size in (10, 30, 50)),
    *({"tournament_size": size} for size in (2, 5, 15, 20)),
    *({"mutation_prob": prob} for prob in (0.08, 0.17)),
    *({"crossover_prob": prob} for prob in (0, 0.5, 0.75, 1)),
    {"crossover": "one_point"},
    *({"elitism": size} for size in (0, 3, 5)),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", action="store_true", help="compare options of the genetic search")
    parser.add_argument("--seeds", type=int, default=30, help="searches on each landscape (default: %(default)s)")
    parser.add_argument("--landscapes", type=int, default=5, help="others than landscape 0 (default: %(default)s)")
    options = parser.parse_args()
    (compare_variants if options.variants else compare_searches)(options.seeds, range(1, 1 + options.landscapes))


def compare_searches(seeds, others):
    start, duplicates = time.process_time(), 0
    rows, curves = [], {}
    for name, build in SEARCHES.items():
        searches = [ended(build, nk_landscape(0), seed) for seed in range(seeds)]
        duplicates += sum(len(found) - len({trial.genome_id for trial in found}) for found in searches)
        curves[name] = np.maximum.accumulate([[trial.score for trial in found] for found in searches], axis=1)
    target = curves["random"][:, -1].mean()
    seconds = (time.process_time() - start) / (len(SEARCHES) * seeds * TRIALS)
    elsewhere = trials_on(SEARCHES, others, seeds)
    for name, curve in curves.items():
        needed = needed_by(curve, target)
        rows.append(
            [
                name,
                f"{needed.mean():.0f} ± {needed.std(ddof=1):.0f}",
                f"{np.percentile(needed, 10):.0f}, {np.median(needed):.0f}, {np.percentile(needed, 90):.0f}",
                f"{(curve[:, -1] >= target).sum()} of {seeds}",
                *(f"{curve[:, number - 1].mean():.3f}" for number in (75, 100, TRIALS)),
                ", ".join(f"{mean:.0f}" for mean in elsewhere[name].mean(axis=1)),
            ]
        )
    save_table(
        "nk_landscape",
        f"Search on an NK landscape (N = 12, 4 values, K = 3), {seeds} seeds of {TRIALS} trials",
        [
            "search", "trials to the target, mean ± SD", "10th, 50th, 90th percentile", "seeds that reach it",
            "best after 75", "best after 100", f"best after {TRIALS}",
            f"trials on landscapes {others[0]} to {others[-1]}, means",
        ],
        rows,
        notes=[
            f"The target, {target:.4f}: the mean over the seeds of the best of {TRIALS} random trials; each other "
            f"landscape has its own. A search that misses it counts as {TRIALS}",
            f"Landscape 0 is drawn from `np.random.default_rng(0)`. Genomes that were tried twice: {duplicates}",
            f"CPU time of a trial, all included: {1000 * seconds:.1f} ms",
            "![curves](nk_landscape.png)",
        ],
    )  # fmt: skip
    plot(curves, target)


def compare_variants(seeds, landscapes):
    builds = {
        (mode, *given.items()): functools.partial(GeneticOracle, mode=mode, **given)
        for mode, given in itertools.product(MODES, VARIANTS)
        if mode == "generational" or "elitism" not in given
    }
    needed = trials_on(builds, landscapes, seeds)
    rows = [
        [
            mode,
            ", ".join(f"`{name}={value!r}`" for name, value in given) or "the defaults",
            f"{table.mean():.1f} ± {table.std(axis=1, ddof=1).mean():.0f}",
            ", ".join(f"{mean:.0f}" for mean in table.mean(axis=1)),
        ]
        for (mode, *given), table in needed.items()
    ]
    error = (
        np.mean([table.std(axis=1, ddof=1).mean() for table in needed.values()]) / (seeds * len(landscapes)) ** 0.5
    )
    save_table(
        "nk_landscape_variants",
        f"Options of the genetic search on NK landscapes {landscapes[0]} to {landscapes[-1]}, {seeds} seeds each",
        ["mode", "option", "trials to the target, mean ± SD over seeds", "of each landscape, means"],
        rows,
        notes=[
            f"The target of a landscape: the mean over the seeds of the best of {TRIALS} random trials. A search "
            f"that misses it counts as {TRIALS}",
            f"The standard error of a mean is about {error:.0f}",
            "Fitness is exact here, and greed pays: small populations and large tournaments are the quickest. They "
            "follow each lucky accuracy where fitness is noisy, and lose families early: 20 and half of it are the "
            "defaults",
        ],
    )


def ended(build, fitness, seed, *, target=np.inf):
    """Returns the trials of a search, up to the one that reaches the target."""
    found = []
    for trial in trials(build(hyperparameters=nk_space(), max_trials=TRIALS, seed=seed), fitness):
        found.append(trial)
        if trial.score >= target:
            break
    return found


def trials_on(builds, landscapes, seeds):
    """Returns for each search how many trials it takes to each landscape's target, `(landscapes, seeds)`."""
    needed = {name: [] for name in builds}
    for number in landscapes:
        fitness = nk_landscape(number)
        at_random = [ended(RandomOracle, fitness, seed) for seed in range(seeds)]
        target = np.mean([max(trial.score for trial in found) for found in at_random])
        for name, build in builds.items():
            needed[name].append([len(ended(build, fitness, seed, target=target)) for seed in range(seeds)])
            print(number, name, np.mean(needed[name][-1]), file=sys.stderr, flush=True)
    return {name: np.array(table) for name, table in needed.items()}


def needed_by(curves, target):
    """Returns how many trials each curve takes to the target."""
    reached = curves >= target
    return np.where(reached.any(axis=1), 1 + reached.argmax(axis=1), curves.shape[1])


def plot(curves, target):
    fig, ax = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    number = np.arange(1, 1 + TRIALS)
    for place, (name, curve) in enumerate(curves.items()):
        (line,) = ax.plot(number, curve.mean(axis=0), color=f"C{place}", label=name)
        low, high = np.percentile(curve, [10, 90], axis=0)
        ax.fill_between(number, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    ax.axhline(target, color="0.4", linewidth=0.8, linestyle="--")
    ax.annotate("random search's mean after 300 trials", (TRIALS, target), (0, -12), textcoords="offset points",
                ha="right", color="0.3", fontsize="small")  # fmt: skip
    ax.set(
        xlabel="trials",
        ylabel="best fitness so far",
        xlim=(1, TRIALS),
        title="NK landscape 0: mean and 10th to 90th percentile",
    )
    ax.legend(loc="lower right", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(RESULTS / "nk_landscape.png", dpi=120)


if __name__ == "__main__":
    main()

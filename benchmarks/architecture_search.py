"""Architecture search that ends in an ensemble: the best single network, the best team, and the best of all alike.

    python benchmarks/architecture_search.py --name cifar100_nas_digits --data digits
    python benchmarks/architecture_search.py --name cifar100_nas --data cifar100.npz --trials 24 --epochs 12

Runs `examples/cifar100_nas.py`, which takes all further options; with `--output` and `--resume` a run goes on.
"""

import argparse
import pathlib
import shlex
import sys
import tempfile
import time

from _tables import save_table

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
import cifar100_nas as example

HEADER = ["on the test images", "members", "accuracy", "log loss", "points to the best single", "95 % interval"]
NAMES = {
    "best single": "best single network of the search",
    "top": "mean of as many best networks",
    "greedy": "team, chosen greedily",
    "gated": "the team, joined by a gate that sees architectures",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="cifar100_nas", help="of the saved table (default: %(default)s)")
    parser.add_argument("--output", help="folder for the search, kept (default: a temporary one)")
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tuner, greedy, table = example.main([*rest, "--output", options.output or f"{folder}/nas"])
        minutes = (time.perf_counter() - start) / 60
        rows = [row(name, table.loc[name], len(greedy.members)) for name in NAMES if name in table.index]
        save_table(
            options.name, "An architecture search and its ensemble", HEADER, rows, notes=notes(tuner, greedy, rest)
        )
    print(f"{minutes:.1f} minutes")


def row(name, figures, members):
    said = [f"{figures['accuracy']:.4f}", f"{figures['log_loss']:.3f}", f"{figures['points']:+.2f}"]
    interval = f"{figures['low']:+.2f} to {figures['high']:+.2f}"
    return [NAMES[name], 1 if name == "best single" else members, *said, interval]


def notes(tuner, greedy, asked):
    """Returns what the search did, in sentences."""
    trials = tuner.leaderboard()
    done = trials[trials["status"].isin(["COMPLETED", "STOPPED"])]
    stopped = (done["status"] == "STOPPED").sum()
    options = shlex.join(pathlib.Path(one).name if one.endswith(".npz") else one for one in asked)
    team = ", ".join(f"{line.family} ({line.weight:.2f})" for line in greedy.members.itertuples())
    return [
        f"{len(done)} trials of {done['family'].nunique()} families, {stopped} of them stopped early, "
        f"{done['seconds'].sum() / 60:.0f} minutes of training, {len(tuner.data.train)} training images; options: "
        f"`{options}`",
        f"the team: {team}",
        f"on validation images that chose nothing: {greedy.verdict}",
    ]


if __name__ == "__main__":
    main()

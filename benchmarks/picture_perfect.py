"""PicturePerfect's tables for our run: sparse networks joined by their mean, beside VGG16 and ResNet50.

    python benchmarks/picture_perfect.py --name small --data digits --trials 6 --epochs 4 --weights none

Runs `examples/picture_perfect.py`, which takes all further options; with `--output` and `--resume` a run goes on.
"""

import argparse
import pathlib
import shlex
import sys
import tempfile

import pandas as pd
from _tables import save_table

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
import picture_perfect as example

FIGURES = {"accuracy": "{:.3f}", "precision": "{:.3f}", "recall": "{:.3f}", "F1": "{:.3f}"}
COSTS = {
    "GFLOPs": "{:.3f}",
    "parameters": "{:,.0f}",
    "model size, MB": "{:.2f}",
    "training time, s": "{:.0f}",
    "inference time, ms": "{:.1f}",
    "images per second": "{:.0f}",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="picture_perfect", help="of the saved table (default: %(default)s)")
    parser.add_argument("--output", help="folder for the search, kept (default: a temporary one)")
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(options.output or folder)
        example.main([*rest, "--output", str(output)])
        tables = {name: pd.read_csv(output / f"{name}.csv", index_col=0) for name in ("figures", "costs")}
        differences = pd.read_csv(output / "differences.csv", index_col=0)
        trials = pd.read_csv(output / "search" / "trials.csv")
    both = tables["figures"].join(tables["costs"])
    forms = FIGURES | COSTS
    rows = [[name, *(form.format(line[column]) for column, form in forms.items())] for name, line in both.iterrows()]
    asked = shlex.join(pathlib.Path(one).name if "/" in one else one for one in rest)
    notes = [f"options: `{asked}`", searched(trials), *differences.apply(compared, axis=1)]
    save_table(options.name, "PicturePerfect: test images", ["model", *forms], rows, notes=notes)


def searched(trials):
    """Returns what the search did, in a sentence; the time to train the ensemble is that of the whole search."""
    narrow = trials.dropna(subset=["pruned_val_accuracy"])
    left = 100 * narrow["macs"] / narrow["wide_macs"]
    return (
        f"the search: {len(trials)} trials, {len(trials) - len(narrow)} of them stopped early; the others kept "
        f"{left.median():.0f} % of their multiply-accumulates (median; {left.min():.0f} to {left.max():.0f} %)"
    )


def compared(line):
    points = (
        f"{100 * line['difference']:+.1f} points of accuracy ({100 * line['low']:+.1f} to {100 * line['high']:+.1f})"
    )
    p_values = f"p = {line['p_value']:.2g}, after Holm's correction {line['p_holm']:.2g}"
    return f"{line['first']} against {line['second']}: {points}, {p_values}, {line['test']}"


if __name__ == "__main__":
    main()

"""What `import ensemble_keras` adds to the imports that every user has anyway.

    python benchmarks/import_time.py

Fresh processes, in turn; the median of the ratios.
"""

import os
import statistics
import subprocess
import sys
import time

from _tables import save_table

PLAIN = "import keras, sklearn, pandas"
OURS = "from ensemble_keras import EnsembleClassifier"
PAIRS = 7
# As where the package is installed, and so compiled: that variable would have each process compile it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - start


def main():
    for code in (PLAIN, OURS):
        seconds(code)  # The files are compiled, and in the system's cache, for both.
    pairs = [(seconds(OURS), seconds(PLAIN)) for _ in range(PAIRS)]
    ratios = sorted(ours / plain for ours, plain in pairs)
    ours, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
    save_table(
        "import_time",
        "Import time",
        ["measure", "target", "median ratio", "seconds", "all ratios"],
        [
            [
                f"`{OURS}` ÷ `{PLAIN}`",
                "≤ 1.05",
                f"{statistics.median(ratios):.3f}",
                f"{ours:.2f} / {plain:.2f}",
                ", ".join(f"{r:.3f}" for r in ratios),
            ]
        ],
    )


if __name__ == "__main__":
    main()

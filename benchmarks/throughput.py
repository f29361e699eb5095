"""One merged model beside its members called one after another, and one image at a time beside `predict`.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/throughput.py

All calls are compiled, with batch normalisations folded in on both sides; only the last row calls `predict`.
"""

import argparse
import statistics
import time

import numpy as np
from _tables import save_table

import ensemble_keras as ek

BACKBONES = ["MobileNet(alpha=0.25)", "MobileNetV2(alpha=0.35)", "MobileNetV2"]
TARGETS = {1: "≥ 1.4", 32: "≥ 1.15", 256: "≥ 0.97"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=112, help="side of the images (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=10)
    options = parser.parse_args()
    members = [ek.build_member(name, options.classes, image_size=options.size) for name in BACKBONES]
    ensemble = ek.build_ensemble(members, ek.SoftVoting())
    sizes = tuple(TARGETS)
    merged, parts = ek.compiled(ensemble, batch_sizes=sizes), [ek.compiled(m, batch_sizes=sizes) for m in members]
    rng, rows = np.random.default_rng(0), []
    for size, target in TARGETS.items():
        images = rng.integers(0, 256, (size, options.size, options.size, 3), dtype="uint8")
        whole, apart = in_turns(
            lambda x=images: merged(x),
            lambda x=images: np.mean([part(x) for part in parts], axis=0),
            300 // size + 20,
        )
        rows.append([f"merged ÷ one after another, batch {size}", target, *cells(apart / whole, whole, apart, size)])
    image = images[:1]
    whole, apart = in_turns(
        lambda: merged(image), lambda: np.mean([m.predict(image, verbose=0) for m in members], axis=0), 50
    )
    rows.append(["compiled, one image ÷ three `predict` calls", "≥ 6", *cells(apart / whole, whole, apart, 1)])
    notes = [f"members at {options.size} px: {', '.join(BACKBONES)}; medians of calls in turns"]
    header = ["throughput", "target", "ratio", "ms a call", "images per second, merged"]
    save_table("throughput", "One model beside three", header, rows, notes=notes)


def in_turns(one, other, repeats):
    """Returns the median seconds of two calls that are made in turns."""
    times = {one: [], other: []}
    for call in (one, other) * (repeats + 3):
        start = time.perf_counter()
        call()
        times[call].append(time.perf_counter() - start)
    return tuple(statistics.median(found[3:]) for found in times.values())


def cells(ratio, whole, apart, size):
    return [f"{ratio:.2f}", f"{1000 * whole:.1f} / {1000 * apart:.1f}", f"{size / whole:.0f}"]


if __name__ == "__main__":
    main()

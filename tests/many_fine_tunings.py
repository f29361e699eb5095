"""Fine-tunes ten members one after another; prints the process' memory after each, in MB. Run by a test."""

import os
import pathlib
import sys

import keras
import numpy as np

import ensemble_keras as ek

RUNS = 10


def resident_megabytes():
    """Returns what the process holds in memory (Linux)."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def network(name):
    """The first blocks of a MobileNetV2, as someone would bring them."""
    whole = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, include_top=False)
    top = keras.layers.GlobalAveragePooling2D()(whole.get_layer("block_6_expand_relu").output)
    return keras.Model(whole.inputs, top, name=name)


def main(runs=RUNS):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (64, 32, 32, 3), "uint8"), np.arange(64) % 2
    settings = ek.FineTuning(epochs=1, warmup_epochs=0, batch_size=32)
    for number in range(runs):
        member = ek.build_member(network(f"network_{number}"), 2, image_size=32)
        history = ek.fine_tune(member, x, y, settings=settings, seed=number, verbose=0)
        assert len(history.history["loss"]) == 1
        del member, history
        print(f"{resident_megabytes():.1f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

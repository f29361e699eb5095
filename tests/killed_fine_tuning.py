"""Fine-tunes a small member as a process of its own, which the test kills: `killed_fine_tuning.py FOLDER`."""

import pathlib
import sys

import keras
import numpy as np
from synthetic import pictures

import ensemble_keras as ek

EPOCHS = 6


def backbone():
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    for number in (1, 2):
        start = keras.initializers.HeNormal(seed=number)
        x = keras.layers.Conv2D(8, 3, activation="relu", kernel_initializer=start, name=f"block{number}_conv")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="trunk")


def main(folder):
    member = ek.build_member(backbone(), 3, dropout=0.2)
    told = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: print("epoch", epoch, flush=True),
        on_train_batch_end=lambda batch, logs: print("step", batch, flush=True),
    )
    ek.fine_tune(
        member,
        *pictures(240),
        settings=ek.FineTuning(epochs=EPOCHS, batch_size=16, learning_rate=0.003),
        augmentation="cifar",
        directory=folder / "run",
        callbacks=[told],
        verbose=0,
    )
    np.savez(folder / "weights.npz", *member.get_weights())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

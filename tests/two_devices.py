"""Trains one network on one device and on two; writes what it finds as JSON. Run by test_devices.py."""

import json
import logging
import sys

import keras
import numpy as np
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.devices import _Division, data_parallel, replica_count, resolve_devices


class Shards(keras.callbacks.Callback):
    """Notes how the weights lie."""

    def on_train_end(self, logs=None):
        self.replicas = replica_count()
        self.count = len({shard.device for shard in self.model.weights[0].value.addressable_shards})


def network():
    keras.utils.set_random_seed(0)
    # No bias ahead of the normalisation: its gradient is rounding noise, which Adam would blow up to whole steps.
    convolution = [
        keras.layers.Conv2D(8, 3, strides=2, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
    ]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.2, seed=1)]
    inner = keras.Sequential([keras.Input((16, 16, 3)), *convolution], name="inner")
    inputs = keras.Input((16, 16, 3))
    x = inner(inputs)
    for layer in head:
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


def train(devices, batch_size, callbacks=()):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 16, 16, 3)).astype("float32"), rng.integers(0, 3, 48)
    model = network()
    with data_parallel(model, devices) as trained:
        trained.compile(keras.optimizers.AdamW(1e-2), "sparse_categorical_crossentropy")
        count = len(x) // batch_size * batch_size
        trained.fit(
            x[:count], y[:count], batch_size=batch_size, epochs=4, shuffle=False, verbose=0, callbacks=callbacks
        )
    return model


def difference(one, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def shard_sizes(batch_size):
    division = _Division(devices=list(resolve_devices("all")))
    layout = division.get_data_layout((batch_size, 2)).backend_layout
    return [layout.shard_shape((batch_size, 2))[0]] * len(layout.device_set)


def fine_tuned(devices):
    """Returns a member and its best epoch; 48 images in steps of 16."""
    x, y = pictures(66, 3)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, strides=2, use_bias=False), keras.layers.BatchNormalization()]
    trunk = keras.Sequential([keras.Input((16, 16, 3)), *layers, keras.layers.GlobalAveragePooling2D()], name="trunk")
    member = ek.build_member(trunk, 3, image_size=16)
    history = ek.fine_tune(
        member,
        x[:48],
        y[:48],
        validation_data=(x[48:], y[48:]),
        settings=ek.FineTuning(epochs=3, batch_size=16, learning_rate=1e-3),
        augmentation="light",
        devices=devices,
        verbose=0,
    )
    return member, history.best_epoch


def state(model):
    return [np.asarray(variable).tolist() for variable in model.non_trainable_variables if "seed" in variable.path]


def after_an_error():
    model = network()
    before = model.get_weights()
    try:
        with data_parallel(model, 2) as trained:
            trained.set_weights([weight + 1 for weight in before])
            raise RuntimeError("in the middle")
    except RuntimeError:
        kept = all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
        return f"{keras.distribution.distribution() or 'no distribution'}, model {'as it was' if kept else 'changed'}"


def main(path):
    logging.basicConfig()
    shards = Shards()
    one, two = train(None, 8), train(2, 8, [shards])
    (tuned_on_one, epoch_on_one), (tuned_on_two, epoch_on_two) = fine_tuned(None), fine_tuned("all")
    found = {
        "devices": list(resolve_devices("all")),
        "replicas": shards.replicas,
        "shards": {"weights": shards.count, "8": shard_sizes(8), "7": shard_sizes(7)},
        "moved": difference(network(), one),
        "largest difference": difference(one, two),
        "largest difference, undivided": difference(train(None, 7), train(["cpu:0", "cpu:1"], 7)),
        "largest difference, fine_tune": difference(tuned_on_one, tuned_on_two),
        "best epochs": [epoch_on_one, epoch_on_two],
        "seeds": "equal" if state(one) == state(two) and state(one) != state(network()) else "differ",
        "after": "no distribution" if keras.distribution.distribution() is None else "a distribution",
        "after an error": after_an_error(),
    }
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1])

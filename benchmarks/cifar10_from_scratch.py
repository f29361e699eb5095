"""CIFAR-10 from scratch on a GPU: one member to 94 %, and an ensemble to 96 %.

    python benchmarks/cifar10_from_scratch.py --shared ../shared
    python benchmarks/cifar10_from_scratch.py --shared ../shared --quick      # small, on a CPU

Data stay on the device; a whole epoch - order, flips, shifts, steps - is one compiled function, in bfloat16; a
network of Keras layers is trained through `stateless_call` and `stateless_apply`. So each run leaves a `keras.Model`,
and `build_ensemble` joins those of several seeds. Runs on Keras' JAX backend. Without a GPU the small run is made,
and the table says what was not measured.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import _cifar10 as cifar10
import keras
import numpy as np
from _tables import save_table
from keras import ops

import ensemble_keras as ek
from ensemble_keras.devices import supports_bfloat16, with_precision

HEADER = ["what", "epochs", "accuracy", "with mirror images", "seconds", "compiling, seconds", "target"]
ONE, MANY = "one network", "ensemble of {}"
TARGETS = {ONE: "≥ 94 % in ≤ 20 s", MANY: "≥ 96 % in ≤ 5 min in all"}
SMALL = {"widths": (16, 32, 32), "epochs": 6, "batch_size": 128}
# Gradients of the normalisation's offsets count more; the whitening stays as it was computed.
OFFSETS, LABEL_SMOOTHING = 64.0, 0.2


def main(arguments=None):
    options = parse(arguments)
    if keras.backend.backend() != "jax":
        sys.exit("This benchmark needs Keras' JAX backend: set KERAS_BACKEND=jax.")
    import jax

    device = jax.devices()[0]
    quick = options.quick or device.platform != "gpu"
    train, test, _ = cifar10.load(options.shared)
    if quick:
        train, test = ([part[:count] for part in parts] for parts, count in ((train, 2048), (test, 1000)))
    fast, wide = recipe(cifar10.FAST, options, quick), recipe(cifar10.WIDE, options, quick)
    runs, members = (2, 2) if quick else (options.runs, options.members)
    rows = [row_of_runs(*train_runs(fast, train, test, runs)[1:], fast)]
    rows += rows_of_ensemble(wide, train, test, members)
    if quick:
        rows = [[f"small run: {row[0]}", *row[1:-1], ""] for row in rows]
        rows += [[what.format(options.members), *["not measured"] * 5, TARGETS[what]] for what in TARGETS]
    save_table(
        "cifar10_from_scratch_quick" if quick else "cifar10_from_scratch",
        "CIFAR-10 from scratch",
        HEADER,
        rows,
        notes=notes(device, train, test, fast, wide, quick),
    )


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10")
    parser.add_argument("--runs", type=int, default=5, help="of the one network (default: %(default)s)")
    parser.add_argument("--members", type=int, default=4, help="of the ensemble (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="of every network (default: its recipe's)")
    parser.add_argument("--quick", action="store_true", help="few images and small networks")
    return parser.parse_args(arguments)


def recipe(full, options, quick):
    changes = SMALL if quick else {}
    return dataclasses.replace(full, **changes | ({"epochs": options.epochs} if options.epochs else {}))


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run gave: accuracy on the test images, also of the mean over mirror images, and its seconds."""

    accuracy: float
    mirrored: float
    seconds: float


def train_runs(recipe, train, test, count, *, name="network"):
    """Trains networks from seeds 0, 1, …; returns them, their `Run`s and the seconds of compiling."""
    import jax

    network = cifar10.build_network(recipe, name=name)
    images, labels, test_images = (jax.device_put(array) for array in (train[0], train[1].astype("int32"), test[0]))
    padded = ops.pad(images, [(0, 0), *[(recipe.translate,) * 2] * 2, (0, 0)], mode="reflect")
    optimizer = build_optimizer(recipe, network, steps=recipe.epochs * (len(train[0]) // recipe.batch_size))
    fixed = [np.asarray(variable.value) for variable in network.non_trainable_variables]
    start = [np.asarray(variable.value) for variable in optimizer.variables]
    trained, runs = [], []
    with with_precision(network, "mixed_bfloat16" if supports_bfloat16() else None):
        state = jax.device_put((cifar10.initial_weights(network, train[0], 0), fixed, start))
        begin = time.perf_counter()
        epoch = jax.jit(epoch_function(network, optimizer, recipe), donate_argnums=0)
        epoch = epoch.lower(state, padded, labels, np.int32(0), jax.random.key(0)).compile()
        predict = jax.jit(predict_function(network)).lower(state[:2], test_images).compile()
        compiling = time.perf_counter() - begin
        for seed in range(count):
            begin = time.perf_counter()
            state = jax.device_put((cifar10.initial_weights(network, train[0], seed), fixed, start))
            for number in range(recipe.epochs):
                state, _ = epoch(state, padded, labels, np.int32(number), jax.random.key(seed))
            plain, mirrored = (np.asarray(values) for values in predict(state[:2], test_images))
            seconds = time.perf_counter() - begin
            runs.append(Run(accuracy(plain, test[1]), accuracy((plain + mirrored) / 2, test[1]), seconds))
            trained.append(as_model(recipe, state, name=f"{name}_{seed}"))
    return trained, runs, compiling


def build_optimizer(recipe, network, steps):
    optimizer = keras.optimizers.SGD(
        RiseAndFall(recipe.learning_rate, steps),
        momentum=cifar10.MOMENTUM,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    optimizer.exclude_from_weight_decay(var_names=["whitening"])
    optimizer.build(network.trainable_variables)
    return optimizer


class RiseAndFall(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly over a fifth of the steps, then falls linearly to 0."""

    def __init__(self, peak, steps):
        self.peak, self.steps = peak, steps

    def __call__(self, step):
        """Returns the learning rate of a step, from 0."""
        done = (ops.cast(step, "float32") + 1) / self.steps
        return self.peak * ops.minimum(0.2 + 4 * done, ops.maximum((1 - done) / 0.8, 0.0))

    def get_config(self):
        """Returns the arguments."""
        return {"peak": self.peak, "steps": self.steps}


def epoch_function(network, optimizer, recipe):
    """Returns a function of state, padded images, labels, epoch and key to the next state and the mean loss."""
    import jax

    with_logits = keras.Model(network.inputs, network.get_layer("logits").output)
    cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING)
    factors = [gradient_factor(variable.path) for variable in network.trainable_variables]

    def loss(weights, fixed, images, labels):
        logits, fixed = with_logits.stateless_call(weights, fixed, images, training=True)
        return cross_entropy(ops.one_hot(labels, cifar10.CLASSES), logits), fixed

    def step(state, batch):
        weights, fixed, slots = state
        (value, fixed), gradients = jax.value_and_grad(loss, has_aux=True)(weights, fixed, *batch)
        gradients = [gradient * factor for gradient, factor in zip(gradients, factors, strict=True)]
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return (weights, fixed, slots), value

    def epoch(state, padded, labels, number, key):
        steps = len(labels) // recipe.batch_size
        flips = jax.random.bernoulli(key, shape=(len(labels),))
        shuffle, shifts = jax.random.split(jax.random.fold_in(key, number))
        order = jax.random.permutation(shuffle, len(labels))[: steps * recipe.batch_size]

        def next_step(state, at):
            rows, key = at
            # Half of the images are mirrored in even epochs, the other half in odd ones.
            images = augmented(padded[rows], flips[rows] ^ (number % 2 == 1), recipe, key)
            return step(state, (images, labels[rows]))

        # XLA's convolutions on a CPU are ten times slower in a loop than written out.
        on_cpu = jax.default_backend() == "cpu"
        batches = order.reshape(steps, recipe.batch_size), jax.random.split(shifts, steps)
        state, losses = jax.lax.scan(next_step, state, batches, unroll=on_cpu)
        return state, losses.mean()

    return epoch


def augmented(padded, flips, recipe, key):
    """Shifts, mirrors and paints over the images of a batch."""
    import jax

    keys = jax.random.split(key)
    shifts = jax.random.randint(keys[0], (len(padded), 2), 0, 2 * recipe.translate + 1)
    cut = jax.vmap(lambda image, shift: jax.lax.dynamic_slice(image, (*shift, 0), (32, 32, 3)))
    images = ops.cast(cut(padded, shifts), "float32")
    images = ops.where(flips[:, None, None, None], images[:, :, ::-1], images)
    if not recipe.cutout:
        return images
    corners = jax.random.randint(keys[1], (len(images), 2, 1), 0, 33 - recipe.cutout)
    inside = (ops.arange(32) >= corners) & (ops.arange(32) < corners + recipe.cutout)
    square = inside[:, 0, :, None] & inside[:, 1, None, :]
    return ops.where(square[..., None], ops.array(cifar10.MEAN, "float32"), images)


def gradient_factor(path):
    if "whitening/kernel" in path:
        return 0.0
    return OFFSETS if path.endswith("beta") else 1.0


def predict_function(network):
    """Returns a function of weights and images to the probabilities of the images, and of their mirror images."""
    import jax

    def predict(state, images):
        chunks = images.reshape(-1, 500, *images.shape[1:])

        def of_chunk(chunk):
            chunk = ops.cast(chunk, "float32")
            views = (chunk, chunk[:, :, ::-1])
            return [network.stateless_call(*state, view, training=False)[0] for view in views]

        return [values.reshape(len(images), -1) for values in jax.lax.map(of_chunk, chunks)]

    return predict


def as_model(recipe, state, *, name):
    """Returns a network of its own with the weights of a run."""
    model = cifar10.build_network(recipe, name=name)
    for variable, value in zip(model.trainable_variables, state[0], strict=True):
        variable.assign(value)
    for variable, value in zip(model.non_trainable_variables, state[1], strict=True):
        variable.assign(value)
    return model


def accuracy(probabilities, y):
    return float((probabilities.argmax(-1) == y).mean())


def rows_of_ensemble(recipe, train, test, count):
    """Trains the members, joins them in one Keras model per way of voting, and measures that."""
    begin = time.perf_counter()
    members, runs, compiling = train_runs(recipe, train, test, count, name="member")
    rows = [row_of_runs(runs, compiling, recipe, "its members, mean")]
    trained = time.perf_counter() - begin - compiling
    for what, voting in (("mean of probabilities", ek.SoftVoting()), ("mean of logits", ek.GeometricVoting())):
        begin = time.perf_counter()
        model = ek.build_ensemble(members, voting)
        plain, mirrored = (model.predict(x, batch_size=500, verbose=0) for x in (test[0], test[0][:, :, ::-1]))
        found = [percent([accuracy(p, test[1])]) for p in (plain, (plain + mirrored) / 2)]
        seconds = trained + time.perf_counter() - begin
        name = f"{MANY.format(count)}, {what}"
        rows.append([name, recipe.epochs, *found, f"{seconds:.1f}", f"{compiling:.1f}", TARGETS[MANY]])
    return rows


def row_of_runs(runs, compiling, recipe, name=ONE):
    found = [percent([getattr(run, which) for run in runs]) for which in ("accuracy", "mirrored")]
    seconds = statistics.mean(run.seconds for run in runs)
    return [name, recipe.epochs, *found, f"{seconds:.1f}", f"{compiling:.1f}", TARGETS.get(name, "")]


def percent(values):
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f} %{spread}" + (f" ({len(values)} runs)" if spread else "")


def notes(device, train, test, fast, wide, quick):
    text = [
        f"device: {device.device_kind}; {'bfloat16' if supports_bfloat16() else 'float32'}; {len(train[0])} training "
        f"and {len(test[0])} test images",
        f"one network: groups of {fast.convolutions} convolutions, {fast.widths} channels; the ensemble's members: "
        f"{wide.convolutions} convolutions, {wide.widths} channels",
        "seconds: a run's start, training and predictions; of an ensemble those of all its members and its own "
        "predictions with their compiling; the compiling of the members' epoch is named apart",
    ]
    if quick:
        text.append("the first rows are a small run; those not measured need a GPU, which this machine does not have")
    return text


if __name__ == "__main__":
    main()

"""CIFAR-10 for the benchmarks: the images, and a small fast residual network written with Keras layers.

The network, its start and its schedule follow Jordan (2024), "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".
"""

import dataclasses
import pathlib
import sys

import keras
import numpy as np
from keras import layers

CLASSES = 10
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
MOMENTUM = 0.85


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A network and how it is trained.

    Attributes:
        widths: Channels of the three groups.
        convolutions: Per group, 2 or 3; of three, a shortcut leads past the last two.
        epochs: Passes over the training images.
        peak: Learning rate at its highest, for 1,024 images a step, as if the gradients' sum were not amplified by
            momentum.
        decay: Share of the weights that 1,024 images take away at that rate.
        translate: Pixels by which an image is shifted at most.
        cutout: Side of the square that is painted over; 0: none.
        statistics: Momentum of batch normalisation.
        batch_size: Images per step.
    """

    widths: tuple = (128, 384, 384)
    convolutions: int = 2
    epochs: int = 16
    peak: float = 10.0
    decay: float = 0.0153
    translate: int = 2
    cutout: int = 0
    statistics: float = 0.6
    batch_size: int = 1024

    @property
    def learning_rate(self):
        return self.peak * self.batch_size / 1024 / (1 + 1 / (1 - MOMENTUM))

    @property
    def weight_decay(self):
        return self.decay / self.peak / (1 - MOMENTUM)


FAST = Recipe()
WIDE = Recipe(
    widths=(128, 512, 512),
    convolutions=3,
    epochs=32,
    peak=9.0,
    decay=0.012,
    translate=4,
    cutout=12,
    statistics=0.9,
)


def load(shared):
    """Returns `(x_train, y_train), (x_test, y_test), class_names`, uint8 images of 32 by 32 pixels."""
    folder = pathlib.Path(shared) / "data"
    if not (folder / "shared_data.py").exists():
        sys.exit(f"No CIFAR-10 in {folder}: give the folder that holds data/cifar10 by --shared.")
    sys.path.insert(0, str(folder))
    from shared_data import load_cifar

    return load_cifar("cifar10")


def build_network(recipe, *, name):
    """Builds the network: a `keras.Model` from images in [0, 255] to probabilities, with a layer named "logits"."""
    x = images = keras.Input((32, 32, 3), name="images")
    x = layers.Normalization(mean=MEAN, variance=np.square(STD), name="standardised")(x)
    x = layers.Conv2D(24, 2, name="whitening")(x)
    x = layers.Activation("gelu", name="whitened")(x)
    for number, width in enumerate(recipe.widths, start=1):
        x = _group(x, width, recipe, f"group{number}")
    x = layers.MaxPooling2D(3, name="pooled")(x)
    x = layers.Flatten(name="features")(x)
    x = layers.Dense(CLASSES, use_bias=False, name="scores")(x)
    x = layers.Rescaling(1 / 9, name="logits")(x)
    return keras.Model(images, layers.Softmax(dtype="float32", name="predictions")(x), name=name)


def _group(x, width, recipe, name):
    x = shortcut = _normalised(layers.MaxPooling2D(2)(_convolution(x, width, f"{name}_conv1")), recipe, f"{name}_1")
    x = _normalised(_convolution(x, width, f"{name}_conv2"), recipe, f"{name}_2")
    if recipe.convolutions == 2:
        return x
    x = _convolution(x, width, f"{name}_conv3")
    return _normalised(x, recipe, f"{name}_3", shortcut)


def _convolution(x, width, name):
    return layers.Conv2D(width, 3, padding="same", use_bias=False, name=name)(x)


def _normalised(x, recipe, name, shortcut=None):
    x = layers.BatchNormalization(momentum=recipe.statistics, epsilon=1e-6, scale=False, name=f"{name}_norm")(x)
    if shortcut is not None:
        x = layers.Add(name=f"{name}_sum")([x, shortcut])
    return layers.Activation("gelu", name=f"{name}_gelu")(x)


def initial_weights(network, images, seed):
    """Returns the start of a run: whitening from the images' patches, convolutions that pass on what they are given.

    Args:
        network: Made by `build_network`.
        images: Some thousand training images.
        seed: Int.

    Returns:
        A list of arrays, one per trainable variable.
    """
    rng = np.random.default_rng(seed)
    return [_initial(variable, images, rng) for variable in network.trainable_variables]


def _initial(variable, images, rng):
    shape = tuple(variable.shape)
    if "whitening" in variable.path:
        return _whitening(images) if len(shape) == 4 else np.zeros(shape, "float32")
    if len(shape) < 2:
        return np.zeros(shape, "float32")
    limit = 1 / np.sqrt(np.prod(shape[:-1]))
    values = rng.uniform(-limit, limit, shape).astype("float32")
    if len(shape) == 4:
        count = min(shape[2:])
        values[..., :count] = 0
        values[1, 1, range(count), range(count)] = 1
    return values


def _whitening(images, epsilon=5e-4):
    """Eigenvectors of 2-by-2 patches, each with both signs, scaled to unit variance: `(2, 2, 3, 24)`."""
    x = (images[:5000].astype("float32") - np.float32(MEAN)) / np.float32(STD)
    patches = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2)).reshape(-1, 3, 2, 2)
    flat = patches.transpose(0, 2, 3, 1).reshape(len(patches), 12)
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    filters = (vectors / np.sqrt(values + epsilon)).reshape(2, 2, 3, 12)
    return np.concatenate([filters, -filters], axis=-1).astype("float32")

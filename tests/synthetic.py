"""Small images with something to learn, and small networks, for tests that need no real data."""

import keras
import numpy as np
from scipy.special import softmax


def pictures(n=60, classes=3, size=16, seed=0):
    """Noise with a brighter patch whose place tells the class; `(n, size, size, 3)` uint8 and int labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = rng.integers(0, 160, (n, size, size, 3))
    half = size // 2
    for image, label in zip(x, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half, label % 3] += 70
    return x.astype("uint8"), labels


def noisy(count, seed):
    """Returns that many pictures of two classes that noise makes hard to tell apart, and their labels."""
    x, y = pictures(3 * count, seed=seed)
    rng = np.random.default_rng(seed)
    x, y = x[y < 2][:count], y[y < 2][:count]
    noise = rng.normal(0, 90, x.shape) + rng.normal(0, 60, (len(x), 1, 1, 3))
    return np.clip(x + noise, 0, 255).astype("uint8"), y


def random_backbone(name, units=8, size=16, seed=0):
    """A frozen network of random convolutions that keeps coarse places: images to `(batch, 4 * units)`."""
    x = inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    initializer = keras.initializers.GlorotUniform(seed=seed)
    x = keras.layers.Conv2D(units, 3, padding="same", activation="relu", kernel_initializer=initializer)(x)
    x = keras.layers.AveragePooling2D(size // 2)(x)
    return keras.Model(inputs, keras.layers.Flatten()(x), name=name)


def member_predictions(skills, n=400, num_classes=3, seed=0):
    """Predictions `(n, members, num_classes)` of members that know the label so well, float32, and the labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % num_classes
    scores = rng.normal(size=(n, len(skills), num_classes))
    scores += np.asarray(skills)[:, None] * np.eye(num_classes)[y][:, None]
    return softmax(scores, axis=2).astype("float32"), y


def log_loss_of(weights, predictions, y):
    """The log loss of a soft vote with these weights."""
    return -np.log(np.tensordot(predictions, weights, axes=(1, 0))[np.arange(len(y)), y]).mean()

"""Tiny members in plain Keras: what the combiners are tested on."""

import keras

from ensemble_keras.members.member import build_member


def tiny_member(name, num_classes=2, *, size=8, width=4, activation="softmax", features="features"):
    """Builds a member from images of `size` by `size` pixels; its weights are a function of its name."""
    start = keras.initializers.HeNormal(seed=sum(name.encode()))
    images = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    x = keras.layers.Conv2D(width, 3, activation="relu", kernel_initializer=start)(x)
    x = keras.layers.GlobalAveragePooling2D(name=features)(x)
    outputs = keras.layers.Dense(num_classes, activation, kernel_initializer=start, name="predictions")(x)
    return keras.Model(images, outputs, name=name)


def tiny_backbone(seed=0, name="backbone"):
    """Builds a backbone with a batch normalisation, from images of 8 by 8 pixels to 4 features."""
    start = keras.initializers.HeNormal(seed=seed)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_initializer=start)(images)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name=name)


def heads_on(backbone, *names):
    """Builds members of two classes, with random heads, on one backbone."""
    return [build_member(backbone, 2, name=name) for name in names]

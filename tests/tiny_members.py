"""Tiny members in plain Keras: what the combiners are tested on."""

import keras


def tiny_member(name, num_classes=2, *, size=8, width=4, activation="softmax", features="features"):
    """Builds a member from images of `size` by `size` pixels; its weights are a function of its name."""
    start = keras.initializers.HeNormal(seed=sum(name.encode()))
    images = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    x = keras.layers.Conv2D(width, 3, activation="relu", kernel_initializer=start)(x)
    x = keras.layers.GlobalAveragePooling2D(name=features)(x)
    outputs = keras.layers.Dense(num_classes, activation, kernel_initializer=start, name="predictions")(x)
    return keras.Model(images, outputs, name=name)

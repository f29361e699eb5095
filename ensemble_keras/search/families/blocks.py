"""Blocks: what the convolutional families are put together from, for images of any size."""

from keras import layers

# A map of at least this many pixels is halved; a smaller one is left as it is, so that something remains to be seen.
_SMALLEST_TO_HALVE = 4


def convolution(x, filters, kernel_size=3, *, strides=1, norm="batch", activation="relu", name):
    """Convolution, normalisation (with `"none"` the convolution has a bias), and the named activation, if any."""
    x = bare_convolution(x, filters, kernel_size, strides=strides, use_bias=norm == "none", name=name)
    x = normalised(x, norm, name=name)
    return x if activation is None else layers.Activation(activation, name=f"{name}_{activation}")(x)


def bare_convolution(x, filters, kernel_size, *, strides=1, use_bias=False, name):
    """A convolution alone."""
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)


def normalised(x, norm="batch", *, name):
    """Normalisation `"batch"`, `"layer"` or `"none"`."""
    if norm == "batch":
        # Keras' default momentum, 0.99, needs hundreds of steps to forget the initial statistics: a trial of a few
        # epochs would be judged by them.
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm")(x) if norm == "layer" else x


def preactivated(x, *, name):
    """Batch normalisation and ReLU, before a convolution (He et al., 2016, arXiv:1603.05027)."""
    return layers.Activation("relu", name=f"{name}_relu")(normalised(x, name=name))


def stride_of(x):
    """The stride that halves a map, or 1 where too little would be left."""
    return 2 if min(x.shape[1:3]) >= _SMALLEST_TO_HALVE else 1


def pooled(x, kind="max", *, size=2, name):
    """The map halved by `"max"` or `"average"` pooling over `size` by `size` pixels; a small one as it is."""
    if stride_of(x) == 1:
        return x
    pooling = {"max": layers.MaxPooling2D, "average": layers.AveragePooling2D}[kind]
    return pooling(size, strides=2, padding="same", name=f"{name}_pool")(x)


def dropped(x, rate, *, name):
    """Dropout, or nothing for a rate of 0."""
    return layers.Dropout(rate, name=f"{name}_dropout")(x) if rate else x


def rescaled_channels(x, reduction=4, *, name):
    """Squeeze and excitation: channels weighted by what the whole map shows (Hu et al., 2018, arXiv:1709.01507)."""
    channels = x.shape[-1]
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    y = layers.Dense(max(4, channels // reduction), activation="relu", name=f"{name}_excite_1")(y)
    y = layers.Dense(channels, activation="sigmoid", name=f"{name}_excite_2")(y)
    return layers.Multiply(name=f"{name}_rescale")([x, y])


def dense(x, units, rate=0.0, *, name):
    """A dense layer with ReLU and dropout, on vectors or on what is flattened to them."""
    if len(x.shape) > 2:
        x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"{name}_dense")(x)
    return dropped(x, rate, name=name)

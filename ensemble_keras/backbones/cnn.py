"""CNN: a small plain convolutional network, the intuitive one, trained from scratch."""

import keras
from keras import layers


def cnn(input_shape=(64, 64, 3), *, filters=(32, 64, 128), dropout=0.0, name="cnn"):
    """Builds blocks of convolution, ReLU and max pooling, the usual first network of a tutorial.

    Args:
        input_shape: `(height, width, 3)`. Any size works: the pooling pads odd sides.
        filters: Tuple of ints, one per block. Defaults to `(32, 64, 128)`.
        dropout: Float in `[0, 1)`. Rate of the dropout after each block. Defaults to `0.0`, none.
        name: String. Name of the model.

    Returns:
        A `keras.Model` from images in `[0, 1]` to a feature map of shape
        `(batch, height / 2^blocks, width / 2^blocks, filters[-1])`, rounded up.

    Raises:
        ValueError: If `filters` is empty.

    Example:
    >>> cnn((28, 28, 3), filters=(8, 16)).output_shape
    (None, 7, 7, 16)
    """
    if not isinstance(filters, tuple | list) or not filters:
        raise ValueError(f"`filters` must hold one number per block, such as (32, 64). Received: {filters!r}.")
    x = images = keras.Input(input_shape, name="images")
    for block, width in enumerate(filters, start=1):
        x = layers.Conv2D(
            width,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"block{block}_conv",
        )(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"block{block}_pool")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"block{block}_dropout")(x)
    return keras.Model(images, x, name=name)

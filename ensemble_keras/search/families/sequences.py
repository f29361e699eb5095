"""Sequences: images cut into tokens, and the recurrent and attention layers that read them."""

import math

from keras import layers

RECURRENT = {"gru": layers.GRU, "lstm": layers.LSTM}


def patches(images, size):
    """Cuts images into patches, row by row, padding with 0 what is no multiple of their size.

    Args:
        images: Tensor `(batch, height, width, channels)`.
        size: Int, the side of a patch in pixels; at most half of the images' shorter side, for attention among one
            patch is none.

    Returns:
        Tensor `(batch, patches, size * size * channels)`.
    """
    height, width, channels = images.shape[1:]
    size = min(size, min(height, width) // 2)
    rows, columns = math.ceil(height / size), math.ceil(width / size)
    missing = rows * size - height, columns * size - width
    if any(missing):
        images = layers.ZeroPadding2D(((0, missing[0]), (0, missing[1])), name="patches_pad")(images)
    x = layers.Reshape((rows, size, columns, size, channels), name="patches_split")(images)
    x = layers.Permute((1, 3, 2, 4, 5), name="patches_permute")(x)
    return layers.Reshape((rows * columns, size * size * channels), name="patches_join")(x)


def rows(x):
    """Reads an image or a map row by row: tensor `(batch, height, width * channels)`."""
    height, width, channels = x.shape[1:]
    return layers.Reshape((height, width * channels), name="rows")(x)


def pixels(x):
    """Reads a map pixel by pixel: tensor `(batch, height * width, channels)`."""
    height, width, channels = x.shape[1:]
    return layers.Reshape((height * width, channels), name="pixels")(x)


def embedded(tokens, width, *, name="embedding"):
    """Projects tokens `(batch, n, d)` to `(batch, n, width)` and adds what tells their positions.

    The bias, one vector per position, is the learned position embedding of Dosovitskiy et al. (2021): so it takes
    no layer of one's own, which a saved file would not open without.
    """
    return layers.EinsumDense(
        "bnd,de->bne",
        output_shape=(tokens.shape[1], width),
        bias_axes="ne",
        bias_initializer="truncated_normal",
        name=name,
    )(tokens)


def attended(x, *, heads, mlp_ratio=2, dropout=0.0, name):
    """A Transformer block with normalisation first (Xiong et al., 2020, arXiv:2002.04745).

    Args:
        x: Tensor `(batch, n, width)`.
        heads: Int that divides `width`.
        mlp_ratio: Int, hidden units of the dense part over `width`.
        dropout: Float, rate of the dropout on each of the two branches.
        name: String, with which the names of the layers begin.
    """
    width = x.shape[-1]
    if width % heads:
        raise ValueError(f"The width must be a multiple of the heads. Received: {width} for {heads} heads.")
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm_1")(x)
    y = layers.MultiHeadAttention(heads, width // heads, dropout=dropout, name=f"{name}_attention")(y, y)
    x = layers.Add(name=f"{name}_add_1")([x, y])
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm_2")(x)
    y = layers.Dense(mlp_ratio * width, activation="gelu", name=f"{name}_mlp_1")(y)
    y = layers.Dense(width, name=f"{name}_mlp_2")(y)
    if dropout:
        y = layers.Dropout(dropout, name=f"{name}_dropout")(y)
    return layers.Add(name=f"{name}_add_2")([x, y])


def averaged(x, *, name="top"):
    """The normalised mean over all tokens: `(batch, n, width)` to `(batch, width)`."""
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    return layers.GlobalAveragePooling1D(name=f"{name}_mean")(x)


def remembered(x, *, cell, units, direction, readout="last", number=1, name="recurrent"):
    """Layers of recurrent units over a sequence, and what they know at its end.

    Args:
        x: Tensor `(batch, n, d)`.
        cell: `"gru"` or `"lstm"`.
        units: Int, per direction.
        direction: `"forward"`, or `"both"`: a second reader starts at the end.
        readout: `"last"`, the last state, or `"mean"`, the mean over the sequence.
        number: Int, layers.
        name: String, with which the names of the layers begin.

    Returns:
        Tensor `(batch, units)`, or `(batch, 2 * units)` of both directions.
    """
    for place in range(1, number + 1):
        whole = place < number or readout == "mean"
        layer = RECURRENT[cell](units, return_sequences=whole, name=f"{name}_{place}")
        if direction == "both":
            layer = layers.Bidirectional(layer, name=f"{name}_both_{place}")
        x = layer(x)
    return averaged(x, name=f"{name}_top") if readout == "mean" else x

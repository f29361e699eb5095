"""Preprocessing: the step from pixels in [0, 255] to what a network was trained on, as stock Keras layers."""

import keras

from ensemble_keras._validation import suggest

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BGR_MEAN = (103.939, 116.779, 123.68)

# Kind -> scale and offset, one number or one per channel.
_RESCALINGS = {
    "tf": (1 / 127.5, -1.0),
    "torch": ([1 / (255 * std) for std in _STD], [-mean / std for mean, std in zip(_MEAN, _STD, strict=True)]),
    "caffe": (1.0, [-mean for mean in _BGR_MEAN]),
    "unit": (1 / 255, 0.0),
}


def check_preprocessing(preprocessing):
    """Raises `ValueError` unless `preprocessing` is a kind that `preprocess` knows, or a callable; returns it."""
    if preprocessing is None or callable(preprocessing) or preprocessing in list(_RESCALINGS):
        return preprocessing
    kinds = ", ".join(repr(kind) for kind in _RESCALINGS)
    raise ValueError(
        f"`preprocessing` must be one of {kinds}, None or a callable on images in [0, 255]. "
        f"Received: {preprocessing!r}.{suggest(preprocessing, _RESCALINGS)}"
    )


def preprocess(x, preprocessing):
    """Applies a network's own preprocessing to images.

    The named kinds are the modes of `keras.applications.imagenet_utils.preprocess_input`. They hold no variables.

    Args:
        x: Tensor of images, symbolic or not, of shape `(batch, height, width, 3)`, RGB, with values in `[0, 255]`.
        preprocessing: `"tf"` scales to `[-1, 1]`; `"torch"` scales to `[0, 1]`, then standardises each channel with
            the mean and standard deviation of ImageNet; `"caffe"` turns RGB into BGR and subtracts the ImageNet mean
            of each channel; `"unit"` scales to `[0, 1]`; `None` changes nothing (networks that rescale inside). Or a
            callable from such a tensor to another: a Keras layer, or a function of `keras.ops`.

    Returns:
        A tensor of the same shape (a callable may change it).

    Raises:
        ValueError: If `preprocessing` is no such kind.

    Example:
    >>> x = np.full((1, 2, 2, 3), 255.0, dtype="float32")
    >>> float(preprocess(x, "tf")[0, 0, 0, 0])
    1.0
    """
    check_preprocessing(preprocessing)
    if preprocessing is None:
        return x
    if callable(preprocessing):
        return preprocessing(x)
    if preprocessing == "caffe":
        x = keras.ops.flip(x, axis=-1)
    scale, offset = _RESCALINGS[preprocessing]
    # float32 also under a mixed precision policy: half precision would round the pixels themselves.
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")(x)

"""Folding: batch normalisation after a convolution becomes part of it, for networks that only predict."""

import collections
import random

import keras
import numpy as np
from keras import layers

from ensemble_keras.measures.graph import calls

# What each kind of convolution scales its outputs with.
_KERNELS = {layers.Conv2D: "kernel", layers.DepthwiseConv2D: "kernel", layers.SeparableConv2D: "pointwise_kernel"}


def fold_batch_norms(model):
    """Returns a copy for inference, with batch normalisations folded into the convolutions before them.

    At inference the normalisation multiplies each channel with a constant and adds one: `γ (x − μ) / √(σ² + ε) + β`.
    A linear convolution just before it does the same when its kernel is scaled and its bias shifted, and a pass over
    the feature map is saved (Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3.2). Outputs agree up to rounding.

    Args:
        model: A `keras.Model` from one input to one output, nested models included.

    Returns:
        A `keras.Model` with the outputs of `model` at inference; `model` itself where nothing can be folded, or where
        it cannot be copied with certainty: layers of a user's own, a compiled model, other precisions than float32.
    """
    parts = _parts(model)
    if not all(map(_can_be_copied, parts)) or not any(map(_foldable, parts)):
        return model
    # The copies draw first weights, which are written over, by Python's random state: that is the user's.
    state = random.getstate()
    try:
        return _folded(model)
    finally:
        random.setstate(state)


def _parts(model):
    """Returns a model and the models nested in it."""
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return [model, *(part for layer in nested for part in _parts(layer))]


def _can_be_copied(model):
    known = all(
        type(part).__module__.startswith("keras.")
        and not isinstance(part, layers.Lambda | layers.Wrapper)
        and part.dtype_policy.name == "float32"
        for part in [model, *model.layers]
    )
    # Called with `training=True`, layers use the statistics of the batch at inference, too.
    return known and not model.compiled and not any(node.arguments.kwargs.get("training") for _, node in calls(model))


def _foldable(model):
    """Returns the normalisations of a model that can be folded: a dict from the convolution before each."""
    if not isinstance(model, keras.Model) or isinstance(model, keras.Sequential):
        return {}
    steps = calls(model)
    times = collections.Counter(layer for layer, _ in steps)
    readers = collections.Counter(id(tensor) for _, node in steps for tensor in node.input_tensors)
    readers.update(id(tensor) for tensor in model.outputs)
    found = {}
    for norm, node in steps:
        convolution = getattr(node.input_tensors[0], "_keras_history", [None])[0] if node.input_tensors else None
        if (
            type(norm) is layers.BatchNormalization
            and norm.axis in (-1, 3)
            and type(convolution) in _KERNELS
            and convolution.data_format == "channels_last"
            and convolution.activation is keras.activations.linear
            and not getattr(convolution, "lora_enabled", False)
            and times[norm] == times[convolution] == readers[id(node.input_tensors[0])] == 1
        ):
            found[convolution] = norm
    return found


def _folded(model):
    norms = _foldable(model)
    copies = {}

    def copied(layer):
        if isinstance(layer, keras.Model):
            return _folded(layer)
        if layer in norms.values():
            return layers.Identity(name=layer.name)
        config = layer.get_config() | ({"use_bias": True} if layer in norms else {})
        copies[layer] = type(layer).from_config(config)
        return copies[layer]

    def called(layer, *args, **kwargs):
        return args[0] if isinstance(layer, layers.Identity) else layer(*args, **kwargs)

    # A sequential model takes no `call_function`, and nothing in it is folded.
    calling = {} if isinstance(model, keras.Sequential) else {"call_function": called}
    result = keras.models.clone_model(model, clone_function=copied, **calling)
    for layer, copy in copies.items():
        if layer in norms:
            _fold(layer, norms[layer], copy)
        elif isinstance(layer, layers.Layer) and layer.variables:
            state = {}
            layer.save_own_variables(state)
            # Arrays of its own: what JAX is given to predict with, it takes for good.
            copy.load_own_variables({key: np.array(keras.ops.convert_to_numpy(v)) for key, v in state.items()})
    return result


def _fold(convolution, norm, folded):
    """Writes a convolution's weights, scaled and shifted by the normalisation after it, into `folded`."""
    scale = 1 / np.sqrt(_values(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale *= _values(norm.gamma)
    shift = -scale * _values(norm.moving_mean)
    if convolution.use_bias:
        shift += scale * _values(convolution.bias)
    if norm.center:
        shift += _values(norm.beta)
    if isinstance(convolution, layers.SeparableConv2D):
        folded.depthwise_kernel.assign(_values(convolution.depthwise_kernel))
    kernel = _KERNELS[type(convolution)]
    values = _values(getattr(convolution, kernel))
    channels = values.shape[2:] if isinstance(convolution, layers.DepthwiseConv2D) else (-1,)
    getattr(folded, kernel).assign(values * scale.reshape(channels))
    folded.bias.assign(shift)


def _values(variable):
    """A variable's values in double precision."""
    return keras.ops.convert_to_numpy(variable).astype("float64")

"""Architecture: what a network is made of, as a handful of numbers."""

import math

import keras

from ensemble_keras.measures.graph import calls
from ensemble_keras.measures.macs import count_macs

# Families of layers by which a network is told from another.
_FAMILIES = {
    "convolution": ("Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    "depthwise": ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
    "recurrent": ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"),
    "attention": ("MultiHeadAttention", "Attention", "AdditiveAttention", "Matmul", "Einsum"),
    "dense": ("Dense", "EinsumDense", "TimeDistributed"),
}


def describe_architecture(model, *, skill=None):
    """Describes a network by numbers that tell architectures apart.

    Args:
        model: A functional or sequential `keras.Model` with static shapes but for the batch, a member or a backbone.
        skill: Float, how good it is on images that it did not train on, such as its out-of-fold accuracy. Defaults to
            `None`: the description has none.

    Returns:
        Dict from name to float: `convolution`, `depthwise`, `recurrent`, `attention` and `dense`, the share of each
        family in the layers that multiply; `depth`, the number of such layers on the longest way from input to
        output; `log_parameters` and `log_macs`, logarithms to base 10; `input_size`, the root of height times width
        in pixels (the product of all dimensions but the last, for other inputs); and `skill`, where it is given.

    Raises:
        ValueError: If the model has no graph of layers, or a shape is not static.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3)(images)
    >>> model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    >>> found = ek.describe_architecture(model)
    >>> found["convolution"], found["depth"], found["input_size"]
    (0.5, 2.0, 8.0)
    """
    counted = count_macs(model)
    kinds = counted.by_layer.loc[(counted.by_layer["macs"] > 0).fillna(False), "kind"].tolist()
    shares = {name: sum(kind in family for kind in kinds) / max(1, len(kinds)) for name, family in _FAMILIES.items()}
    *sides, _ = model.inputs[0].shape[1:]
    found = {
        **shares,
        "depth": float(_depth(model, dict(_working(counted)))),
        "log_parameters": math.log10(max(1, counted.parameters)),
        "log_macs": math.log10(max(1, counted.total)),
        "input_size": float(math.prod(sides) ** (1 / max(1, len(sides)))),
    }
    return found if skill is None else {**found, "skill": float(skill)}


def _working(counted):
    """Yields the full name of each layer and whether it multiplies."""
    for row in counted.by_layer.itertuples():
        yield row.layer, not counted.by_layer["macs"].isna()[row.Index] and row.macs > 0


def _depth(model, working, around=""):
    """The most working layers on a way through the graph."""
    depths = {id(tensor): 0 for tensor in model.inputs}
    for layer, node in calls(model):
        name = around + layer.name
        own = _depth(layer, working, f"{name}/") if isinstance(layer, keras.Model) else working[name]
        before = max((depths[id(tensor)] for tensor in node.input_tensors), default=0)
        depths.update({id(tensor): before + own for tensor in node.outputs})
    return max(depths[id(tensor)] for tensor in model.outputs)

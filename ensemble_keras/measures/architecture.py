"""Architecture: what a network is made of, as a handful of numbers."""

import math

from ensemble_keras.measures.graph import calls, has_graph
from ensemble_keras.measures.macs import count_macs

# Families of layers by which a network is told from another.
_FAMILIES = {
    "convolution": ("Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    "depthwise": ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
    "recurrent": ("LSTM", "GRU", "SimpleRNN", "RNN"),
    # Products of tensors with each other, as attention written out has them.
    "attention": (
        *("MultiHeadAttention", "Attention", "AdditiveAttention", "DotProductAttention"),
        *("Dot", "Einsum", "Matmul"),
    ),
    "dense": ("Dense", "EinsumDense"),
}


def describe_architecture(model, *, skill=None):
    """Describes a network by numbers that tell architectures apart.

    Args:
        model: A functional or sequential `keras.Model` of known sizes but for the batch's: a member, a backbone.
        skill: Float, how good it is on images that it did not train on, such as its out-of-fold accuracy. Defaults to
            `None`: the description has none.

    Returns:
        Dict from name to float: `convolution`, `depthwise`, `recurrent`, `attention` and `dense`, the share of each
        family in the number of layers that multiply (by multiply-accumulates all convolutional networks would look
        alike); `depth`, the number of such layers on the longest way from input to output; `log_parameters` and
        `log_macs`, logarithms to base 10; `input_size`, the geometric mean of all dimensions but the last, of height
        and width for images; and `skill`, where it is given.

    Raises:
        ValueError: If the model has no graph of layers, or a size is not known.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3)(images)
    >>> model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    >>> found = ek.describe_architecture(model)
    >>> found["convolution"], found["depth"], found["input_size"]
    (0.5, 2.0, 8.0)
    """
    counted = count_macs(model)
    working = counted.by_layer[(counted.by_layer["macs"] > 0).fillna(False)]
    kinds = [kind.rpartition("(")[2].rstrip(")") for kind in working["kind"]]
    shares = {name: sum(kind in family for kind in kinds) / max(1, len(kinds)) for name, family in _FAMILIES.items()}
    *sides, _ = model.inputs[0].shape[1:]
    found = {
        **shares,
        "depth": float(_depth(model, set(working["layer"]))),
        "log_parameters": math.log10(max(1, counted.parameters)),
        "log_macs": math.log10(max(1, counted.total)),
        "input_size": float(math.prod(sides) ** (1 / max(1, len(sides)))),
    }
    return found if skill is None else {**found, "skill": float(skill)}


def _depth(model, working, around=""):
    """The most working layers on a way through the graph."""
    depths = {id(tensor): 0 for tensor in model.inputs}
    for layer, node in calls(model):
        name = around + layer.name
        own = _depth(layer, working, f"{name}/") if has_graph(layer) else name in working
        before = max((depths[id(tensor)] for tensor in node.input_tensors), default=0)
        depths.update({id(tensor): before + own for tensor in node.outputs})
    return max(depths[id(tensor)] for tensor in model.outputs)

"""Multiply-accumulates: what one image costs a model, counted from its graph and its static shapes."""

import dataclasses
import inspect
import math
import re

import keras
import pandas as pd
from keras import layers

from ensemble_keras._validation import model_hint
from ensemble_keras.measures.graph import calls, has_graph
from ensemble_keras.measures.mac_rules import macs_of_call


@dataclasses.dataclass(frozen=True)
class MacCount:
    """What one image costs a model.

    Attributes:
        total: Int, multiply-accumulates of all layers that are known. FLOPs are twice as many.
        by_layer: `pandas.DataFrame`, a row per call of a layer in the order of the graph: `layer` (with the names of
            the models around it), `kind`, `output_shape`, `parameters`, `macs` (`<NA>` where it is not known).
        unknown: List of the names of layers whose cost is not known; `total` is without them.
        parameters: Int, shared weights counted once.
        peak_activation_bytes: Int, an estimate for one image: the most that is alive between two layers when every
            tensor is freed after its last use.
    """

    total: int
    by_layer: pd.DataFrame
    unknown: list
    parameters: int
    peak_activation_bytes: int


def count_macs(model):
    """Counts a model's multiply-accumulates per image, its parameters and its activations.

    Counted are products of inputs with weights, or of inputs with each other: convolutions, dense layers, attention,
    recurrence, `matmul` and `einsum`. Biases, normalisation, activations, pooling and resizing count as nothing, as
    is usual. A layer that is called twice counts twice. Layers of other kinds are listed, never counted as zero.

    Args:
        model: A functional or sequential `keras.Model` of known sizes but for the batch's. Nested models are counted
            layer by layer, at the size at which they are called.

    Returns:
        A `MacCount`.

    Raises:
        ValueError: If the model has no graph of layers, or a size is not known.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> model = keras.Model(images, keras.layers.Conv2D(4, 3, name="conv")(images))
    >>> ek.count_macs(model).total  # 6 x 6 positions, 3 x 3 x 3 x 4 weights
    3888
    """
    if not has_graph(model):
        raise ValueError(
            "`model` must be a functional or built sequential model, whose layers and shapes are known. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}.{model_hint(model)}"
        )
    steps = _steps(model, model.inputs)
    rows = list(_rows(steps))
    table = pd.DataFrame(rows, columns=["layer", "kind", "output_shape", "parameters", "macs"])
    return MacCount(
        total=sum(row["macs"] for row in rows if row["macs"] is not None),
        by_layer=table.astype({"macs": "Int64"}),
        unknown=[row["layer"] for row in rows if row["macs"] is None],
        parameters=model.count_params(),
        peak_activation_bytes=_peak(steps, model.inputs),
    )


@dataclasses.dataclass(frozen=True)
class _Step:
    """One call of a layer; of a nested model, with the steps inside it."""

    layer: object
    operands: list
    inputs: list
    outputs: list
    inside: list | None


def _steps(model, inputs):
    """Returns the steps of a model on inputs of these shapes, in the order in which they run."""
    # A nested model that takes images of any size has sizes only where it is called.
    is_own = [x.shape for x in inputs] == [x.shape for x in model.inputs]
    tensors, steps = dict(zip(map(id, model.inputs), model.inputs if is_own else inputs, strict=True)), []
    for layer, node in calls(model):
        args, kwargs = node.arguments.fill_in(tensors)
        outputs = node.outputs if is_own else keras.tree.flatten(layer.compute_output_spec(*args, **kwargs))
        tensors |= dict(zip(map(id, node.outputs), outputs, strict=True))
        given = [tensors[id(tensor)] for tensor in node.input_tensors]
        _check_sizes(layer, [*given, *outputs])
        inside = _steps(layer, given) if has_graph(layer) else None
        steps.append(_Step(layer, _operands(layer, args, kwargs), given, outputs, inside))
    return steps


def _operands(layer, args, kwargs):
    """Returns the shapes of the arrays that a layer is called with, constants too, in the order of its `call`."""
    named = inspect.signature(layer.call).bind(*args, **kwargs).arguments
    return [value.shape for value in keras.tree.flatten(list(named.values())) if hasattr(value, "shape")]


def _check_sizes(layer, tensors):
    if None in [size for tensor in tensors for size in tensor.shape[1:]]:
        raise ValueError(
            f"All sizes but the batch's must be known. Received: layer {layer.name!r} with tensors of shapes "
            f"{', '.join(str(tuple(tensor.shape)) for tensor in tensors)}. Build the model for images of one size."
        )


def _rows(steps, around=""):
    for step in steps:
        layer, name = step.layer, around + step.layer.name
        if step.inside is not None:
            yield from _rows(step.inside, f"{name}/")
            continue
        output = step.outputs[0].shape
        yield {
            "layer": name,
            "kind": _kind(layer),
            "output_shape": tuple(output[1:]),
            "parameters": layer.count_params() if isinstance(layer, layers.Layer) else 0,
            "macs": macs_of_call(layer, step.operands, output),
        }


def _kind(layer):
    """Returns the class of a layer; of a wrapper, that of what it wraps, too: `"Bidirectional(LSTM)"`."""
    name, inner = type(layer).__name__, getattr(layer, "layer", None)
    if isinstance(layer, layers.Bidirectional):
        inner = layer.forward_layer
    return f"{name}({_kind(inner)})" if isinstance(inner, layers.Layer) else name


def _peak(steps, inputs):
    """Bytes of the tensors alive at a time, at most; those inside a nested model beside those around it."""
    last = {id(tensor): position for position, step in enumerate(steps) for tensor in step.inputs}
    alive = {id(tensor): _bytes(tensor) for tensor in inputs}
    peak = sum(alive.values())
    for position, step in enumerate(steps):
        made = {id(tensor): _bytes(tensor) for tensor in step.outputs}
        peak = max(peak, sum(alive.values()) + max(sum(made.values()), _peak_inside(step)))
        # What no step reads is an output of the model.
        alive = {tensor: size for tensor, size in (alive | made).items() if last.get(tensor, len(steps)) > position}
    return peak


def _peak_inside(step):
    """Bytes alive inside a nested model beside its inputs."""
    return 0 if step.inside is None else _peak(step.inside, step.inputs) - sum(map(_bytes, step.inputs))


def _bytes(tensor):
    bits = re.search(r"\d+", keras.backend.standardize_dtype(tensor.dtype))
    return math.prod(tensor.shape[1:]) * (int(bits.group()) // 8 if bits else 1)

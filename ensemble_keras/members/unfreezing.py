"""Unfreezing: which layers of a network train, at what rate, and where the part that does not ends."""

import contextlib
import dataclasses
import re

import keras
import numpy as np

from ensemble_keras._validation import suggest
from ensemble_keras.features.extraction import predict, predict_in_batches
from ensemble_keras.measures.graph import calls
from ensemble_keras.members.settings import FineTuning

_BLOCK = re.compile(r"(.*?block_?\d+[a-z]?)(?=_|$)|(block\d+[a-z]?)", re.IGNORECASE)
# Activations below the cut are kept in memory up to this size.
_HELD_BYTES = 2**30


def leaves(model):
    """Returns the layers of a model in the order of the graph, those of nested models in their place."""
    found = []
    for layer in model.layers:
        found += leaves(layer) if _is_model(layer) else [layer]
    return found


def backbones_of(model):
    """Returns the layers of each backbone in a member or an ensemble, in the order of the graph.

    A backbone is what stands before a layer named `"features"`; in a model without one, before its last weights.

    Args:
        model: A `keras.Model`: a member, an ensemble of such, or one of a user's.

    Returns:
        List of lists of layers.
    """
    names = [layer.name for layer in model.layers]
    if "features" in names:
        before = model.layers[: names.index("features")]
        return [[leaf for layer in before for leaf in (leaves(layer) if _is_model(layer) else [layer])]]
    nested = [found for layer in model.layers if _is_model(layer) for found in _with_features(layer)]
    if nested:
        return [layers for member in nested for layers in backbones_of(member)]
    layers = leaves(model)
    last = max((i for i, layer in enumerate(layers) if layer.weights), default=0)
    return [layers[:last]]


def blocks_of(layers):
    """Returns the blocks of a backbone that hold weights, from the images on: lists of layers.

    A block is what shares a name up to its number (`block_16_expand`, `conv5_block3_1_conv`, `block5_conv1`). Layers
    without such a name make a block from one with a kernel to the next.

    Args:
        layers: List of layers in the order of the graph.
    """
    blocks, current = [], None
    for layer in layers:
        if not layer.weights:
            continue
        named = _BLOCK.match(layer.name)
        key = named.group(0) if named else None
        has_kernel = any(len(weight.shape) > 1 for weight in layer.weights)
        if blocks and (key == current if key else current is None and not has_kernel):
            blocks[-1].append(layer)
        else:
            blocks.append([layer])
        current = key
    return blocks


@contextlib.contextmanager
def unfrozen(model, settings):
    """Sets what trains while the block runs, and gives back what was set before.

    Args:
        model: A `keras.Model`, member or ensemble. What stands in none of its backbones trains.
        settings: A `FineTuning`; under a `Training` all is left as it is.

    Yields:
        Dict from a variable's `id` to the factor of its learning rate. Paths would not do: two members of an ensemble
        may have layers of the same names.

    Raises:
        ValueError: If `unfreeze` names a layer that no backbone has.
    """
    if not isinstance(settings, FineTuning):
        yield {}
        return
    # With the layers inside of composite ones, each after what it is a part of.
    before = [(layer, layer.trainable) for layer in model._flatten_layers()]
    frozen, rates, backbones = [], {}, backbones_of(model)
    _check_name(settings.unfreeze, backbones)
    for layers in backbones:
        blocks = blocks_of(layers)
        frozen += layers[: _first_to_train(layers, blocks, settings.unfreeze)]
        for distance, block in enumerate(reversed(blocks), start=1):
            rates |= {id(weight): settings.layer_decay**distance for layer in block for weight in layer.weights}
    try:
        for layer, _ in before:
            layer.trainable = True
        for layer in frozen:
            layer.trainable = False
        if not settings.train_batch_norm:
            for layer, _ in before:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False
        yield rates
    finally:
        # Setting a model or a composite layer sets all its layers, which come after it.
        for layer, trainable in before:
            layer.trainable = trainable


def _first_to_train(layers, blocks, unfreeze):
    if unfreeze == "all":
        return 0
    if isinstance(unfreeze, int) and blocks:
        return layers.index(blocks[-min(unfreeze, len(blocks))][0])
    names = [layer.name for layer in layers]
    return names.index(unfreeze) if unfreeze in names else len(layers)


def _check_name(unfreeze, backbones):
    names = [layer.name for layers in backbones for layer in layers]
    if isinstance(unfreeze, str) and unfreeze != "all" and unfreeze not in names:
        raise ValueError(
            f"`unfreeze` names a layer that no backbone has: {unfreeze!r}.{suggest(unfreeze, names)} "
            "See the names in `backbone.summary(expand_nested=True)`, or give a number of blocks."
        )


def split_where_training_starts(model):
    """Cuts a network before its first layer that trains.

    Args:
        model: A functional `keras.Model` with one input and one output.

    Returns:
        Two models that share its layers: from the images to the tensor through which all that follows goes, and from
        that tensor to the output; or `None` where training starts at the images.
    """
    tensor, steps = model.inputs[0], _steps(model)
    # An operation of `keras.ops`, such as the flip to BGR in a preprocessing, has no variables.
    first = next((i for i, (layer, _, _) in enumerate(steps) if getattr(layer, "trainable_variables", ())), None)
    if first is None:
        return None
    for position in range(first):
        if _all_goes_through(steps, position):
            tensor = steps[position][2][0]
    layer, inputs, outputs = steps[first]
    nested = _is_model(layer) and inputs[0] is tensor and _all_goes_through(steps, first)
    inner = split_where_training_starts(layer) if nested else None
    if inner is None:
        if tensor is model.inputs[0]:
            return None
        return keras.Model(model.inputs, tensor), keras.Model(tensor, model.outputs[0], name=model.name)
    below, above = inner
    cut = keras.Input(above.input_shape[1:], dtype=above.inputs[0].dtype)
    rest = above(cut)
    if outputs[0] is not model.outputs[0]:
        rest = keras.Model(outputs[0], model.outputs[0])(rest)
    return keras.Model(model.inputs, below(tensor)), keras.Model(cut, rest, name=model.name)


def _steps(model):
    """Returns the calls that make up a model's graph, in order: the layer, its input and its output tensors."""
    return [(layer, list(node.input_tensors), list(node.outputs)) for layer, node in calls(model)]


def _all_goes_through(steps, position):
    """Returns whether what follows a call needs its one output and nothing that was made before."""
    outputs = {id(tensor) for tensor in steps[position][2]}
    made = {id(tensor) for _, inputs, outputs in steps[: position + 1] for tensor in (*inputs, *outputs)}
    needed = {id(tensor) for _, inputs, _ in steps[position + 1 :] for tensor in inputs}
    return len(outputs) == 1 and (made & needed or outputs) == outputs


@dataclasses.dataclass
class Activations:
    """What a frozen part of a network gives for a set of images: training data of the part above it.

    Attributes:
        values: Array `(n, ...)`.
        labels: Int array `(n,)`.
    """

    values: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, bottom, dataset, *, verbose):
        """Computes them for a dataset, or returns `None` where they would take more than 1 GiB."""
        if 4 * len(dataset) * int(np.prod(bottom.output_shape[1:])) > _HELD_BYTES:
            return None
        return cls(predict(bottom, dataset, verbose=verbose), dataset.labels)

    def __len__(self):
        return len(self.values)

    def load(self, rows, *, image_size):
        """Returns rows; `image_size` says nothing here."""
        return self.values[rows]

    def predict(self, network):
        """Returns what the part above gives, `(n, num_classes)`."""
        return predict_in_batches(network, self.values, min(64, len(self.values)))


def _with_features(model):
    """Returns the innermost models with a layer named `"features"`."""
    if "features" in [layer.name for layer in model.layers]:
        return [model]
    return [found for layer in model.layers if _is_model(layer) for found in _with_features(layer)]


def _is_model(layer):
    return isinstance(layer, keras.Model)

"""Stems: members of one backbone run it once in the ensemble's graph."""

import keras
import numpy as np

from ensemble_keras.features.keys import architecture_fingerprint
from ensemble_keras.measures.graph import is_of_keras


def call_members(members, nested, takes, *, share=True):
    """Returns a function from images to what the combiner takes of each member, every shared stem run once.

    A stem is what a member does up to its layer `"features"`. Members have the same one if its layers are the same
    objects, as those of two heads on one backbone are, or copies of equal architecture and weights; layers that are
    not Keras' own must be the same objects.

    The heads stay apart, for they cannot be joined exactly: a mean of softmax outputs is no dense layer, nor is one
    of their logarithms, where probabilities below 1e-7 count as 1e-7. The heads of a frozen member's folds are one
    dense layer already, whose kernel is the mean of theirs (`solve_linear_head`).

    Args:
        members: List of `keras.Model`s with unique names.
        nested: List of `keras.Model`s, the members with the outputs that the combiner takes; those without a stem in
            common are called as they are.
        takes: `"predictions"`, `"features"` or `"both"`.
        share: Whether members may share stems.

    Returns:
        A function from a symbolic tensor to a list of outputs, each as that of the nested model.
    """
    stems = shared_stems(members) if share else [None] * len(members)
    heads = [
        None if stem is None or takes == "features" else _head(member)
        for member, stem in zip(members, stems, strict=True)
    ]

    def call(images):
        features = {stem.name: stem(images) for stem in {s.name: s for s in stems if s is not None}.values()}
        outputs = []
        for model, stem, head in zip(nested, stems, heads, strict=True):
            if stem is None:
                outputs.append(model(images))
                continue
            vector = features[stem.name]
            predictions = None if head is None else head(vector)
            outputs.append({"predictions": predictions, "features": vector, "both": [vector, predictions]}[takes])
        return outputs

    return call


def shared_stems(members):
    """Returns for each member the stem that it shares, a `keras.Model` from images to features, or `None`.

    Args:
        members: List of `keras.Model`s with unique names.
    """
    groups = []
    for index, member in enumerate(members):
        if not _can_be_cut(member):
            continue
        stem = keras.Model(member.inputs, _features(member))
        same = next((group for group in groups if _are_same(group[0][1], stem)), None)
        if same is None:
            groups.append([(index, stem)])
        else:
            same.append((index, stem))
    result = [None] * len(members)
    for group in groups:
        if len(group) > 1:
            first, stem = group[0]
            # Members' names are unique, so are these.
            stem.name = _free_name(f"{members[first].name}_stem", members)
            for index, _ in group:
                result[index] = stem
    return result


def _features(member):
    return member.get_layer("features").output


def _can_be_cut(member):
    """Whether the member's predictions depend on the images by way of its layer `"features"` alone."""
    if "features" not in [layer.name for layer in member.layers]:
        return False
    features, images, ahead = _features(member), member.inputs[0], list(member.outputs)
    if features is member.outputs[0]:
        return False
    seen = {id(features)}
    while ahead:
        tensor = ahead.pop()
        if tensor is images:
            return False
        if id(tensor) not in seen:
            seen.add(id(tensor))
            operation, node_index, _ = tensor._keras_history
            ahead += operation._inbound_nodes[node_index].input_tensors
    return True


def _are_same(one, other):
    """Whether two models have the same weights, as objects or by value, and the same architecture."""
    if [tuple(v.shape) for v in one.weights] != [tuple(v.shape) for v in other.weights]:
        return False
    if not all(a is b or _equal(a, b) for a, b in zip(one.weights, other.weights, strict=True)):
        return False
    if _own_layers(one) != _own_layers(other):
        return False
    return architecture_fingerprint(one) == architecture_fingerprint(other)


def _own_layers(model):
    """Returns the ids of the layers that are not Keras' own: what these compute their config need not tell."""
    return [id(layer) for layer in model._flatten_layers() if not is_of_keras(type(layer))]


def _equal(one, other):
    return np.array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


def _head(member):
    return keras.Model(_features(member), member.outputs[0], name=member.name)


def _free_name(name, members):
    taken = {member.name for member in members}
    while name in taken:
        name += "_"
    return name

"""Anatomy: what an ensemble's graph consists of: members, stems that they share, and what joins them."""

import dataclasses

import keras

from ensemble_keras.measures.graph import calls, has_graph

# What a mean of probabilities or of their logarithms is made of, with or without weights, views and temperatures: of
# several tensors, and of one.
_SUMS = {"Add", "Average", "Concatenate"}
_OF_ONE = {"Activation", "Cast", "Divide", "Log", "Maximum", "Multiply", "Softmax", "Subtract", "TrueDivide"}


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """What an ensemble consists of.

    Attributes:
        members: Dict from name to `keras.Model`, nested in the ensemble: from images, or from a stem's features, to
            predictions, features or both. A model that is no ensemble is its only member.
        stems: Dict from a member's name to the `keras.Model` that it shares with others; members without one are not
            in it.
        weights: Dict from a member's name to its share in the vote; empty where the graph has no such numbers.
        joined: String: how members are joined, as the graph's operations tell; empty for a model that is no ensemble.
        layers: List of the combiner's layers that have weights.
        views: Int: how many views of an image the ensemble looks at.
    """

    members: dict
    stems: dict
    weights: dict
    joined: str
    layers: list
    views: int


def anatomy(model):
    """Returns the `Anatomy` of a functional model, built or loaded from a file.

    Members are nested models side by side, as `build_ensemble` puts them.
    """
    steps = calls(model)
    nested = [(layer, node) for layer, node in steps if has_graph(layer)]
    makers = {id(tensor): layer for layer, node in nested for tensor in node.outputs}
    below = {layer.name: makers.get(id(node.input_tensors[0])) for layer, node in nested}
    stems = {name: stem for name, stem in below.items() if stem is not None}
    shared = {stem.name for stem in stems.values()}
    members = {layer.name: layer for layer, _ in nested if layer.name not in shared and _gives_vectors(layer)}
    if len(members) < 2:
        return Anatomy({model.name: model}, {}, {}, "", [], 1)
    tail = _tail(steps, members)
    layers = list({id(layer): layer for layer, _ in tail if getattr(layer, "weights", None)}.values())
    called = [layer.name for layer, _ in nested]
    return Anatomy(
        {name: members[name] for name in _together(members, stems)},
        {name: stem for name, stem in stems.items() if name in members},
        # Behind layers that learn, a constant is no member's weight.
        {} if layers else _weights(tail, members),
        f"dense layers on {_taken(members)}" if layers else _vote(tail, members),
        layers,
        max(map(called.count, [*members, *shared])),
    )


def _together(members, stems):
    """Returns the names of members, those on one stem beside one another."""
    groups = {}
    for name in members:
        groups.setdefault(stems[name].name if name in stems else name, []).append(name)
    return [name for group in groups.values() for name in group]


def _gives_vectors(model):
    return all(len(tensor.shape) == 2 for tensor in model.outputs)


def _tail(steps, members):
    """Returns the calls behind the members: pairs of the operation and its node, with the names they depend on."""
    sources, tail = {}, {}
    for operation, node in steps:
        names = frozenset().union(*(sources.get(id(tensor), ()) for tensor in node.input_tensors))
        if operation.name in members:
            names = frozenset([operation.name])
        elif names:
            tail[operation, node] = names
        sources |= dict.fromkeys(map(id, node.outputs), names)
    return tail


def _alone(tail, name):
    """Returns what is done to one member's predictions alone, after they were brought to its temperature."""
    own = [(operation, node) for (operation, node), names in tail.items() if names == {name}]
    tempered = [i for i, (operation, _) in enumerate(own) if _kind(operation) == "Softmax"]
    return own[tempered[-1] + 1 :] if tempered else own


def _weights(tail, members):
    """Returns each member's share in the vote by name; empty where its predictions are multiplied by no number."""
    factors = {name: [x for call in _alone(tail, name) for x in _factors(*call)] for name in members}
    if not all(factors.values()):
        return {}
    total = sum(values[-1] for values in factors.values())
    return {name: values[-1] / total for name, values in factors.items()}


def _factors(operation, node):
    given = keras.tree.flatten([node.arguments.args, node.arguments.kwargs])
    return [value for value in given if isinstance(value, int | float)] if _kind(operation) == "Multiply" else []


def _vote(tail, members):
    joining = {_kind(operation) for operation, node in tail if len(node.input_tensors) > 1}
    kinds = {_kind(operation) for operation, _ in tail}
    if "Argmax" in kinds:
        return "count of votes"
    if not (joining <= _SUMS and kinds - joining <= _OF_ONE):
        return ", ".join(sorted(joining))
    # Logarithms that are of a member's temperature are left out.
    of_logs = "Log" in {_kind(operation) for operation, _ in _alone(tail, next(iter(members)))}
    return "mean of log-probabilities" if of_logs else "mean of probabilities"


def _taken(members):
    """Returns what the combiner takes of its members, told from how they end."""
    if any(len(model.outputs) > 1 for model in members.values()):
        return "predictions and features"
    return "features" if all(model.layers[-1].name == "features" for model in members.values()) else "predictions"


def _kind(operation):
    return type(operation).__name__

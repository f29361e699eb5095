"""Functions: networks as texts of Python functions, one for each, with a line per layer."""

import collections
import inspect
import keyword
import re

import keras

from ensemble_keras.measures.graph import calls, has_graph, is_of_keras
from ensemble_keras.search.code.expressions import input_expression, layer_expression, literal
from ensemble_keras.search.code.layout import Bracketed, call, flat, lay_out, text_of
from ensemble_keras.search.code.operations import operation_expression

# Names that stand for something else in the source.
RESERVED = {"keras", "layers", "np", "pathlib", "x", "_", "slice", "float", "model", "weights", *keyword.kwlist}


def network_functions(model, function_name):
    """Returns the functions that build a network and those nested in it.

    A layer that several of the networks use is made once, by the last function, and given to the others.

    Args:
        model: A functional or built sequential `keras.Model`.
        function_name: String. Name of the function that builds `model`.

    Returns:
        List of strings, each a function; those of nested networks first, `model`'s last.

    Raises:
        ValueError: If a part cannot be written; it is named.
    """
    networks = _Networks(model, function_name)
    return [_function(graph, networks) for graph in networks.graphs]


class Names:
    """Names for variables, each given once."""

    def __init__(self, taken):
        self.taken = set(taken)

    def new(self, wished):
        """Returns the wished name as Python takes it, with a number where it is taken."""
        base = re.sub(r"\W", "_", wished, flags=re.ASCII).lower()
        base = base if base.isidentifier() else f"_{base}"
        name, number = base, 1
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name


def quoted(name):
    """Returns a name as it can stand inside a docstring."""
    return "'" + name.replace("\\", "/").replace('"', "'") + "'"


class _Networks:
    """The networks inside one, their functions' names, and the layers that several of them share.

    Attributes:
        graphs: List of `keras.Model`s, those nested first, the given one last.
        shared: List of layers that more than one of `graphs` calls, in an order in which they can be made.
        names: Dict from the id of a network to its function's name, and of a shared layer to its variable's.
        taken: Set of all these names and the reserved ones.
    """

    def __init__(self, model, function_name):
        self.graphs, self._users, order = [], collections.defaultdict(set), []
        self._visit(model, order)
        self.shared = [layer for layer in order if len(self._users[id(layer)]) > 1]
        names = Names(RESERVED | {function_name})
        self._functions = {id(graph): names.new(f"build_{graph.name}") for graph in self.graphs[:-1]}
        self._functions[id(model)] = function_name
        self.variables = {id(layer): names.new(layer.name) for layer in self.shared}
        self.taken = names.taken

    def _visit(self, graph, order):
        _check_network(graph)
        for layer in _layers_of(graph):
            is_new = id(layer) not in self._users
            self._users[id(layer)].add(id(graph))
            if is_new and isinstance(layer, keras.Model):
                self._visit(layer, order)
            if is_new:
                order.append(layer)
        self.graphs.append(graph)

    def builder(self, graph):
        """Returns the call of the function that builds a network; with `def ` and `:` around it, its head."""
        return call(self._functions[id(graph)], [self.variables[id(layer)] for layer in self._given_to(graph)])

    def maker(self, layer):
        """Returns the expression that makes a layer or a nested network."""
        return self.builder(layer) if isinstance(layer, keras.Model) else layer_expression(layer)

    def _given_to(self, graph):
        """The shared layers that a network and those nested in it use; the last one makes them itself."""
        if graph is self.graphs[-1]:
            return []
        used, ahead = set(), [graph]
        while ahead:
            for layer in _layers_of(ahead.pop()):
                if id(layer) in self.variables:
                    used.add(id(layer))
                elif isinstance(layer, keras.Model):
                    ahead.append(layer)
        return [layer for layer in self.shared if id(layer) in used]


def _function(graph, networks):
    """The text of the function that builds a network."""
    shapes = [" and ".join(str(tuple(x.shape[1:])) for x in tensors) for tensors in (graph.inputs, graph.outputs)]
    lines = lay_out(networks.builder(graph), "def ", ":")
    lines.append(f'    """Builds {quoted(graph.name)}, from {shapes[0]} to {shapes[1]}."""')
    if graph is networks.graphs[-1]:
        for layer in networks.shared:
            lines += lay_out(networks.maker(layer), f"{networks.variables[id(layer)]} = ", depth=1)
    if isinstance(graph, keras.Sequential):
        result = _sequential(graph, networks)
    else:
        body = _Body(graph, networks)
        lines += body.lines
        result = body.result
    return "\n".join(lines + lay_out(result, "return ", depth=1))


def _sequential(graph, networks):
    """The expression of a sequential network."""
    items = [input_expression(graph.inputs[0]._keras_history.operation)]
    items += [networks.variables.get(id(layer)) or networks.maker(layer) for layer in graph.layers]
    return call("keras.Sequential", [Bracketed("", "[", tuple(("", item) for item in items))], _options(graph))


class _Body:
    """The statements that call a functional network's layers on its inputs.

    Attributes:
        lines: List of strings.
        result: The expression of the network.
    """

    def __init__(self, graph, networks):
        self._networks, self._names = networks, Names(networks.taken)
        # Id of a layer that has a variable of its own -> its name; of a tensor -> the expression that stands for it.
        self._variables, self._tensors = dict(networks.variables), {}
        steps = calls(graph)
        self._calls = collections.Counter(id(layer) for layer, _ in steps)
        self._uses = collections.Counter(
            id(tensor)
            for tensors in (*(node.input_tensors for _, node in steps), graph.outputs)
            for tensor in tensors
        )
        self.lines = []
        for tensor in graph.inputs:
            layer = tensor._keras_history.operation
            self._assign(self._named(tensor, layer), input_expression(layer))
        following = [*(node.input_tensors for _, node in steps[1:]), graph.outputs]
        for (layer, node), used_next in zip(steps, following, strict=True):
            # Written before the output takes its name: both may be `x`.
            expression = self._call(layer, node)
            self._assign(self._target(layer, node, used_next), expression)
        ends = [literal(structure, graph.name, self._tensors) for structure in (graph.input, graph.output)]
        self.result = call("keras.Model", ends, _options(graph))

    def _assign(self, target, expression):
        self.lines += lay_out(expression, f"{target} = ", depth=1)

    def _call(self, layer, node):
        args, kwargs = node.arguments.args, node.arguments.kwargs
        if not isinstance(layer, keras.Layer):
            return operation_expression(layer, args, kwargs, self._tensors)
        if self._calls[id(layer)] > 1 and id(layer) not in self._variables:
            self._variables[id(layer)] = self._names.new(layer.name)
            self._assign(self._variables[id(layer)], self._networks.maker(layer))
        where = f"The call of layer {layer.name!r}"
        return call(
            self._variables.get(id(layer)) or self._networks.maker(layer),
            [literal(value, where, self._tensors) for value in args],
            {
                key: literal(value, where, self._tensors)
                for key, value in kwargs.items()
                if not _is_default_of_call(layer, key, value)
            },
        )

    def _target(self, layer, node, used_next):
        """Gives each output its expression; returns what the call is assigned to."""
        structure = _structure(layer, node)
        if not keras.tree.is_nested(structure):
            [tensor] = node.outputs
            # One name for a chain: what the next line alone uses.
            if self._uses[id(tensor)] == 1 and any(tensor is used for used in used_next):
                self._tensors[id(tensor)] = "x"
                return "x"
            return self._named(tensor, layer)
        is_flat = isinstance(structure, list | tuple) and not any(map(keras.tree.is_nested, structure))
        if is_flat and len(structure) > 1:
            return ", ".join(self._named(x, layer) if self._uses[id(x)] else "_" for x in node.outputs)
        name = self._names.new(_bare_name(layer))
        for (path, _), tensor in zip(keras.tree.flatten_with_path(structure), node.outputs, strict=True):
            self._tensors[id(tensor)] = name + "".join(f"[{flat(literal(key, layer.name))}]" for key in path)
        return name

    def _named(self, tensor, layer):
        """A variable of its own for a tensor."""
        self._tensors[id(tensor)] = self._names.new(_bare_name(layer))
        return self._tensors[id(tensor)]


def _check_network(model):
    if not has_graph(model):
        raise ValueError(
            "`model` must be a functional or built sequential model, and so must those nested in it. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}."
        )
    if not is_of_keras(type(model)):
        raise ValueError(
            f"Model {model.name!r} ({type(model).__name__}) cannot be written as source: its class is not Keras'."
        )
    thawed = [layer.name for layer in model.layers if layer.trainable]
    if not model.trainable and thawed:
        raise ValueError(
            f"Model {model.name!r} cannot be written as source: it is frozen as a whole, but its layer "
            f"{thawed[0]!r} is not."
        )


def _layers_of(graph):
    if isinstance(graph, keras.Sequential):
        return graph.layers
    return [layer for layer, _ in calls(graph) if isinstance(layer, keras.Layer)]


def _options(graph):
    frozen = {} if graph.trainable else {"trainable": "False"}
    return {**frozen, "name": text_of(graph.name)}


def _is_default_of_call(layer, key, value):
    # Keras notes the defaults of `training` and `mask` as if they were given.
    parameter = inspect.signature(layer.call).parameters.get(key)
    return parameter is not None and value is parameter.default


def _bare_name(layer):
    """A layer's name; of an operation or input without the number that Keras counts over the whole session."""
    if isinstance(layer, keras.layers.InputLayer):
        return "inputs" if re.fullmatch(r"input_layer(_\d+)?", layer.name) else layer.name
    return layer.name if isinstance(layer, keras.Layer) else re.sub(r"_\d+$", "", layer.name)


def _structure(layer, node):
    """What a call returns: a tensor, or a structure of tensors."""
    if isinstance(layer, keras.Model):
        return layer.output
    if isinstance(layer, keras.Layer) and len(node.outputs) == 1:
        return node.outputs[0]
    return layer.compute_output_spec(*node.arguments.args, **node.arguments.kwargs)

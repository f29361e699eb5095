"""Source: a network as runnable Python that needs nothing but Keras."""

import collections
import contextlib
import inspect
import keyword
import os
import pathlib
import random
import re
import tempfile

import keras

from ensemble_keras.measures.graph import calls, has_graph
from ensemble_keras.measures.macs import count_macs
from ensemble_keras.runs import atomic_path
from ensemble_keras.search.expressions import input_expression, layer_expression, literal, operation_expression
from ensemble_keras.search.layout import Bracketed, call, flat, lay_out, text_of

_RESERVED = {"keras", "layers", "np", "pathlib", "x", "_", "slice", "float", "model", "weights", *keyword.kwlist}
_MAIN = """
if __name__ == "__main__":
    model = {function}()
    weights = pathlib.Path(__file__).with_suffix(".weights.h5")
    if weights.exists():
        model.load_weights(weights)
    model.summary()
"""


def to_source(model, *, function_name="build_model"):
    """Returns Python source that builds the same network again, with Keras alone.

    One line per layer, with its name and the arguments that differ from their defaults; a nested network has a
    function of its own. Run as a script, the source builds the network, loads the weights beside it where there are
    any (`champion.weights.h5` beside `champion.py`), and prints the summary. Weights, the optimizer and the loss are
    not in it. It expects Keras' usual settings: float32, channels last.

    Args:
        model: A functional or built sequential `keras.Model` of stock layers and operations of `keras.ops`.
        function_name: String. Name of the function that builds it. Defaults to `"build_model"`.

    Returns:
        String, formatted; `compile` takes it as a module.

    Raises:
        ValueError: If `function_name` is no name of a function, the model has no graph of layers, or a part of it
            cannot be written: a Lambda, a layer or a function that is not Keras', a network inside a wrapper. The
            part is named.

    Example:

    >>> images = keras.Input((8, 8, 3), name="images")
    >>> x = keras.layers.Flatten(name="flatten")(images)
    >>> model = keras.Model(images, keras.layers.Dense(2, "softmax", name="predictions")(x), name="tiny")
    >>> print(to_source(model).partition("def ")[2].partition("if")[0].rstrip())
    build_model():
        \"\"\"Builds 'tiny', from (8, 8, 3) to (2,).\"\"\"
        images = keras.Input((8, 8, 3), name="images")
        x = layers.Flatten(name="flatten")(images)
        x = layers.Dense(2, activation="softmax", name="predictions")(x)
        return keras.Model(images, x, name="tiny")
    """
    if not function_name.isidentifier() or function_name in _RESERVED:
        raise ValueError(f"`function_name` must be a name for a function. Received: {function_name!r}.")
    with _undrawn():
        functions = _Writer(model, function_name).functions()
    body = "\n\n\n".join(functions)
    imports = ["import pathlib", "", "import keras"]
    imports += ["import numpy as np"] if "np." in body else []
    imports += ["from keras import layers"] if "layers." in body else []
    return "\n".join([_docstring(model), "", *imports, "", "", body, "", _MAIN.format(function=function_name)])


def write_champion(model, folder):
    """Writes a network as `champion.py`, and its weights as `champion.weights.h5` beside it.

    Each file takes its name in one step, the weights first: a kill leaves no half-written one.

    Args:
        model: As in `to_source`.
        folder: Path. Made where it is missing.

    Returns:
        Path of `champion.py`.

    Raises:
        ValueError: As `to_source`; nothing is written then.
    """
    source, path = to_source(model), pathlib.Path(folder) / "champion.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=path.parent) as scratch,
        atomic_path(path.with_suffix(".weights.h5")) as temporary,
    ):
        # Keras writes weights to names of this ending only.
        saved = pathlib.Path(scratch) / "champion.weights.h5"
        model.save_weights(saved)
        os.replace(saved, temporary)
    with atomic_path(path) as temporary:
        temporary.write_text(source, encoding="utf-8")
    return path


class _Writer:
    """Writes one function per network: those nested first, the given one last.

    A layer that several of the networks use is made once, by the last function, and given to the others.
    """

    def __init__(self, model, function_name):
        self._root = model
        self._graphs, users = [], {}
        self._visit(model, users)
        self._shared = [layer for layer, graphs in users.values() if len(graphs) > 1]
        names = _Names(_RESERVED | {function_name})
        self._functions = {id(g): names.new(f"build_{g.name}") for g in self._graphs[:-1]} | {
            id(model): function_name
        }
        self._shared_names = {id(layer): names.new(layer.name) for layer in self._shared}
        self._taken = names.taken

    def functions(self):
        """Returns the functions' texts."""
        return [self._function(graph) for graph in self._graphs]

    def _visit(self, graph, users):
        _check_network(graph)
        for layer in _inside(graph):
            known = id(layer) in users
            users.setdefault(id(layer), (layer, set()))[1].add(id(graph))
            if isinstance(layer, keras.Model) and not known:
                self._visit(layer, users)
        self._graphs.append(graph)

    def _function(self, graph):
        names = _Names(self._taken)
        statements = []
        if graph is self._root:
            for layer in self._shared:
                statements += lay_out(self._maker(layer), f"{self._shared_names[id(layer)]} = ", depth=1)
            parameters = []
        else:
            parameters = [self._shared_names[id(layer)] for layer in self._parameters(graph)]
        write = self._sequential if isinstance(graph, keras.Sequential) else self._functional
        head = lay_out(call(self._functions[id(graph)], parameters), "def ", ":")
        shapes = [_shapes(tensors) for tensors in (graph.inputs, graph.outputs)]
        about = f'    """Builds {_quoted(graph.name)}, from {shapes[0]} to {shapes[1]}."""'
        return "\n".join([*head, about, *statements, *write(graph, names)])

    def _parameters(self, graph):
        """The shared layers that a network and those nested in it use."""
        used = set()
        for layer in _inside(graph):
            if id(layer) in self._shared_names:
                used.add(id(layer))
            elif isinstance(layer, keras.Model):
                used |= {id(inner) for inner in self._parameters(layer)}
        return [layer for layer in self._shared if id(layer) in used]

    def _maker(self, layer):
        """The expression that makes a layer or a nested network."""
        if isinstance(layer, keras.Model):
            return call(self._functions[id(layer)], [self._shared_names[id(x)] for x in self._parameters(layer)])
        return layer_expression(layer)

    def _layer(self, layer):
        """The expression of a layer that is used once: made on the spot unless it is shared."""
        return self._shared_names.get(id(layer)) or self._maker(layer)

    def _sequential(self, graph, names):
        first = graph.inputs[0]._keras_history.operation
        items = tuple(("", item) for item in (input_expression(first), *map(self._layer, graph.layers)))
        return lay_out(
            call("keras.Sequential", [Bracketed("", "[", items)], _network_options(graph)), "return ", depth=1
        )

    def _functional(self, graph, names):
        lines, tensors = [], {}
        for tensor in graph.inputs:
            layer = tensor._keras_history.operation
            # Keras' own names of inputs are numbered over the whole session.
            tensors[id(tensor)] = names.new(
                "inputs" if re.fullmatch(r"input_layer(_\d+)?", layer.name) else layer.name
            )
            lines += lay_out(input_expression(layer), f"{tensors[id(tensor)]} = ", depth=1)
        steps = calls(graph)
        uses = _uses(graph, steps)
        made = dict(self._shared_names)
        following = [node.input_tensors for _, node in steps[1:]] + [graph.outputs]
        for (layer, node), next_inputs in zip(steps, following, strict=True):
            if sum(other is layer for other, _ in steps) > 1 and _is_layer(layer) and id(layer) not in made:
                made[id(layer)] = names.new(layer.name)
                lines += lay_out(self._maker(layer), f"{made[id(layer)]} = ", depth=1)
            # Evaluated before the output takes its name: both may be `x`.
            expression = self._call(layer, node, made, tensors)
            target = _name_outputs(layer, node, next_inputs, uses, names, tensors)
            lines += lay_out(expression, f"{target} = ", depth=1)
        ends = [literal(structure, graph.name, tensors) for structure in (graph.input, graph.output)]
        return [*lines, *lay_out(call("keras.Model", ends, _network_options(graph)), "return ", depth=1)]

    def _call(self, layer, node, made, tensors):
        arguments = node.arguments.args, node.arguments.kwargs
        if not _is_layer(layer):
            return operation_expression(layer, arguments, tensors)
        args, kwargs = arguments
        given = {key: value for key, value in kwargs.items() if not _is_default_of_call(layer, key, value)}
        where = f"The call of layer {layer.name!r}"
        return call(
            made.get(id(layer)) or self._maker(layer),
            [literal(value, where, tensors) for value in args],
            {key: literal(value, where, tensors) for key, value in given.items()},
        )


class _Names:
    """Names for the variables of a function, each given once."""

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


def _check_network(model):
    if not has_graph(model):
        raise ValueError(
            "`model` must be a functional or built sequential model, and so must those nested in it. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}."
        )
    if type(model).__module__.partition(".")[0] != "keras":
        raise ValueError(f"Model {model.name!r} ({type(model).__name__}) cannot be written: its class is not Keras'.")
    thawed = [layer.name for layer in model.layers if layer.trainable]
    if not model.trainable and thawed:
        raise ValueError(
            f"Model {model.name!r} cannot be written: it is frozen as a whole, but its layer {thawed[0]!r} is not."
        )


def _inside(graph):
    if isinstance(graph, keras.Sequential):
        return graph.layers
    return [layer for layer, _ in calls(graph) if _is_layer(layer)]


def _is_layer(operation):
    return isinstance(operation, keras.Layer)


def _network_options(graph):
    frozen = {} if graph.trainable else {"trainable": "False"}
    return {**frozen, "name": text_of(graph.name)}


def _is_default_of_call(layer, key, value):
    # Keras notes the default of `training` and `mask` as if they were given.
    parameter = inspect.signature(layer.call).parameters.get(key)
    return parameter is not None and value is parameter.default


def _bare(layer):
    """A layer's name; without the number that Keras counts over the whole session, if it is an operation or input."""
    if isinstance(layer, keras.layers.InputLayer):
        return "inputs" if re.fullmatch(r"input_layer(_\d+)?", layer.name) else layer.name
    return layer.name if _is_layer(layer) else re.sub(r"_\d+$", "", layer.name)


def _uses(graph, steps):
    """How often each tensor is used, by its id."""
    used = [tensor for _, node in steps for tensor in node.input_tensors] + graph.outputs
    return collections.Counter(map(id, used))


def _name_outputs(layer, node, next_inputs, uses, names, tensors):
    """Enters the expressions of a call's outputs in `tensors`; returns what the call is assigned to."""
    structure = _structure(layer, node)
    if not keras.tree.is_nested(structure):
        [tensor] = node.outputs
        # One name for a chain: what only the next line uses.
        is_link = uses[id(tensor)] == 1 and any(tensor is given for given in next_inputs)
        tensors[id(tensor)] = "x" if is_link else names.new(_bare(layer))
        return tensors[id(tensor)]
    is_row = isinstance(structure, list | tuple) and not any(map(keras.tree.is_nested, structure))
    if is_row and len(structure) > 1:
        targets = [names.new(_bare(layer)) if uses[id(tensor)] else "_" for tensor in node.outputs]
        tensors.update(zip(map(id, node.outputs), targets, strict=True))
        return ", ".join(targets)
    name = names.new(_bare(layer))
    for (path, _), tensor in zip(keras.tree.flatten_with_path(structure), node.outputs, strict=True):
        tensors[id(tensor)] = name + "".join(f"[{flat(literal(key, layer.name))}]" for key in path)
    return name


def _structure(layer, node):
    """What a call returns: a tensor, or a structure of tensors."""
    if isinstance(layer, keras.Model):
        return layer.output
    if _is_layer(layer) and len(node.outputs) == 1:
        return node.outputs[0]
    return layer.compute_output_spec(*node.arguments.args, **node.arguments.kwargs)


def _docstring(model):
    counted = f"{model.count_params():,} parameters"
    sizes = [size for tensor in model.inputs for size in tensor.shape[1:]]
    if None not in sizes:
        macs = count_macs(model)
        counted += f", {'at least ' if macs.unknown else ''}{macs.total:,} multiply-accumulates per image"
    return f'"""Network {_quoted(model.name)}: {counted}."""'


def _shapes(tensors):
    return " and ".join(str(tuple(tensor.shape[1:])) for tensor in tensors)


def _quoted(name):
    """A name inside a docstring."""
    return "'" + name.replace("\\", "/").replace('"', "'") + "'"


@contextlib.contextmanager
def _undrawn():
    """Keeps the state of `random`, from which Keras draws a seed for every layer that is made without one."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)

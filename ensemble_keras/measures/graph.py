"""Graph: the calls of layers that make up a functional model."""

import keras


def has_graph(layer):
    """Returns whether a layer is a functional or built sequential model, whose layers and shapes are known."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None) and getattr(layer, "outputs", None))


def is_of_keras(thing):
    """Returns whether a class or a function is Keras' own, and so wherever Keras is."""
    return str(thing.__module__).partition(".")[0] == "keras"


def foreign_classes(model):
    """Returns the names of the classes of a model's layers, nested ones too, that Keras does not bring along; sorted.

    A saved file holds no code: where it is loaded, these classes have to be there.
    """
    kinds = {type(layer) for layer in model._flatten_layers()}
    return sorted(kind.__name__ for kind in kinds if not is_of_keras(kind))


def calls(model):
    """Returns the nodes of a functional model in the order in which they run, those of nested models left out.

    A layer can have more nodes than are of this model: where it is shared with another one.

    Args:
        model: A functional `keras.Model`.

    Returns:
        List of pairs: the layer (or operation), and the node with its `input_tensors`, `outputs` and `arguments`.
    """
    found, seen = [], {id(tensor) for tensor in model.inputs}

    def visit(tensor):
        if id(tensor) in seen:
            return
        layer, node_index, _ = tensor._keras_history
        node = layer._inbound_nodes[node_index]
        seen.update(id(output) for output in node.outputs)
        for given in node.input_tensors:
            visit(given)
        found.append((layer, node))

    for output in model.outputs:
        visit(output)
    return found

"""Parts: which tensors of an ensemble's graph are its members'."""

import keras


def member_tensors(model):
    """Returns the predictions of each member inside an ensemble's graph, as symbolic tensors by member name.

    A member is a nested model that takes the ensemble's own input, or the features of a stem that it shares with
    others, and whose last output has as many columns as the ensemble's, or one (p of class 1). Fewer than two are no
    ensemble: the dict is empty then.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None) or len(model.inputs) != 1:
        return {}
    classes = model.outputs[-1].shape[-1]
    found = {}
    for layer in model.layers:
        # A member may stand in several ensembles: only its call in this one counts.
        for node in layer._inbound_nodes if isinstance(layer, keras.Model) else ():
            output = node.output_tensors[-1]
            is_member = _is_from_images(node, model) and not _is_stem(layer)
            if is_member and len(output.shape) == 2 and output.shape[-1] in (1, classes):
                found[layer.name] = output
    return found if len(found) > 1 else {}


def _is_from_images(node, model):
    """Whether a nested model is called on the images as they are, by way of a stem or not."""
    if len(node.input_tensors) != 1:
        return False
    [tensor] = node.input_tensors
    if tensor is model.inputs[0]:
        return True
    layer, node_index, _ = tensor._keras_history
    return _is_stem(layer) and layer._inbound_nodes[node_index].input_tensors[0] is model.inputs[0]


def _is_stem(layer):
    """Whether it is a member without its own head: a shared stem, or one in an ensemble that joins features alone."""
    return isinstance(layer, keras.Model) and layer.layers[-1].name == "features"

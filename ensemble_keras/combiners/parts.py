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


def crossing_tensors(model, predictions):
    """Returns what the combiner of an ensemble takes of its members, as symbolic tensors.

    Args:
        model: A `keras.Model`, made by `build_ensemble`.
        predictions: List of the members' predictions, from `member_tensors`.

    Returns:
        A list of lists, one per member: its predictions, and then its features where the combiner takes them, too.
        Features of a stem are given with the first of its members.

    Raises:
        ValueError: If the rest of the graph takes more than that, such as other views of the images.
    """
    found = {id(tensor): [tensor] for tensor in predictions}
    makers = {id(source): id(p) for p in reversed(predictions) for source in (_node(p), *_node(p).input_tensors)}
    ahead, seen = list(model.outputs), set(found)
    while ahead:
        tensor = ahead.pop()
        if tensor is model.inputs[0]:
            raise ValueError(
                f"The model {model.name!r} cannot be taken apart: more than its members takes the images. Build it "
                "by `build_ensemble`, without test-time augmentation."
            )
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        owner = makers.get(id(tensor), makers.get(id(_node(tensor))))
        if owner is None:
            ahead += _node(tensor).input_tensors
        else:
            found[owner].append(tensor)
    return [found[id(tensor)] for tensor in predictions]


def stem_features(model, prediction):
    """Returns the features of the stem that a member of an ensemble shares with others, or `None`.

    Args:
        model: As in `member_tensors`.
        prediction: One of its tensors.
    """
    [source] = _node(prediction).input_tensors
    return None if source is model.inputs[0] else source


def _node(tensor):
    """Returns the call that made a tensor."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def _is_from_images(node, model):
    """Whether a nested model is called on the images as they are, by way of a stem or not."""
    if len(node.input_tensors) != 1:
        return False
    [tensor] = node.input_tensors
    if tensor is model.inputs[0]:
        return True
    return _is_stem(tensor._keras_history[0]) and _node(tensor).input_tensors[0] is model.inputs[0]


def _is_stem(layer):
    """Whether it is a member without its own head: a shared stem, or one in an ensemble that joins features alone."""
    return isinstance(layer, keras.Model) and layer.layers[-1].name == "features"

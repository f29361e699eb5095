"""Feature maps: where in a network the last activations are that still know places in the image."""

from keras import layers

from ensemble_keras._validation import suggest

# At the end of a network they make a map coarser or leave it as it is: the one before them says more.
_AFTER_THE_MAP = (
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.Identity,
)


def feature_maps(steps, name, prediction, layer=None):
    """Returns the places of the feature maps that a prediction is explained by, a list.

    They are the last maps `(batch, height, width, channels)` of convolutions on each way to the prediction: one,
    unless branches join behind them.

    Args:
        steps: `Steps` of the model.
        name: String, that of the member, for errors.
        prediction: Place of the probabilities.
        layer: String, name of the layer whose output is the map. Defaults to `None`: found.

    Raises:
        ValueError: If there is none.
    """
    if layer is not None:
        return _maps_of(steps, name, prediction, layer)
    maps = _last_maps(steps, prediction)
    if not maps:
        raise ValueError(
            f"Grad-CAM needs a feature map of convolutions. Received: {name!r}, which has none on the way to its "
            "prediction, as networks of attention or recurrence alone. `occlusion` explains it."
        )
    return maps


def _last_maps(steps, prediction):
    convolved = _convolved(steps)
    found, seen, ahead = [], set(), [prediction]
    while ahead:
        place = ahead.pop()
        if place in seen:
            continue
        seen.add(place)
        if place in convolved and _is_map(steps.shapes[place]):
            found.append(_before_pooling(steps, place, convolved))
        elif steps.maker(place) is not None:
            ahead += steps.maker(place).given.values()
    return list(dict.fromkeys(found))


def _convolved(steps):
    """Returns the places behind a convolution, which is known by a kernel of four dimensions."""
    found = set()
    for step in steps.steps:
        kernels = any(len(weight.shape) == 4 for weight in getattr(step.operation, "weights", ()))
        if kernels or not found.isdisjoint(step.given.values()):
            found.update(step.made)
    return found


def _is_map(shape):
    return len(shape) == 4 and shape[1:3] != (1, 1)


def _before_pooling(steps, place, convolved):
    step = steps.maker(place)
    while isinstance(step.operation, _AFTER_THE_MAP) and set(step.given.values()) <= convolved:
        [place] = step.given.values()
        step = steps.maker(place)
    return place


def _maps_of(steps, name, prediction, layer):
    there = steps.before(prediction)
    named = {own: made for own, made in steps.named if there.intersection(made)}
    if layer not in named:
        raise ValueError(f"There is no layer {layer!r} in {name!r}.{suggest(layer, named)}")
    maps = [place for own, made in steps.named if own == layer for place in made if place in there]
    shapes = [steps.shapes[place] for place in maps]
    if not all(map(_is_map, shapes)):
        raise ValueError(
            f"`layer` must give a map (batch, height, width, channels). Received: {layer!r} of {name!r}, which gives "
            f"shape {shapes[0]}."
        )
    return maps

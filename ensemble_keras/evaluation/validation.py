"""Validation: what members and combiners say about images that nothing was chosen by."""

import keras
import numpy as np

from ensemble_keras.combiners.calibration import calibrated
from ensemble_keras.combiners.fitting import combine
from ensemble_keras.features.extraction import extract


def validate(members, combiners, dataset, *, joined=None, temperatures=None, verbose=1):
    """Gives the accuracy of members, and of combiners of them, in one pass over the images.

    Args:
        members: Dict from name to `keras.Model` from images to probabilities, in the order that the combiners take;
            with a layer named `"features"` where a combiner takes features.
        combiners: Dict from name to fitted combiner layer.
        dataset: An `ImageDataset` with labels that are class indices.
        joined: Dict from a combiner's name to the places of the members that it takes. Defaults to all of them.
        temperatures: Array, one per member, at which the combiners see the members; `None`: as they are.
        verbose: 0 shows no progress. Defaults to 1.

    Returns:
        Dict with the keys `"member"` and `"ensemble"`: each a dict from name to accuracy. A member for which memory
        does not suffice is left out, and so are all combiners then.
    """
    with_features = any(getattr(layer, "takes", "predictions") != "predictions" for layer in combiners.values())
    models = {name: _seen(member) if with_features else member for name, member in members.items()}
    size = next(iter(models.values())).input_shape[1:3]
    found = extract(models, dataset, image_size=size, verbose=verbose, doing="Validating").features
    widths = {name: members[name].output_shape[-1] for name in found}
    predictions = {name: found[name][:, -widths[name] :] for name in found}
    ensembles = {}
    if len(found) == len(members):
        table = np.stack(list(predictions.values()), axis=1)
        table = table if temperatures is None else calibrated(table, temperatures)
        features = [found[name][:, : -widths[name]] for name in found] if with_features else None
        taken = dict.fromkeys(combiners, range(len(members))) | (joined or {})
        ensembles = {
            name: combine(layer, table[:, taken[name]], features and [features[i] for i in taken[name]])
            for name, layer in combiners.items()
        }
    return {
        kind: {name: float(np.mean(p.argmax(axis=1) == dataset.labels)) for name, p in part.items()}
        for kind, part in (("member", predictions), ("ensemble", ensembles))
    }


def _seen(member):
    """Returns a model that gives a member's features and, after them, its predictions."""
    outputs = [keras.ops.cast(member.get_layer("features").output, "float32"), member.output]
    return keras.Model(member.inputs, keras.layers.Concatenate(dtype="float32")(outputs), name=member.name)

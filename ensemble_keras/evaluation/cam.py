"""CAM: the network that computes class activation maps by gradients, in the same step as the predictions."""

import keras
from keras import ops

from ensemble_keras.combiners.base import as_float32, as_probabilities
from ensemble_keras.combiners.parts import member_tensors
from ensemble_keras.evaluation.feature_maps import feature_maps
from ensemble_keras.evaluation.gradients import gradients
from ensemble_keras.evaluation.logits import logits_from
from ensemble_keras.evaluation.steps import Steps

# Votes sum to about 1 where they have slopes. Counted ones have none but what rounding leaves.
_ROUNDING = 1e-5


class CamNetwork(keras.Model):
    """A model from images and classes to its members' maps and votes, which shares the weights of the one explained.

    Call arguments: a list of images `(batch, height, width, channels)`, and int32 class indices `(batch,)`, -1 for
    the class that the explained model predicts. Output: the maps `(batch, members, height, width)`, each between 0
    and 1, and the votes `(batch, members)`, which sum to 1 or are all 0. A model that is no ensemble counts as its
    only member.

    Args:
        model: A functional `keras.Model` from images to class probabilities.
        layers: Function from a member's name to the name of the layer whose output is its map, or to `None`.
    """

    def __init__(self, model, layers):
        super().__init__(name=model.name, dtype="float32")
        # Not the model itself: who keeps this for as long as the model lives would keep it alive.
        self._layers_of_model, self._taken = list(model.layers), model.inputs[0].dtype
        self._steps = Steps(model)
        members = member_tensors(model) or {model.name: model.outputs[-1]}
        places = {name: self._steps.places[id(tensor)] for name, tensor in members.items()}
        self.explained = [_Explained(self._steps, name, place, layers(name)) for name, place in places.items()]
        self._source, self._logits_of = logits_from(self._steps, self._steps.outputs[-1])
        self._votes = [_as_combined(self._steps, place, set(places.values())) for place in places.values()]
        self.built = True

    def call(self, inputs):
        """Returns maps and votes."""
        images, wanted = inputs
        steps = self._steps
        start = {steps.inputs[0]: ops.cast(images, self._taken)}
        values = steps.run(start, list(range(len(steps.shapes))))
        probabilities = as_probabilities(values[steps.outputs[-1]])
        chosen = ops.where(wanted < 0, ops.cast(ops.argmax(probabilities, axis=-1), "int32"), wanted)
        chosen = ops.one_hot(chosen, probabilities.shape[-1], dtype="float32")
        size = ops.shape(images)[1:3]
        maps = [self._map(one, values, chosen, size) for one in self.explained]
        return ops.stack(maps, axis=1), self._vote(values, chosen)

    def _map(self, one, values, chosen, size):
        """Returns the map of one member, `(batch, height, width)`."""

        def score(tensors):
            return _centred(one.logits_of(self._rerun(values, one.maps, tensors, one.source)), chosen)

        maps = [values[place] for place in one.maps]
        found = 0.0
        for activations, slopes in zip(maps, gradients(score, maps), strict=True):
            # The sum over places, where the paper has the mean: for maps of several sizes that join, each place then
            # counts by what it adds to the score. Of a single map only the scale is another.
            weights = ops.sum(as_float32(slopes), axis=(1, 2), keepdims=True)
            cam = ops.relu(ops.sum(weights * as_float32(activations), axis=-1, keepdims=True))
            found = found + ops.image.resize(cam, size, interpolation="bilinear", data_format="channels_last")[..., 0]
        return _divided(found, ops.max(found, axis=(1, 2), keepdims=True))

    def _vote(self, values, chosen):
        """Returns each member's share in the votes for a class, `(batch, members)`."""
        if len(self._votes) == 1:
            return ops.ones_like(chosen[:, :1])
        tensors = [values[place] for place in self._votes]

        def score(given):
            return _centred(self._logits_of(self._rerun(values, self._votes, given, self._source)), chosen)

        slopes = gradients(score, tensors)
        members = [as_probabilities(tensor) for tensor in tensors]
        pairs = zip(members, map(_both, slopes), strict=True)
        votes = ops.stack([ops.sum(ops.relu(p * slope) * chosen, axis=-1) for p, slope in pairs], axis=1)
        first = [ops.one_hot(ops.argmax(p, axis=-1), chosen.shape[-1], dtype="float32") for p in members]
        counted = ops.stack([ops.sum(ballot * chosen, axis=-1) for ballot in first], axis=1)
        votes = ops.where(ops.sum(votes, axis=1, keepdims=True) > _ROUNDING, votes, counted)
        return _divided(votes, ops.sum(votes, axis=1, keepdims=True))

    def _rerun(self, values, places, tensors, wanted):
        """Returns the tensor at the place `wanted` with other tensors at `places`."""
        changed = self._steps.after(places)
        known = {place: value for place, value in values.items() if place not in changed}
        return self._steps.run({**known, **dict(zip(places, tensors, strict=True))}, [wanted])[wanted]


class _Explained:
    """A member: its `name`, the places of its `maps`, and how its logits follow from the tensor at a `source`."""

    def __init__(self, steps, name, prediction, layer):
        self.name, self.maps = name, feature_maps(steps, name, prediction, layer)
        self.source, self.logits_of = logits_from(steps, prediction)


def _centred(logits, chosen):
    """Returns the logit of the chosen class less the mean of all, `(batch,)`."""
    return ops.sum(logits * chosen, axis=-1) - ops.mean(logits, axis=-1)


def _as_combined(steps, prediction, predictions):
    """Returns the place of a member's probabilities as the combiner takes them: at the member's temperature."""
    own = steps.after([prediction]) - steps.after(predictions - {prediction})
    tempered = [step.made[0] for step in steps.steps if own.intersection(step.made) and _is_softmax(step)]
    return tempered[-1] if tempered else prediction


def _is_softmax(step):
    return type(step.operation).__name__ == "Softmax"


def _both(slope):
    """Returns slopes by the probability of each class: of one sigmoid unit p, those by 1 - p and p."""
    return ops.concatenate([-slope, slope], axis=-1) if slope.shape[-1] == 1 else slope


def _divided(values, by):
    return values / ops.where(by > 0, by, 1.0)

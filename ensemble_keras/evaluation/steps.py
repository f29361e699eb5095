"""Steps: a model and the models nested in it as one list of calls, any part of which can be run."""

import dataclasses

import keras

from ensemble_keras.measures.graph import calls, has_graph


@dataclasses.dataclass(frozen=True)
class Step:
    """One call of a layer or operation, that runs nothing else of ours.

    Args:
        operation: The layer or operation.
        arguments: What Keras noted of its call.
        given: Dict from the id of each symbolic tensor among the arguments to its place.
        made: Tuple of places, those of its outputs.
    """

    operation: object
    arguments: object
    given: dict
    made: tuple


class Steps:
    """The calls of a functional model in the order in which they run, those of nested models in their stead.

    Every tensor has a place, an int: a nested model that is called twice has two for each of its own.

    Args:
        model: A functional `keras.Model`.

    Attributes: `steps`, a list of `Step`; `shapes`, the shape of the tensor at each place; `inputs` and `outputs`,
    lists of places; `places`, a dict from the id of a symbolic tensor of the outermost graph to its place; `named`, a
    list of pairs, the name of a layer, nested models included, and the places that it made.
    """

    def __init__(self, model):
        self.steps, self.shapes, self.named, self._maker = [], [], [], {}
        self.inputs = [self._new(tensor) for tensor in model.inputs]
        self.outputs, self.places = self._add(model, self.inputs)

    def maker(self, place):
        """Returns the step that made the tensor at a place; `None` for an input."""
        return self._maker.get(place)

    def after(self, places):
        """Returns the set of places whose tensors depend on those at `places`, these themselves left out."""
        found, start = set(), set(places)
        for step in self.steps:
            if not (found | start).isdisjoint(step.given.values()):
                found.update(step.made)
        return found - start

    def before(self, place):
        """Returns the set of places that the tensor at `place` depends on, and `place` itself."""
        found, ahead = set(), [place]
        while ahead:
            place = ahead.pop()
            if place not in found:
                found.add(place)
                step = self.maker(place)
                ahead += [] if step is None else step.given.values()
        return found

    def run(self, known, wanted):
        """Returns the tensors at the places `wanted`, running only what they take beyond what is known.

        Args:
            known: Dict from places to tensors.
            wanted: List of places.

        Returns:
            Dict from places to tensors: those known, and all that were computed.
        """
        needed, values = set(wanted) - set(known), dict(known)
        ahead = []
        for step in reversed(self.steps):
            if not needed.isdisjoint(step.made):
                needed.update(place for place in step.given.values() if place not in known)
                ahead.append(step)
        for step in reversed(ahead):
            args, kwargs = step.arguments.fill_in({key: values[place] for key, place in step.given.items()})
            made = keras.tree.flatten(step.operation(*args, **kwargs))
            values.update(zip(step.made, made, strict=True))
        return values

    def _new(self, tensor):
        self.shapes.append(tuple(tensor.shape))
        return len(self.shapes) - 1

    def _add(self, model, given):
        places = {id(tensor): place for tensor, place in zip(model.inputs, given, strict=True)}
        for operation, node in calls(model):
            taken = {id(tensor): places[id(tensor)] for tensor in node.input_tensors}
            # What is always called in training mode stays whole: it must be told so.
            if has_graph(operation) and not node.arguments.kwargs.get("training"):
                made, _ = self._add(operation, [places[id(tensor)] for tensor in node.input_tensors])
            else:
                made = [self._new(tensor) for tensor in node.outputs]
                self.steps.append(Step(operation, node.arguments, taken, tuple(made)))
                self._maker.update(dict.fromkeys(made, self.steps[-1]))
            self.named.append((operation.name, tuple(made)))
            places.update(zip(map(id, node.outputs), made, strict=True))
        return [places[id(tensor)] for tensor in model.outputs], places

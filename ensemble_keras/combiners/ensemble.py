"""Ensemble: join members and a combiner into one plain `keras.Model`."""

import collections

import keras

from ensemble_keras.combiners import base, tables
from ensemble_keras.combiners.calibration import apply_temperature, check_temperature
from ensemble_keras.combiners.stems import call_members
from ensemble_keras.combiners.views import views_of
from ensemble_keras.measures.graph import is_of_keras


def build_ensemble(
    members,
    combiner,
    *,
    name="ensemble",
    test_time_augmentation=None,
    member_temperatures=None,
    temperature=None,
    share_stems=True,
):
    """Joins trained members and a combiner into one plain `keras.Model`.

    The combiner's operations are written into the model's graph, so that the model consists of the members and of
    stock Keras operations. `compile` and `fit` on it train members and combiner together.

    Args:
        members: List of `keras.Model`s with unique names and one input shape. Each maps images of shape
            `(batch, height, width, 3)` with values in `[0, 255]` to class probabilities of shape
            `(batch, num_classes)`, or `(batch, 1)` for one sigmoid unit. Each has a layer named `"features"` if
            the combiner takes features.
        combiner: A layer from a list of tensors, one per member, to probabilities. Its `takes` says which:
            `"predictions"` (where it has no such attribute, too), `"features"`, or `"both"`: then its `call` takes
            two lists, predictions and features.
        name: String. Name of the model. Defaults to `"ensemble"`.
        test_time_augmentation: Views of each image that the ensemble also sees, of which it gives the mean of the
            probabilities: names among `"horizontal_flip"`, `"vertical_flip"` and `"zoom"` (the middle 7/8 of each
            side). The image as it is is always one of the views. Every view costs as much as the ensemble without
            them, in training, too: train before, and build with views afterwards. Defaults to `None`.
        member_temperatures: One number above 0 per member, such as `fit_temperatures` gives: the combiner gets each
            member's probabilities at its temperature. Fit the combiner on such predictions, too
            (`apply_temperature`). Defaults to `None`, the probabilities as they are.
        temperature: Number above 0, such as `fit_temperature` gives for the combined out-of-fold predictions: the
            model gives its probabilities at this temperature. Defaults to `None`, as they are.
        share_stems: Whether members that are equal up to their layer `"features"`, such as other heads on one frozen
            backbone, run that part once. Of copies with equal weights the first one's are in the model, and train for
            all of them; `False` keeps copies apart, to be trained apart. Defaults to `True`.

    Returns:
        A `keras.Model` from such images to float32 probabilities of shape `(batch, num_classes)`, the output of a
        layer named `"predictions"`; every row sums to 1. It shares the members' and the combiner's weights and
        loads without this package. A combiner that takes features alone leaves the members' own heads out.

    Raises:
        TypeError: If a member is not a `keras.Model`, or the combiner is not a layer.
        ValueError: If `members` is empty, two members share a name or differ in classes or input shape, a member
            ends in logits, in several sigmoid units or in one softmax unit, a member lacks the features that the
            combiner takes, the combiner gives other classes than the members, or it holds variables or layers other
            than those of stock Keras layers; if a view is unknown, or the members take images of any size and are to
            be zoomed; if a temperature is not above 0, or the members' are given to a combiner that does not take
            their predictions.

    Example:

    >>> def member(name):
    ...     images = keras.Input((8, 8, 3))
    ...     features = keras.layers.GlobalAveragePooling2D(name="features")(images)
    ...     return keras.Model(images, keras.layers.Dense(2, "softmax", name="predictions")(features), name=name)
    >>> model = ek.build_ensemble([member("a"), member("b")], ek.SoftVoting(weights=[2, 1]))
    >>> model.output_shape
    (None, 2)
    """
    members = list(members)
    _check_members(members)
    takes = _check_combiner(combiner)
    temperatures = _check_temperatures(member_temperatures, len(members), takes)
    temperature = 1.0 if temperature is None else check_temperature("temperature", temperature)
    images = keras.Input(members[0].input_shape[1:], name="images")
    call = call_members(members, _nested(members, takes), takes, share=share_stems)
    inputs = [_combiner_inputs(call(view), takes, temperatures) for view in views_of(images, test_time_augmentation)]
    # Called the ordinary way, Keras builds the layer; `call` then writes its operations into the graph.
    combiner(*inputs[0])
    combined = [base.as_probabilities(combiner.call(*view)) for view in inputs]
    combined = keras.layers.Average(dtype="float32", name="views")(combined) if len(combined) > 1 else combined[0]
    combined = _at(temperature, combined)
    outputs = keras.layers.Activation("linear", dtype="float32", name="predictions")(combined)
    model = keras.Model(images, outputs, name=name)
    _check_outputs(model, members, combiner)
    return model


def num_classes_of(member):
    """Returns a member's number of classes; one sigmoid unit stands for two."""
    return max(member.output_shape[-1], 2)


def _nested(members, takes):
    """Returns the members as the combiner takes them: with their features, or without their heads."""
    if takes == "predictions":
        return members
    features = [_features_of(member) for member in members]
    if takes == "features":
        # Without their heads: no gradient would reach these.
        return [keras.Model(m.inputs, f, name=m.name) for m, f in zip(members, features, strict=True)]
    return [keras.Model(m.inputs, [f, m.output], name=m.name) for m, f in zip(members, features, strict=True)]


def _combiner_inputs(outputs, takes, temperatures):
    if takes == "features":
        return [[base.as_float32(f) for f in outputs]]
    predictions = outputs if takes == "predictions" else [p for _, p in outputs]
    inputs = [[_at(t, base.as_probabilities(p)) for t, p in zip(temperatures, predictions, strict=True)]]
    return inputs if takes == "predictions" else [*inputs, [base.as_float32(f) for f, _ in outputs]]


def _at(temperature, probabilities):
    # At 1 they are what they are: no operation in the graph.
    return probabilities if temperature == 1 else apply_temperature(probabilities, temperature)


def _features_of(member):
    if "features" not in [layer.name for layer in member.layers]:
        raise ValueError(
            f"The combiner takes features, but member {member.name!r} has no layer named 'features'. "
            "build_member names it so; in a model of your own name the layer whose output is the feature vector."
        )
    features = member.get_layer("features").output
    if len(features.shape) != 2:
        raise ValueError(
            f"The layer 'features' of member {member.name!r} must give vectors of shape (batch, d). "
            f"Received: shape {features.shape}. Pool or flatten them."
        )
    return features


def _check_members(members):
    if not members:
        raise ValueError("`members` must hold at least one model. Received: an empty list.")
    for index, member in enumerate(members):
        _check_member(index, member)
    for name, count in collections.Counter(member.name for member in members).items():
        if count > 1:
            raise ValueError(
                f"`members` must have unique names. Received: {count} members named {name!r}. "
                "Give each its own: `build_member(..., name=...)`."
            )
    _check_same(
        {m.name: m.input_shape[1:] for m in members},
        "take images of one shape",
        "Build them at the same `image_size`; `build_backbone(..., resize_to=...)` lets one run at its own size.",
    )
    _check_same(
        {m.name: num_classes_of(m) for m in members},
        "have the same number of classes",
        "Train them on the same `class_names`.",
    )


def _check_member(index, member):
    if not isinstance(member, keras.Model):
        kind = f"the class {member.__name__}" if isinstance(member, type) else type(member).__name__
        raise TypeError(f"`members` must hold `keras.Model`s. Received: {kind} at index {index}.")
    inputs, outputs = getattr(member, "inputs", None) or [], getattr(member, "outputs", None) or []
    if len(inputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise ValueError(
            f"Member {member.name!r} must map one batch of images to one tensor of shape (batch, num_classes), and "
            f"be a functional or built sequential model. Received: {len(inputs)} inputs and outputs of shapes "
            f"{[tuple(output.shape) for output in outputs]}."
        )
    last = member.layers[-1]
    if isinstance(last, keras.layers.Dense) and last.activation is keras.activations.linear:
        raise ValueError(
            f"Member {member.name!r} must give probabilities. Received: a last layer {last.name!r} without "
            'activation, which gives logits. Add `activation="softmax"`.'
        )
    activation, width = getattr(last, "activation", None), outputs[0].shape[-1]
    if activation is (keras.activations.softmax if width == 1 else keras.activations.sigmoid):
        raise ValueError(
            f"Member {member.name!r} must give probabilities that sum to 1, or p of one sigmoid unit. Received: a "
            f"last layer {last.name!r} of {width} units with {activation.__name__}."
        )


def _check_same(values, rule, hint):
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{name!r} {value}" for name, value in values.items())
        raise ValueError(f"`members` must {rule}. Received: {listed}. {hint}")


def _check_combiner(combiner):
    tables.check_layer(combiner)
    return base.takes_of(combiner)


def _check_temperatures(temperatures, count, takes):
    if temperatures is None:
        return [1.0] * count
    if takes == "features":
        raise ValueError(
            "`member_temperatures` are for combiners of predictions. Received: a combiner that takes features only. "
            "Give `temperature`, that of the ensemble."
        )
    if len(temperatures) != count:
        raise ValueError(
            f"Expected one temperature per member. Received: {len(temperatures)} temperatures for {count} members."
        )
    return [check_temperature(f"member_temperatures[{i}]", t) for i, t in enumerate(temperatures)]


def _check_outputs(model, members, combiner):
    num_classes = num_classes_of(members[0])
    if len(model.output_shape) != 2 or model.output_shape[-1] != num_classes:
        raise ValueError(
            f"The combiner must give one probability per class of the members, shape (batch, {num_classes}). "
            f"Received: shape {model.output_shape}."
        )
    names = {member.name for member in members}
    for layer in model.layers:
        if layer.name not in names and not is_of_keras(type(layer)):
            raise ValueError(
                f"A combiner must be made of stock Keras layers, or the saved file needs your code to load. "
                f"Received: layer {layer.name!r} of class {type(layer).__name__}."
            )
    # An `add_weight` variable becomes a constant in the graph, without an error from Keras.
    in_graph = {id(variable) for variable in model.weights}
    frozen = [variable.path for variable in combiner.weights if id(variable) not in in_graph]
    if frozen:
        raise ValueError(
            "A combiner must keep its variables in stock Keras layers that its `call` uses: others would freeze into "
            f"constants. Received: {', '.join(frozen)}. Take a `Dense` or another Keras layer in their place."
        )

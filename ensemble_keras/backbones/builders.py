"""Builders: call a function that makes a network, with the arguments it takes."""

import inspect

import keras

from ensemble_keras._validation import suggest

# What every builder is given where it takes it, and what would change the kind of the result; neither is an option.
_GIVEN = ("input_shape", "weights", "include_top", "pooling")
_NOT_OPTIONS = {*_GIVEN, "input_tensor", "classes", "classifier_activation", "include_preprocessing", "name"}
# What every backbone takes beside its builder's options: how images are brought to the network's size.
_RESIZING = ("resize_to", "interpolation")


def check_options(builder, options, label):
    """Raises `ValueError` for an option that neither the builder takes nor every backbone, such as `weights`."""
    parameters = inspect.signature(builder).parameters
    shape = _shape_parameter(parameters)
    taken = [
        name
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name != shape
    ]
    taken = ["weights", *_RESIZING, *(name for name in taken if name not in (*_NOT_OPTIONS, *_RESIZING))]
    for option in options:
        open_ended = _takes_any(parameters) and option not in _NOT_OPTIONS
        if option not in taken and not open_ended:
            raise ValueError(
                f"{label} takes the options {', '.join(taken)}. Received: {option!r}.{suggest(option, taken)}"
            )


def resizing_options(builder, options):
    """Returns those of the options that say how images are resized, and are not the builder's own."""
    own = inspect.signature(builder).parameters
    return {name: value for name, value in options.items() if name in _RESIZING and name not in own}


def call_builder(builder, *, input_shape, weights, options, label):
    """Calls a builder with those of our arguments that its signature takes.

    Args:
        builder: Callable. It is given `input_shape`, `weights`, `include_top=False` and `pooling=None` where it has
            parameters of these names; with `**kwargs` the first two. A first parameter of another name and without
            a default gets the input shape. One without parameters is called without.
        input_shape: `(height, width, 3)`.
        weights: String or `None`.
        options: Dict of the user's options.
        label: String. Names the backbone in an error.

    Returns:
        The `keras.Model` that the builder returned.

    Raises:
        TypeError: If it returned something else.
        ValueError: If it cannot be called with these options.
    """
    parameters = inspect.signature(builder).parameters
    given = dict(zip(_GIVEN, (input_shape, weights, False, None), strict=True))
    taken = set(parameters) | ({"input_shape", "weights"} if _takes_any(parameters) else set())
    positional = []
    if _shape_parameter(parameters):
        positional.append(given.pop("input_shape"))
    try:
        model = builder(*positional, **{name: value for name, value in given.items() if name in taken}, **options)
    except (TypeError, KeyError, AttributeError, IndexError, ZeroDivisionError) as error:
        # Without options it is the builder's own mistake, and its traceback tells more.
        if not options:
            raise
        raise ValueError(
            f"{label} cannot be built with these options, {options}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, keras.Model):
        raise TypeError(f"The builder of {label} must return a keras.Model. Received: {type(model).__name__}.")
    return model


def _takes_any(parameters):
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _shape_parameter(parameters):
    """The name of a first parameter that gets the input shape by its position, or `None`."""
    first = next(iter(parameters.values()), None)
    if first is None or first.default is not first.empty or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        return None
    by_name = first.name in _GIVEN and first.kind is not first.POSITIONAL_ONLY
    return None if by_name else first.name

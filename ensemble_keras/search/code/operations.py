"""Operations: what Keras' operations on symbolic tensors do, as calls of `keras.ops`."""

import inspect
import re

import keras

from ensemble_keras.search.code.expressions import literal, plain, public_place, refuse
from ensemble_keras.search.code.layout import call, flat


def operation_expression(operation, args, kwargs, tensors):
    """Returns the call of `keras.ops` that does what an operation of a graph does.

    Args:
        operation: A `keras.Operation` that is no layer.
        args: Tuple of what it was called with.
        kwargs: Dict of what it was called with by name.
        tensors: Dict from the id of each symbolic tensor to the expression that stands for it.

    Raises:
        ValueError: If no function of `keras.ops` makes this operation again.
    """
    where = f"Operation {operation.name!r} ({type(operation).__name__})"
    if type(operation).__name__ == "GetItem":
        return flat(literal(args[0], where, tensors)) + f"[{_key(args[1], where, tensors)}]"
    name, function = _function_of(operation, where)
    given = inspect.signature(operation.call).bind(*args, **kwargs).arguments | _settings(operation, where)
    args, kwargs = _as_call(function, given, where)
    _check_operation(operation, function, args, kwargs, where)
    return call(
        name,
        [literal(value, where, tensors) for value in args],
        {key: literal(value, where, tensors) for key, value in kwargs.items()},
    )


def _key(key, where, tensors):
    """The text between the brackets of an indexing."""

    def one(part):
        if part is Ellipsis:
            return "..."
        if not isinstance(part, slice):
            return flat(literal(part, where, tensors))
        ends = ["" if end is None else flat(literal(end, where, tensors)) for end in (part.start, part.stop)]
        return ":".join(ends) + ("" if part.step is None else f":{flat(literal(part.step, where, tensors))}")

    if not isinstance(key, tuple):
        return one(key)
    return ", ".join(map(one, key)) + ("," if len(key) == 1 else "")


def _function_of(operation, where):
    """The public function that makes an operation, and how it is called."""
    kind = type(operation).__name__
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", kind).lower()
    for space in ("keras.ops", "keras.ops.image", "keras.ops.linalg"):
        place = public_place(space)
        for name in (snake, kind.lower(), snake.replace("_", "")):
            if inspect.isfunction(getattr(place, name, None)):
                return f"{space}.{name}", getattr(place, name)
    refuse(where, "no function of `keras.ops` has its name")


def _settings(operation, where):
    try:
        config = operation.get_config()
    except NotImplementedError as error:  # Keras could not keep the operation's arguments
        raise ValueError(f"{where} has no source: {error}") from error
    return {key: value for key, value in config.items() if key != "name"}


def _as_call(function, given, where):
    """Arguments as a call of a function gives them: those without a default by place, the others by name."""
    parameters, args, kwargs = inspect.signature(function).parameters, [], {}
    for key, parameter in parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += given.pop(key, ())
        elif parameter.kind is not parameter.VAR_KEYWORD and key in given:
            value = given.pop(key)
            if parameter.default is parameter.empty:
                args.append(value)
            elif not _is_default(value, parameter.default) and (key, value) != ("data_format", "channels_last"):
                kwargs[key] = value
    if given:
        refuse(where, f"{sorted(given)} are no arguments of keras.ops.{function.__name__}")
    return args, kwargs


def _is_default(value, default):
    return type(value) is type(default) and isinstance(value, bool | int | float | str | None) and value == default


def _check_operation(operation, function, args, kwargs, where):
    """Calls the function on tensors of these shapes, to see that it makes the same operation."""
    args, kwargs = keras.tree.map_structure(_stand_in, (args, kwargs))
    outputs = keras.tree.flatten(function(*args, **kwargs))
    made = outputs[0]._keras_history.operation
    if type(made) is not type(operation) or plain(_settings(made, where)) != plain(_settings(operation, where)):
        refuse(where, f"keras.ops.{function.__name__} makes {type(made).__name__} of its arguments")


def _stand_in(value):
    if isinstance(value, keras.KerasTensor):
        return keras.KerasTensor(value.shape, dtype=value.dtype, sparse=value.sparse)
    return value

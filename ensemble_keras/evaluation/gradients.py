"""Gradients: of a scalar with respect to tensors, the one thing that Keras has no backend-neutral call for."""

import keras


def gradients(function, tensors):
    """Returns the gradient of the sum of what a function gives, with respect to each of the tensors it takes.

    It works on values and inside a compiled step, such as the `call` of a `keras.Model` that predicts.

    Args:
        function: Function of a list of float tensors, in `keras.ops` and Keras layers, to a tensor of any shape.
        tensors: List of float tensors of the backend in use.

    Returns:
        List of tensors, each of the shape and dtype of its tensor; zeros where the function does not depend on it.

    Example:

    >>> x = keras.ops.convert_to_tensor([1.0, 2.0])
    >>> [slope] = gradients(lambda tensors: keras.ops.square(tensors[0]), [x])
    >>> keras.ops.convert_to_numpy(slope).tolist()
    [2.0, 4.0]
    """
    of_backend = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    name = keras.backend.backend()
    if name not in of_backend:
        raise ValueError(
            f"Gradients need one of the backends {', '.join(of_backend)}. Received: {name!r}. `occlusion` needs none."
        )
    return of_backend[name](function, list(tensors))


def _tensorflow(function, tensors):
    import tensorflow as tf

    # One tensor that is given twice counts twice.
    tensors = [tf.identity(tensor) for tensor in tensors]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        result = function(tensors)
    return tape.gradient(result, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _jax(function, tensors):
    import jax

    return jax.grad(lambda given: function(given).sum())(tensors)


def _torch(function, tensors):
    import torch

    # Keras predicts without recording what a gradient needs.
    with torch.enable_grad():
        given = [tensor.detach().requires_grad_() for tensor in tensors]
        result = function(given).sum()
        if not result.requires_grad:
            return [torch.zeros_like(tensor) for tensor in tensors]
        found = torch.autograd.grad(result, given, allow_unused=True)
    return [torch.zeros_like(t) if slope is None else slope for t, slope in zip(tensors, found, strict=True)]

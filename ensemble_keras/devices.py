"""Devices: what this machine's accelerators offer, and training on several of them."""

import contextlib
import logging
import random
import sys

import keras

_LOGGER = logging.getLogger("ensemble_keras")
# NVIDIA chips from Ampere on.
_FIRST_CAPABILITY_WITH_BFLOAT16 = 8


def supports_bfloat16():
    """Returns whether the accelerator computes in bfloat16 itself: NVIDIA from Ampere on, TPU; `False` on a CPU."""
    kinds = _accelerators()
    return bool(kinds) and all(
        kind == "tpu" or (kind == "gpu" and capability >= _FIRST_CAPABILITY_WITH_BFLOAT16)
        for kind, capability in kinds
    )


@contextlib.contextmanager
def with_precision(model, policy):
    """Lets a built model compute under another dtype policy, and gives the layers their own policies back after.

    Weights stay float32, so does what is not the network proper: what surrounds a nested model (preprocessing,
    pooling, head, combiner), layers ahead of the first weights, one named `"predictions"`, and softmax and sigmoid
    units. Entering and leaving let Keras trace the model anew: enter it once around all that is trained.

    Args:
        model: A built `keras.Model`. Within, save its weights, not the model: its file would keep the policy.
        policy: `"mixed_bfloat16"`; or `None` or `"float32"`, which change nothing.

    Yields:
        The model.

    Raises:
        ValueError: If the policy is another one.

    Example:

    >>> layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    >>> with with_precision(model, "mixed_bfloat16"):
    ...     [layer.compute_dtype for layer in model.layers]
    ['bfloat16', 'bfloat16', 'float32']
    """
    if policy not in (None, "float32", "mixed_bfloat16"):
        raise ValueError(
            f"`policy` must be 'mixed_bfloat16', 'float32' or None. Received: {policy!r}. "
            "float16 would need loss scaling; bfloat16 has float32's range."
        )
    if policy != "mixed_bfloat16":
        yield model
        return
    kept = [(layer, layer.dtype_policy) for layer in _network_layers(model)]
    try:
        for layer, _ in kept:
            layer.dtype_policy = policy
        _forget_traces(model)
        yield model
    finally:
        for layer, own in kept:
            layer.dtype_policy = own
        _forget_traces(model)


def resolve_devices(devices):
    """Returns the names of the devices to train on; none where the backend's own choice is meant.

    Args:
        devices: `None` or 1: the backend's own choice. An int: so many of this machine's accelerators (of its CPU
            devices where it has none). `"all"`. Or a list of names as in `keras.distribution.list_devices()`.

    Returns:
        A tuple of strings, empty or not.

    Raises:
        ValueError: If the argument is none of these, a device is not there, or the backend is not JAX.
    """
    if devices is None or (devices == 1 and not isinstance(devices, bool)):
        return ()
    is_list = isinstance(devices, list | tuple) and devices and all(isinstance(name, str) for name in devices)
    is_count = isinstance(devices, int) and not isinstance(devices, bool) and devices > 1
    if not (is_list or is_count or devices == "all"):
        raise ValueError(
            f"`devices` must be None, a number of devices, 'all' or a list of their names. Received: {devices!r}."
        )
    if keras.backend.backend() != "jax":
        if devices == "all" and len(keras.distribution.list_devices()) == 1:
            return ()
        raise ValueError(
            "Training on several devices needs Keras' JAX backend. "
            f"Received: devices={devices!r} on the backend {keras.backend.backend()!r}. "
            "Set the environment variable KERAS_BACKEND=jax before Keras is imported."
        )
    present = keras.distribution.list_devices()
    chosen = present if devices == "all" else present[:devices] if is_count else list(devices)
    known = {*present, *keras.distribution.list_devices("cpu")}
    if (is_count and len(present) < devices) or len(set(chosen)) < len(chosen) or not set(chosen) <= known:
        raise ValueError(
            f"`devices` must be among this machine's, each once: {', '.join(present)}. Received: {devices!r}."
        )
    return tuple(chosen) if is_list or len(chosen) > 1 else ()


def replica_count():
    """Returns among how many devices each batch is divided at present: 1 outside of `data_parallel`."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.num_model_replicas


@contextlib.contextmanager
def data_parallel(model, devices):
    """Gives a model to train: itself, or its replica over several devices, whose state the model takes on at the end.

    Each device holds the weights and takes an equal part of every batch; statistics of batch normalisation and
    gradients are those of the whole batch. A batch that does not divide by `replica_count()` is taken whole by every
    device, which gains nothing, and said once in the log; in one `fit` all batches must be of the first one's kind.
    Keras' distribution is what it was before when the block is left; after an error the model is, too.

    Args:
        model: A built `keras.Model` of stock layers. Its own `compile` is not passed on.
        devices: As in `resolve_devices`.

    Yields:
        A `keras.Model` to compile and to train within the block.

    Raises:
        ValueError: As `resolve_devices`.

    Example:

    >>> model = ek.build_member("CNN", 2, image_size=32, weights=None)
    >>> with data_parallel(model, None) as trained:
    ...     trained is model
    True
    """
    names = resolve_devices(devices)
    if not names:
        yield model
        return
    with _Division(devices=list(names)).scope():
        replica = _replica(model)
        yield replica
    _copy_state(replica, model)


class _Division(keras.distribution.DataParallel):
    """Divides each batch among the devices; gives a batch that does not divide to each of them whole."""

    _said = False

    def get_data_layout(self, data_shape):
        layout = super().get_data_layout(data_shape)
        if data_shape[0] % self.num_model_replicas == 0:
            return layout
        if not self._said:
            self._said = True
            _LOGGER.warning(
                "%d images do not divide among %d devices: each of them takes the whole batch.",
                data_shape[0],
                self.num_model_replicas,
            )
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


def _replica(model):
    # Layers without a seed draw one from Python's global random state.
    state = random.getstate()
    try:
        replica = keras.models.clone_model(model)
    finally:
        random.setstate(state)
    _copy_state(model, replica)
    return replica


def _copy_state(source, target):
    """Gives a model all state of an equal one: weights, and the random state of its dropout."""
    for variable, value in zip(target.variables, source.variables, strict=True):
        variable.assign(keras.ops.convert_to_numpy(value))


def _network_layers(model):
    """Yields the layers that do a model's work, those of nested models and of composite layers, too."""
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model) and layer.weights]
    if nested:
        for network in nested:
            yield from _network_layers(network)
        return
    begun = False
    for layer in model.layers:
        begun = begun or (bool(layer.weights) and not isinstance(layer, keras.layers.Normalization))
        if begun and not _gives_probabilities(layer):
            yield from layer._flatten_layers()


def _gives_probabilities(layer):
    activation = getattr(layer, "activation", None)
    return (
        layer.name == "predictions"
        or isinstance(layer, keras.layers.Softmax)
        or activation in (keras.activations.softmax, keras.activations.sigmoid)
    )


def _forget_traces(model):
    """Lets Keras compile the steps anew: what it has compiled has the old dtypes in it."""
    for each in (model, *model._flatten_layers(include_self=False)):
        if isinstance(each, keras.Model):
            each.train_function = each.test_function = each.predict_function = None


def _accelerators():
    """Returns `(kind, compute capability)` of each accelerator, as the backend in use tells; `[]` on a CPU."""
    backend = sys.modules.get(keras.backend.backend())
    if backend is None:
        return []
    return {"tensorflow": _of_tensorflow, "jax": _of_jax, "torch": _of_torch}[backend.__name__](backend)


def _of_tensorflow(tensorflow):
    config = tensorflow.config
    details = [config.experimental.get_device_details(gpu) for gpu in config.list_physical_devices("GPU")]
    gpus = [("gpu", float(gpu.get("compute_capability", (0,))[0])) for gpu in details]
    return gpus or [("tpu", 0.0) for _ in config.list_physical_devices("TPU")]


def _of_jax(jax):
    return [(d.platform, _major(d)) for d in jax.devices() if d.platform != "cpu"]


def _of_torch(torch):
    if not torch.cuda.is_available():
        return []
    return [("gpu", float(torch.cuda.get_device_capability(i)[0])) for i in range(torch.cuda.device_count())]


def _major(device):
    """Major compute capability of a JAX device; 0 where it has none (`"gfx90a"` of AMD)."""
    text = str(getattr(device, "compute_capability", "0"))
    return float(text.partition(".")[0]) if text.partition(".")[0].isdigit() else 0.0

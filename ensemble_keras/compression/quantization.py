"""Quantisation: a model whose dense layers compute in 8 or 4 bits, and whether that is faster here."""

import warnings

import keras

from ensemble_keras._validation import check_choice, model_hint
from ensemble_keras.backbones.folding import fold_batch_norms
from ensemble_keras.measures.cost import measure_latencies
from ensemble_keras.measures.graph import has_graph
from ensemble_keras.measures.macs import count_macs
from ensemble_keras.members.initialisation import renamed_copy

MODES = ("int8", "int4")


def quantize_model(model, mode="int8", *, filters=None, verbose=1):
    """Returns a copy of a model, quantised by `keras.Model.quantize`, for inference.

    Keras quantises dense, einsum-dense (so attention) and embedding layers: weights once, activations in every call.
    Convolutions stay float32, so of a convolutional network little more than the head changes: what gets smaller then
    is the file, by the head's weights, and it may well be slower. Batch normalisations are folded into the
    convolutions before them first, where that is possible.

    Compare the two by `compare_sizes({"float32": model, "int8": quantized}, x, y)`: accuracy, file and time.

    Args:
        model: A functional `keras.Model` of known sizes but for the batch's, such as a member or a built ensemble. It
            is left as it is.
        mode: `"int8"` or `"int4"`, as in `keras.Model.quantize`. Defaults to `"int8"`.
        filters: As in `keras.Model.quantize`, which layers: a regular expression of names, a list of such, or a
            function of a layer. Defaults to `None`: all that Keras can.
        verbose: 1 measures both models on this machine and prints what was quantised and whether it is faster; 0
            prints nothing. Defaults to 1.

    Returns:
        A `keras.Model` of stock layers, which `save_ensemble` takes; its file opens with Keras alone.

    Raises:
        ValueError: If the mode is unknown, or there is no layer to quantise.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> x = keras.layers.Dense(16, "relu")(keras.layers.Flatten()(images))
    >>> model = keras.Model(images, keras.layers.Dense(2, "softmax")(x))
    >>> quantized = ek.quantize_model(model, verbose=0)
    >>> [layer.dtype_policy.name for layer in quantized.layers[2:]]
    ['int8_from_float32', 'int8_from_float32']
    """
    check_choice("mode", mode, MODES)
    if not has_graph(model):
        raise ValueError(f"`model` must be a functional `keras.Model`. Received: {model!r}.{model_hint(model)}")
    folded = fold_batch_norms(model)
    quantized = renamed_copy(folded, model.name)
    with warnings.catch_warnings():
        # One for each layer of a kind that stays as it is, activations and inputs, too.
        warnings.filterwarnings("ignore", message="Layer .* does not have a `quantize` method")
        quantized.quantize(mode, filters=filters)
    names = {layer.name for layer in quantized._flatten_layers() if _is_quantized(layer)}
    if not names:
        raise ValueError(
            f"`model` must have a layer that Keras quantises to {mode}: dense, einsum-dense or embedding. "
            f"Received: {model.name!r}, which has none{'' if filters is None else ' that the filters let pass'}."
        )
    if verbose:
        print(_verdict(folded, quantized, names, mode))
    return quantized


def _is_quantized(layer):
    return isinstance(layer, keras.layers.Layer) and getattr(layer, "quantization_mode", None) is not None


def _verdict(before, after, names, mode):
    rows = count_macs(before).by_layer
    own = rows[rows["layer"].str.rpartition("/")[2].isin(names)]
    share = own["macs"].sum() / max(rows["macs"].sum(), 1)
    times = {size: measure_latencies([before, after], batch_size=size) for size in (1, 32)}
    faster = [size for size, (then, now) in times.items() if now < then]
    listed = "; ".join(f"batch {size}: {then:.2f} ms, then {now:.2f} ms" for size, (then, now) in times.items())
    found = {0: "not faster on this machine", 1: f"faster at batch {faster[:1]} only", 2: "faster on this machine"}
    return f"{mode}: {len(names)} layers, {share:.1%} of the multiply-accumulates; {listed}: {found[len(faster)]}."

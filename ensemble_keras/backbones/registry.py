"""Registry: the backbones by name, and `build_backbone`, which makes one from a name or a model."""

import dataclasses
from collections.abc import Callable

import keras

from ensemble_keras._validation import suggest
from ensemble_keras.backbones.alexnet import alexnet
from ensemble_keras.backbones.applications import APPLICATIONS
from ensemble_keras.backbones.assembly import assemble, check_arguments, check_network, warn_of_a_head
from ensemble_keras.backbones.builders import call_builder, check_options, resizing_options
from ensemble_keras.backbones.cnn import cnn
from ensemble_keras.backbones.darknet import darknet19, darknet53
from ensemble_keras.backbones.preprocessing import check_preprocessing
from ensemble_keras.backbones.spec import BackboneSpec, layer_name, read_spec
from ensemble_keras.backbones.weights import check_weights, is_weights_file, keras_loading, load_weights


@dataclasses.dataclass(frozen=True)
class _Entry:
    name: str
    builder: Callable
    preprocessing: str | Callable | None
    default_size: int
    smallest: int = 1
    weights: tuple | None = ()


# Lower-case name -> entry.
_BACKBONES = {
    entry.name.lower(): entry
    for entry in (
        *(
            _Entry(a.name, a.builder, a.preprocessing, a.default_size, a.smallest, ("imagenet",))
            for a in APPLICATIONS
        ),
        _Entry("Darknet19", darknet19, "unit", 224),
        _Entry("Darknet53", darknet53, "unit", 256),
        _Entry("CNN", cnn, "unit", 64),
        _Entry("AlexNet", alexnet, "unit", 227),
    )
}
_BUILT_IN = frozenset(_BACKBONES)


def list_backbones():
    """Returns the names that `build_backbone` takes, as a list of strings.

    Example:
    >>> "MobileNetV2" in list_backbones()
    True
    """
    return [entry.name for entry in _BACKBONES.values()]


def register_backbone(name, builder, *, preprocessing, default_size, weights=None):
    """Makes a network of one's own known by name, for every place where a backbone is asked for.

    Registering again under the same name replaces the entry if it is the same function (perhaps edited and run again
    in a notebook). Worker processes know only what is registered in them too.

    Args:
        name: String, one word without brackets. Names differ by more than upper and lower case.
        builder: Callable that returns a `keras.Model` from preprocessed images to a feature map
            `(batch, height, width, d)`, which is pooled, or to vectors `(batch, d)`. It is called with those of
            `input_shape=(height, width, 3)`, `weights`, `include_top=False` and `pooling=None` that it takes (with
            `**kwargs`: the first two); its other parameters are options, as in `"Name(option=1)"`. A first
            parameter of another name and without a default gets the input shape.
        preprocessing: What the network was trained on, made from images in `[0, 255]`: `"tf"` (`[-1, 1]`), `"torch"`
            (`[0, 1]`, then standardised with ImageNet's mean and standard deviation), `"caffe"` (BGR minus
            ImageNet's mean), `"unit"` (`[0, 1]`), `None` (as it is), or a callable on tensors: a Keras layer or a
            function of `keras.ops`.
        default_size: Int. Side of the images that the network was made for, in pixels.
        weights: Tuple of the names of pretrained weights that the builder knows, such as `("imagenet",)`; `()` for
            a network that starts from random weights. Defaults to `None`: any name, which is handed to the builder;
            a builder without an argument `weights` is then taken to return a pretrained network.

    Raises:
        ValueError: If the name is taken by another builder, or an argument is malformed.

    Example:
    >>> def tiny(input_shape):
    ...     return keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(4, 3)])
    >>> register_backbone("Tiny", tiny, preprocessing="tf", default_size=32, weights=())
    >>> build_backbone("tiny", input_shape=(16, 16, 3), weights=None).output_shape
    (None, 4)
    """
    if not isinstance(name, str) or read_spec(name) != (name, {}):
        raise ValueError(f"`name` must be one word without brackets. Received: {name!r}.")
    if not callable(builder):
        raise ValueError(f"`builder` must be a function that returns a keras.Model. Received: {builder!r}.")
    if not isinstance(default_size, int) or default_size < 1:
        raise ValueError(f"`default_size` must be one int, in pixels. Received: {default_size!r}.")
    taken = _BACKBONES.get(name.lower())
    if taken is not None and (name.lower() in _BUILT_IN or not _same_function(taken.builder, builder)):
        raise ValueError(f"The name {taken.name!r} is taken by another backbone. Choose another one.")
    known = None if weights is None else tuple(weights)
    entry = _Entry(name, builder, check_preprocessing(preprocessing), default_size, weights=known)
    _BACKBONES[name.lower()] = entry


def build_backbone(
    backbone,
    *,
    input_shape,
    weights="imagenet",
    pooling="avg",
    resize_to=None,
    interpolation="bilinear",
    name=None,
):
    """Builds a network from raw images to features.

    Preprocessing, and resizing where asked for, are part of the model: never preprocess the images before.

    Args:
        backbone: A name of `list_backbones()` in any case; a name with options, `"MobileNetV2(alpha=0.35)"`; or a
            `keras.Model` from images in `[0, 255]` to features, whose weights are shared; one that needs nothing
            around it is returned as it is. A name takes `resize_to` and `interpolation` as options, too:
            `"MobileNetV2(alpha=0.35, resize_to=112, interpolation='bicubic')"`.
        input_shape: `(height, width, 3)` of the images, in pixels; as many channels as a `keras.Model` takes.
        weights: `"imagenet"`, read from `$KERAS_HOME/models` or downloaded there; the path of a weights file
            (`.weights.h5`, `.h5`, `.keras`), saved from such a backbone or from the Keras model without its top; or
            `None` for random weights. An option `weights` in the name takes precedence; a `keras.Model` keeps its
            own. Defaults to `"imagenet"`.
        pooling: `"avg"`, `"max"`, or `None` for the feature map. Defaults to `"avg"`.
        resize_to: One int or `(height, width)` that images are resized to inside the model. An option `resize_to` in
            the name takes precedence. Defaults to `None`: the network runs at `input_shape`.
        interpolation: Filter of that resizing: `"bilinear"`, `"nearest"`, `"bicubic"`, `"lanczos3"` or `"lanczos5"`,
            antialiased where a side shrinks. An option `interpolation` in the name takes precedence. Defaults to
            `"bilinear"`.
        name: String. Name of the model. Defaults to `layer_name` of the backbone's label.

    Returns:
        A `keras.Model` from float32 images of shape `(batch, height, width, 3)` with values in `[0, 255]` (uint8
        arrays pass too) to float32 features of shape `(batch, d)`. It holds stock Keras layers only (and those of a
        model or preprocessing of one's own), and no variables beyond the network's.

    Raises:
        ValueError: If the backbone, an option, a size or the weights' name is unknown or does not fit.
        OSError: If a weights file does not exist, or weights are neither on disk nor to be downloaded.

    Example:
    >>> model = build_backbone("MobileNetV2(alpha=0.35)", input_shape=(96, 96, 3), weights=None)
    >>> model.name, model.output_shape
    ('MobileNetV2_alpha_0_35', (None, 1280))
    """
    label = backbone_label(backbone)
    resize_to, interpolation = _resizing(backbone, resize_to, interpolation)
    is_model = isinstance(backbone, keras.Model)
    input_shape, network_shape = check_arguments(
        input_shape, pooling, resize_to, interpolation, any_channels=is_model
    )
    if is_model:
        network, preprocessing, file = backbone, None, None
        if is_weights_file(weights):
            raise ValueError(f"The model {label!r} keeps its own weights. Load {weights} into it before.")
    else:
        network, preprocessing, file = _build_network(parse_backbone(backbone), network_shape, weights)
    check_network(network, network_shape, label)
    if is_model:
        warn_of_a_head(network, label)
    name = layer_name(label) if name is None else name
    if network is backbone and _is_backbone(network, input_shape, network_shape, name):
        return network
    model = assemble(
        network,
        input_shape=input_shape,
        network_shape=network_shape,
        preprocessing=preprocessing,
        pooling=pooling,
        interpolation=interpolation,
        name=name,
    )
    if file is not None:
        load_weights(file, network, model, label)
    return model


def parse_backbone(text):
    """Reads a backbone's name and options.

    Args:
        text: String, such as `"ResNet50"` or `"MobileNetV2(alpha=0.35)"`.

    Returns:
        A `BackboneSpec` with `name` as registered, `options` and the canonical `label`.

    Raises:
        ValueError: If the text is malformed, the name is unknown, or the builder does not take an option.

    Example:
    >>> parse_backbone("mobilenetv2( alpha = .35 )").label
    'MobileNetV2(alpha=0.35)'
    """
    if not isinstance(text, str):
        raise ValueError(
            "A backbone must be a name, a name with options such as 'MobileNetV2(alpha=0.35)', or a keras.Model. "
            f"Received: {text!r}."
        )
    name, options = read_spec(text)
    entry = _BACKBONES.get(name.lower())
    if entry is None:
        raise ValueError(f"Unknown backbone {name!r}.{suggest(name, list_backbones())} See list_backbones().")
    check_options(entry.builder, options, entry.name)
    return BackboneSpec(entry.name, options)


def backbone_label(backbone):
    """Returns the canonical label of a backbone's text, or the name of a `keras.Model`."""
    return backbone.name if isinstance(backbone, keras.Model) else parse_backbone(backbone).label


def has_pretrained_weights(backbone, weights):
    """Returns whether a backbone built with these weights is pretrained, or must be trained end to end.

    A `keras.Model` counts as pretrained, whatever `weights` is, and so does a weights file. Checks no file and loads
    nothing.

    Example:
    >>> [has_pretrained_weights(name, "imagenet") for name in ("VGG16", "Darknet19", "VGG16(weights=None)")]
    [True, False, False]
    """
    if isinstance(backbone, keras.Model):
        return True
    spec = parse_backbone(backbone)
    weights = spec.options.get("weights", weights)
    known = _BACKBONES[spec.name.lower()].weights
    return weights is not None and (is_weights_file(weights) or known is None or weights in known)


def check_pretrained(backbone, weights):
    """Raises `ValueError` if there are pretrained weights of a backbone, but none of this name.

    `has_pretrained_weights` is false then: the backbone would be trained from scratch. One without any pretrained
    weights, an option `weights` in the text, and a `keras.Model` pass.

    Example:
    >>> check_pretrained("CNN", "imagenet")
    """
    if isinstance(backbone, keras.Model) or weights is None:
        return
    spec = parse_backbone(backbone)
    known = _BACKBONES[spec.name.lower()].weights
    if known and "weights" not in spec.options and not is_weights_file(weights) and weights not in known:
        raise ValueError(
            f"{spec.label} has no weights {weights!r}, only {', '.join(map(repr, known))}, and would be trained from "
            f'scratch.{suggest(weights, known)} Its own stand in its text: "{spec.name}(weights={known[0]!r})", or '
            "weights=None."
        )


def default_size(backbone):
    """Returns the side in pixels that a backbone was made for; for a `keras.Model` its input height, or 224."""
    if isinstance(backbone, keras.Model):
        return backbone.input_shape[1] or 224
    return _BACKBONES[parse_backbone(backbone).name.lower()].default_size


def _resizing(backbone, resize_to, interpolation):
    """Returns the size that images are brought to and the filter: those in the backbone's text, else as given."""
    if isinstance(backbone, keras.Model):
        return resize_to, interpolation
    spec = parse_backbone(backbone)
    options = resizing_options(_BACKBONES[spec.name.lower()].builder, spec.options)
    resize_to = options.get("resize_to", resize_to)
    if "interpolation" in options and resize_to is None:
        raise ValueError(
            f"The option `interpolation` is the filter of `resize_to`. Received: {spec.label}, which resizes "
            f"nothing. Add the side, as in resize_to={_BACKBONES[spec.name.lower()].default_size}."
        )
    return resize_to, options.get("interpolation", interpolation)


def _build_network(spec, shape, weights):
    """Returns the network, its preprocessing, and the weights file that is still to be loaded, if any."""
    entry = _BACKBONES[spec.name.lower()]
    resizing = resizing_options(entry.builder, spec.options)
    options = {name: value for name, value in spec.options.items() if name not in resizing}
    weights = options.pop("weights", weights)
    check_weights(weights, entry.weights, spec.label)
    if min(shape[:2]) < entry.smallest:
        raise ValueError(
            f"{spec.label} takes images of at least {entry.smallest}x{entry.smallest} pixels. "
            f"Received: {shape[0]}x{shape[1]}. Use larger images, or resize_to={entry.default_size}."
        )
    file = weights if is_weights_file(weights) else None
    with keras_loading(weights, spec.label):
        network = call_builder(
            entry.builder,
            input_shape=shape,
            weights=None if file else weights,
            options=options,
            label=spec.label,
        )
    return network, entry.preprocessing, file


def _is_backbone(model, input_shape, network_shape, name):
    """Whether a given model is a backbone as it stands, such as one that `build_backbone` made."""
    shapes = model.input_shape == (None, *input_shape) == (None, *network_shape) and len(model.output_shape) == 2
    return shapes and model.name == name and model.inputs[0].dtype == model.outputs[0].dtype == "float32"


def _same_function(a, b):
    by_name = [(getattr(f, "__module__", None), getattr(f, "__qualname__", "<lambda>")) for f in (a, b)]
    return a is b or (by_name[0] == by_name[1] and "<lambda>" not in by_name[0][1])

"""Member: one classifier of the ensemble, a backbone with a head on its features."""

import keras

from ensemble_keras._validation import check_at_least, check_choice, check_image_size
from ensemble_keras.backbones.registry import backbone_label, build_backbone, default_size, layer_name

HEADS = {"linear": (), "mlp": (256,)}


def build_member(
    backbone, num_classes, *, head="linear", dropout=0.0, name=None, image_size=None, weights="imagenet"
):
    """Builds a classifier: backbone, features, head, class probabilities.

    The head's weights are random until they are set or trained.

    Args:
        backbone: A name (`"DenseNet121"`), a name with options (`"MobileNetV2(alpha=0.35)"`) or a `keras.Model` from
            images in [0, 255] to features.
        num_classes: Int, at least 2.
        head: `"linear"` (one dense layer) or `"mlp"` (256 hidden units before it). Defaults to `"linear"`.
        dropout: Float in [0, 1): share of the features dropped in training, before the head. Defaults to 0.
        name: String. Name of the member. Defaults to the backbone's.
        image_size: Int or `(height, width)`: size of the images that the member takes. Defaults to the size of the
            given `keras.Model`, or the size at which the named backbone was trained.
        weights: `"imagenet"`, `None` (random) or a path, for a backbone given by name. Defaults to `"imagenet"`.

    Returns:
        A `keras.Model` from raw images `(batch, height, width, 3)` with values in [0, 255] (of as many channels as a
        given `keras.Model` takes) to probabilities `(batch, num_classes)`, with a layer named `"features"` and a last
        layer named `"predictions"`.

    Raises:
        ValueError: If the backbone is unknown, its weights are not to be had, or an argument is out of its range.

    Example:

    >>> member = ek.build_member("CNN", 10, image_size=32, weights=None)
    >>> member.output_shape, member.get_layer("features").output.shape
    ((None, 10), (None, 128))
    """
    check_at_least("num_classes", num_classes, 2)
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: {dropout}.")
    units = HEADS[check_choice("head", head, HEADS)]
    own_size = isinstance(backbone, keras.Model) and None not in backbone.input_shape[1:3]
    if image_size is None:
        image_size = backbone.input_shape[1:3] if own_size else default_size(backbone)
    channels = (backbone.input_shape[-1] or 3) if isinstance(backbone, keras.Model) else 3
    input_shape = (*check_image_size(image_size), channels)
    trunk = build_backbone(backbone, input_shape=input_shape, weights=weights)
    inputs = keras.Input(input_shape, name="images")
    x = keras.layers.Identity(name="features")(trunk(inputs))
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    for number, count in enumerate(units, start=1):
        x = keras.layers.Dense(count, activation="relu", name=f"hidden_{number}")(x)
    # float32 whatever the policy: probabilities in half precision do not sum to 1.
    outputs = keras.layers.Dense(num_classes, activation="softmax", dtype="float32", name="predictions")(x)
    return keras.Model(inputs, outputs, name=name or layer_name(backbone_label(backbone)))


def backbone_of(member):
    """Returns the backbone of a member made by `build_member`."""
    return next(layer for layer in member.layers if isinstance(layer, keras.Model))


def is_member(model):
    """Returns whether a model is built as by `build_member`: one backbone, features, a head of dense layers."""
    names = [layer.name for layer in model.layers]
    if "features" not in names or names[-1] != "predictions":
        return False
    place = names.index("features")
    backbones = [layer for layer in model.layers[:place] if isinstance(layer, keras.Model)]
    head = model.layers[place + 1 :]
    return len(backbones) == 1 and all(isinstance(layer, keras.layers.Dense | keras.layers.Dropout) for layer in head)


def hidden_units(member):
    """Returns the hidden units of each layer of a member's head, a tuple of ints."""
    return tuple(layer.units for layer in member.layers[:-1] if isinstance(layer, keras.layers.Dense))


def set_head(member, layers):
    """Sets the head's weights.

    Args:
        member: A model made by `build_member`.
        layers: List of `(kernel, bias)`, in the order of the head's dense layers.
    """
    dense = [layer for layer in member.layers if isinstance(layer, keras.layers.Dense)]
    for layer, (kernel, bias) in zip(dense, layers, strict=True):
        layer.set_weights([kernel, bias])

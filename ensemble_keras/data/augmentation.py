"""Augmentation: named policies of Keras' own image layers, for the training path only, seeded and on any backend."""

import json
import re
import warnings

import keras
import numpy as np

from ensemble_keras._validation import check_seed, suggest
from ensemble_keras.data.rand_augment import RandAugment

_BOTH_WAYS = "reflect"

# Operation -> Keras layer and its arguments. Traps of Keras' layers that these arguments avoid: a single contrast
# factor only ever raises the contrast; RandomCrop takes one place for the whole batch, where a shift of whole pixels
# by "nearest" takes one per image; a single flip mode would also turn pictures upside down.
_OPERATIONS = {
    "rotation": (keras.layers.RandomRotation, {"factor": 15 / 360, "fill_mode": _BOTH_WAYS}),
    "blur": (keras.layers.RandomGaussianBlur, {"factor": (0.5, 0.5), "kernel_size": 5, "sigma": (0.2, 1.0)}),
    "flip": (keras.layers.RandomFlip, {"mode": "horizontal"}),
    "crop": (
        keras.layers.RandomTranslation,
        {"height_factor": 0.125, "width_factor": 0.125, "fill_mode": _BOTH_WAYS, "interpolation": "nearest"},
    ),
    "zoom": (keras.layers.RandomZoom, {"height_factor": (-0.15, 0.15), "fill_mode": _BOTH_WAYS}),
    "brightness": (keras.layers.RandomBrightness, {"factor": 0.15}),
    "contrast": (keras.layers.RandomContrast, {"factor": (0.2, 0.2)}),
    "erasing": (keras.layers.RandomErasing, {"factor": (0.5, 0.5), "scale": (0.02, 0.2)}),
    "randaugment": (RandAugment, {"num_ops": 2, "factor": 0.5}),
    "mixup": (keras.layers.MixUp, {"alpha": 0.2}),
    "cutmix": (keras.layers.CutMix, {"factor": 1.0}),
}

# Operation -> the arguments that its strength multiplies; a flip has none, and CutMix takes boxes of all sizes.
_SCALED = {
    "rotation": ("factor",),
    "blur": ("sigma",),
    "flip": (),
    "crop": ("height_factor", "width_factor"),
    "zoom": ("height_factor",),
    "brightness": ("factor",),
    "contrast": ("factor",),
    "erasing": ("scale",),
    "randaugment": ("factor",),
    "mixup": ("alpha",),
    "cutmix": (),
}
# So far all arguments stay within what their layers take.
_STRONGEST = 2.0
_WITH_STRENGTH = re.compile(r"\s*([^\s(]+)\s*(?:\(\s*strength\s*=\s*(\S+?)\s*\)\s*)?")

# Policy -> operations, each a name or a name with other arguments than above.
_POLICIES = {
    "none": (),
    "light": (
        "flip",
        ("crop", {"height_factor": 0.06, "width_factor": 0.06}),
        ("brightness", {"factor": 0.08}),
        ("contrast", {"factor": (0.1, 0.1)}),
    ),
    # Nothing that swaps left and right, nor a reflection at the border: it would show a side marker mirrored.
    "medical": (
        ("rotation", {"factor": 7 / 360, "fill_mode": "nearest"}),
        ("crop", {"height_factor": 0.06, "width_factor": 0.06, "fill_mode": "nearest"}),
        ("brightness", {"factor": 0.08}),
        ("contrast", {"factor": (0.15, 0.15)}),
        ("blur", {"factor": (0.3, 0.3), "kernel_size": 3}),
    ),
    "cifar": ("crop", "flip"),
    "strong": ("flip", "crop", "randaugment", "mixup", "cutmix"),
}

_NO_PART_OF_IT = ("name", "dtype", "trainable")
# They mix an image with another one of its batch.
_MIXING = (keras.layers.MixUp, keras.layers.CutMix)
_AFFINE = (
    keras.layers.RandomRotation,
    keras.layers.RandomShear,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
)


def list_augmentations():
    """Returns the names that `build_augmentation` takes, as a list of strings: policies, then single operations.

    Example:

    >>> ek.list_augmentations()[:5]
    ['none', 'light', 'medical', 'cifar', 'strong']
    """
    return [*_POLICIES, *_OPERATIONS]


def build_augmentation(policy, *, seed=0):
    """Builds the layer that changes training images at random.

    It runs in the compiled training step and is never part of a model that is saved.

    Args:
        policy: A name: `"none"`; `"light"` (horizontal flip, small shifts, brightness, contrast); `"medical"` (small
            rotation and shift, brightness, contrast, light blur; nothing swaps left and right); `"cifar"` (shifts
            by up to an eighth of a side and horizontal flips); `"strong"` (those, RandAugment, MixUp and CutMix). A
            single operation: `"rotation"`, `"blur"`, `"flip"`, `"crop"`, `"zoom"`, `"brightness"`, `"contrast"`,
            `"erasing"`, `"randaugment"`, `"mixup"`, `"cutmix"`. Either with a strength, `"light(strength=0.5)"`, in
            (0, 2]: what it turns, shifts, blurs or mixes by is so many times as much, 1 as it stands. A Keras layer
            from images in `[0, 255]` to such images of the same shape. A list of any of these, applied in
            order. Or `None`, the same as `"none"`.
        seed: Int, 0 or above. Every layer draws from a random state of its own, which depends on it and the layer's
            place in the list; a layer that was given with a seed keeps its own. Defaults to 0.

    Returns:
        An `Augmentation`, or `None` where nothing is to be changed.

    Raises:
        ValueError: If a name is unknown, a strength out of its range, or something else than names and Keras layers
            was given.

    Example:

    >>> augment = ek.build_augmentation("cifar", seed=0)
    >>> batch = {"images": np.zeros((2, 8, 8, 3), "float32"), "labels": np.eye(2, dtype="float32")}
    >>> tuple(augment(batch, training=True)["images"].shape)
    (2, 8, 8, 3)
    """
    check_seed(seed)
    layers = [_built(*part, np.random.default_rng([seed, place])) for place, part in enumerate(_parts_of(policy))]
    return Augmentation(layers) if layers else None


def augmentation_config(policy):
    """Returns JSON values that determine what a policy does, but for the seed; `[]` for none.

    Args:
        policy: As in `build_augmentation`.

    Example:

    >>> [layer["class"] for layer in augmentation_config("cifar")]
    ['RandomTranslation', 'RandomFlip']
    """
    # By way of JSON tuples become lists: what is read back from a file is equal.
    return [
        {
            "class": kind.__name__,
            "module": kind.__module__,
            "config": json.loads(json.dumps({k: v for k, v in config.items() if k not in _NO_PART_OF_IT})),
        }
        for kind, config in _parts_of(policy)
    ]


def augmentation_text(policy):
    """Returns a policy as people say it: names as they were given, layers by their classes.

    Example:

    >>> augmentation_text(["flip", keras.layers.RandomHue(0.1)])
    'flip, RandomHue'
    """
    if isinstance(policy, list | tuple):
        return ", ".join(map(augmentation_text, policy)) or "none"
    if policy is None or isinstance(policy, str):
        return policy or "none"
    return ", ".join(kind.__name__ for kind, _ in _parts_of(policy))


def has_strength(policy):
    """Returns whether a policy, or single operation, of this name does more at a higher strength.

    Example:

    >>> [has_strength(name) for name in ("light", "flip", "none", "light(strength=0.5)")]
    [True, False, False, False]
    """
    name, strength = _read(policy)
    return strength is None and any(_SCALED[_name_of(part)] for part in _POLICIES.get(name, (name,)))


class Augmentation(keras.layers.Layer):
    """Keras layers that change training images, one after another; made by `build_augmentation`.

    Called on `{"images": (batch, height, width, 3) in [0, 255], "labels": one-hot (batch, num_classes)}`, `"labels"`
    only needed where images are mixed, it returns a dict of the same shapes in float32, whatever the dtype policy:
    half precision would round pixels. Images stay in `[0, 255]`; rows of labels keep their sum. Without
    `training=True` nothing is changed and no random state moves.

    Attributes:
        layers: List of the Keras layers.
        mixes: Whether a layer mixes images of a batch (MixUp, CutMix).
    """

    def __init__(self, layers):
        super().__init__(name="augmentation", dtype="float32")
        self.layers = list(layers)
        self.mixes = any(isinstance(layer, _MIXING) for layer in self.layers)

    def build(self, input_shape):
        """Builds the layers."""
        for layer in self.layers:
            if not layer.built:
                layer.build(input_shape["images"])

    def call(self, inputs, training=False):
        """Returns the dict with changed images, and labels mixed as they are."""
        data = {name: keras.ops.cast(value, "float32") for name, value in inputs.items()}
        if not training:
            return data
        if self.mixes and "labels" not in data:
            raise ValueError('MixUp and CutMix need the labels of the images that they mix. Give `"labels"`, too.')
        shape = data["images"].shape
        for layer in self.layers:
            data = _applied(layer, data)
            if data["images"].shape[1:] != shape[1:]:
                raise ValueError(
                    f"An augmentation layer must keep the shape of the images. Received: {layer.name!r}, which makes "
                    f"{tuple(data['images'].shape)} of {tuple(shape)}. Resize them after it."
                )
        return {**data, "images": keras.ops.clip(data["images"], 0.0, 255.0)}

    def compute_output_shape(self, input_shape):
        """Returns the shapes as they came in."""
        return input_shape

    def reseed(self, *entropy):
        """Sets all random states anew, as a function of some ints of 0 or above alone.

        `reseed(seed, epoch)` at the start of each epoch makes an interrupted run draw what it would have drawn.
        """
        for variable, state in zip(self.random_states, self.states_of(*entropy), strict=True):
            variable.assign(keras.ops.cast(state, variable.dtype))

    def states_of(self, *entropy):
        """Returns the random states that `reseed` sets: an int64 array `(len(random_states), 2)`."""
        states = np.random.SeedSequence(entropy).generate_state(2 * len(self.random_states))
        # The second number counts the draws from 0.
        return states.reshape(-1, 2).astype("int64") % 2**31 * [1, 0]

    @property
    def random_states(self):
        """The variables `(2,)` that hold the random states, those of sublayers, too."""
        return [variable for variable in self.variables if variable.name == "seed_generator_state"]


def _applied(layer, data):
    if not hasattr(layer, "transform_labels"):
        return {**data, "images": layer(data["images"])}
    with warnings.catch_warnings():
        # MixUp asks JAX for int64 and gets int32, which will do for places in a batch.
        warnings.filterwarnings("ignore", message="Explicitly requested dtype int64")
        # A dict of its own: Keras' layers write into the one they are given.
        return layer(dict(data), training=True)


def _parts_of(policy):
    """Returns a policy as a list of (class of layer, config); nested lists and `Sequential`s are flattened."""
    if policy is None:
        return []
    if isinstance(policy, str):
        return _named(policy)
    if isinstance(policy, keras.Sequential | keras.layers.Pipeline | Augmentation):
        policy = policy.layers
    if isinstance(policy, list | tuple):
        return [found for part in policy for found in _parts_of(part)]
    if not isinstance(policy, keras.layers.Layer):
        raise ValueError(
            f"An augmentation is a name, a Keras layer, or a list of these. Received: {policy!r}. "
            "See list_augmentations()."
        )
    config = policy.get_config()
    if isinstance(policy, keras.layers.RandomShear):
        # Of one factor it writes a range from below 0, which it does not read. The sign is drawn apart.
        config |= {name: (max(config[name][0], 0.0), config[name][1]) for name in ("x_factor", "y_factor")}
    return [(type(policy), config)]


def _named(text):
    name, strength = _read(text)
    parts = _POLICIES.get(name, (name,))
    return [_operation(*((part,) if isinstance(part, str) else part), strength=strength) for part in parts]


def _read(text):
    """Returns the name of a policy or an operation, and the strength that its text gives, or `None`."""
    form = _WITH_STRENGTH.fullmatch(text)
    name = form[1].lower() if form else None
    if name not in _POLICIES and name not in _OPERATIONS:
        raise ValueError(
            f"Unknown augmentation {text!r}.{suggest(form[1] if form else text, list_augmentations())} See "
            "list_augmentations(). A strength is given as in 'light(strength=0.5)'."
        )
    return name, None if form[2] is None else _strength(form[2])


def _strength(text):
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 < value <= _STRONGEST:
        raise ValueError(
            f"The strength of an augmentation must be above 0, at most {_STRONGEST:g}. Received: {text}."
        )
    return value


def _name_of(part):
    return part if isinstance(part, str) else part[0]


def _operation(name, changes=(), strength=None):
    kind, arguments = _OPERATIONS[name]
    arguments = arguments | dict(changes)
    if strength is not None:
        arguments |= {key: (np.asarray(arguments[key]) * strength).tolist() for key in _SCALED[name]}
    # Seeded, since without a seed Keras draws one from Python's global random state.
    return kind, {**kind(**arguments, seed=0).get_config(), "seed": None}


def _built(kind, config, seeds):
    """Returns a new layer: in float32, and seeded where it was not."""
    layer = kind.from_config({**seeded(config, seeds), "dtype": "float32"})
    if keras.backend.backend() == "jax":
        # Marked so for TensorFlow's sake, whose kernel XLA does not know: here they would keep a whole training
        # step from being compiled.
        for part in (layer, *vars(layer).values()):
            if isinstance(part, _AFFINE):
                part.supports_jit = True
    return layer


def seeded(config, seeds, *, anew=False):
    """Returns a layer's config with seeds drawn for what is random in it, sublayers and initializers, too.

    Args:
        config: Dict of a layer's `get_config()`.
        seeds: `numpy.random.Generator`.
        anew: Whether seeds that are given are replaced. Defaults to `False`: they stay.
    """
    if isinstance(config, dict):
        return {
            key: int(seeds.integers(2**31))
            if key == "seed" and (anew or value is None)
            else seeded(value, seeds, anew=anew)
            for key, value in config.items()
        }
    return [seeded(value, seeds, anew=anew) for value in config] if isinstance(config, list) else config

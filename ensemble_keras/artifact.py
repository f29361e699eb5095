"""Artifact: one `.keras` file that holds the model and its card, and opens with Keras alone."""

import contextlib
import errno
import io
import json
import math
import os
import pathlib
import warnings
import zipfile

import h5py
import keras
import numpy as np

from ensemble_keras._validation import check_choice, check_image_size
from ensemble_keras._version import __version__
from ensemble_keras.backbones.spec import layer_name
from ensemble_keras.measures.graph import foreign_classes
from ensemble_keras.runs import atomic_path

CARD = "ensemble.json"
FORMAT = 1
# What every card has, and of which kind.
_WRITTEN = {"class_names": list, "filter": str}
_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

# Of Keras' file format: the entry that holds the variables, and the group of those that training alone needs.
_VARIABLES, _OPTIMIZER = "model.weights.h5", "optimizer"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Keras classes that carry code in their config, or load it from elsewhere.
_CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper"}

# Keras and Pillow only: this is how the file is used where our package is not installed. Our own decoding also takes
# pictures of 16 bits and with transparency, which Pillow's `convert` cuts off and ignores.
_SNIPPET = """\
import json, zipfile, keras, numpy as np, PIL.Image, PIL.ImageOps  # 8-bit pictures, no alpha
card = json.loads(zipfile.ZipFile({file!r}).read({card!r}))
image = PIL.ImageOps.exif_transpose(PIL.Image.open("image.jpg")).convert("RGB")
x = np.asarray(image.resize({size}, PIL.Image.Resampling.{filter}), "float32")[None]
probabilities = keras.saving.load_model({file!r}).predict(x, verbose=0)[0]
print(dict(zip(card["class_names"], probabilities.tolist())))
"""


def save_ensemble(model, path, *, card, weights_dtype="float32", verbose=1):
    """Saves a model and its card as one `.keras` file.

    The file is written beside `path` and renamed: a kill or a full disk leaves the old file or none, never half of
    one. Keras ignores the card, an entry `ensemble.json` of the zip; `load_ensemble` returns it.

    Args:
        model: A `keras.Model` from images to class probabilities, such as `build_ensemble` returns.
        path: Where to write, ending in `.keras`. Missing folders are made.
        card: Dict of what a user of the file must know. `"class_names"` (one per class, in the order of the columns)
            and `"filter"` (how a picture is resized: a Pillow filter such as `"bilinear"`) are required;
            `"image_size"` defaults to the model's. Everything else is free: members, combiner, weights, temperature,
            data fingerprint, validation figures. NumPy values are converted, NaN and infinities become null, which
            is what JSON has for them.
        weights_dtype: `"float32"`; or `"float16"`: the file holds float32 variables rounded to 11 significant bits
            and is half as large. Keras casts what it reads, so a model from the file has float32 variables again and
            computes in float32, with weights that are off by 0.05 % at most (those below 6e-5 by 3e-8). A variable
            with a value above 65,504, the largest of float16, stays as it is, and so does the optimizer's state.
            Defaults to `"float32"`.
        verbose: 0 prints nothing; 1 prints the file's name and the snippet that uses it. Defaults to 1.

    Returns:
        The card as written: the given one with `"format"`, `"weights_dtype"`, `"versions"` (of Keras, its backend and
        this package) and `"snippet"` (six lines that use the file with Keras and Pillow alone).

    Raises:
        OSError: If the disk is full; the file of that name, if there is one, is as it was.
        TypeError: If `model` is not a `keras.Model`, `card` is not a dict, or it holds what JSON cannot.
        ValueError: If `path` does not end in `.keras`, the card lacks a required entry or contradicts the model, or
            the model holds a Lambda layer, which no safe loader takes.

    Example:

    >>> images = keras.Input((8, 8, 3))
    >>> model = keras.Model(images, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(images)))
    >>> folder = getfixture("tmp_path")
    >>> card = {"class_names": ["cat", "dog"], "filter": "bilinear"}
    >>> _ = ek.save_ensemble(model, folder / "pets.keras", card=card, verbose=0)
    >>> model, card = ek.load_ensemble(folder / "pets.keras")
    >>> card["class_names"], card["image_size"]
    (['cat', 'dog'], [8, 8])
    """
    path = _check_path(path)
    check_choice("weights_dtype", weights_dtype, ("float32", "float16"))
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a `keras.Model`. Received: {model!r}.")
    card = {**_complete(card, model, path.name), "weights_dtype": weights_dtype}
    text = json.dumps(card, indent=1, allow_nan=False)
    with _room_for(path), atomic_path(path) as temporary:
        model.save(temporary)
        _refuse_code(temporary, "The model", "Take a stock layer or `keras.ops` in its place.")
        if weights_dtype == "float16":
            _round_variables(temporary)
        with zipfile.ZipFile(temporary, "a") as file:
            file.writestr(CARD, text)
    kinds = foreign_classes(model)
    if kinds:
        warnings.warn(
            f"{str(path)!r} does not open with Keras alone: it has layers of the classes {', '.join(kinds)}, which "
            "must be defined and registered where it is loaded. Take stock layers or `keras.ops` in their place.",
            stacklevel=2,
        )
    if verbose:
        opens = f"where these classes are registered: {', '.join(kinds)}" if kinds else "with Keras alone"
        print(f"Saved {path} ({path.stat().st_size / 2**20:.1f} MiB). It opens {opens}:\n\n{card['snippet']}")
    return card


def load_ensemble(path):
    """Loads a model and its card from a file that `save_ensemble` wrote.

    The file may come from a stranger: it is loaded in Keras' safe mode only, which runs no code from the file.

    Args:
        path: Path of a `.keras` file.

    Returns:
        The `keras.Model`, and the card, a dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a `.keras` file, has no card, or is refused in safe mode.
    """
    path = _check_path(path)
    card = read_card(path)
    # `enable_unsafe_deserialization` somewhere in the process overrides the argument `safe_mode=True`.
    _refuse_code(path, repr(str(path)), "Load it by other means only if you trust who wrote it.")
    try:
        return keras.saving.load_model(path, safe_mode=True), card
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be loaded with Keras alone, in safe mode. It may hold a class that is not Keras' "
            f"own. Keras says: {error}"
        ) from error


def read_card(path):
    """Returns the card of a `.keras` file without loading the model; arguments and errors as `load_ensemble`."""
    path = _check_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r} in {str(path.parent.absolute())!r}.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is not a .keras file: it is no zip archive, or a part of one is missing.")
    with zipfile.ZipFile(path) as file:
        if CARD not in file.namelist():
            raise ValueError(
                f"{str(path)!r} holds no card ({CARD}). Open it with `keras.saving.load_model(path)`, and save it by "
                "`save_ensemble` to give it one."
            )
        card = json.loads(file.read(CARD))
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else card
        raise ValueError(
            f"The card of {str(path)!r} must have format {FORMAT}. Received: {found!r}. If a newer ensemble_keras "
            "wrote it, update this one."
        )
    lacking = [key for key, kind in _WRITTEN.items() if not isinstance(card.get(key), kind)]
    if lacking:
        raise ValueError(
            f"The card of {str(path)!r} lacks {', '.join(map(repr, lacking))}. `save_ensemble` writes whole cards."
        )
    return card


def _round_variables(path):
    """Rewrites a `.keras` file with float32 variables as float16; Keras casts what it reads to the layer's dtype."""
    with zipfile.ZipFile(path) as file:
        entries = [(entry, file.read(entry)) for entry in file.infolist()]
    with zipfile.ZipFile(path, "w") as file:
        for entry, content in entries:
            file.writestr(entry, _rounded(content) if entry.filename == _VARIABLES else content)


def _rounded(content):
    """Returns the bytes of an HDF5 file with float32 data sets as float16, where their values allow it."""
    result = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as source, h5py.File(result, "w") as target:
        target.attrs.update(source.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                values = item[()]
                narrow = item.dtype == "float32" and not name.startswith(f"{_OPTIMIZER}/") and _fits(values)
                made = target.create_dataset(name, data=values.astype("float16") if narrow else values)
            else:
                made = target.require_group(name)
            made.attrs.update(item.attrs)

        source.visititems(copy)
    return result.getvalue()


def _fits(values):
    return np.abs(values).max(initial=0) <= np.finfo("float16").max


@contextlib.contextmanager
def _room_for(path):
    """Says of a full disk what is kept and how to go on."""
    try:
        yield
    except OSError as error:
        # What Keras' own writers raise often has the number in its text only.
        if error.errno not in _FULL and not any(os.strerror(number) in str(error) for number in _FULL):
            raise
        raise OSError(
            f"There is no room to write {str(path)!r}: {error}. A file of that name is as it was. Make room and save "
            "again; with a `directory`, the same command goes on from the last finished step."
        ) from error


def _complete(card, model, file_name):
    if not isinstance(card, dict):
        raise TypeError(f"`card` must be a dict. Received: {card!r}.")
    card = _plain(card, "card")
    missing = [key for key in ("class_names", "filter") if card.get(key) is None]
    if missing:
        raise ValueError(f"`card` must have the entries 'class_names' and 'filter'. Missing: {', '.join(missing)}.")
    num_classes = model.output_shape[-1]
    if len(card["class_names"]) != num_classes:
        raise ValueError(
            f"`card['class_names']` must name each of the model's {num_classes} classes. "
            f"Received: {len(card['class_names'])} names."
        )
    check_choice("card['filter']", card["filter"], _FILTERS)
    height, width = _image_size(card, model)
    versions = {"ensemble_keras": __version__, "keras": keras.version(), "backend": keras.backend.backend()}
    snippet = _SNIPPET.format(file=file_name, card=CARD, size=(width, height), filter=card["filter"].upper())
    # The format and the versions are those of this file, whatever an old card says.
    return {**card, "format": FORMAT, "image_size": [height, width], "versions": versions, "snippet": snippet}


def _image_size(card, model):
    taken = tuple(model.input_shape[1:3])
    size = check_image_size(card["image_size"] if card.get("image_size") is not None else taken)
    if any(side not in (None, given) for side, given in zip(taken, size, strict=True)):
        raise ValueError(f"`card['image_size']` must be that of the model, {taken}. Received: {size}.")
    return size


def _check_path(path):
    path = pathlib.Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras. Received: {str(path)!r}.")
    return path


def _refuse_code(path, what, advice):
    with zipfile.ZipFile(path) as file:
        found = _class_names(json.loads(file.read("config.json"))) & _CODE
    if found:
        raise ValueError(
            f"{what} must hold no code, as Keras' safe mode demands. Received: {', '.join(sorted(found))}. {advice}"
        )


def _class_names(config):
    """Returns all class names in a nested config."""
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    own = {config["class_name"]} if isinstance(config, dict) and isinstance(config.get("class_name"), str) else set()
    return own.union(*map(_class_names, parts))


def _plain(value, where):
    """Returns `value` made of what JSON has."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(entry, f"{where}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"`{where}` must be a JSON value: text, number, list, dict or None. Received: {value!r}.")


def member_names(card):
    """Returns a dict from the name of each member's layer in the model to its name in the card.

    Empty where the card, which may be anybody's, names no members as ours do.
    """
    members = card.get("members")
    named = [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []
    return {layer_name(member["name"]): member["name"] for member in named if isinstance(member.get("name"), str)}

"""Page provenance: the data that a report rests on, and how its model was made, so that it can be made again."""

import platform

import keras
import numpy as np
import pandas as pd
import sklearn

from ensemble_keras._version import __version__

# What a model's card holds, in the order to be told, under what a reader calls it.
_SETTINGS = {
    "created": "made on",
    "seed": "seed",
    "image_size": "image size, pixels",
    "filter": "resized by",
    "temperature": "temperature",
    "suggested_temperature": "temperature that would calibrate it",
    "test_time_augmentation": "views at test time",
    "weights_dtype": "weights kept as",
}
_MAKING = {
    "settings": "Arguments of the classifier",
    "members": "Members",
    "left_out": "Members left out",
    "weights": "Weights of the members",
    "member_temperatures": "Temperatures of the members",
    "combiner": "Combiner",
    "limits": "Limits of cost",
    "validation": "Figures at fitting",
    "versions": "Versions when the model was saved",
    "snippet": "To predict with Keras alone",
}
# These stand elsewhere on the page.
_SHOWN = {"class_names", "verdict", "operating_point", "conformal", "format"}


def data(report):
    """Returns what is known of the training and the test images.

    Returns:
        A dict with `classes`, a `DataFrame` of class sizes; `facts`, a dict of what holds for each part; `problems`,
        a dict of lists of what is wrong.
    """
    card = _card_data(report)
    names, counts = report.class_names, report.per_class["support"]
    classes = {"class": names, "test images": counts}
    if len(card.get("per_class", [])) == len(names):
        classes = {"class": names, "training images": card["per_class"], "test images": counts}
    training = {name: card.get(name) for name in ("images", "groups", "fingerprint") if name in card}
    test = {"images": len(report.y_true), "groups": _group_count(report)}
    problems = {} if report.leaks is None else {"Training images among the test images": report.leaks}
    if card.get("leaks") is not None:
        problems["Pictures found in both the training and the validation data"] = card["leaks"]
    if "skipped" in card:
        problems["Training files that were skipped"] = card["skipped"]
    if report.images is not None:
        test["fingerprint"] = report.images.fingerprint()
        problems["Test files that were skipped"] = report.images.skipped.to_dict("records")
        problems["Identical test images"] = _duplicates(report.images)
    return {"classes": pd.DataFrame(classes), "facts": {"training": training, "test": test}, "problems": problems}


def making(report):
    """Returns what the model's card says of how it was made, by heading, and the versions that made this page."""
    settings, known = (
        {heading: report.details[name] for name, heading in part.items() if _is_told(report.details.get(name))}
        for part in (_SETTINGS, _MAKING)
    )
    if "settings" in report.details:
        # What is off says so by `None`; an empty dict says nothing.
        given = report.details["settings"]
        known[_MAKING["settings"]] = {name: value for name, value in given.items() if value != {}}
    if isinstance(known.get("Combiner"), dict):
        # Of a Keras layer's config, what any layer has tells nothing.
        config = {k: v for k, v in known["Combiner"].get("config", {}).items() if k not in ("dtype", "trainable")}
        known["Combiner"] = {**known["Combiner"], "config": config}
    versions = {
        "ensemble_keras": __version__,
        "Keras": f"{keras.__version__}, on {keras.backend.backend()}",
        "scikit-learn": sklearn.__version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
    }
    return ({"Settings": settings} if settings else {}) | known | {"Versions that made this page": versions}


def rest(report):
    """Returns the details that stand nowhere else, by heading: what a user gave."""
    shown = {*_SETTINGS, *_MAKING, *_SHOWN, *(["data"] if _card_data(report) else [])}
    return {str(name): content for name, content in report.details.items() if name not in shown}


def _card_data(report):
    """Returns what a model's card holds of its training data; empty where the details are no card."""
    found = report.details.get("data")
    return found if isinstance(found, dict) else {}


def _is_told(value):
    return value is not None and not (hasattr(value, "__len__") and len(value) == 0)


def _group_count(report):
    return None if report.groups is None else len(np.unique(report.groups))


def _duplicates(images):
    """Returns the names of byte-identical images, a line for each set of them."""
    found = {}
    for name, digest in zip(images.names, images.digests(), strict=True):
        found.setdefault(digest, []).append(name)
    return [" = ".join(names) for names in found.values() if len(names) > 1]

"""Page images: the images that a page shows, small, with the members' votes and where their evidence lies."""

import base64
import io

import numpy as np
from PIL import Image

from ensemble_keras.evaluation.explain import grad_cam, member_grad_cams
from ensemble_keras.evaluation.overlays import overlay
from ensemble_keras.evaluation.page_tables import percent

# About 3 kB each: with these, a page stays below 2 MB, however many images and classes there are.
_PER_CELL = 12
_MOST = 300
_TELLING = 8
_MOST_MAPS = 400
_SMALL, _MAP, _LARGE = 96, 112, 192
_ABOUT_MAPS = (
    "Grad-CAM shows where the evidence for the class lies that the whole model predicts: the brighter, the more. "
    "Where an image stays as it is, there is none."
)


def cell_images(report, first=()):
    """Returns for cells `"true-predicted"` of the confusion matrix their surest images, mistakes before the others.

    Args:
        report: An `EvaluationReport` that has its images.
        first: Cells that get all their images, as far as there is room, before others get any. Defaults to none.

    Returns:
        A dict from cells to lists of dicts with `name`, `confidence` and `source`, a data URI.
    """
    confidence = report.probabilities.max(axis=1)
    predicted = report.probabilities.argmax(axis=1)
    cells = {}
    for row in np.argsort(-confidence, kind="stable"):
        cells.setdefault((int(report.y_true[row]), int(predicted[row])), []).append(int(row))
    # The surest of every cell, then the second surest, ...; of all these, mistakes first.
    turns = [
        (f"{true}-{said}" not in first, true == said, place, true, said)
        for (true, said), rows in cells.items()
        for place in range(min(len(rows), _PER_CELL))
    ]
    chosen = [turn[2:] for turn in sorted(turns)[:_MOST]]
    rows = [cells[true, said][place] for place, true, said in chosen]
    names, found = report.images.names, {}
    for (_, true, said), row, image in zip(chosen, rows, pixels(report.images, rows, _SMALL), strict=True):
        shown = {"name": names[row], "confidence": percent(confidence[row]), "source": data_uri(image)}
        found.setdefault(f"{true}-{said}", []).append(shown)
    return found


def telling_images(report, heat_maps=True):
    """Returns the images that are most surely wrong and those that are least sure, with votes and heat maps.

    Args:
        report: An `EvaluationReport` that has its images.
        heat_maps: Whether Grad-CAM is computed, where the report has its model.

    Returns:
        A dict from `"wrong"` and `"unsure"` to lists of dicts, and what to know of the heat maps, or why there are
        none.
    """
    confidence = report.probabilities.max(axis=1)
    wrong = np.flatnonzero(report.probabilities.argmax(axis=1) != report.y_true)
    chosen = {
        "wrong": wrong[np.argsort(-confidence[wrong], kind="stable")][:_TELLING],
        "unsure": np.argsort(confidence, kind="stable")[:_TELLING],
    }
    rows = np.unique(np.concatenate(list(chosen.values())))
    maps, about = _heat_maps(report, rows) if heat_maps else ({}, "Heat maps were not asked for.")
    large = pixels(report.images, rows, _LARGE)
    drawn = {name: overlay(pixels(report.images, rows, _MAP), own) for name, own in maps.items()}
    cards = {
        row: _card(report, row, large[k], {name: d[k] for name, d in drawn.items()}) for k, row in enumerate(rows)
    }
    return {kind: [cards[row] for row in of] for kind, of in chosen.items()}, about


def pixels(images, rows, size):
    """Returns some images of a dataset as a uint8 array `(n, size, size, 3)`."""
    return np.rint(images.load(rows, image_size=size)).astype("uint8")


def data_uri(image):
    """Returns a uint8 image `(height, width, 3)` as a JPEG inside a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=78)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _card(report, row, image, maps):
    """Returns what is shown of an image: the classes, the ensemble's vote first, then the members'."""
    of_ensemble = {"ensemble" if report.member_probabilities else "model": report.probabilities}
    votes = []
    for name, p in (of_ensemble | report.member_probabilities).items():
        said = int(p[row].argmax())
        vote = {"name": name, "class": report.class_names[said], "confidence": percent(p[row, said])}
        vote["right"] = bool(said == report.y_true[row])
        votes.append(vote | {"map": data_uri(maps[name]) if name in maps else None})
    return {
        "name": report.images.names[row],
        "true": report.class_names[report.y_true[row]],
        "source": data_uri(image),
        "votes": votes,
    }


def _heat_maps(report, rows):
    """Returns Grad-CAM of the predicted classes by the names of votes, and what to know of it, or why there is none.

    A model may have none, such as one of attention alone: its own words stand on the page.
    """
    if report.explained is None:
        return {}, "No heat maps: the report was made of predictions, without the model."
    explained = report.explained
    images, classes = pixels(report.images, rows, explained.image_size), report.probabilities[rows].argmax(axis=1)
    try:
        maps, votes = member_grad_cams(explained.model, images, class_index=classes, batch_size=len(rows))
    except ValueError as error:
        return {}, f"No heat maps: {error}"
    joined = sum(votes[name][:, None, None] * maps[name] for name in maps)
    shown = {"ensemble" if report.member_probabilities else "model": joined}
    if len(rows) * len(report.member_probabilities) > _MOST_MAPS:
        return shown, f"{_ABOUT_MAPS} Of so many members only their joint map is shown."
    if explained.members_beside:
        maps, of_others = _maps_beside(explained.members_beside, images, classes)
        return shown | maps, _ABOUT_MAPS + of_others
    if report.member_probabilities:
        shown |= {explained.member_names.get(name, name): own for name, own in maps.items()}
    return shown, _ABOUT_MAPS


def _maps_beside(members, images, classes):
    """Returns the maps by the names of members, and why others have none, or `""`."""
    maps, reasons = {}, []
    for name, member in members.items():
        try:
            maps[name] = grad_cam(member, images, class_index=classes, batch_size=len(images))
        except ValueError as error:
            reasons.append(f" {name} has none: {error}")
    return maps, "".join(reasons)

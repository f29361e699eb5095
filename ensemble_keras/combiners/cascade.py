"""Cascade: members of a built ensemble asked in turn, until what they say together is sure."""

import concurrent.futures
import dataclasses

import keras
import numpy as np

from ensemble_keras._validation import check_images
from ensemble_keras.backbones.spec import layer_name
from ensemble_keras.combiners import base
from ensemble_keras.combiners.inference import BATCH_SIZES, Compiled, quietly_traced
from ensemble_keras.combiners.parts import crossing_tensors, member_tensors, stem_features
from ensemble_keras.combiners.staging import Calibration, margins
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.measures.macs import count_macs

# Images that go from member to member together, and how many such blocks are under way: while one is with the small
# members another one is with the large. On two cores 2 take a tenth less time than one, 3 a little less still.
_BLOCK, _AT_A_TIME = 1024, 3

# How sure a vote is. Settings without a "score" are of the first kind.
_SCORES = {"probability": lambda vote: vote.max(axis=1), "margin": margins}
# Where images are that wait for no member.
_ALL_ASKED, _LEFT = -1, -2


class Cascade:
    """Predicts with the members of an ensemble in the order of their cost; an image leaves when they are sure.

    Images of which the first member is very unsure may go straight to the dearest one, and back from there to those
    that were passed over. It is the same model from the same file. Where all members were asked, the prediction is
    the model's own; for the others it is the calibrated vote of those asked. `fit_cascade` finds the settings for a
    promised loss of accuracy. A stem that members share runs once for each image, with the first of them that is
    asked.

    Args:
        model: A `keras.Model` that `build_ensemble` made, as it is or loaded from its file, of members whose
            predictions are joined, without test-time augmentation.
        card: The card of that model, with an entry `"cascade"` from `fit_cascade`.
        batch_sizes: As in `compiled`.

    Attributes:
        model: The given model.
        image_size: `(height, width)` of the images that the model takes.

    Raises:
        ValueError: If the card has no settings, the model's members are not those of the settings, or the model
            cannot be taken apart.

    Example:

    ```python
    model, card = ek.load_ensemble("pets.keras")
    probabilities, asked = ek.Cascade(model, card).predict(images, return_members=True)
    ```
    """

    def __init__(self, model, card, *, batch_sizes=BATCH_SIZES):
        settings = card.get("cascade")
        if not settings:
            raise ValueError(
                "The card has no entry 'cascade'. Make one from out-of-fold predictions: `classifier.fit_cascade()` "
                "before `classifier.save(path)`; or `card['cascade'] = fit_cascade(predictions, y, costs, "
                "names=names)` before `save_ensemble(model, path, card=card)`."
            )
        ways = [settings, *filter(None, [settings.get("down")])]
        tensors = [_tensors_in_order(model, way["order"]) for way in ways]
        parts = [crossing_tensors(model, of_way) for of_way in tensors]
        crossing = [tensor for part in parts[0] for tensor in part]
        steps = [list(_steps(model, *of_way)) for of_way in zip(tensors, parts, strict=True)]
        # What members say is kept side by side: first what the rest of the model takes, then features of stems.
        places = _places([*crossing, *(tensor for of_way in steps for _, given in of_way for tensor in given)])
        self._width = sum(map(len, places.values()))
        self._crossing = slice(sum(tensor.shape[-1] for tensor in crossing))
        self._combine = Compiled(_rest(model, crossing), batch_sizes)
        members = {}
        for source, given in (step for of_way in steps for step in of_way):
            if _key(source, given) not in members:
                taken, columns = places.get(id(source)), np.concatenate([places[id(tensor)] for tensor in given])
                members[_key(source, given)] = _Member(taken, columns, Compiled(_joined(source, given), batch_sizes))
        self._ways = [
            _Way(
                [settings["order"].index(name) for name in way["order"]],
                [members[_key(*step)] for step in its_steps],
                [places[id(tensor)] for tensor in of_way],
                Calibration(*(np.asarray(way[key]) for key in ("weights", "member_temperatures", "temperatures"))),
                [_limit(t) for t in way["thresholds"]],
            )
            for way, of_way, its_steps in zip(ways, tensors, steps, strict=True)
        ]
        self._score = _SCORES[settings.get("score", "probability")]
        self._below = _limit(settings["down"]["below"]) if len(ways) > 1 else -np.inf
        self.model = model
        self.image_size = card.get("image_size") or model.input_shape[1:3]
        self._num_classes = model.output_shape[-1]

    def predict(self, x, *, return_members=False, return_macs=False):
        """Returns class probabilities, float32 `(n, num_classes)`, in the order of the images.

        Args:
            x: Images `(n, height, width, 3)` with values in [0, 255], or an `ImageDataset`.
            return_members: Whether also to return how many members each image was shown to, int array `(n,)`.
                Defaults to `False`.
            return_macs: Whether also to return the multiply-accumulates that each image took, int array `(n,)`, or
                `None` in its place where `count_macs` does not know a layer. Defaults to `False`.

        Raises:
            BadImagesError: If images of a dataset cannot be decoded.
            ValueError: If `x` does not hold such images.
        """
        if isinstance(x, np.ndarray | list | tuple):
            images = check_images(x)
            count, load = len(images), lambda rows: images[rows]
        else:
            dataset = as_dataset(x)
            count, load = len(dataset), lambda rows: dataset.load(np.arange(count)[rows], image_size=self.image_size)
        blocks = [slice(start, start + _BLOCK) for start in range(0, max(count, 1), _BLOCK)]
        with quietly_traced(), concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as workers:
            parts = list(workers.map(lambda rows: self._predict(load(rows)), blocks))
        probabilities, asked, way = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        found = [probabilities]
        if return_members:
            found.append(asked)
        if return_macs:
            macs = self._macs()
            found.append(None if macs is None else macs[way, asked - 1])
        return tuple(found) if len(found) > 1 else probabilities

    def _macs(self):
        """Returns what an image takes on each way that was shown to 1, 2, … members, `(ways, members)`, or `None`."""
        parts = [*(member.compiled for way in self._ways for member in way.members), self._combine]
        counts = [count_macs(part.model) for part in parts]
        if any(count.unknown for count in counts):
            return None
        *members, combining = (count.total for count in counts)
        sums = np.cumsum(np.reshape(members, (len(self._ways), -1)), axis=1)
        sums[:, -1] += combining
        return sums

    def _predict(self, images):
        block = _Block(images, self._width, self._num_classes)
        last = len(self._ways[0].places) - 1
        # From the cheapest member up to the dearest one and down again: those that go down wait for it with the rest.
        for place in [*range(last + 1), *range(last - 1, 0, -1)]:
            waiting = [np.flatnonzero((block.next == place) & (block.way == n)) for n in range(len(self._ways))]
            for member, rows in _by_member(self._ways, place, waiting):
                member.run(block, rows)
            for way, rows in zip(self._ways, waiting, strict=True):
                if len(rows):
                    self._go_on(block, way, rows)
        rows = np.flatnonzero(block.next == _ALL_ASKED)
        if len(rows):
            block.probabilities[rows] = self._combine.run(block.said[rows, self._crossing])
        return block.probabilities, block.asked, block.way

    def _go_on(self, block, way, rows):
        """Lets those of some images leave of which the members so far are sure, and sends the others on."""
        step = block.asked[rows[0]]
        block.asked[rows] += 1
        if step == len(way.thresholds):
            block.next[rows] = _ALL_ASKED
            return
        vote = way.calibration.join(way.predictions(block.said[rows], step), step)
        sure = self._score(vote)
        leaves = sure >= way.thresholds[step]
        block.probabilities[rows[leaves]] = vote[leaves]
        block.next[rows] = np.where(leaves, _LEFT, way.places[step + 1])
        if step == 0:
            down = rows[~leaves & (sure < self._below)]
            if len(down):
                block.way[down], block.next[down] = 1, self._ways[1].places[1]


class _Block:
    """Images on their way: what members said of each, how many were asked, where it goes next, and which way."""

    def __init__(self, images, width, num_classes):
        self.images = images
        self.probabilities = np.empty((len(images), num_classes), "float32")
        self.said = np.empty((len(images), width), "float32")
        self.asked, self.next, self.way = np.zeros((3, len(images)), int)


@dataclasses.dataclass(frozen=True)
class _Member:
    """A member as it is run.

    Attributes:
        taken: Int array, the columns of the stem's features that it starts from, or `None`: the images.
        given: Int array, the columns of what it gives.
        compiled: `Compiled`.
    """

    taken: np.ndarray | None
    given: np.ndarray
    compiled: Compiled

    def run(self, block, rows):
        taken = block.images if self.taken is None else block.said[:, self.taken]
        taken = taken if len(rows) == len(taken) else taken[rows]
        block.said[rows[:, None], self.given] = self.compiled.run(taken)


@dataclasses.dataclass(frozen=True)
class _Way:
    """An order in which members are asked.

    Attributes:
        places: List of ints, of each member its place in the order of cost.
        members: List of `_Member`s.
        said: List of int arrays, the columns of each member's predictions.
        calibration: `Calibration`.
        thresholds: List of floats, one per member but the last.
    """

    places: list
    members: list
    said: list
    calibration: Calibration
    thresholds: list

    def predictions(self, said, step):
        """Returns the predictions of the members up to number `step`, `(n, step + 1, num_classes)`."""
        columns = [said[:, places] for places in self.said[: step + 1]]
        return np.stack([np.hstack([1 - p, p]) if p.shape[1] == 1 else p for p in columns], axis=1)


def _by_member(ways, place, waiting):
    """Returns pairs of a member and the images that wait for it: one, unless it starts from elsewhere on each way."""
    pairs = {}
    for way, rows in zip(ways, waiting, strict=True):
        member = way.members[way.places.index(place)]
        if len(rows):
            pairs.setdefault(id(member), (member, []))[1].append(rows)
    return [(member, np.sort(np.concatenate(rows))) for member, rows in pairs.values()]


def _limit(threshold):
    return np.inf if threshold is None else threshold


def _key(source, given):
    return id(source), *map(id, given)


def _tensors_in_order(model, names):
    tensors, layers = member_tensors(model), [layer_name(name) for name in names]
    if set(layers) != set(tensors):
        raise ValueError(
            f"The cascade in the card is of other members than the model: {', '.join(names)}. Received: a model of "
            f"{', '.join(tensors) or 'no members whose predictions are joined'}. Fit it for the members in the model."
        )
    return [tensors[layer] for layer in layers]


def _steps(model, tensors, parts):
    """Yields the tensor that each member starts from, in their order, and those that it gives.

    The first member of a shared stem starts from the images, and gives the stem's features, too: from these the next
    ones start.
    """
    seen = set()
    for tensor, part in zip(tensors, parts, strict=True):
        stem = stem_features(model, tensor)
        if stem is None or id(stem) in seen:
            yield (model.inputs[0] if stem is None else stem), part
            continue
        seen.add(id(stem))
        yield model.inputs[0], part if any(given is stem for given in part) else [*part, stem]


def _places(tensors):
    """Returns the columns of each tensor, by its id, where they stand side by side, each once."""
    places, start = {}, 0
    for tensor in {id(tensor): tensor for tensor in tensors}.values():
        places[id(tensor)] = np.arange(start, start + tensor.shape[-1])
        start += tensor.shape[-1]
    return places


def _joined(source, tensors):
    """Returns the model from the images, or from a stem's features, to some tensors side by side."""
    tensors = [base.as_float32(tensor) for tensor in tensors]
    return keras.Model(source, tensors[0] if len(tensors) == 1 else keras.ops.concatenate(tensors, axis=-1))


def _rest(model, tensors):
    """Returns the model from these tensors side by side to the ensemble's predictions."""
    rest = keras.Model(tensors, model.outputs[0])
    ends = np.cumsum([tensor.shape[-1] for tensor in tensors])
    joined = keras.Input((int(ends[-1]),))
    return keras.Model(joined, rest(keras.ops.split(joined, ends[:-1].tolist(), axis=-1)))

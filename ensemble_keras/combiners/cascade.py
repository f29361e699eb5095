"""Cascade: members of a built ensemble asked in turn, until what they say together is sure."""

import concurrent.futures

import keras
import numpy as np

from ensemble_keras._validation import check_images
from ensemble_keras.backbones.spec import layer_name
from ensemble_keras.combiners import base
from ensemble_keras.combiners.inference import BATCH_SIZES, Compiled, quietly_traced
from ensemble_keras.combiners.parts import crossing_tensors, member_tensors, stem_features
from ensemble_keras.combiners.staging import Calibration
from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.measures.macs import count_macs

# Images that go from member to member together, and how many such blocks are under way: while one is with the small
# members another one is with the large. On two cores 2 take a tenth less time.
_BLOCK, _AT_A_TIME = 1024, 2


class Cascade:
    """Predicts with the members of an ensemble in the order of their cost; an image leaves when they are sure.

    It is the same model from the same file. Where all members were asked, the prediction is the model's own; for the
    others it is the calibrated vote of those asked. `fit_cascade` finds the settings for a promised loss of accuracy.
    A stem that members share runs once for each image, with the first of them that is asked.

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
                "The card has no entry 'cascade'. Make one from out-of-fold predictions, "
                "`card['cascade'] = fit_cascade(predictions, y, costs, names=names)`, and keep it in the file by "
                "`save_ensemble(model, path, card=card)`."
            )
        tensors = _tensors_in_order(model, settings["order"])
        self.model = model
        self.image_size = card.get("image_size") or model.input_shape[1:3]
        self._thresholds = [np.inf if t is None else t for t in settings["thresholds"]]
        self._calibration = Calibration(
            *(np.asarray(settings[key]) for key in ("weights", "member_temperatures", "temperatures"))
        )
        self._num_classes = model.output_shape[-1]
        parts = crossing_tensors(model, tensors)
        crossing = [tensor for part in parts for tensor in part]
        steps = list(_steps(model, tensors, parts))
        # What members say is kept side by side: first what the rest of the model takes, then features of stems.
        places = _places([*crossing, *(tensor for _, given in steps for tensor in given)])
        self._width = sum(map(len, places.values()))
        self._said = [places[id(tensor)] for tensor in tensors]
        # `None`: the images.
        self._taken = [places.get(id(source)) for source, _ in steps]
        self._given = [np.concatenate([places[id(tensor)] for tensor in given]) for _, given in steps]
        self._crossing = slice(sum(tensor.shape[-1] for tensor in crossing))
        self._members = [Compiled(_joined(source, given), batch_sizes) for source, given in steps]
        self._combine = Compiled(_rest(model, crossing), batch_sizes)

    def predict(self, x, *, return_members=False):
        """Returns class probabilities, float32 `(n, num_classes)`, in the order of the images.

        Args:
            x: Images `(n, height, width, 3)` with values in [0, 255], or an `ImageDataset`.
            return_members: Whether also to return how many members each image was shown to, int array `(n,)`.
                Defaults to `False`.

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
        probabilities, asked = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return (probabilities, asked) if return_members else probabilities

    def macs_by_members(self):
        """Returns the multiply-accumulates of an image that was shown to 1, 2, … members: a list of ints.

        `None` in place of the list where `count_macs` does not know a layer.
        """
        counts = [count_macs(part.model) for part in (*self._members, self._combine)]
        if any(count.unknown for count in counts):
            return None
        *members, combining = (count.total for count in counts)
        sums = np.cumsum(members)
        sums[-1] += combining
        return sums.tolist()

    def _predict(self, images):
        probabilities = np.empty((len(images), self._num_classes), "float32")
        said = np.empty((len(images), self._width), "float32")
        asked = np.zeros(len(images), int)
        rows = np.arange(len(images))
        for step, member in enumerate(self._members):
            taken = images if self._taken[step] is None else said[:, self._taken[step]]
            said[rows[:, None], self._given[step]] = member.run(taken if len(rows) == len(images) else taken[rows])
            asked[rows] = step + 1
            if step < len(self._thresholds):
                vote = self._calibration.join(self._predictions(said[rows], step), step)
                sure = vote.max(axis=1) >= self._thresholds[step]
                probabilities[rows[sure]] = vote[sure]
                rows = rows[~sure]
            if not len(rows):
                return probabilities, asked
        probabilities[rows] = self._combine.run(said[rows, self._crossing])
        return probabilities, asked

    def _predictions(self, said, step):
        """Returns the predictions of the members up to number `step`, `(n, step + 1, num_classes)`."""
        columns = [said[:, places] for places in self._said[: step + 1]]
        return np.stack([np.hstack([1 - p, p]) if p.shape[1] == 1 else p for p in columns], axis=1)


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

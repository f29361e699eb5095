"""Soups: one network whose weights are the mean of several that were trained from one start."""

import contextlib
import re

import keras
import numpy as np

from ensemble_keras.data.inputs import as_dataset
from ensemble_keras.features.extraction import predict
from ensemble_keras.features.keys import architecture_fingerprint
from ensemble_keras.members.initialisation import renamed_copy, set_random_state
from ensemble_keras.members.training_data import labelled_for
from ensemble_keras.members.unfreezing import leaves

# Of a layer's config: what tells how it is trained, not what it gives once it is.
_OF_TRAINING = re.compile(r"trainable|rate|seed|momentum|\w+_(initializer|regularizer|constraint)")
_BATCH_SIZE = 64


def average_weights(members, *, name=None, batch_norm_images=None):
    """Averages the weights of networks of one architecture: one network, at the cost of one (Wortsman et al., 2022).

    This works for networks that were trained from one start and stayed near each other, such as fine-tunings of one
    pretrained network with other seeds, augmentations or learning rates. The mean of networks that were trained from
    different random weights is near chance: join those by `build_ensemble`.

    The statistics of batch normalisations are averaged like all other weights, which is exact where they stayed
    frozen (the default of `FineTuning`). Where they were trained they do not fit the averaged network: give
    `batch_norm_images`.

    Args:
        members: List of `keras.Model`s of one architecture. They are not changed. Layers' names, rates of dropout and
            what trains may differ.
        name: String. Name of the model. Defaults to the first member's with `_soup` at the end.
        batch_norm_images: Training images without labels, an `ImageDataset` or `(n, height, width, 3)` with values in
            [0, 255], on which the averaged network's batch statistics are taken anew: their means over batches of 64,
            in training mode (Izmailov et al., 2018). Some hundred will do. Defaults to `None`: averaged, too.

    Returns:
        A `keras.Model` of the members' architecture.

    Raises:
        ValueError: If there is no member, or architectures or shapes differ.

    Example:

    >>> members = [ek.build_member("CNN", 2, image_size=32, weights=None, name=name) for name in ("a", "b")]
    >>> soup = ek.average_weights(members)
    >>> bool(np.allclose(soup.get_weights()[0], np.mean([m.get_weights()[0] for m in members], axis=0)))
    True
    """
    kitchen = _Kitchen(members, name, batch_norm_images)
    return kitchen.cook(range(len(members)))


def soup(members, x, y=None, *, name=None, batch_norm_images=None, verbose=1):
    """Averages the weights of those networks that help one another: a greedy soup (Wortsman et al., 2022).

    Networks are tried in the order of their accuracy on held-out images; each one is kept if the accuracy of the
    averaged network does not fall. So the soup is not worse than the best of them on these images, and its accuracy
    there is too good an estimate: judge it by others.

    Args:
        members: As in `average_weights`, which gives the mean of all (a uniform soup) and says when it works.
        x: Held-out images that no member was trained on: an `ImageDataset`, or `(n, height, width, 3)` with values in
            [0, 255].
        y: Labels `(n,)`: class indices, or names, whose sorted order is the model's. Not needed with a labelled
            `ImageDataset`.
        name: As in `average_weights`.
        batch_norm_images: As in `average_weights`.
        verbose: 0 prints nothing. Defaults to 1: which networks are in the soup.

    Returns:
        A `keras.Model` of the members' architecture, with an attribute `ingredients`: a tuple of the names of the
        members whose weights it averages, the best one first.

    Raises:
        ValueError: If there is no member, architectures or shapes differ, or labels are not of the model's classes.

    Example:

    >>> member = ek.build_member("CNN", 2, image_size=32, weights=None, name="a")
    >>> x = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), "uint8")
    >>> ek.soup([member], x, np.arange(8) % 2, verbose=0).ingredients
    ('a',)
    """
    kitchen = _Kitchen(members, name, batch_norm_images)
    held_out, _ = labelled_for(members[0], as_dataset(x, y))
    accuracies = [_accuracy(kitchen.cook([i]), held_out) for i in range(len(members))]
    order = np.argsort(np.negative(accuracies), kind="stable").tolist()
    kept, best = order[:1], max(accuracies)
    for i in order[1:]:
        accuracy = _accuracy(kitchen.cook([*kept, i]), held_out)
        if accuracy >= best:
            kept, best = [*kept, i], accuracy
    result = kitchen.cook(kept)
    result.ingredients = tuple(members[i].name for i in kept)
    if verbose:
        print(
            f"A soup of {len(kept)} of {len(members)} members ({', '.join(result.ingredients)}): held-out accuracy "
            f"{best:.4f}, the best member's {max(accuracies):.4f}"
        )
    return result


class _Kitchen:
    """Puts means of the members' weights into one network, again and again."""

    def __init__(self, members, name, batch_norm_images):
        members = list(members)
        _check_members(members)
        self._images = None if batch_norm_images is None else as_dataset(batch_norm_images)
        self._weights = [member.get_weights() for member in members]
        self._soup = renamed_copy(members[0], name or f"{members[0].name}_soup")

    def cook(self, chosen):
        """Returns the network with the mean of some members' weights."""
        parts = zip(*(self._weights[i] for i in chosen), strict=True)
        self._soup.set_weights([np.mean(part, axis=0, dtype="float64").astype(part[0].dtype) for part in parts])
        # Of one member the statistics are its own.
        if self._images is not None and len(chosen) > 1:
            _renew_batch_norms(self._soup, self._images)
        return self._soup


def _renew_batch_norms(model, images):
    """Sets the statistics of batch normalisations to their means over batches of images."""
    set_random_state(model, 0)
    with _in_training(model) as norms:
        batches, seen = images.batches(image_size=model.input_shape[1:3], batch_size=_BATCH_SIZE), 0
        for index in range(len(batches)):
            x = batches[index][0]
            seen += len(x)
            for norm in norms:
                norm.momentum = 1 - len(x) / seen
            model(keras.ops.cast(x, "float32"), training=True)


@contextlib.contextmanager
def _in_training(model):
    """Lets batch normalisations take statistics while the block runs; gives those layers."""
    norms = [layer for layer in leaves(model) if isinstance(layer, keras.layers.BatchNormalization)]
    before = [(norm, norm.trainable, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.trainable = True
        yield norms
    finally:
        for norm, trainable, momentum in before:
            norm.trainable, norm.momentum = trainable, momentum


def _accuracy(model, held_out):
    p = predict(model, held_out, verbose=0)
    chosen = p.argmax(axis=1) if p.shape[1] > 1 else p[:, 0] > 0.5
    return float(np.mean(chosen == held_out.labels))


def _check_members(members):
    if not members:
        raise ValueError("`members` must hold at least one model. Received: none.")
    first, *others = members
    digest = architecture_fingerprint(first, ignored=_OF_TRAINING)
    for other in others:
        _check_shapes(first, other)
        if architecture_fingerprint(other, ignored=_OF_TRAINING) != digest:
            raise ValueError(
                f"`members` must be of one architecture. Received: {first.name!r} and {other.name!r}, whose "
                "layers or their options differ. Join them by `build_ensemble`."
            )


def _check_shapes(first, other):
    if len(first.weights) != len(other.weights):
        raise ValueError(
            f"`members` must be of one architecture. Received: {first.name!r} with {len(first.weights)} arrays of "
            f"weights, {other.name!r} with {len(other.weights)}. Join them by `build_ensemble`."
        )
    for a, b in zip(first.weights, other.weights, strict=True):
        if a.shape != b.shape:
            raise ValueError(
                f"`members` must have weights of equal shapes. Received: {a.path} of {first.name!r} with "
                f"{tuple(a.shape)}, {b.path} of {other.name!r} with {tuple(b.shape)}. Join them by `build_ensemble`."
            )

"""Explain: which parts of an image a prediction rests on, by gradients (Grad-CAM)."""

import weakref

import numpy as np

from ensemble_keras._validation import model_hint
from ensemble_keras.combiners.inference import quietly_traced
from ensemble_keras.combiners.parts import member_tensors
from ensemble_keras.evaluation.cam import CamNetwork
from ensemble_keras.evaluation.explained_images import check_classes, check_pixels
from ensemble_keras.measures.graph import has_graph
from ensemble_keras.memory import with_smaller_batches

# The network that explained a model last, by model, with the layer it was asked for: it is compiled, which takes
# seconds, and goes when the model goes.
_networks = weakref.WeakKeyDictionary()


def grad_cam(model, images, *, class_index=None, layer=None, batch_size=32):
    """Computes where in each image the evidence for a class lies, by Grad-CAM (Selvaraju et al., 2017, 1610.02391).

    Of a member: the channels of its last feature map `A`, each weighted by the mean over its places of the slope
    `∂y/∂A`; summed, cut off below 0, brought to the size of the image bilinearly, and divided by the largest value.
    `y` is the logit of the class less the mean of all logits, since softmax takes no notice of their mean. Where
    branches join behind their last maps, as features of several backbones do in `ConcatenateDense`, the maps of all
    are added, each place by what it adds to `y`.

    Of an ensemble: the mean of its members' maps for that class, weighted by their votes. A member's vote is its
    probability `p` of the class, at its temperature if it has one, times the slope `∂y/∂p` of the ensemble's `y`, 0
    where that is negative; divided by the sum over the members. For `SoftVoting` this is in proportion to
    the member's weight times its probability; for `GeometricVoting` its weight. Where nobody has such a vote, because
    votes are counted (`HardVoting`), those have one whose most probable class it is. Members are found as
    `EvaluationReport.from_model` finds them, in the built, the saved and the reloaded model. Test-time views other
    than the image itself are left out. The first call for a model compiles what computes its maps.

    Args:
        model: A functional `keras.Model` from images with values in [0, 255] to class probabilities: a member, or
            what `build_ensemble` or `load_ensemble` gives.
        images: Array `(n, height, width, channels)` of the size that the model takes.
        class_index: Int, or ints `(n,)`: the class to explain. Defaults to `None`: the one that the model predicts,
            for the members of an ensemble, too.
        layer: Name of the layer whose output is the feature map, nested or not; or a dict from members' names to such
            names. Defaults to `None`: the last map of a convolution, before pooling.
        batch_size: Images per step, halved where memory runs out. Defaults to 32.

    Returns:
        Float32 array `(n, height, width)` between 0 and 1: of a member with 1 at the largest value, or all 0 where
        nothing speaks for the class.

    Raises:
        ValueError: If there is no feature map, as in networks of attention or recurrence alone (`occlusion` explains
            them), no layer of that name, or images or classes are not as described.

    Example:

    >>> member = ek.build_member("CNN", 10, image_size=32, weights=None)
    >>> ek.grad_cam(member, np.zeros((1, 32, 32, 3), "uint8")).shape
    (1, 32, 32)
    """
    network, images, classes = _prepared(model, images, class_index, layer)
    found = np.empty(images.shape[:3], "float32")

    def keep(rows, maps, votes):
        found[rows] = np.einsum("nmhw,nm->nhw", maps, votes)

    _run(network, images, classes, batch_size, keep)
    return found


def member_grad_cams(model, images, *, class_index=None, layer=None, batch_size=32):
    """Computes Grad-CAM of an ensemble's members and their votes, of which `grad_cam` is the weighted mean.

    Args:
        model: As in `grad_cam`.
        images: As in `grad_cam`.
        class_index: As in `grad_cam`.
        layer: As in `grad_cam`.
        batch_size: As in `grad_cam`.

    Returns:
        A dict from members' names to maps `(n, height, width)`, and one to votes `(n,)`, which sum to 1 for an image,
        or are all 0 where no member votes for the class. A model that is no ensemble stands as its only member.
    """
    network, images, classes = _prepared(model, images, class_index, layer)
    names = [one.name for one in network.explained]
    found = np.empty((len(names), *images.shape[:3]), "float32")
    shares = np.empty((len(names), len(images)), "float32")

    def keep(rows, maps, votes):
        found[:, rows], shares[:, rows] = maps.swapaxes(0, 1), votes.T

    _run(network, images, classes, batch_size, keep)
    return dict(zip(names, found, strict=True)), dict(zip(names, shares, strict=True))


def _prepared(model, images, class_index, layer):
    """Returns the network that explains a model, and the images and classes it takes, checked."""
    if not has_graph(model) or len(model.inputs) != 1:
        raise ValueError(
            f"Grad-CAM needs a functional or built sequential model of one input. Received: {model!r}."
            f"{model_hint(model) or ' `occlusion` explains one with a `call` of its own.'}"
        )
    images = check_pixels(model, images)
    classes = check_classes(class_index, len(images), max(model.outputs[-1].shape[-1], 2))
    return _network(model, layer), images, classes


def _network(model, layer):
    asked = dict(layer) if isinstance(layer, dict) else layer
    known, network = _networks.get(model, (None, None))
    if network is None or known != asked:
        network = CamNetwork(model, _layer_of(model, layer))
        _networks[model] = asked, network
    return network


def _run(network, images, classes, batch_size, keep):
    """Calls `keep` with the rows, the maps and the votes of each batch."""

    def run(size):
        for start in range(0, len(images), size):
            # Every other shape would be compiled anew: the last batch is filled up with the last image.
            rows = np.minimum(np.arange(start, start + size), len(images) - 1)
            maps, votes = network.predict_on_batch([images[rows], classes[rows]])
            rows = slice(start, min(start + size, len(images)))
            keep(rows, maps[: rows.stop - start], votes[: rows.stop - start])

    with quietly_traced():
        with_smaller_batches(run, min(batch_size, len(images)), name=f"Grad-CAM of {network.name}")


def _layer_of(model, layer):
    """Returns a function from a member's name to the name of its layer."""
    if not isinstance(layer, dict):
        return lambda name: layer
    unknown = [name for name in layer if name not in member_tensors(model)]
    if unknown:
        raise ValueError(
            f"`layer` must name members of {model.name!r}, which are {[*member_tensors(model)]}. "
            f"Received: {unknown[0]!r}."
        )
    return layer.get

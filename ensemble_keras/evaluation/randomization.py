"""Randomization: whether an explanation changes when the weights do, as it must."""

import random

import keras
import numpy as np
from scipy.stats import rankdata

from ensemble_keras._validation import check_seed
from ensemble_keras.evaluation.explain import grad_cam
from ensemble_keras.evaluation.explained_images import check_pixels, predicted


def randomized_map_similarity(model, images, *, explain=grad_cam, seed=0, **options):
    """Compares explanations with those of the same network with shuffled weights: a sanity check.

    An explanation that stays what it was says something about the image alone, such as where its edges are, and
    nothing about what the model learned (Adebayo et al., 2018, 1810.03292). The values of each variable are shuffled
    among themselves; both maps are of the classes that the model as it is predicts, unless told otherwise.

    Args:
        model: A functional `keras.Model`, left as it is.
        images: As in `grad_cam`.
        explain: Function such as `grad_cam` or `occlusion`. Defaults to `grad_cam`.
        seed: Int, for the shuffling. Defaults to 0.
        **options: Passed to `explain`.

    Returns:
        Float array `(n,)`: Spearman's rank correlation of each image's two maps; near 1 is a bad sign. 0 where one
        of them is the same everywhere.

    Raises:
        ValueError: As `explain` does.

    Example:

    >>> member = ek.build_member("CNN", 10, image_size=32, weights=None)
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")
    >>> ek.randomized_map_similarity(member, images).shape
    (2,)
    """
    check_seed(seed)
    images = check_pixels(model, images)
    if options.get("class_index") is None:
        options["class_index"] = predicted(model, lambda rows: images[rows], len(images), 32).argmax(axis=1)
    one, other = (explain(network, images, **options) for network in (model, _shuffled(model, seed)))
    return np.array([_rank_correlation(*pair) for pair in zip(one, other, strict=True)])


def _shuffled(model, seed):
    rng = np.random.default_rng(seed)
    # The copy draws first weights, which are written over, by Python's random state: that is the user's.
    state = random.getstate()
    try:
        copy = keras.models.clone_model(model)
    finally:
        random.setstate(state)
    for own, new in zip(model.weights, copy.weights, strict=True):
        values = keras.ops.convert_to_numpy(own)
        new.assign(rng.permutation(values.ravel()).reshape(values.shape))
    return copy


def _rank_correlation(one, other):
    one, other = rankdata(one), rankdata(other)
    if not np.ptp(one) or not np.ptp(other):
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])

"""Views: augmented copies of images for frozen backbones, each a function of image, view and seed alone."""

import keras
import numpy as np

from ensemble_keras._validation import check_at_least
from ensemble_keras.data.augmentation import augmentation_config, build_augmentation
from ensemble_keras.features.keys import augmentation_key


class Views:
    """Augmented views of images.

    What is done to an image depends on its digest, the number of the view and the seed: never on the batch, on what
    is stored already or on the order. So a pass that was interrupted gives what one in one go gives.

    Args:
        policy: As in `build_augmentation`, without MixUp and CutMix.
        count: Int, at least 1. View 0 is the image as it is.
        seed: Int.

    Raises:
        ValueError: If the policy mixes images or changes nothing.
    """

    def __init__(self, policy, count, seed):
        augmentation = build_augmentation(policy)
        if augmentation is None:
            raise ValueError(
                f"Views need an augmentation that changes images. Received: {policy!r} for {count} views."
            )
        if augmentation.mixes:
            raise ValueError(
                "MixUp and CutMix mix an image with others of its batch, and a view is of one image alone. "
                f"Received: {policy!r}. Take a policy without them, such as 'light' or 'medical'."
            )
        self.count, self._seed, self._config = count, seed, augmentation_key(policy)
        self._model = _OneByOne(augmentation)

    def key(self, view):
        """Returns JSON values that determine view number `view` of any image, or `None` for the image as it is."""
        if view == 0:
            return None
        # Backends draw other random numbers from the same seed.
        backend = keras.backend.backend()
        return {"augmentation": self._config, "view": view, "seed": self._seed, "backend": backend}

    def of(self, pixels, digests, view, batch_size):
        """Returns view number `view`, 1 or above, of images.

        Args:
            pixels: uint8 or float32 array `(n, height, width, 3)`.
            digests: List of `n` bytes.
            view: Int, or `n` ints, one per image.
            batch_size: Int. The images are filled up to a multiple of it, since other shapes would be compiled anew.

        Returns:
            Array of the same shape and dtype.
        """
        numbers = np.broadcast_to(view, len(digests)).tolist()
        states = np.stack([self._states(*drawn) for drawn in zip(digests, numbers, strict=True)])
        parts = []
        for start in range(0, len(pixels), batch_size):
            part = [array[start : start + batch_size] for array in (pixels.astype("float32"), states)]
            size = len(part[0])
            part = [np.concatenate([a, np.zeros((batch_size - size, *a.shape[1:]), a.dtype)]) for a in part]
            parts.append(np.asarray(self._model.predict_on_batch(part), "float32")[:size])
        images = np.concatenate(parts)
        # As a file holds them: a quarter of the memory, and the backbones are not compiled for floats as well.
        return images if pixels.dtype.kind == "f" else np.rint(images).astype(pixels.dtype)

    def _states(self, digest, view):
        return self._model.augmentation.states_of(int.from_bytes(digest, "big"), view, self._seed).astype("int32")


def check_views(augmentation, views, seed, *, frozen, trained):
    """Returns the views that the heads of frozen backbones learn from.

    Args:
        augmentation: As in `build_augmentation`.
        views: Int, the number of views of each image; of 1 it is the image as it is.
        seed: Int.
        frozen: Whether a backbone stays frozen.
        trained: Whether one is trained or fine-tuned; `augmentation` is then of its training images, too.

    Returns:
        `Views`, or `None` for the images as they are.

    Raises:
        ValueError: If `augmentation` is unknown, `views` no such number, or either would be without effect.
    """
    changes = augmentation_config(augmentation)
    check_at_least("views", views, 1)
    if views > 1 and not frozen:
        raise ValueError(
            "`views` are what the heads of frozen backbones learn from; one that is trained or fine-tuned sees its "
            f"images changed anew in every epoch. Received: views={views}, and no backbone stays frozen. Leave it."
        )
    if views == 1 and not trained and changes:
        raise ValueError(
            f"No backbone learns from changed images. Received: augmentation={augmentation!r}, and all backbones "
            "stay frozen. Give `views`, such as 4, from which their heads learn, or `fine_tune`."
        )
    return Views(augmentation, views, seed) if views > 1 else None


def stack_views(features, y, folds):
    """Returns views as rows of their own, to fit a head on: all views of an image have its label and its fold.

    What the head predicts for view 0, out of fold, is then every `views`-th row: `out_of_fold[::views]`.

    Args:
        features: Array `(n, views, d)`, from `extract_features`.
        y: Array `(n,)`.
        folds: Int array `(n,)`.

    Returns:
        Arrays `(n * views, d)`, `(n * views,)` and `(n * views,)`; the views of an image follow one another.

    Raises:
        ValueError: If the features have no axis of views, or the lengths differ.

    Example:

    >>> rows, y, folds = stack_views(np.zeros((2, 3, 5), "float32"), [0, 1], [1, 0])
    >>> rows.shape, y.tolist(), folds.tolist()
    ((6, 5), [0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    """
    features, y, folds = np.asarray(features), np.asarray(y), np.asarray(folds)
    if features.ndim != 3 or y.shape != features.shape[:1] or folds.shape != y.shape:
        raise ValueError(
            "Expected features (n, views, d), and a label and a fold per image. "
            f"Received: shapes {features.shape}, {y.shape} and {folds.shape}."
        )
    views = features.shape[1]
    return features.reshape(-1, features.shape[2]), np.repeat(y, views), np.repeat(folds, views)


class _OneByOne(keras.Model):
    """Images, and the random states for each of them, to augmented images; each alone, as if there were no batch."""

    def __init__(self, augmentation):
        super().__init__(name="views", dtype="float32")
        self.augmentation = augmentation
        if keras.backend.backend() == "tensorflow":
            # XLA knows no affine transform there, and takes longer to compile than such a pass.
            self.jit_compile = False

    def build(self, input_shape):
        self.augmentation.build({"images": (1, *input_shape[0][1:])})
        self.built = True

    def call(self, inputs):
        variables, states = self.augmentation.non_trainable_variables, self.augmentation.random_states
        places = {id(variable): place for place, variable in enumerate(states)}

        def augmented(given):
            image, own = given
            values = [keras.ops.cast(own[places[id(v)]], v.dtype) if id(v) in places else v.value for v in variables]
            outputs, _ = self.augmentation.stateless_call([], values, {"images": image[None]}, training=True)
            return outputs["images"][0]

        return keras.ops.map(augmented, tuple(inputs))

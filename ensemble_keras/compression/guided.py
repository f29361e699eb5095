"""Guided training: a network learns from labels and from what a teacher says of the same images."""

import keras

from ensemble_keras.data.augmentation import build_augmentation
from ensemble_keras.features.keys import model_fingerprint
from ensemble_keras.members.trainer import Trainer
from ensemble_keras.members.training import Trainee, probabilities

# Probabilities below count as this: their logarithms are numbers.
_SMALLEST = 1e-30


class GuidedTrainer(Trainer):
    """Trains a network on `alpha · loss(label) + (1 − alpha) · T² · KL(teacher at T ‖ network at T)`.

    This is distillation (Hinton et al., 2015, 1503.02531) with the teacher in every step: it sees the very images
    that the network sees (Beyer et al., 2022, 2106.05237), which costs one forward pass of it.

    Args:
        network: As in `Trainer`.
        settings: As in `Trainer`.
        teacher: A functional `keras.Model` of equal inputs and outputs, which nothing else trains: it is frozen.
        temperature: Float above 0, T.
        alpha: Float in [0, 1], the weight of the labels.
        **options: Of `Trainer`.
    """

    def __init__(self, network, settings, *, teacher, temperature, alpha, **options):
        super().__init__(network, settings, **options)
        teacher.trainable = False
        self._teacher, self._temperature, self._alpha = teacher, temperature, alpha

    def depends_on(self):
        """As in `Trainer`."""
        teacher = model_fingerprint(self._teacher)
        return {**super().depends_on(), "teacher": teacher, "temperature": self._temperature, "alpha": self._alpha}

    def new_trainee(self, network, settings):
        """As in `Trainer`."""
        return _WithTeacher(
            network,
            settings,
            teacher=self._teacher,
            temperature=self._temperature,
            alpha=self._alpha,
            augmentation=build_augmentation(self.augmentation, seed=self.seed),
            class_weight=self.class_weight,
        )

    def cut(self, network, images, validation):
        """Nothing is cut: the teacher sees images."""
        return network, images, validation


class Guided(Trainee):
    """A network in training, whose loss is that of the labels and of a teacher's answers.

    `call` returns `"answers"`, too: the teacher's probabilities.

    Args:
        network: As in `Trainee`.
        settings: As in `Trainee`.
        temperature: Float above 0, T.
        alpha: Float in [0, 1], the weight of the labels.
        **options: Of `Trainee`.
    """

    def __init__(self, network, settings, *, temperature, alpha, **options):
        super().__init__(network, settings, **options)
        self._alpha = alpha
        # Its default, the name of this loss, compares logits as if they were probabilities (Keras 3.15).
        self._distillation = keras.distillation.LogitsDistillation(temperature, loss=keras.losses.KLDivergence())

    def loss_of_batch(self, y_pred):
        """As in `Trainee`."""
        # Up to a constant of each row, which softmax takes away, logarithms of probabilities are the logits.
        answers, logits = (
            keras.ops.log(keras.ops.maximum(y_pred[key], _SMALLEST)) for key in ("answers", "predictions")
        )
        of_answers = self._distillation.compute_loss(answers, logits)
        return self._alpha * self.loss_of_labels(y_pred) + (1 - self._alpha) * of_answers

    def loss_of_labels(self, y_pred):
        """Returns the part that the labels have in the loss, before its weight."""
        return super().loss_of_batch(y_pred)


class _WithTeacher(Guided):
    """Asks the teacher in every step."""

    def __init__(self, network, settings, *, teacher, **options):
        super().__init__(network, settings, **options)
        self._teacher = teacher

    def call(self, inputs, training=False):
        """As in `Trainee`, with what the teacher says of the same images."""
        images, labels = self.seen(inputs, training)
        return {
            "predictions": probabilities(self.network, images, training=training),
            "labels": labels,
            "answers": probabilities(self._teacher, images, training=False),
        }

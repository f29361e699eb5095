"""Stepwise: a model for loops of many small steps, whose metrics are those of an epoch."""

import keras


class StepwiseModel(keras.Model):
    """A functional model that is trained by `train_on_batch` and keeps its metrics from step to step.

    Keras resets them at every call: what it returns is then of that batch alone, and a small step takes half as long
    again. Here they are means since `start_metrics`.
    """

    def reset_metrics(self):
        """Does nothing: `train_on_batch` and `test_on_batch` call it at every step."""

    def start_metrics(self):
        """Forgets what the metrics have seen, as an epoch begins."""
        super().reset_metrics()

import dataclasses

import keras
import numpy as np
import pytest
from synthetic import pictures, random_backbone

import ensemble_keras as ek
from ensemble_keras.members.trainer import Trainer

SETTINGS = ek.FineTuning(epochs=3, batch_size=16, learning_rate=0.01, ema_momentum=0.5)


def member():
    model = ek.build_member(random_backbone("trunk"), 3)
    model.get_layer("predictions").set_weights([np.zeros((32, 3)), np.zeros(3)])
    return model


class RunOut(keras.callbacks.Callback):
    """Memory runs out in an epoch, with more than so many images a step."""

    def __init__(self, epoch, batch_size):
        super().__init__()
        self.epoch, self.batch_size, self.begun = epoch, batch_size, []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append((epoch, self.model.settings.batch_size))
        if epoch == self.epoch and self.model.settings.batch_size > self.batch_size:
            raise MemoryError("no room")


@pytest.fixture
def images():
    return ek.ImageDataset.from_arrays(*pictures(48))


def test_a_halved_batch_starts_again_and_not_from_the_checkpoint_of_larger_ones(images, tmp_path):
    halved, small, run_out = member(), member(), RunOut(epoch=2, batch_size=8)
    path = tmp_path / "state.npz"
    Trainer(halved, SETTINGS, callbacks=[run_out], verbose=0).run(images, None, seed=0, checkpoint=path)
    assert run_out.begun == [(0, 16), (1, 16), (2, 16), (0, 8), (1, 8), (2, 8)]
    Trainer(small, dataclasses.replace(SETTINGS, batch_size=8), verbose=0).run(images, None, seed=0)
    for left, right in zip(halved.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_where_nothing_fits_the_network_is_as_it_was(images):
    model = member()
    before = [value.copy() for value in model.get_weights()]
    trainer = Trainer(model, SETTINGS, callbacks=[RunOut(epoch=1, batch_size=0)], verbose=0)
    with pytest.raises(MemoryError, match="even with one image at a time"):
        trainer.run(images, None, seed=0)
    for left, right in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_buffers_that_a_failed_step_took_along_are_made_anew(images, monkeypatch):
    """JAX gives a step's buffers away before it runs, so that after an error in it they are gone."""
    model, failed = member(), []
    from ensemble_keras.members.training import Trainee

    make = Trainee.make_train_function

    def failing(self, force=False):
        make(self, force)
        step = self.train_function

        def once(*arguments):
            result = step(*arguments)
            if not failed:
                failed.append(self.settings.batch_size)
                if keras.backend.backend() == "jax":
                    for array in keras.tree.flatten(result[1]):
                        array.delete()
                raise MemoryError("no room")
            return result

        self.train_function = once

    monkeypatch.setattr(Trainee, "make_train_function", failing)
    result = Trainer(model, SETTINGS, verbose=0).run(images, None, seed=0)
    assert failed == [16]
    assert len(result.history["loss"]) == 3
    assert np.isfinite(model.predict(images.load(image_size=16), verbose=0)).all()

import keras
import numpy as np
import pytest
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras.compression.guided import GuidedTrainer


def classifier(seed, units=3):
    start = keras.initializers.GlorotNormal(seed=seed)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    activation = "softmax" if units > 1 else "sigmoid"
    return keras.Model(images, keras.layers.Dense(units, activation, kernel_initializer=start)(x), name="network")


def trained(network, x, y, *, epochs=1, learning_rate=1e-3, **options):
    settings = ek.Training(epochs=epochs, batch_size=len(x), learning_rate=learning_rate, weight_decay=0.0)
    trainer = GuidedTrainer(network, settings, verbose=0, **options)
    return trainer.run(ek.ImageDataset.from_arrays(x, y), None, seed=0).history


def tempered(p, temperature):
    powers = p ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("units", [3, 1])
def test_the_loss_is_that_of_labels_and_answers(units):
    x, y = pictures(12, classes=max(units, 2))
    network, teacher = classifier(0, units), classifier(1, units)
    p, q = (model.predict(x, verbose=0) for model in (network, teacher))
    if units == 1:
        p, q = (np.concatenate([1 - one, one], axis=1) for one in (p, q))
    kept = teacher.get_weights()
    loss = trained(network, x, y, teacher=teacher, temperature=2.0, alpha=0.3)["loss"]
    of_labels = -np.log(p[np.arange(len(y)), y]).mean()
    soft, softer = tempered(q, 2), tempered(p, 2)
    of_answers = 4 * (soft * np.log(soft / softer)).sum(axis=1).mean()
    assert loss == [pytest.approx(0.3 * of_labels + 0.7 * of_answers, rel=1e-3)]
    for one, other in zip(teacher.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_network_becomes_as_its_teacher_is_on_the_images_that_both_see():
    x, y = pictures(24)
    network, teacher = classifier(0), classifier(1)
    options = {"teacher": teacher, "temperature": 1.0, "alpha": 0.0, "augmentation": "light"}
    before, after = np.array(trained(network, x, y, epochs=60, learning_rate=1e-2, **options)["loss"])[[0, -1]]
    assert after < 0.5 * before


def test_a_result_depends_on_the_teacher_and_its_part():
    def key(teacher, alpha):
        guided = GuidedTrainer(classifier(0), ek.Training(), teacher=teacher, temperature=2.0, alpha=alpha)
        return guided.depends_on()

    assert key(classifier(1), 0.5) == key(classifier(1), 0.5)
    assert key(classifier(1), 0.5) != key(classifier(2), 0.5)
    assert key(classifier(1), 0.5) != key(classifier(1), 0.4)

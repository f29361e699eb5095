import keras
import numpy as np
import pytest

from ensemble_keras.data.dataset import ImageDataset


@pytest.fixture
def dataset():
    """Ten pictures that show their own number."""
    x = np.broadcast_to(np.arange(10, dtype="uint8")[:, None, None, None], (10, 4, 4, 3))
    return ImageDataset.from_arrays(x, np.arange(10) % 2)


def numbers(batches):
    return [int(image[0, 0, 0]) for images, _ in batches for image in images]


def test_batches_hold_every_image_once_with_its_label(dataset):
    batches = dataset.batches(image_size=4, batch_size=4)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert numbers(batches) == list(range(10))
    for images, labels in dataset.batches(image_size=(2, 6), batch_size=4, shuffle=True):
        assert images.shape[1:] == (2, 6, 3)
        np.testing.assert_array_equal(images[:, 0, 0, 0] % 2, labels)


def test_the_order_depends_on_seed_and_epoch_alone(dataset):
    def orders(seed):
        batches = dataset.batches(image_size=4, batch_size=3, shuffle=True, seed=seed)
        for _ in range(3):
            batches.on_epoch_begin()
            yield numbers(batches)
            batches.on_epoch_end()

    first, again, other = list(orders(0)), list(orders(0)), list(orders(1))
    assert first == again
    assert len({tuple(order) for order in first + other}) == 6
    assert all(sorted(order) == list(range(10)) for order in first)
    resumed = dataset.batches(image_size=4, batch_size=3, shuffle=True, seed=0)
    resumed.epoch = 2
    assert numbers(resumed) == first[2]


def test_a_model_is_fitted_in_the_order_of_each_epoch(dataset):
    seen = []

    class Recorder(type(dataset.batches(image_size=4, batch_size=3))):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            seen.append((self.epoch, index, batch[0][:, 0, 0, 0].tolist()))
            return batch

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = Recorder(dataset, image_size=4, batch_size=3, shuffle=True, seed=4)
    model.fit(batches, epochs=2, verbose=0, shuffle=False)
    reference = dataset.batches(image_size=4, batch_size=3, shuffle=True, seed=4)
    expected = []
    for reference.epoch in range(2):
        expected += [(reference.epoch, i, reference[i][0][:, 0, 0, 0].tolist()) for i in range(4)]
    assert seen[-8:] == expected  # Keras looks at some before, to build the model
    assert batches.epoch == 2


def test_unlabelled_images_can_be_predicted(dataset):
    unlabelled = ImageDataset.from_arrays(dataset.load(image_size=4))
    (images,) = unlabelled.batches(image_size=4, batch_size=10)[0]
    assert images.shape == (10, 4, 4, 3)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalMaxPooling2D()])
    result = model.predict(unlabelled.batches(image_size=4, batch_size=4), verbose=0)
    np.testing.assert_array_equal(result[:, 0], np.arange(10))


def test_a_look_at_one_batch_is_no_epoch(dataset):
    batches = dataset.batches(image_size=4, batch_size=4, shuffle=True)
    batches.on_epoch_end()
    batches.on_epoch_begin()
    batches[0]
    batches.on_epoch_end()
    assert batches.epoch == 0


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, None])
def test_another_batch_size_is_refused(dataset, batch_size):
    with pytest.raises(ValueError, match="`batch_size` must be an int of at least 1"):
        dataset.batches(image_size=4, batch_size=batch_size)


def test_there_is_no_batch_after_the_last(dataset):
    batches = dataset.batches(image_size=4, batch_size=4)
    assert numbers([batches[-1]]) == [8, 9]
    with pytest.raises(IndexError, match="There are 3 batches. Received: index 3"):
        batches[3]

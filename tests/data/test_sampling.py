"""Sampling: counts per class after it, no image lost or preferred, and the class weights that it stands for."""

import numpy as np
import pytest

from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.data.sampling import resampled, sampling_weights

LABELS = np.array([0] * 7 + [1] * 3 + [2] * 2)


@pytest.fixture
def dataset(images):
    groups = [f"patient {i // 2}" for i in range(12)]
    return ImageDataset.from_arrays(images, LABELS, class_names=["cat", "dog", "owl", "bat"], groups=groups)


def times_drawn(dataset, drawn):
    return np.array([drawn.names.count(name) for name in dataset.names])


def test_oversampling_draws_every_class_up_to_the_largest(dataset):
    drawn = resampled(dataset, "over", seed=0)
    assert drawn.class_counts() == {"cat": 7, "dog": 7, "owl": 7, "bat": 0}
    times = times_drawn(dataset, drawn)
    assert times[LABELS == 0].tolist() == [1] * 7
    assert sorted(times[LABELS == 1]) == [2, 2, 3]
    assert sorted(times[LABELS == 2]) == [3, 4]


def test_undersampling_draws_every_class_down_to_the_smallest(dataset):
    drawn = resampled(dataset, "under", seed=0)
    assert drawn.class_counts() == {"cat": 2, "dog": 2, "owl": 2, "bat": 0}
    assert times_drawn(dataset, drawn).max() == 1


@pytest.mark.parametrize("sampling", ["over", "under"])
def test_images_keep_their_labels_and_groups(dataset, images, sampling):
    drawn = resampled(dataset, sampling, seed=1)
    rows = [int(name.removeprefix("row ")) for name in drawn.names]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(drawn.labels, LABELS[rows])
    assert drawn.groups.tolist() == [f"patient {row // 2}" for row in rows]
    np.testing.assert_array_equal(drawn.load(image_size=32), images[rows])


@pytest.mark.parametrize("sampling", ["over", "under"])
def test_the_draw_depends_on_the_seed(dataset, sampling):
    draws = [resampled(dataset, sampling, seed=seed).names for seed in range(6)]
    assert draws[0] == resampled(dataset, sampling, seed=0).names
    assert len({tuple(names) for names in draws}) > 1


def test_no_sampling_leaves_the_dataset_as_it_is(dataset):
    assert resampled(dataset, None) is dataset
    assert sampling_weights(LABELS, 3, None) is None


@pytest.mark.parametrize("sampling", ["over", "under"])
def test_weights_are_the_mean_number_of_draws(dataset, sampling):
    weights = sampling_weights(LABELS, 4, sampling)
    times = times_drawn(dataset, resampled(dataset, sampling))
    means = [times[label == LABELS].mean() for label in range(3)]
    np.testing.assert_allclose(weights, [*means, 1.0])


def test_errors_name_the_next_step(dataset, images):
    with pytest.raises(ValueError, match=r"`sampling` must be one of None, 'over', 'under'.*Did you mean 'over'"):
        resampled(dataset, "overs")
    with pytest.raises(ValueError, match="`sampling` must be one of"):
        sampling_weights(LABELS, 3, "smote")
    with pytest.raises(ValueError, match="needs labels"):
        resampled(ImageDataset.from_arrays(images), "under")

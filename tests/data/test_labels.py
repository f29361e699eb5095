import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import ensemble_keras as ek
from ensemble_keras.data.labels import class_weights, encode_labels, with_class_indices, with_class_indices_of

X = np.zeros((4, 8, 8, 3), "uint8")


def test_ints_become_indices_in_sorted_order():
    dataset, classes = with_class_indices(ek.ImageDataset.from_arrays(X, [7, 3, 7, 3]))
    assert classes.tolist() == [3, 7]
    assert dataset.labels.tolist() == [1, 0, 1, 0]


def test_names_keep_their_order():
    dataset, classes = with_class_indices(ek.ImageDataset.from_arrays(X, [2, 0, 1, 0], class_names=["c", "b", "a"]))
    assert classes.tolist() == ["c", "b", "a"]
    assert dataset.labels.tolist() == [2, 0, 1, 0]


def test_a_named_class_without_images_is_refused():
    message = "Received: 4 images of 2 of 3 classes, none of b. Add some, or leave the class out of `class_names`"
    with pytest.raises(ValueError, match=message):
        with_class_indices(ek.ImageDataset.from_arrays(X, [2, 0, 2, 0], class_names=["c", "b", "a"]))


def test_labels_and_two_classes_are_needed():
    with pytest.raises(ValueError, match="Labels are needed"):
        with_class_indices(ek.ImageDataset.from_arrays(X))
    with pytest.raises(
        ValueError, match="At least two classes with images are needed. Received: 4 images, all of dog"
    ):
        with_class_indices(ek.ImageDataset.from_arrays(X, ["dog"] * 4))


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(labels, np.array(["a", "b", "c"]), "balanced"), expected)
    assert class_weights(labels, np.array(["a", "b", "c"]), None) is None
    assert class_weights(labels, np.array(["a", "b", "c"]), {"b": 3}) == [1, 3, 1]
    assert class_weights(labels, np.array([5, 6, 7]), {6: 2}) == [1, 2, 1]


def test_bad_weights_are_refused():
    arguments = np.array([0, 1]), np.array(["cat", "dog"])
    with pytest.raises(ValueError, match="Did you mean 'balanced'"):
        class_weights(*arguments, "balancd")
    with pytest.raises(ValueError, match=r"not there: 'dig'. Classes: cat, dog. Did you mean 'dog'"):
        class_weights(*arguments, {"dig": 2})
    with pytest.raises(ValueError, match="must be above 0. Received: -1 for 'dog'"):
        class_weights(*arguments, {"dog": -1})


def test_labels_are_encoded_by_name_by_value_or_by_index():
    names, values = np.array(["cat", "dog"]), np.array([3, 7])
    assert encode_labels(["dog", "cat"], names).tolist() == [1, 0]
    assert encode_labels([1, 0], names).tolist() == [1, 0]
    assert encode_labels([7, 3], values).tolist() == [1, 0]
    for labels, classes in [(["cow"], names), ([2], names), ([0], values)]:
        with pytest.raises(ValueError, match="Labels that are not in the training data"):
            encode_labels(labels, classes)


def test_ints_that_are_all_names_are_those_names_and_not_indices():
    names = np.array(["1", "2", "3"])
    assert encode_labels([1, 2, 1], names).tolist() == [0, 1, 0]
    assert encode_labels([0, 2, 1], names).tolist() == [0, 2, 1]
    assert encode_labels(["5", "6"], np.array([5, 6])).tolist() == [0, 1]
    with pytest.raises(ValueError, match="not in the training data: 4. Classes: 1, 2, 3"):
        encode_labels([1, 4], names)


def test_labels_are_read_by_the_classes_of_another_dataset():
    classes = np.array(["a", "b", "c"])
    of_names = ek.ImageDataset.from_arrays(X, ["c", "b", "c", "b"])
    assert with_class_indices_of(of_names, classes).labels.tolist() == [2, 1, 2, 1]
    of_indices = ek.ImageDataset.from_arrays(X, [2, 1, 2, 1])
    assert with_class_indices_of(of_indices, classes).labels.tolist() == [2, 1, 2, 1]
    with pytest.raises(ValueError, match="Labels that are not in the training data: d"):
        with_class_indices_of(ek.ImageDataset.from_arrays(X, [0, 1, 0, 1], class_names=["d", "a"]), classes)
    with pytest.raises(ValueError, match="Labels are needed"):
        with_class_indices_of(ek.ImageDataset.from_arrays(X), classes)

import pytest

from ensemble_keras.data.class_names import check_class_names, labels_and_names


def encode(y, class_names=None):
    labels, names = labels_and_names(y, len(y), class_names)
    return labels.tolist(), names


def test_strings_become_indices_into_their_sorted_names():
    assert encode(["dog", "cat", "dog"]) == ([1, 0, 1], ["cat", "dog"])


def test_given_names_decide_the_order_and_may_have_no_image():
    assert encode(["dog", "cat", "dog"], ["dog", "bird", "cat"]) == ([0, 2, 0], ["dog", "bird", "cat"])


def test_ints_stay_as_they_are_or_are_indices_into_given_names():
    assert encode([7, 3, 7]) == ([7, 3, 7], None)
    assert encode([1, 0], ["no", "yes"]) == ([1, 0], ["no", "yes"])


def test_a_label_that_is_no_class_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="'Pnemonia', in 2 rows: 0, 2. Did you mean 'Pneumonia'?"):
        encode(["Pnemonia", "Normal", "Pnemonia"], ["Normal", "Pneumonia"])
    with pytest.raises(ValueError, match="indices into the 2 `class_names`, from 0. Received: 2 in 1 row: 1"):
        encode([1, 2], ["a", "b"])
    with pytest.raises(ValueError, match="Received: -1 in 1 row: 0"):
        encode([-1, 0], ["a", "b"])


def test_class_names_are_a_list_of_different_strings():
    assert check_class_names(("a", 1)) == ["a", "1"]
    with pytest.raises(ValueError, match="`class_names` must differ. Received: 'a' more than once"):
        check_class_names(["a", "b", "a"])
    with pytest.raises(ValueError, match="must be a list of strings. Received: the string 'ab'"):
        check_class_names("ab")

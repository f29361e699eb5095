import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, RepeatedKFold, ShuffleSplit, StratifiedKFold

from ensemble_keras.data.splits import check_groups, make_folds, together, train_test_indices


@pytest.fixture
def labels(rng):
    return rng.choice(3, 400, p=[0.6, 0.3, 0.1])


def spread(key, folds):
    """How many folds each value of `key` is in."""
    return [len(np.unique(np.asarray(folds)[np.asarray(key) == value])) for value in np.unique(key)]


@pytest.mark.parametrize("cv", [2, 5, 10])
def test_folds_are_even_in_size_and_in_every_class(labels, cv):
    folds = make_folds(labels, cv=cv)
    assert set(folds) == set(range(cv))
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 2
    for kind in range(3):
        counts = np.bincount(folds[labels == kind], minlength=cv)
        assert counts.max() - counts.min() <= 1


def test_groups_stay_together_and_classes_stay_even(labels, rng):
    groups = rng.integers(0, 120, 400)
    folds = make_folds(labels, groups=groups)
    assert max(spread(groups, folds)) == 1
    for kind in range(3):
        counts = np.bincount(folds[labels == kind], minlength=5)
        assert counts.max() - counts.min() <= 4


def test_identical_images_share_a_fold_also_across_groups(labels, rng):
    groups, digests = rng.integers(0, 200, 400), [bytes([i % 256, i // 256]) for i in range(400)]
    digests[7] = digests[300]
    folds = make_folds(labels, groups=groups, digests=digests)
    linked = (groups == groups[7]) | (groups == groups[300])
    assert len(set(folds[linked])) == 1
    plain = make_folds(labels, digests=digests)
    assert plain[7] == plain[300]


def test_the_seed_decides_and_0_is_a_seed(labels):
    np.testing.assert_array_equal(make_folds(labels, seed=0), make_folds(labels))
    np.testing.assert_array_equal(make_folds(labels, seed=3), make_folds(labels, seed=3))
    assert (make_folds(labels, seed=0) != make_folds(labels, seed=1)).any()


def test_neighbours_are_spread_over_folds():
    folds = make_folds(np.zeros(1000, int).tolist() + [1] * 1000)
    assert abs(np.corrcoef(folds[:-1], folds[1:])[0, 1]) < 0.1


def test_a_splitter_decides_itself(labels):
    splitter = StratifiedKFold(4, shuffle=True, random_state=3)
    folds = make_folds(labels, cv=splitter)
    for fold, (_, test) in enumerate(splitter.split(labels, labels)):
        np.testing.assert_array_equal(np.flatnonzero(folds == fold), test)


def test_a_splitter_gets_the_groups(labels, rng):
    groups = rng.integers(0, 50, 400)
    assert max(spread(groups, make_folds(labels, groups=groups, cv=GroupKFold(5)))) == 1


@pytest.mark.parametrize("splitter", [ShuffleSplit(5, random_state=0), RepeatedKFold(n_splits=5, n_repeats=2)])
def test_a_splitter_must_hold_every_image_out_once(labels, splitter):
    with pytest.raises(ValueError, match=rf"exactly once. Received: {type(splitter).__name__}, which holds"):
        make_folds(labels, cv=splitter)


def test_a_splitter_that_separates_identical_images_or_groups_is_warned_of(labels):
    digests = [str(i) for i in range(400)]
    digests[0] = digests[399]
    digests[1] = digests[398] = digests[200]
    with pytest.warns(UserWarning, match="puts 2 sets of byte-identical images into several folds"):
        make_folds(labels, digests=digests, cv=KFold(5))
    with pytest.warns(UserWarning, match="puts 10 groups into several folds"):
        make_folds(labels, groups=np.arange(400) % 10, cv=KFold(5))


@pytest.mark.parametrize("cv", [1, 0, -3, 2.0, True, "5", None])
def test_another_cv_is_refused(labels, cv):
    with pytest.raises(ValueError, match="`cv` must be a number of folds of at least 2, or a scikit-learn splitter"):
        make_folds(labels, cv=cv)


def test_too_few_of_a_class_are_an_error_with_counts_and_names():
    labels = [0] * 9 + [1] * 4 + [2] * 5
    with pytest.raises(ValueError, match="as many images of each class as folds. Received: cv=5; class 1 has 4. "):
        make_folds(labels)
    with pytest.raises(ValueError, match="class 'cat' has 4"):
        make_folds(labels, class_names=["bird", "cat", "dog"])
    with pytest.raises(ValueError, match="class 'rare' has 3"):
        make_folds(["often"] * 9 + ["rare"] * 3)


def test_too_few_groups_or_different_images_of_a_class_are_an_error():
    labels = [0] * 9 + [1] * 9
    with pytest.raises(ValueError, match="as many groups of each class as folds. Received: cv=5; class 1 has 3"):
        make_folds(labels, groups=[*range(9), *[20, 21, 22] * 3])
    with pytest.raises(
        ValueError, match="as many different images of each class as folds. Received: cv=5; class 0 has 2"
    ):
        make_folds(labels, digests=[b"a"] * 5 + [b"b"] * 4 + [bytes([i]) for i in range(9)])


def test_a_class_that_a_splitter_holds_out_whole_is_an_error():
    with pytest.raises(ValueError, match="all of class 'b' belong together in fold 1"):
        make_folds(["a", "a", "a", "b", "a", "b"], cv=KFold(2))


@pytest.mark.parametrize(("labels", "found"), [([1, 1, 1], "only images of class 1"), ([], "no images")])
def test_one_class_is_an_error(labels, found):
    with pytest.raises(ValueError, match=f"At least two classes with images are needed. Received: {found}"):
        make_folds(labels)


@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.5])
def test_a_split_has_the_share_of_every_class(labels, test_size):
    train, test = train_test_indices(labels, test_size=test_size)
    assert sorted([*train, *test]) == list(range(400))
    for kind in range(3):
        assert abs((labels[test] == kind).sum() - test_size * (labels == kind).sum()) <= 1


def test_groups_and_identical_images_are_on_one_side(labels, rng):
    groups, digests = rng.integers(0, 200, 400), rng.integers(0, 300, 400)
    _, test = train_test_indices(labels, groups=groups, digests=digests)
    side = np.isin(np.arange(400), test)
    assert max(spread(groups, side)) == max(spread(digests, side)) == 1


def test_the_seed_decides_the_split(labels):
    first, again, other = (train_test_indices(labels, seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("test_size", [0, 1, 1.5, -0.1, True])
def test_another_test_size_is_refused(labels, test_size):
    with pytest.raises(ValueError, match="`test_size` must be a share between 0 and 1"):
        train_test_indices(labels, test_size=test_size)


def test_a_class_on_one_side_only_is_an_error():
    with pytest.raises(ValueError, match=r"no test image of rare at test_size=0\.2"):
        train_test_indices([0] * 20 + [1], class_names=["often", "rare"])


def test_rows_are_linked_through_any_key():
    assert together(5, ["a", "b", "a", "c", "d"], [1, 2, 3, 2, 4]).tolist() == [0, 1, 0, 1, 2]
    assert together(3).tolist() == [0, 1, 2]
    assert together(2, None, ["x", "x"]).tolist() == [0, 0]


def test_groups_become_strings_and_whole_floats_ints():
    assert check_groups([1.0, 2.0, "b"], 3).tolist() == ["1", "2", "b"]
    assert check_groups(np.array([1, 2]), 2).tolist() == ["1", "2"]
    assert check_groups(None, 3) is None


def test_missing_groups_are_refused():
    with pytest.raises(ValueError, match="Expected a group for every image. Received: none in 2 rows: 1, 2"):
        check_groups(["a", None, np.nan], 3)
    with pytest.raises(ValueError, match="one group per image. Received: 2 groups for 3 images"):
        check_groups(["a", "b"], 3)
    with pytest.raises(ValueError, match="one group per image. Received: 2 groups for 4 images"):
        make_folds([0, 0, 1, 1], groups=[1, 2], cv=2)

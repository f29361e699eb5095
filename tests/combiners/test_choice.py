import numpy as np
import pytest
from synthetic import member_predictions

from ensemble_keras.combiners.choice import Candidate, choose, named_combiners, try_combiner
from ensemble_keras.combiners.fitting import combine, fit_combiner


def candidate(name, out_of_fold):
    return Candidate(name, None, None, np.asarray(out_of_fold, "float32"), 0.0, [0])


def two_classes(p):
    return np.stack([1 - p, p], axis=1)


def of_accuracy(accuracy, y, num_classes, rng):
    """Predictions that are right so often."""
    said = np.where(rng.random(len(y)) < accuracy, y, (y + 1) % num_classes)
    return np.where(said[:, None] == np.arange(num_classes), 0.8, 0.2 / (num_classes - 1))


def test_the_simplest_that_is_not_less_accurate_beyond_chance_is_chosen():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 2000)
    worse, good, best = (candidate(str(a), of_accuracy(a, y, 3, rng)) for a in (0.7, 0.89, 0.9))
    assert choose([worse, good, best], y) is good
    assert choose([good, worse, best], y) is good
    assert choose([best, good], y) is best


def test_of_two_classes_the_order_of_the_images_counts_too():
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.05).astype(int)
    # Both say the common class of all images; only one knows in what order.
    blind = candidate("blind", two_classes(rng.uniform(0, 0.4, 2000)))
    knowing = candidate("knowing", two_classes(rng.uniform(0, 0.3, 2000) + 0.1 * y))
    assert np.mean(blind.out_of_fold.argmax(axis=1) == y) == np.mean(knowing.out_of_fold.argmax(axis=1) == y)
    assert choose([blind, knowing], y) is knowing
    assert choose([knowing, blind], y) is knowing


def test_images_of_a_group_are_one_case():
    y, groups = np.arange(600) % 3, np.arange(600) // 30
    # Right in 14 and in 16 of 20 groups: of 600 images that is a lot, of 20 patients it is chance.
    simple, better = (
        candidate(str(right), of_accuracy(1.0, np.where(groups < right, y, y + 1) % 3, 3, np.random.default_rng(0)))
        for right in (14, 16)
    )
    assert choose([simple, better], y) is better
    assert choose([simple, better], y, groups=groups) is simple


def test_where_none_is_as_good_by_every_measure_the_most_accurate_is_chosen():
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    accurate = candidate("accurate", of_accuracy(0.9, y, 2, rng))
    # Always on the wrong side of 0.5, but in perfect order.
    ordered = candidate("ordered", two_classes(np.where(y == 1, 0.4, 0.3)))
    assert choose([ordered, accurate], y) is accurate


def features_of(y, num_folds, rng):
    """Features of two members, `(n, 4)` and, of one whose folds have networks of their own, `(folds, n, 3)`."""
    shared = rng.normal(size=(len(y), 4)) + np.eye(4)[y]
    own = rng.normal(size=(num_folds, len(y), 3)) + np.eye(3)[y] * rng.choice([-2, 2], (num_folds, 1, 3))
    return [shared.astype("float32"), own.astype("float32")]


@pytest.mark.parametrize("name", ["weighted_voting", "greedy", "best_member", "concatenate"])
def test_a_row_is_judged_by_a_combiner_that_did_not_see_its_label(name, rng):
    predictions, y = member_predictions([1.0, 1.5], n=300)
    folds, features = np.arange(300) % 4, features_of(y, 4, rng)
    [combiner] = named_combiners(name, 3).values()
    held = folds == 0
    changed = np.where(held, (y + 1) % 3, y)
    found, other = (
        try_combiner(name, combiner, predictions, labels, folds, features=features).out_of_fold
        for labels in (y, changed)
    )
    np.testing.assert_allclose(found[held], other[held], atol=1e-6)
    assert np.abs(found[~held] - other[~held]).max() > 1e-4 or name == "best_member"


def test_where_folds_have_networks_of_their_own_each_is_judged_by_its_own(rng):
    predictions, y = member_predictions([1.0, 1.5], n=300)
    folds, features = np.arange(300) % 4, features_of(y, 4, rng)
    [combiner] = named_combiners("concatenate", 3).values()
    candidate = try_combiner("concatenate", combiner, predictions, y, folds, features=features)
    assert candidate.fitted is None
    assert candidate.used == [0, 1]
    for fold in range(4):
        held = folds == fold
        parts = [features[0], features[1][fold]]
        fitted = fit_combiner(combiner, None, y[~held], features=[x[~held] for x in parts], folds=folds[~held])
        expected = combine(fitted, None, [x[held] for x in parts])
        np.testing.assert_allclose(candidate.out_of_fold[held], expected, atol=1e-5)
    assert np.mean(candidate.out_of_fold.argmax(axis=1) == y) > 0.7


def test_a_vote_uses_the_members_that_have_weight():
    predictions, y = member_predictions([2.0, 0.0, 2.0])
    for name, used in {"weighted_voting": [0, 2], "soft_voting": [0, 1, 2]}.items():
        [combiner] = named_combiners(name, 3).values()
        assert try_combiner(name, combiner, predictions, y, np.arange(len(y)) % 5).used == used

import numpy as np

from ensemble_keras.combiners.choice import Candidate, choose


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


def test_where_none_is_as_good_by_every_measure_the_most_accurate_is_chosen():
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    accurate = candidate("accurate", of_accuracy(0.9, y, 2, rng))
    # Always on the wrong side of 0.5, but in perfect order.
    ordered = candidate("ordered", two_classes(np.where(y == 1, 0.4, 0.3)))
    assert choose([ordered, accurate], y) is accurate

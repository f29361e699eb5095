import numpy as np
import pytest

from ensemble_keras.members.fold_heads import FoldHeads


def folds_of(y, folds, num_classes, *, num_problems=1, d=4):
    features = np.random.default_rng(0).normal(size=(len(y), d)).astype("float32") * 3 + 5
    task = FoldHeads(
        features,
        np.asarray(y),
        np.asarray(folds),
        num_classes=num_classes,
        class_weight=np.ones(num_classes),
        num_problems=num_problems,
    )
    return task, features


@pytest.mark.parametrize("num_problems", [0, 1000])
def test_side_by_side_and_one_by_one_give_the_same_heads(num_problems):
    y, folds = np.arange(40) % 3, np.arange(40) // 10
    task, _ = folds_of(y, folds, 3, num_problems=num_problems)
    together = task.solve(np.arange(4), np.full(4, 0.1))
    alone = np.concatenate([task.solve_fold(fold, 0.1) for fold in range(4)], axis=1)
    np.testing.assert_allclose(task.held_out(together), task.held_out(alone), atol=0.01)


@pytest.mark.parametrize("num_problems", [0, 1000])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_held_out_rows_and_the_mean_head_agree_with_features_as_they_are(num_classes, num_problems):
    folds = np.arange(40) % 4
    task, features = folds_of(np.arange(40) // 4 % num_classes, folds, num_classes, num_problems=num_problems)
    same = np.repeat(task.solve_fold(1, 0.1), 4, axis=1)
    kernel, bias = task.mean(same)
    logits = features @ kernel + bias
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(task.held_out(same)[task.places], logits, atol=1e-4)


def test_a_head_that_never_saw_a_class_has_no_say_in_it():
    y, folds = np.array([0, 1, 2, 0, 1, 0, 0, 1, 1]), np.repeat([0, 1, 2], 3)
    task, _ = folds_of(y, folds, 3, num_problems=0)
    heads = np.zeros((5, 3, 3), "float32")
    heads[-1] = [[1, 2, -9], [3, 1, 2], [0, 1, 2]]
    kernel, bias = task.mean(heads)
    seen_only = np.array([[-0.5, 0.5, 0], [1, -1, 0], [-1, 0, 1]]).sum(axis=0) / [3, 3, 2]
    np.testing.assert_allclose(bias, seen_only - seen_only.mean(), atol=1e-6)
    np.testing.assert_allclose(kernel, 0)


def test_of_two_classes_only_heads_that_saw_both_count():
    y, folds = np.array([0, 1, 0, 0, 0, 0]), np.repeat([0, 1, 2], 2)
    task, _ = folds_of(y, folds, 2, num_problems=0)
    heads = np.zeros((5, 3, 1), "float32")
    heads[-1, :, 0] = [-9, 1, 2]
    np.testing.assert_allclose(task.mean(heads)[1], [-0.75, 0.75], atol=1e-6)

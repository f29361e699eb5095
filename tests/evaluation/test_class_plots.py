import numpy as np
import pytest
from sklearn import metrics as sk

from ensemble_keras.evaluation import class_plots


def sample(rng, n, num_classes):
    y = np.arange(n) % num_classes
    logits = rng.normal(size=(n, num_classes))
    logits[np.arange(n), y] += 1.5
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), y


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines if not line.get_label().startswith("_")}


def test_two_classes_have_the_curve_of_the_second(rng):
    p, y = sample(rng, 100, 2)
    found = lines(class_plots.plot_precision_recall(p, y, class_names=["cat", "dog"]))
    precision, recall, _ = sk.precision_recall_curve(y, p[:, 1])
    label = f"dog, AP {sk.average_precision_score(y, p[:, 1]):.3f}"
    np.testing.assert_allclose(found[label], np.stack([recall, precision], axis=1))
    assert "by chance, 0.500" in found


def test_the_mean_curve_has_the_precision_that_reaches_a_recall(rng):
    p, y = sample(rng, 90, 3)
    found = lines(class_plots.plot_precision_recall(p, y))
    mean = next(points for label, points in found.items() if label.startswith("macro mean"))
    assert len(found) == 4
    for level, precision in mean[[0, 30, 111, 200]]:
        each = []
        for k in range(3):
            precisions, recalls, _ = sk.precision_recall_curve(y == k, p[:, k])
            each.append(precisions[recalls >= level - 1e-12][-1])
        assert precision == pytest.approx(np.mean(each))


def test_many_classes_have_the_mean_and_the_worst(rng):
    p, y = sample(rng, 200, 10)
    assert len(lines(class_plots.plot_precision_recall(p, y))) == 6
    alone = class_plots.plot_precision_recall(p, np.zeros(200, int))
    assert [text.get_text() for text in alone.get_legend().get_texts()] == ["no curve: images of one class only"]


@pytest.mark.parametrize("score", ["precision", "recall", "f1"])
def test_every_classifier_has_its_score_of_every_class(rng, score):
    p, y = sample(rng, 90, 3)
    tables = {"a": sample(rng, 90, 3)[0], "ensemble": p}
    ax = class_plots.plot_class_scores(tables, y, class_names=["x", "y", "z"], score=score)
    metric = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[score]
    for line, table in zip(ax.lines, tables.values(), strict=True):
        np.testing.assert_allclose(line.get_xdata(), 100 * metric(y, table.argmax(axis=1), average=None))
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [0, 1, 2])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y", "z"]


def test_of_many_classes_the_worst_are_shown(rng):
    p, y = sample(rng, 400, 40)
    ax = class_plots.plot_class_scores({"model": p}, y)
    expected = np.sort(sk.f1_score(y, p.argmax(axis=1), average=None))[:25]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), 100 * expected)


def test_an_unknown_score_is_refused(rng):
    p, y = sample(rng, 90, 3)
    with pytest.raises(ValueError, match="`score` must be one of 'precision', 'recall', 'f1'"):
        class_plots.plot_class_scores({"model": p}, y, score="accuracy")

import itertools

import keras
import matplotlib
import matplotlib._pylab_helpers
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn import metrics as sk

from ensemble_keras.data.augmentation import build_augmentation
from ensemble_keras.evaluation import drawing, plots


def probabilities(rng, y, num_classes):
    logits = rng.normal(size=(len(y), num_classes))
    logits[np.arange(len(y)), y] += 1.5
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def curves(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines if not line.get_label().startswith("_")}


def overlap(ax, artist):
    ax.figure.draw_without_rendering()
    return ax.get_window_extent().overlaps(artist.get_window_extent())


def test_a_confusion_matrix_shows_its_counts():
    counts = np.array([[1200, 3], [0, 7]])
    ax = plots.plot_confusion(pd.DataFrame(counts, index=["cat", "dog"]))
    assert [text.get_text() for text in ax.texts] == ["1,200", "3", "0", "7"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[1200 / 1203, 3 / 1203], [0, 1]])


def test_normalized_numbers_are_percent_of_the_true_class():
    ax = plots.plot_confusion(np.array([[3, 1], [0, 0]]), normalize=True)
    assert [text.get_text() for text in ax.texts] == ["75 %", "25 %", "0 %", "0 %"]


def test_100_classes_have_no_numbers_and_names_that_do_not_touch():
    ax = plots.plot_confusion(np.eye(100, dtype=int), class_names=[f"some_long_class_name_{k}" for k in range(100)])
    assert not ax.texts
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(below.y1 <= above.y0 + 1 for above, below in itertools.pairwise(boxes))


@pytest.mark.parametrize("num_classes", [2, 4, 30])
def test_the_macro_mean_and_the_areas_are_scikit_learns(rng, num_classes):
    y = rng.integers(0, num_classes, 400)
    p = probabilities(rng, y, num_classes)
    ax = plots.plot_roc(p, y)
    areas = (
        sk.roc_auc_score(y, p[:, 1]) if num_classes == 2 else sk.roc_auc_score(y, p, multi_class="ovr", average=None)
    )
    if num_classes == 2:
        assert list(curves(ax)) == [f"1, AUC {areas:.3f}"]
        np.testing.assert_allclose(curves(ax).popitem()[1], np.transpose(sk.roc_curve(y, p[:, 1])[:2]))
        return
    order = range(4) if num_classes == 4 else np.argsort(areas)[:5]
    expected = [f"macro mean, AUC {areas.mean():.3f}", *(f"{k}, AUC {areas[k]:.3f}" for k in order)]
    assert list(curves(ax)) == expected


@pytest.mark.parametrize("num_classes", [2, 4, 30])
def test_the_legend_is_whole_and_not_over_the_curves(rng, num_classes):
    y = rng.integers(0, num_classes, 400)
    ax = plots.plot_roc(probabilities(rng, y, num_classes), y)
    assert not overlap(ax, ax.get_legend())
    assert ax.get_legend().get_window_extent().y0 >= 0


def test_a_class_without_images_has_no_curve(rng):
    y = rng.integers(0, 3, 100)
    assert len(curves(plots.plot_roc(probabilities(rng, y, 4), y))) == 4
    assert list(curves(plots.plot_roc(np.full((5, 2), 0.5), np.zeros(5, int)))) == [
        "no curve: images of one class only"
    ]


def test_a_history_gives_a_training_and_a_validation_curve():
    history = {"loss": [1.0, 0.5, 0.4], "val_loss": [1.1, 0.7, 0.8], "accuracy": [0.5, 0.6, 0.7]}
    ax = plots.plot_history(history, metric="loss")
    np.testing.assert_array_equal(curves(ax)["training"], [[1, 1], [2, 0.5], [3, 0.4]])
    np.testing.assert_array_equal(curves(ax)["validation"][:, 1], history["val_loss"])
    assert list(curves(plots.plot_history(history))) == ["training"]
    assert not overlap(ax, ax.get_legend())
    with pytest.raises(ValueError, match="`metric` must be one of 'loss', 'accuracy'. Received: 'los'"):
        plots.plot_history(history, metric="los")


def test_members_show_their_accuracy_in_percent():
    frame = pd.DataFrame({"accuracy": [0.9, 0.95], "accuracy_low": [0.8, 0.9], "accuracy_high": [0.93, 0.97]})
    ax = plots.plot_members(frame.set_index(pd.Index(["a", "ensemble"])))
    np.testing.assert_allclose([line.get_xdata() for line in ax.lines[::2]], [[80, 93], [90, 97]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "ensemble"]


@pytest.mark.parametrize("name", ["US$ and $more", "a_b^{c", "<b>&", "--"])
def test_a_class_name_is_drawn_as_it_is(rng, name):
    y = rng.integers(0, 2, 50)
    p = probabilities(rng, y, 2)
    for ax in (
        plots.plot_confusion(np.eye(2), class_names=["x", name]),
        plots.plot_roc(p, y, class_names=["x", name]),
    ):
        assert drawing.svg(ax).startswith("<svg")


def test_axes_that_are_given_are_drawn_on(rng):
    ax = Figure().add_subplot()
    assert plots.plot_confusion(np.eye(3), ax=ax) is ax
    assert plots.plot_history({"accuracy": [0.5]}, ax=ax) is ax


def test_nothing_of_pyplots_state_changes():
    before = dict(matplotlib.rcParams)
    ax = plots.plot_confusion(np.eye(3))
    drawing.svg(ax)
    assert dict(matplotlib.rcParams) == before
    assert not matplotlib._pylab_helpers.Gcf.get_all_fig_managers()


def test_a_notebook_shows_the_axes_as_a_picture():
    assert plots.plot_confusion(np.eye(3))._repr_png_().startswith(b"\x89PNG")


def test_an_svg_takes_the_pages_colours_and_fetches_nothing():
    svg = drawing.svg(plots.plot_history({"accuracy": [0.5, 0.6], "val_accuracy": [0.4, 0.5]}))
    assert "currentColor" in svg
    assert "var(--accent)" in svg
    assert "http" not in svg


def test_long_names_lose_their_middle():
    assert drawing.shortened("short") == "short"
    assert drawing.shortened("abcdefghij", 5) == "ab…ij"


def test_augmented_images_stand_beside_the_image_as_it_is(images):
    figure = plots.plot_augmentation("crop", images[:3], views=2, seed=1)
    shown = np.array([ax.images[0].get_array() for ax in figure.axes]).reshape(3, 3, 32, 32, 3)
    np.testing.assert_array_equal(shown[:, 0], images[:3])
    augment = build_augmentation("crop", seed=1)
    for view in (1, 2):
        changed = augment({"images": images[:3]}, training=True)["images"]
        np.testing.assert_array_equal(shown[:, view], keras.ops.convert_to_numpy(changed))
    assert [ax.get_title() for ax in figure.axes[:3]] == ["as it is", "view 1", "view 2"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_mixed_images_and_no_augmentation_can_be_drawn(images):
    assert len(plots.plot_augmentation("mixup", images[:2], views=1).axes) == 4
    figure = plots.plot_augmentation("none", images[:1], views=2)
    for ax in figure.axes:
        np.testing.assert_array_equal(ax.images[0].get_array(), images[0])


def test_augmentation_plots_check_their_input(images):
    with pytest.raises(ValueError, match="Unknown augmentation 'mediacl'"):
        plots.plot_augmentation("mediacl", images)
    with pytest.raises(ValueError, match="`images` must hold images of shape"):
        plots.plot_augmentation("light", images[0])
    with pytest.raises(ValueError, match="`views` must be an int of at least 1. Received: 0"):
        plots.plot_augmentation("light", images, views=0)

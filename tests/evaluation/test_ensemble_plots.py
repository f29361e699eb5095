import itertools

import matplotlib._pylab_helpers
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ensemble_keras.evaluation.drawing import BLUE, VERMILLION
from ensemble_keras.evaluation.ensemble_plots import plot_cascade, plot_diversity, plot_pareto, plot_reliability
from ensemble_keras.measures.calibration import expected_calibration_error, reliability


@pytest.fixture
def table():
    """The correlation of three members' errors."""
    values = np.array([[1.0, 0.2, -0.5], [0.2, 1.0, np.nan], [-0.5, np.nan, 1.0]])
    return pd.DataFrame(values, list("abc"), list("abc"))


@pytest.fixture
def front():
    rows = [(("a",), 1.0, 0.7, True), (("b",), 2.0, 0.6, False), (("a", "b"), 3.0, 0.8, True)]
    rows.append((("a", "b", "c"), 50.0, 0.9, True))
    return pd.DataFrame(rows, columns=["members", "cost", "accuracy", "on_front"])


def test_a_heat_map_shows_pairs_by_sign_and_leaves_the_diagonal_blank(table):
    ax = plot_diversity(table, label="correlation")
    assert [text.get_text() for text in ax.texts] == ["0.20", "-0.50", "0.20", "-0.50"]
    shown = ax.images[0].get_array()
    assert np.isnan(np.diag(np.ma.filled(shown, np.nan))).all()
    colors = [to_hex(ax.images[0].to_rgba(value)[:3]) for value in (-0.5, 0.5)]
    assert colors == [BLUE.lower(), VERMILLION.lower()]
    assert ax.images[0].to_rgba(0.0)[3] < 0.01
    assert ax.get_title() == "correlation"
    assert plot_diversity(table).get_title() == ""


def test_many_members_have_no_numbers_and_names_that_do_not_touch():
    ax = plot_diversity(pd.DataFrame(np.full((100, 100), 0.3)))
    assert not ax.texts
    # What the colours mean is told beside them, from 0 on.
    [bar] = [axes for axes in ax.figure.axes if axes is not ax]
    np.testing.assert_allclose(bar.get_ylim(), [0, 0.3])
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(below.y1 <= above.y0 + 1 for above, below in itertools.pairwise(boxes))


def test_members_that_never_differ_can_be_drawn():
    ax = plot_diversity(pd.DataFrame(np.zeros((2, 2)), ["a", "b"], ["a", "b"]))
    assert [text.get_text() for text in ax.texts] == ["0.00", "0.00"]
    almost = pd.DataFrame([[1, -0.001], [-0.001, 1]])
    assert [text.get_text() for text in plot_diversity(almost).texts] == ["0.00", "0.00"]
    for value in (0.0, np.nan):
        assert not plot_diversity(pd.DataFrame(np.full((1, 1), value))).texts
        [_, bar] = plot_diversity(pd.DataFrame(np.full((20, 20), value))).figure.axes
        assert bar.get_ylim() == (0, 1)


def test_the_front_is_a_line_of_steps_over_all_sets(front):
    ax = plot_pareto(front, unit="ms")
    rest, steps, dots = ax.lines[:3]
    np.testing.assert_allclose(rest.get_xydata(), [[2, 60]])
    np.testing.assert_allclose(dots.get_xydata(), [[1, 70], [3, 80], [50, 90]])
    np.testing.assert_allclose(steps.get_xydata(), dots.get_xydata())
    assert [text.get_text() for text in ax.texts] == ["1", "2", "3"]
    assert _legend(ax) == ["not on the front", "on the front", "a", "a + b", "a + b + c"]
    assert [line.get_marker() for line in ax.lines[3:]] == ["$1$", "$2$", "$3$"]
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "cost in ms"
    assert plot_pareto(front[:3]).get_xscale() == "linear"
    assert plot_pareto(front).get_xlabel() == "cost"


def _legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_long_names_stay_within_the_figure_and_clear_of_the_axes(front):
    names = ["MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)", "EfficientNetV2B0"]
    members = [tuple(names["abc".index(m)] for m in part) for part in front["members"]]
    ax = plot_pareto(front.assign(members=members), unit="ms")
    ax.figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    assert 0 <= legend.y0 < legend.y1 < ax.xaxis.label.get_window_extent().y0 + 1
    assert 0 <= legend.x0 < legend.x1 <= ax.figure.bbox.x1
    assert all(text.get_window_extent().x0 > ax.get_window_extent().x0 for text in ax.texts)
    assert ax.get_window_extent().height > 0.4 * ax.figure.bbox.height


def test_a_long_front_has_no_names(front):
    many = pd.concat([front[:1]] * 9, ignore_index=True)
    assert not plot_pareto(many).texts
    assert len(_legend(plot_pareto(many))) == 2


def test_a_cascade_is_drawn_as_expected_and_as_measured():
    curve = pd.DataFrame(
        {"throughput": [1.5, 2.0], "loss": [0.0, 0.001], "low": [-0.001, 0.0], "high": [0.001, 0.002]}
    )
    ax = plot_cascade(curve, measured=curve + 0.1)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1.5, 0], [2, 0.1]])
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[1.6, 10], [2.1, 10.1]])
    [bars] = [c for c in ax.collections if hasattr(c, "get_segments")]
    np.testing.assert_allclose(bars.get_segments()[1], [[2.1, 10.0], [2.1, 10.2]])
    assert len(plot_cascade(curve).lines) == 1


def test_a_reliability_diagram_shows_the_bins_and_the_error(rng):
    p = rng.dirichlet([1, 1, 1], 200)
    y = rng.integers(0, 3, 200)
    ax = plot_reliability(p, y, bins=5)
    table = reliability(p, y, bins=5)
    np.testing.assert_allclose(ax.lines[1].get_xydata(), table[["confidence", "accuracy"]])
    assert ax.lines[1].get_label() == f"calibration error {expected_calibration_error(p, y, bins=5):.3f}"
    sizes = ax.collections[0].get_sizes()
    assert np.argmax(sizes) == np.argmax(table["count"])


def test_given_axes_are_drawn_on_and_no_figure_stays_open(table, front, rng):
    for draw in (
        lambda ax: plot_diversity(table, ax),
        lambda ax: plot_pareto(front, ax),
        lambda ax: plot_reliability([0.2, 0.7], [0, 1], ax),
    ):
        ax = Figure().add_subplot()
        assert draw(ax) is ax
    assert not matplotlib._pylab_helpers.Gcf.get_all_fig_managers()

import numpy as np
import pytest
from matplotlib.figure import Figure

from ensemble_keras.evaluation.uncertainty_plots import plot_risk_coverage, plot_set_sizes
from ensemble_keras.measures.uncertainty import area_under_risk_coverage, risk_coverage


@pytest.fixture
def table(rng):
    p = rng.dirichlet([0.5, 0.5, 0.5], 100)
    return p, (rng.random((100, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=2)


def test_accuracy_stands_over_the_share_of_answers(table):
    p, y = table
    ax = plot_risk_coverage(p, y)
    curve = risk_coverage(p, y)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), 100 * curve["coverage"])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * curve["accuracy"])
    assert len(ax.collections) == 1
    low, high = ax.get_ylim()
    assert low < 100 * curve["accuracy"].iloc[-1] < high


def test_a_threshold_is_marked_where_it_lies(table):
    p, y = table
    ax = plot_risk_coverage(p, y, threshold=0.8)
    shown = p.max(axis=1) >= 0.8
    [x], [accuracy] = ax.lines[1].get_data()
    assert (x, accuracy) == pytest.approx((100 * shown.mean(), 100 * (p.argmax(axis=1) == y)[shown].mean()))
    assert len(plot_risk_coverage(p, y, threshold=1.1).lines) == 1


def test_several_curves_are_told_apart(table):
    p, y = table
    given = Figure().add_subplot()
    ax = plot_risk_coverage({"one": p, "all of them": p**2 / (p**2).sum(axis=1, keepdims=True)}, y, given)
    assert ax is given
    areas = [area_under_risk_coverage(q, y) for q in (p, p**2 / (p**2).sum(axis=1, keepdims=True))]
    expected = [f"{name}, AURC {area:.4f}" for name, area in zip(("one", "all of them"), areas, strict=True)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == expected
    assert len({line.get_color() for line in ax.lines}) == 2
    assert not ax.collections
    with pytest.raises(ValueError, match="at most 6 tables. Received: 7"):
        plot_risk_coverage({str(k): p for k in range(7)}, y)


def test_sets_are_counted_by_their_size(rng):
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], bool)
    ax = plot_set_sizes(sets, [0, 1, 1, 0])
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert heights == [[0, 25, 25], [25, 0, 25]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["with the true class: 50 %", "without: 50 %"]

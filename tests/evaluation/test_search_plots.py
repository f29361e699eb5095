import matplotlib._pylab_helpers
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ensemble_keras.evaluation.drawing import VERMILLION
from ensemble_keras.evaluation.search_plots import (
    plot_family_shares,
    plot_lineage,
    plot_search_front,
    plot_search_progress,
)

FAMILIES = ["alexnet", "cnn", "densenet", "hybrid", "mobilenet", "recurrent", "residual", "transformer", "vgg"]


@pytest.fixture
def trials():
    """Seven trials: the third failed, the fifth was stopped; the sixth is the best."""
    rows = [
        ("cnn", 0.50, 5e6, "COMPLETED", ()),
        ("vgg", 0.40, 1e6, "COMPLETED", ()),
        ("cnn", np.nan, 9e6, "FAILED", ()),
        ("vgg", 0.60, 2e6, "COMPLETED", (1, 2)),
        ("cnn", 0.30, 3e6, "STOPPED", (1,)),
        ("vgg", 0.80, 50e6, "COMPLETED", (4, 3)),
        ("hybrid", 0.70, 50e6, "COMPLETED", (5, 1)),
    ]
    table = pd.DataFrame(rows, columns=["family", "score", "macs", "status", "parents"])
    table.insert(0, "trial", range(1, 8))
    return table.assign(val_accuracy=table["score"], parameters=1000)


@pytest.fixture
def many(rng):
    """A hundred trials of nine families, all good."""
    table = pd.DataFrame({"trial": range(1, 101), "family": FAMILIES * 11 + ["cnn"]})
    return table.assign(score=rng.uniform(size=100), status="COMPLETED", macs=10.0 ** rng.uniform(5, 8, 100))


def points(line):
    return line.get_xydata().tolist()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_progress_shows_every_trial_and_the_best_so_far(trials):
    ax = plot_search_progress(trials)
    finished, stopped, best, failed = ax.lines
    assert labels(ax) == ["trial", "stopped early", "best so far", "failed"]
    assert points(finished) == [[1, 0.5], [2, 0.4], [4, 0.6], [6, 0.8], [7, 0.7]]
    assert points(stopped) == [[5, 0.3]]
    assert points(best) == [[1, 0.5], [2, 0.5], [4, 0.6], [5, 0.6], [6, 0.8], [7, 0.8]]
    assert failed.get_xdata().tolist() == [3]
    assert labels(plot_search_progress(trials[:2])) == ["trial", "best so far"]


def test_searches_are_compared_by_the_mean_of_their_seeds(trials):
    worse = trials.assign(score=trials["score"] - 0.2)
    ax = plot_search_progress({"genetic": [trials, worse], "random": worse})
    assert labels(ax) == ["genetic, 2 seeds", "random"]
    mean, single = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), [0.4, 0.4, 0.5, 0.5, 0.7, 0.7])
    np.testing.assert_allclose(single.get_ydata(), [0.3, 0.3, 0.4, 0.4, 0.6, 0.6])
    [band] = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [0.3, 0.8])


def test_a_seed_that_ends_early_keeps_its_best(trials):
    ax = plot_search_progress({"genetic": [trials, trials[:2]]})
    np.testing.assert_allclose(ax.lines[0].get_ydata()[[1, -1]], [0.5, 0.65])


def test_shares_of_families_fill_the_axes(many):
    ax = plot_family_shares(many, windows=4)
    assert labels(ax) == FAMILIES
    assert len(ax.patches) == 4 * len(FAMILIES)
    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(len(FAMILIES), 4)
    np.testing.assert_allclose(heights.sum(axis=0), 100)
    shares = [100 * np.mean(many["family"][i : i + 25] == "cnn") for i in range(0, 100, 25)]
    np.testing.assert_allclose(heights[FAMILIES.index("cnn")], shares)
    assert [bar.get_x() for bar in ax.patches[:4]] == [0.5, 25.5, 50.5, 75.5]
    assert len({(to_hex(bar.get_facecolor()), bar.get_hatch()) for bar in ax.patches}) == len(FAMILIES)


def test_a_short_search_has_few_windows(trials):
    assert len(plot_family_shares(trials).patches) == 3
    with pytest.raises(ValueError, match="`windows` must be an int of at least 1. Received: 0"):
        plot_family_shares(trials, windows=0)


def test_the_front_has_what_nothing_betters(trials):
    ax = plot_search_front(trials)
    by_label = {line.get_label(): line for line in ax.lines}
    assert list(by_label)[:4] == ["cnn", "hybrid", "vgg", "Pareto front"]
    np.testing.assert_allclose(points(by_label["cnn"]), [[5e6, 50], [3e6, 30]])
    np.testing.assert_allclose(points(by_label["Pareto front"])[:3], [[1e6, 40], [2e6, 60], [50e6, 80]])
    np.testing.assert_allclose(points(ax.lines[-1]), [[1e6, 40], [2e6, 60], [50e6, 80]])
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "multiply-accumulates"
    flat = plot_search_front(trials, cost="parameters")
    assert flat.get_xscale() == "linear"
    assert flat.get_xlabel() == "parameters"
    np.testing.assert_allclose(points(flat.lines[-1]), [[1000, 80]])


def test_families_differ_by_colour_and_sign(many):
    ax = plot_search_front(many.assign(val_accuracy=many["score"]))
    shown = [line for line in ax.lines if line.get_label() in FAMILIES]
    assert len({(line.get_color(), line.get_marker()) for line in shown}) == len(shown) == len(FAMILIES)


def test_the_champions_ancestors_stand_out(trials):
    ax = plot_lineage(trials)
    others, ancestors, champion = ax.lines
    # The champion's other parent failed.
    assert points(champion) == [[6, 0.8]]
    assert champion.get_label() == "champion: trial 6"
    assert points(ancestors) == [[1, 0.5], [2, 0.4], [4, 0.6]]
    assert points(others) == [[5, 0.3], [7, 0.7]]
    plain, lit = (c for c in ax.collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(lit.get_segments(), [[[1, 0.5], [4, 0.6]], [[2, 0.4], [4, 0.6]], [[4, 0.6], [6, 0.8]]])
    assert to_hex(lit.get_colors()[0][:3]) == VERMILLION.lower()
    assert [segment[0][0] for segment in plain.get_segments()] == [1, 5, 1]


def test_trials_may_come_in_any_order_and_with_missing_integers(trials):
    shuffled = trials.iloc[[6, 2, 5, 0, 4, 1, 3]].copy()
    shuffled["macs"] = shuffled["macs"].astype("Int64").mask(shuffled["status"] == "FAILED")
    shuffled["score"] = shuffled["score"].astype(object).where(shuffled["score"].notna(), None)
    for draw in (plot_search_progress, plot_family_shares, plot_search_front, plot_lineage):
        drawn, expected = draw(shuffled), draw(trials)
        # The front is drawn in no order of trials.
        if draw is not plot_search_front:
            for line, other in zip(drawn.lines, expected.lines, strict=True):
                np.testing.assert_allclose(line.get_xydata(), other.get_xydata())
        np.testing.assert_allclose(drawn.dataLim, expected.dataLim)


def test_the_least_score_can_be_the_best(trials):
    assert points(plot_search_progress(trials, direction="min").lines[2])[-1] == [7, 0.3]
    assert plot_lineage(trials, direction="min").lines[2].get_label() == "champion: trial 5"
    for draw in (plot_search_progress, plot_lineage):
        with pytest.raises(ValueError, match="`direction` must be one of 'max', 'min'. Received: 'least'"):
            draw(trials, direction="least")


def test_a_search_without_parents_has_a_lineage_of_one(many):
    ax = plot_lineage(many.assign(parents=[()] * 100))
    assert [len(line.get_xdata()) for line in ax.lines] == [99, 1]


@pytest.mark.parametrize("draw", [plot_search_progress, plot_family_shares, plot_search_front, plot_lineage])
def test_a_table_that_will_not_do_is_refused(draw, trials):
    with pytest.raises(ValueError, match="must have the columns .*Missing: (trial|family)"):
        draw(trials.drop(columns=["trial", "family"]))
    with pytest.raises(ValueError, match="at least one trial. Received: an empty table"):
        draw(trials[:0])
    if draw is not plot_family_shares:
        with pytest.raises(ValueError, match="must have a trial with .*Received: 1 without"):
            draw(trials[2:3])


def test_given_axes_are_drawn_on_and_no_figure_stays_open(trials):
    for draw in (plot_search_progress, plot_family_shares, plot_search_front, plot_lineage):
        ax = Figure().add_subplot()
        assert draw(trials, ax) is ax
    assert not matplotlib._pylab_helpers.Gcf.get_all_fig_managers()


def test_the_legend_runs_over_nothing(many):
    for ax in (plot_family_shares(many), plot_search_front(many.assign(val_accuracy=many["score"]))):
        ax.figure.draw_without_rendering()
        legend, figure = ax.get_legend().get_window_extent(), ax.figure.bbox
        assert legend.y1 < ax.xaxis.label.get_window_extent().y0
        assert figure.y0 <= legend.y0
        assert figure.x0 <= legend.x0
        assert legend.x1 <= figure.x1


def test_what_is_not_there_is_not_in_the_legend_and_costs_are_in_millions(trials):
    """The champion of a random search has no ancestors."""
    assert labels(plot_lineage(trials[:2])) == ["other trials", "champion: trial 1"]
    ticks = plot_search_front(trials[:2]).xaxis.get_major_formatter()
    assert ticks(2e6) == "2 M"

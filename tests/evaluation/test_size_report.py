import itertools
import time

import keras
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tiny_members import tiny_member

import ensemble_keras as ek
from ensemble_keras.evaluation import size_report
from ensemble_keras.evaluation.size_report import compare_sizes, plot_sizes

CARD = {"class_names": ["no", "yes"], "filter": "bilinear"}
COLUMNS = ["accuracy", "parameters", "macs", "file_bytes", "latency_ms", "throughput"]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 8, 8, 3), dtype="uint8"), np.arange(40) % 2


@pytest.fixture(scope="module")
def ensemble():
    return ek.build_ensemble([tiny_member("a"), tiny_member("b", width=16)], ek.SoftVoting())


def settings(threshold):
    """A cascade of the two members with one threshold."""
    return {
        "order": ["a", "b"],
        "thresholds": [threshold],
        "weights": [1.0, 1.0],
        "member_temperatures": [1.0, 1.0],
        "temperatures": [1.0, 1.0],
    }


def test_each_figure_is_the_model_s(data, ensemble):
    x, y = data
    small = tiny_member("small")
    table = compare_sizes({"small": small, "ensemble": ensemble}, x, y, repeats=1)
    assert table.index.tolist() == ["small", "ensemble"]
    assert table.index.name == "model"
    assert table.columns.tolist() == COLUMNS
    for name, model in (("small", small), ("ensemble", ensemble)):
        row = table.loc[name]
        assert row["accuracy"] == np.mean(model.predict(x, verbose=0).argmax(axis=1) == y)
        assert row["parameters"] == model.count_params()
        assert row["macs"] == ek.count_macs(model).total
        assert row["latency_ms"] > 0 < row["throughput"]


def test_a_file_counts_as_it_is_and_a_model_as_its_file_would(data, ensemble, tmp_path):
    ensemble.save(tmp_path / "plain.keras")
    ek.save_ensemble(ensemble, tmp_path / "full.keras", card=CARD, verbose=0)
    ek.save_ensemble(ensemble, tmp_path / "half.keras", card=CARD, weights_dtype="float16", verbose=0)
    paths = {name: tmp_path / f"{name}.keras" for name in ("plain", "full", "half")}
    table = compare_sizes({**paths, "text": str(paths["full"]), "model": ensemble}, *data, repeats=1)
    for name, path in paths.items():
        assert table["file_bytes"][name] == path.stat().st_size
    assert table["file_bytes"]["model"] == pytest.approx(table["file_bytes"]["plain"], abs=50)
    assert table["file_bytes"]["text"] == table["file_bytes"]["full"]
    assert table["accuracy"].nunique() == 1


def test_an_optimizer_is_no_part_of_the_file(data):
    model = tiny_member("a", width=64)
    before = compare_sizes({"a": model}, *data, repeats=1)["file_bytes"]["a"]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*data, verbose=0)
    assert compare_sizes({"a": model}, *data, repeats=1)["file_bytes"]["a"] == pytest.approx(before, abs=50)


def test_the_names_in_a_file_s_card_give_the_order_of_classes(data, ensemble, tmp_path):
    x, y = data
    ek.save_ensemble(ensemble, tmp_path / "pets.keras", card=CARD, verbose=0)
    names = np.array(["no", "yes"])[y]
    expected = np.mean(ensemble.predict(x, verbose=0).argmax(axis=1) == y)
    assert compare_sizes({"file": tmp_path / "pets.keras"}, x, names, repeats=1)["accuracy"]["file"] == expected
    swapped = ek.ImageDataset.from_arrays(x, 1 - y, class_names=["yes", "no"])
    assert compare_sizes({"file": tmp_path / "pets.keras"}, swapped, repeats=1)["accuracy"]["file"] == expected


def test_a_cascade_costs_what_its_images_were_shown_to(data, ensemble):
    x, y = data
    first = tiny_member("a").predict(x, verbose=0).max(axis=1)
    threshold = float(np.sort(first)[10:12].mean())
    cascade = ek.Cascade(ensemble, {**CARD, "cascade": settings(threshold)})
    table = compare_sizes({"full": ensemble, "cascade": cascade}, x, y, repeats=1)
    small, large = (ek.count_macs(tiny_member("a", width=w)).total for w in (4, 16))
    assert (first < threshold).sum() == 11
    assert table["macs"]["cascade"] == round(small + large * 11 / 40)
    assert table["macs"]["full"] == small + large
    p, asked, macs = cascade.predict(x, return_members=True, return_macs=True)
    assert macs.tolist() == np.where(asked == 1, small, small + large).tolist()
    assert table["accuracy"]["cascade"] == np.mean(p.argmax(axis=1) == y)
    assert table["file_bytes"]["cascade"] == table["file_bytes"]["full"]


def test_models_of_other_sizes_see_the_images_at_their_own(data):
    x, y = data
    large = tiny_member("large", size=16)
    table = compare_sizes({"small": tiny_member("small"), "large": large}, x, y, repeats=1)
    pixels = ek.ImageDataset.from_arrays(x).load(image_size=16)
    assert table["accuracy"]["large"] == np.mean(large.predict(pixels, verbose=0).argmax(axis=1) == y)


def test_a_layer_that_is_not_known_leaves_the_cost_open(data):
    images = keras.Input((8, 8, 3))
    features = _Mean()(images)
    odd = keras.Model(images, keras.layers.Dense(2, "softmax")(features))
    table = compare_sizes({"odd": odd}, *data, repeats=1)
    assert table["macs"]["odd"] is pd.NA
    assert not plot_sizes(table).get_legend_handles_labels()[1]
    assert plot_sizes(table, x="parameters").get_legend_handles_labels()[1] == ["odd"]


def test_times_are_of_calls_with_one_image_and_with_32(data, monkeypatch):
    """A call takes 2 ms and 1 ms for each image."""
    seen = []

    def slow(model, batch_sizes):
        def call(x):
            seen.append(x)
            time.sleep(0.002 + 0.001 * len(x))

        return call

    monkeypatch.setattr(size_report, "compiled", slow)
    row = compare_sizes({"a": tiny_member("a")}, *data, repeats=3).loc["a"]
    assert row["latency_ms"] == pytest.approx(3, rel=0.5)
    assert row["throughput"] == pytest.approx(32 / 0.034, rel=0.5)
    assert {len(x) for x in seen} == {1, 32}
    # Each image is another one.
    ones = {x.tobytes() for x in seen if len(x) == 1}
    assert len(ones) == 16


@pytest.fixture
def table():
    rows = {"small": (0.7, 1e6, 900), "large": (0.9, 1e8, 20), "poor": (0.6, 5e7, 50)}
    table = pd.DataFrame(rows, index=["accuracy", "macs", "throughput"]).T
    return table.assign(parameters=1e3, file_bytes=1e4, latency_ms=[1, 9, 4])


def test_every_model_has_a_mark_of_its_own(table):
    ax = plot_sizes(table)
    front, *marks = ax.lines
    assert [mark.get_label() for mark in marks] == ["small", "large", "poor"]
    assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == [(1e6, 70), (1e8, 90), (5e7, 60)]
    assert len({(mark.get_marker(), mark.get_color()) for mark in marks}) == 3
    assert ax.get_xscale() == "log"
    np.testing.assert_allclose(front.get_ydata(), [70, 70, 90])


@pytest.mark.parametrize(("low", "high"), [(2.2e5, 2.9e6), (1e3, 1.1e4), (2.4e6, 1.06e8), (1e4, 3e9)])
def test_numbers_below_a_logarithmic_axis_have_room(low, high):
    table = pd.DataFrame({"accuracy": [0.7, 0.8, 0.9], "macs": [low, np.sqrt(low * high), high]})
    ax = plot_sizes(table, Figure(figsize=(4.5, 4)).add_subplot())
    ax.figure.draw_without_rendering()
    ticks = [tick.label1 for tick in ax.xaxis.get_major_ticks() + ax.xaxis.get_minor_ticks()]
    boxes = [text.get_window_extent() for text in ticks if text.get_text()]
    seen = [box for box in boxes if ax.bbox.x0 <= box.x0 + box.width / 2 <= ax.bbox.x1]
    assert len(seen) >= 2
    assert not any(a.overlaps(b) for a, b in itertools.combinations(seen, 2))


def test_of_throughput_more_is_better(table):
    ax = plot_sizes(table, x="throughput")
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [900, 50, 20])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [70, 70, 90])


@pytest.mark.parametrize("x", ["macs", "parameters", "file_bytes", "latency_ms", "throughput"])
def test_names_do_not_run_into_one_another(x):
    count = 14
    rng = np.random.default_rng(0)
    columns = ["accuracy", "macs", "parameters", "file_bytes", "latency_ms", "throughput"]
    table = pd.DataFrame(
        rng.uniform(0.89, 0.9, (count, 6)), [f"a model of long name {i}" for i in range(count)], columns
    )
    ax = plot_sizes(table, x=x)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.get_legend().get_texts()]
    assert len(boxes) == count
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert max(box.y1 for box in boxes) < ax.xaxis.label.get_window_extent().y0
    assert min(box.y0 for box in boxes) > ax.figure.bbox.y0


def test_what_cannot_be_compared_is_refused(data, ensemble, table, tmp_path):
    with pytest.raises(ValueError, match="`models` must be a dict from names to models, one or more. Received: {}"):
        compare_sizes({}, *data)
    with pytest.raises(ValueError, match="`models` must be a dict from names"):
        compare_sizes([ensemble], *data)
    with pytest.raises(ValueError, match="`repeats` must be an int of at least 1. Received: 0"):
        compare_sizes({"a": ensemble}, *data, repeats=0)
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    with pytest.raises(ValueError, match=r"`models\['any'\]` must be a functional `keras.Model` from images of one"):
        compare_sizes({"any": keras.Model(images, keras.layers.Dense(2, "softmax")(pooled))}, *data)
    (tmp_path / "notes.keras").write_text("no archive")
    with pytest.raises(ValueError, match="notes.keras' is not a .keras file: it is no zip archive"):
        compare_sizes({"notes": tmp_path / "notes.keras"}, *data)
    with pytest.raises(ValueError, match="`x` must be one of 'parameters', 'macs'"):
        plot_sizes(table, x="flops")
    with pytest.raises(ValueError, match="`table` must have a column 'macs'. Received: accuracy, throughput"):
        plot_sizes(table[["accuracy", "throughput"]])


class _Mean(keras.layers.Layer):
    def call(self, images):
        return keras.ops.mean(images, axis=(1, 2))

    def compute_output_shape(self, shape):
        return (shape[0], shape[-1])

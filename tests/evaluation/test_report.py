import html
import re
import threading

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from tiny_members import tiny_member

from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.voting import SoftVoting
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.evaluation.report import EvaluationReport
from ensemble_keras.measures.intervals import metric_interval
from ensemble_keras.measures.significance import compare, design_effect, drop_p_value, holm

NAMES = ["<b>&", 'dog\'s "own"', "cat"]


def probabilities(rng, y, strength=1.5, num_classes=3):
    logits = rng.normal(size=(len(y), num_classes))
    logits[np.arange(len(y)), y] += strength
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.fixture
def y(rng):
    return rng.integers(0, 3, 200)


@pytest.fixture
def members(rng, y):
    return {"VGG16": probabilities(rng, y), "<i>other": probabilities(rng, y, 1.0)}


@pytest.fixture
def report(y, members):
    ensemble = sum(members.values()) / 2
    return EvaluationReport.from_predictions(y, ensemble, class_names=NAMES, members=members)


def test_the_tables_are_scikit_learns(report, y):
    predicted = report.probabilities.argmax(axis=1)
    expected = sk.classification_report(y, predicted, target_names=NAMES, output_dict=True)
    for row in report.per_class.itertuples():
        found = {"precision": row.precision, "recall": row.recall, "f1-score": row.f1, "support": row.support}
        assert found == pytest.approx(expected[row[1]])
    np.testing.assert_array_equal(report.confusion, sk.confusion_matrix(y, predicted))
    assert (list(report.confusion.index), report.confusion.index.name) == (NAMES, "true")
    assert report.summary["accuracy"] == pytest.approx(expected["accuracy"])
    assert report.summary["f1_macro"] == pytest.approx(expected["macro avg"]["f1-score"])
    assert (report.summary["images"], report.summary["classes"]) == (200, 3)


def test_members_stand_beside_the_ensemble_with_its_gain(report, y, members):
    frame = report.members
    assert list(frame.index) == ["VGG16", "<i>other", "ensemble"]
    for name, p in members.items():
        gain = compare(report.probabilities, p, y)
        expected = [gain.difference, gain.low, gain.high, gain.p_value]
        assert frame.loc[name, ["difference", "difference_low", "difference_high", "p_value"]].tolist() == expected
        assert frame.loc[name, ["accuracy", "accuracy_low", "accuracy_high"]].tolist() == list(metric_interval(p, y))
        assert frame.loc[name, "log_loss"] == pytest.approx(sk.log_loss(y, p))
        assert frame.loc[name, "roc_auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"))
    np.testing.assert_array_equal(frame["p_holm"], holm(frame["p_value"]))
    assert frame.loc["ensemble", "accuracy"] == report.summary["accuracy"]
    assert np.isnan(frame.loc["ensemble", "difference"])


def test_the_verdict_compares_with_the_best_member(report, y, members):
    gain = compare(report.probabilities, members["VGG16"], y)
    assert report.verdict.startswith(f"The ensemble against its best member on these images, VGG16: {gain}; ")
    alike = EvaluationReport.from_predictions(y, members["VGG16"], members=members)
    assert alike.verdict.endswith("no difference beyond chance.")
    assert EvaluationReport.from_predictions(y, members["VGG16"], verdict="So be it.").verdict == "So be it."
    assert EvaluationReport.from_predictions(y, members["VGG16"]).verdict == ""


def test_what_holds_on_these_images_stands_beside_what_was_found_at_fitting(y, members, tmp_path):
    told = EvaluationReport.from_predictions(y, members["VGG16"], members=members, verdict="So be it.")
    assert told.gain == EvaluationReport.from_predictions(y, members["VGG16"], members=members).verdict
    told.to_html(tmp_path / "report.html")
    for shown in ((tmp_path / "report.html").read_text(), told._repr_html_()):
        assert shown.index("So be it.") < shown.index(told.gain)


def test_beyond_chance_is_what_the_exact_test_says():
    # Five images that only the ensemble gets right: the interval leaves 0 out, yet 5 of 5 are 1 of 16.
    y, member = np.ones(10, int), np.repeat([0.9, 0.2], 5)
    found = EvaluationReport.from_predictions(y, np.full(10, 0.9), members={"a": member}).gain
    assert compare(np.full(10, 0.9), member, y).low > 0
    assert found.endswith("p = 0.062; no difference beyond chance.")


def test_groups_change_the_intervals(y, members):
    p, groups = members["VGG16"], np.arange(200) // 5
    report = EvaluationReport.from_predictions(y, p, groups=groups, members=members)
    _, low, high = metric_interval(p, y, groups=groups)
    assert (report.summary["accuracy_low"], report.summary["accuracy_high"]) == (low, high)
    assert report.members.loc["<i>other", "difference_low"] == compare(p, members["<i>other"], y, groups=groups).low


def test_a_drop_from_out_of_fold_accuracy_is_said_where_chance_does_not_make_it(y, members, tmp_path):
    accuracy = np.mean(members["VGG16"].argmax(1) == y)
    for before, said in ((accuracy + 0.2, True), (accuracy + 0.01, False), (accuracy - 0.2, False)):
        out_of_fold = {"accuracy": before, "n": 1000}
        report = EvaluationReport.from_predictions(y, members["VGG16"], out_of_fold=out_of_fold)
        sentence = f"Out-of-fold accuracy {before:.3f}, here {accuracy:.3f} (p < 0.001): the data's distribution"
        report.to_html(tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        assert (sentence in html.unescape(page)) == ("Out-of-fold accuracy" in page) == said
        assert ("distribution_shift" in report.summary) == said


def test_patients_with_many_images_tell_less_of_a_drop():
    # Twenty patients of ten images each, all right or all wrong: twenty independent images, of which 16 are right.
    groups = np.repeat(np.arange(20), 10)
    y = np.ones(200, int)
    p = np.where(groups < 4, 0.1, 0.9)
    before = {"accuracy": 0.95, "n": 400}
    said = {
        name: EvaluationReport.from_predictions(y, p, out_of_fold=out_of_fold, groups=grouped)._drop_note()
        for name, grouped, out_of_fold in (
            ("images", None, before),
            ("patients", groups, before),
            ("patients before, too", None, {**before, "design_effect": 40}),
        )
    }
    assert "(p < 0.001)" in said["images"]
    assert said["patients"] == said["patients before, too"] == ""
    effect = design_effect(p > 0.5, groups)
    assert effect == pytest.approx(10 * 20 / 19)
    assert drop_p_value(15, 19, 0.95, 400) > 0.01


def test_a_class_without_images_is_said(y, members, tmp_path):
    few = y != 2
    report = EvaluationReport.from_predictions(y[few], members["VGG16"][few], class_names=NAMES)
    with pytest.warns(UserWarning, match="no image of class 2"):
        assert np.isnan(report.summary["roc_auc"])
    assert report.notes == ["No image here is of class cat: ROC AUC is not defined."]
    report.to_html(tmp_path / "report.html")
    assert report.notes[0] in (tmp_path / "report.html").read_text()


def test_names_as_labels_are_looked_up(y, members):
    named = EvaluationReport.from_predictions(np.array(NAMES)[y], members["VGG16"], class_names=NAMES)
    np.testing.assert_array_equal(named.y_true, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a", "b"]}, "3 different names, one per column of the probabilities. Received: 2"),
        ({"class_names": ["a", "b", "b"]}, "3 different names"),
        ({"members": {"VGG16": np.full((200, 2), 0.5)}}, r"`members\['VGG16'\]` .*each of 3 classes"),
        ({"members": {"VGG16": np.full((9, 3), 1 / 3)}}, r"`members\['VGG16'\]` must hold 200 rows"),
        ({"members": {"ensemble": np.full((200, 3), 1 / 3)}}, "another name than 'ensemble'"),
        ({"members": {"a": np.full((200, 3), np.nan)}}, r"`members\['a'\]` .*NaN or infinity in 200 rows: 0, 1"),
    ],
)
def test_wrong_tables_are_refused(y, members, change, message):
    with pytest.raises(ValueError, match=message):
        EvaluationReport.from_predictions(y, members["VGG16"], **change)


def test_unknown_labels_are_refused(y, members):
    labels = np.array(["bird", "dog", "cat"])[y]
    with pytest.raises(ValueError, match=r"`y_true` .* Received: 'brd', which is none of .*Did you mean 'bird'"):
        EvaluationReport.from_predictions(
            np.where(labels == "bird", "brd", labels), members["VGG16"], class_names=["bird", "dog", "cat"]
        )
    with pytest.raises(ValueError, match="class indices from 0 to 2"):
        EvaluationReport.from_predictions(y + 1, members["VGG16"])


@pytest.fixture(scope="module")
def model():
    return build_ensemble([tiny_member("one", 3), tiny_member("two", 3)], SoftVoting())


def test_a_model_is_evaluated_with_its_members(model, rng):
    images, y = rng.integers(0, 256, (20, 8, 8, 3), dtype="uint8"), np.arange(20) % 3
    report = EvaluationReport.from_model(model, images, y, class_names=NAMES)
    np.testing.assert_allclose(report.probabilities, model.predict(images, verbose=0), atol=1e-6)
    np.testing.assert_array_equal(report.y_true, y)
    assert list(report.members.index) == ["one", "two", "ensemble"]


def test_names_decide_where_the_data_has_another_class_order(model, rng):
    images, y = rng.integers(0, 256, (20, 8, 8, 3), dtype="uint8"), np.arange(20) % 2
    dataset = ImageDataset.from_arrays(images, y, class_names=["cat", "<b>&"], groups=np.arange(20) // 2)
    report = EvaluationReport.from_model(model, dataset, class_names=NAMES)
    np.testing.assert_array_equal(report.y_true, np.array([2, 0])[y])
    with pytest.raises(ValueError, match="3 different names"):
        EvaluationReport.from_model(model, dataset)
    with pytest.raises(ValueError, match="which is none of"):
        EvaluationReport.from_model(model, dataset, class_names=["cat", "dog", "bird"])


def test_what_is_no_model_is_refused(images):
    with pytest.raises(ValueError, match="`model` must be a `keras.Model`. Received: 'model.keras'"):
        EvaluationReport.from_model("model.keras", images)


def test_images_without_labels_are_refused(model, images):
    with pytest.raises(ValueError, match="Labels are needed"):
        EvaluationReport.from_model(model, images)


def test_the_short_form_names_the_figures(report):
    assert re.fullmatch(r"EvaluationReport\(200 images, 3 classes: accuracy 0\.\d{3}, roc_auc .*\)", repr(report))


def test_training_curves_are_drawn_for_the_member_asked_for(y, members):
    curves = {"loss": [1.0, 0.5], "val_loss": [1.0, 0.7], "accuracy": [0.5, 0.6]}
    one = EvaluationReport.from_predictions(y, members["VGG16"], history=curves)
    assert list(one.plot_history(metric="loss").lines[0].get_ydata()) == [1.0, 0.5]
    two = EvaluationReport.from_predictions(
        y, members["VGG16"], history={"a": curves, "b": {**curves, "loss": [3, 2]}}
    )
    assert list(two.plot_history("b", "loss").lines[0].get_ydata()) == [3, 2]
    with pytest.raises(ValueError, match="`member` must be one of 'a', 'b'. Received: None"):
        two.plot_history()
    with pytest.raises(ValueError, match="There are no training curves"):
        EvaluationReport.from_predictions(y, members["VGG16"]).plot_history()


def test_a_report_plots_its_own_figures(report):
    assert len(report.plot_confusion(normalize=True).texts) == 9
    assert len(report.plot_roc().get_legend().get_texts()) == 4
    assert len(report.plot_members().get_yticklabels()) == 3
    assert len(report.plot_precision_recall().get_legend().get_texts()) == 4
    names = [text.get_text() for text in report.plot_class_scores(score="recall").get_legend().get_texts()]
    assert names == ["VGG16", "<i>other", "ensemble"]


@pytest.fixture
def full_report(y, members):
    curves = {"loss": [1.0, 0.5], "val_loss": [1.0, 0.7], "accuracy": [0.5, 0.6]}
    leaderboard = pd.DataFrame(
        {
            "name": ["VGG16", "<i>other"],
            "accuracy": [0.9, np.nan],
            "parameters": pd.array([1234567, None], dtype="Int64"),
            "chosen": [True, False],
            "note": ["", None],
        }
    )
    details = {
        "Settings": {"image_size": (96, 96), "seed": 0, "training": {"epochs": 3, "rate": 0.00025}},
        "Skipped files": [f"<script>/image-{k:03}.jpeg" for k in range(60)],
        "Duplicates": pd.DataFrame({"first": ["a.png"], "second": ["b.png"]}),
        "Members": [{"name": "VGG16", "weight": 0.5}],
        "Nothing": [],
        "Text": "as it is",
    }
    return EvaluationReport.from_predictions(
        y,
        sum(members.values()) / 2,
        class_names=NAMES,
        members=members,
        leaderboard=leaderboard,
        history={"VGG16": curves},
        details=details,
    )


@pytest.fixture
def page(full_report, tmp_path):
    full_report.to_html(tmp_path / "new" / "report.html")
    return (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_names_on_the_page_are_escaped(page):
    for escaped in ("&lt;b&gt;&amp;", "dog&#39;s &#34;own&#34;", "&lt;i&gt;other", "&lt;script&gt;/image-000.jpeg"):
        assert escaped in page
    assert not re.search(r"<(b>&|i>|script>/)", page)


def test_the_page_fetches_nothing_and_is_small(page):
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"\b(src|href)=(?!\"(#|data:))", page)
    assert "@import" not in page
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", page))
    assert len(page) < 1_000_000


def test_the_page_shows_what_it_was_given(page, full_report):
    assert full_report.verdict in html.unescape(page)
    for text in (
        "1,234,567",
        "96, 96",
        "0.00025",
        "… and 10 more",
        "b.png",
        "as it is",
        "VGG16: loss",
        "none",
        "light-dark(",
    ):
        assert text in page
    assert page.count("<svg") == 11
    # An empty column of the leaderboard is left out.
    assert ">note<" not in page
    assert "image-059" not in page


def test_a_page_that_cannot_be_written_leaves_the_old_one(report, tmp_path, monkeypatch):
    report.to_html(tmp_path / "report.html")
    before = (tmp_path / "report.html").read_bytes()
    report.details = {"broken": object.__new__(type("Broken", (), {"__str__": lambda self: 1 / 0}))}
    with pytest.raises(ZeroDivisionError):
        report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_reports_are_written_from_several_threads(report, tmp_path):
    threads = [threading.Thread(target=report.to_html, args=(tmp_path / f"{k}.html",)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_notebook_shows_verdict_and_figures(full_report):
    shown = full_report._repr_html_()
    assert "<b>The ensemble against" in shown
    assert "&lt;i&gt;other" in shown
    assert f"{100 * full_report.summary['accuracy']:.1f} %" in shown


def test_what_changed_per_class_is_the_difference_to_a_baseline(report, y, members, tmp_path):
    baseline = EvaluationReport.from_predictions(y, members["VGG16"], class_names=NAMES)
    changes = report.changes_per_class(baseline)
    for name in ("recall", "precision", "f1"):
        expected = report.per_class[name] - baseline.per_class[name]
        np.testing.assert_allclose(changes[f"{name}_change"], expected)
        np.testing.assert_allclose(changes[name] - changes[f"{name}_before"], expected)
    assert changes["support"].tolist() == np.bincount(y).tolist()
    report.to_html(tmp_path / "with.html", baseline=baseline)
    report.to_html(tmp_path / "without.html")
    assert "What changed per class" in (tmp_path / "with.html").read_text()
    assert "What changed per class" not in (tmp_path / "without.html").read_text()


def test_a_baseline_on_other_images_is_refused(report, y, members):
    other = EvaluationReport.from_predictions(y[::-1], members["VGG16"], class_names=NAMES)
    with pytest.raises(ValueError, match="`baseline` must be a report on the same images and classes"):
        report.changes_per_class(other)

import base64
import html
import io
import json
import re

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import special
from sklearn.metrics import log_loss
from tiny_members import tiny_member

from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.voting import SoftVoting
from ensemble_keras.data.dataset import ImageDataset
from ensemble_keras.evaluation import page_images, page_plots, page_provenance
from ensemble_keras.evaluation.explain import grad_cam
from ensemble_keras.evaluation.overlays import overlay
from ensemble_keras.evaluation.report import EvaluationReport
from ensemble_keras.measures.calibration import expected_calibration_error
from ensemble_keras.measures.conformal import fit_conformal
from ensemble_keras.measures.operating_point import choose_operating_point


def sample(rng, n, num_classes, strength=1.5):
    y = rng.integers(0, num_classes, n)
    logits = rng.normal(size=(n, num_classes))
    logits[np.arange(n), y] += strength
    return special.softmax(logits, axis=1), y


def grey(n):
    """Images of one grey each, by which they are known again: JPEG keeps it."""
    return np.broadcast_to(np.arange(n, dtype="uint8")[:, None, None, None], (n, 16, 16, 3))


def opened(uri):
    head, data = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def written(report, path, **options):
    report.to_html(path, **options)
    return path.read_text(encoding="utf-8")


def embedded(page):
    return json.loads(re.search(r'id="cell-images">(.*)</script>', page)[1])


def test_a_cell_shows_its_own_images_the_surest_first(rng):
    p, y = sample(rng, 100, 3)
    report = EvaluationReport.from_predictions(y, p, images=grey(100))
    cells = page_images.cell_images(report)
    for cell, shown in cells.items():
        true, said = map(int, cell.split("-"))
        rows = np.flatnonzero((y == true) & (p.argmax(axis=1) == said))
        expected = rows[np.argsort(-p[rows].max(axis=1), kind="stable")][:12]
        assert [image["name"] for image in shown] == [f"row {row}" for row in expected]
        assert [np.median(opened(image["source"])) for image in shown] == expected.tolist()
        assert shown[0]["confidence"] == f"{100 * p[expected[0]].max():.1f} %"
    assert set(cells) == {f"{t}-{s}" for t, s in zip(y, p.argmax(axis=1), strict=True)}


def test_where_there_are_many_cells_mistakes_come_first(rng):
    p, y = sample(rng, 1000, 100, strength=2)
    cells = page_images.cell_images(
        EvaluationReport.from_predictions(y, p, images=np.zeros((1000, 8, 8, 3), "uint8"))
    )
    assert sum(map(len, cells.values())) == 300
    wrong = {f"{t}-{s}" for t, s in zip(y, p.argmax(axis=1), strict=True) if t != s}
    assert len(wrong) > 300
    assert set(cells) <= wrong


def test_images_to_look_at_are_the_surest_mistakes_and_the_least_sure(rng):
    p, y = sample(rng, 100, 3)
    other = sample(rng, 100, 3)[0]
    report = EvaluationReport.from_predictions(y, p, members={"a": other}, images=grey(100), class_names=list("xyz"))
    shown, reason = page_images.telling_images(report)
    assert reason == "No heat maps: the report was made of predictions, without the model."
    confidence, predicted = p.max(axis=1), p.argmax(axis=1)
    wrong = sorted(np.flatnonzero(predicted != y), key=lambda row: -confidence[row])[:8]
    assert [card["name"] for card in shown["wrong"]] == [f"row {row}" for row in wrong]
    assert [card["name"] for card in shown["unsure"]] == [f"row {row}" for row in np.argsort(confidence)[:8]]
    first, row = shown["wrong"][0], wrong[0]
    assert np.median(opened(first["source"])) == row
    assert first["true"] == "xyz"[y[row]]
    assert [(vote["name"], vote["class"], vote["right"]) for vote in first["votes"]] == [
        ("ensemble", "xyz"[predicted[row]], False),
        ("a", "xyz"[other[row].argmax()], other[row].argmax() == y[row]),
    ]


def test_every_mistake_that_can_be_chosen_has_its_images(rng, tmp_path):
    # A mistake of the last class, which comes after more other ones than there are images kept.
    p, y = sample(rng, 3000, 100)
    p[y == 99] = np.eye(100)[0]
    report = EvaluationReport.from_predictions(y, p, images=np.zeros((3000, 8, 8, 3), "uint8"))
    page = written(report, tmp_path / "report.html")
    kept, pairs = embedded(page), re.findall(r'class="pair" data-cell="(\S+)" data-count="(\d+)"', page)
    assert pairs[0] == ("99-0", str((y == 99).sum()))
    assert len(pairs) == 25
    assert [len(kept[cell]) for cell, _ in pairs] == [min(int(count), 12) for _, count in pairs]


@pytest.fixture(scope="module")
def model():
    return build_ensemble([tiny_member("one", 3), tiny_member("two", 3)], SoftVoting())


def test_heat_maps_are_those_of_the_predicted_class(model, rng):
    images, y = rng.integers(0, 256, (5, 8, 8, 3), dtype="uint8"), np.arange(5) % 3
    report = EvaluationReport.from_model(model, images, y, member_names={"one": "First"})
    shown, about = page_images.telling_images(report)
    assert about.startswith("Grad-CAM shows where")
    for card in shown["unsure"]:
        row = int(card["name"].removeprefix("row "))
        assert [vote["name"] for vote in card["votes"]] == ["ensemble", "First", "two"]
        large = report.images.load([row], image_size=112)
        expected = overlay(large, grad_cam(model, images[[row]]))[0]
        # JPEG loses some.
        assert np.abs(opened(card["votes"][0]["map"]).astype(int) - expected).mean() < 8
    unasked, reason = page_images.telling_images(report, heat_maps=False)
    assert unasked["unsure"][0]["votes"][0]["map"] is None
    assert reason == "Heat maps were not asked for."


def test_members_beside_a_joined_model_vote_and_have_maps(rng):
    images, y = rng.integers(0, 256, (5, 8, 8, 3), dtype="uint8"), np.arange(5) % 3
    members = [tiny_member("one", 3), tiny_member("two", 3)]
    flat = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    joined = build_ensemble(members, ConcatenateDense(3))
    beside = {"First": members[0], "two": members[1], "flat": flat}
    report = EvaluationReport.from_model(joined, images, y, members_beside=beside)
    shown, about = page_images.telling_images(report)
    assert "flat has none: " in about
    np.testing.assert_allclose(report.member_probabilities["two"], members[1].predict(images, verbose=0), atol=1e-6)
    for card in shown["unsure"]:
        row = int(card["name"].removeprefix("row "))
        assert [vote["name"] for vote in card["votes"]] == ["ensemble", "First", "two", "flat"]
        said = report.probabilities[row].argmax()
        own = grad_cam(members[0], images[[row]], class_index=said)
        expected = overlay(report.images.load([row], image_size=112), own)[0]
        assert np.abs(opened(card["votes"][1]["map"]).astype(int) - expected).mean() < 8
        assert card["votes"][3]["map"] is None


def test_of_many_members_the_joint_map_is_shown(model, rng, monkeypatch):
    monkeypatch.setattr(page_images, "_MOST_MAPS", 9)
    images, y = rng.integers(0, 256, (5, 8, 8, 3), dtype="uint8"), np.arange(5) % 3
    shown, about = page_images.telling_images(EvaluationReport.from_model(model, images, y))
    assert about.endswith("Of so many members only their joint map is shown.")
    assert [vote["map"] is None for vote in shown["unsure"][0]["votes"]] == [False, True, True]


def test_a_model_without_maps_says_so(rng, tmp_path):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(inputs))
    images, y = rng.integers(0, 256, (9, 8, 8, 3), dtype="uint8"), np.arange(9) % 3
    page = written(EvaluationReport.from_model(keras.Model(inputs, outputs), images, y), tmp_path / "report.html")
    assert "No heat maps: " in page
    assert "data:image/jpeg" in page


def test_images_of_another_number_are_refused(rng):
    p, y = sample(rng, 10, 3)
    with pytest.raises(ValueError, match="`images` must hold 10 images, .* Received: 9"):
        EvaluationReport.from_predictions(y, p, images=grey(9))


def test_the_page_of_a_thousand_images_is_small(model, rng, tmp_path):
    images = rng.integers(0, 256, (1000, 64, 64, 3), dtype="uint8")
    p, y = sample(rng, 1000, 10)
    members = {f"member {k}": sample(rng, 1000, 10)[0] for k in range(9)}
    report = EvaluationReport.from_predictions(y, p, members=members, images=images)
    page = written(report, tmp_path / "report.html")
    assert len(embedded(page)) > 50
    assert len(page) < 5_000_000


def test_before_temperature_is_the_softmax_of_the_logits(rng):
    logits = rng.normal(size=(20, 4))
    expected = special.softmax(logits, axis=1)
    np.testing.assert_allclose(page_plots.before_temperature(special.softmax(logits / 1.7, axis=1), 1.7), expected)


def softened(p, temperature):
    return special.softmax(np.log(p) / temperature, axis=1)


def test_reliability_stands_before_and_after_the_temperature(rng, tmp_path):
    p, y = sample(rng, 100, 3)
    with_one = EvaluationReport.from_predictions(y, p, details={"temperature": 1.5})
    assert "before temperature: calibration error" in written(with_one, tmp_path / "with.html")
    details = {"temperature": None, "suggested_temperature": 1.5}
    suggested = written(EvaluationReport.from_predictions(y, p, details=details), tmp_path / "suggested.html")
    after = softened(p, 1.5)
    error, loss = expected_calibration_error(after, y), log_loss(y, after)
    expected = f"1.500: calibration error {error:.3f}, log loss {loss:.3f}"
    assert "as the model gives them: calibration error" in suggested
    assert f"at the temperature of the out-of-fold predictions, {expected}" in suggested
    without = written(EvaluationReport.from_predictions(y, p), tmp_path / "without.html")
    assert "as the model gives them: calibration error" in without


def test_the_data_are_those_of_the_card_and_of_the_images(rng):
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype="uint8")
    images[4] = images[1]
    dataset = ImageDataset.from_arrays(images, np.arange(6) % 3, groups=np.arange(6) // 2)
    p, _ = sample(rng, 6, 3)
    card = {"images": 30, "per_class": [10, 15, 5], "groups": None, "fingerprint": "abc", "skipped": [], "leaks": []}
    report = EvaluationReport.from_predictions(
        dataset.labels, p, images=dataset, groups=dataset.groups, details={"data": card, "seed": 0, "mine": 1}
    )
    found = page_provenance.data(report)
    assert found["classes"]["training images"].tolist() == [10, 15, 5]
    assert found["classes"]["test images"].tolist() == [2, 2, 2]
    assert found["facts"]["training"] == {"images": 30, "groups": None, "fingerprint": "abc"}
    assert found["facts"]["test"] == {"images": 6, "groups": 3, "fingerprint": dataset.fingerprint()}
    assert found["problems"]["Identical test images"] == ["row 1 = row 4"]
    assert found["problems"]["Pictures found in both the training and the validation data"] == []
    report.details["settings"] = {"cv": 5, "class_weight": None, "fine_tune": {}}
    assert page_provenance.making(report)["Arguments of the classifier"] == {"cv": 5, "class_weight": None}
    card["leaks"] = None  # Nobody looked, so nothing is said.
    assert not any("validation" in problem for problem in page_provenance.data(report)["problems"])
    assert page_provenance.rest(report) == {"mine": 1}
    assert page_provenance.making(report)["Settings"] == {"seed": 0}


def test_certainty_is_told_where_it_was_fitted(rng, tmp_path):
    p, y = sample(rng, 200, 2)
    point, sets = choose_operating_point(p, y, min_sensitivity=0.9), fit_conformal(p, y)
    told = written(
        EvaluationReport.from_predictions(y, p, operating_point=point, conformal=sets), tmp_path / "1.html"
    )
    assert str(point) in html.unescape(told)
    for heading in ("Operating point", "Prediction sets"):
        assert f"<h3>{heading}</h3>" in told
        assert heading not in written(EvaluationReport.from_predictions(y, p), tmp_path / "2.html")


def test_many_classes_have_a_picture_of_their_matrix_and_buttons_for_mistakes(rng, tmp_path):
    p, y = sample(rng, 400, 20)
    page = written(EvaluationReport.from_predictions(y, p), tmp_path / "report.html")
    assert 'class="cell"' not in page
    assert page.count('class="pair"') == 25
    few = written(EvaluationReport.from_predictions(*sample(rng, 90, 3)[::-1]), tmp_path / "report.html")
    assert few.count('class="cell"') == 9


def test_a_member_with_its_classes_exchanged_is_said_instead_of_the_map(rng, tmp_path):
    p, y = sample(rng, 300, 2, strength=4)
    report = EvaluationReport.from_predictions(y, p, members={"good": p, "exchanged": p[:, ::-1]})
    assert "No map of diversity: " in written(report, tmp_path / "report.html")


def test_records_of_a_card_become_a_table_without_dicts(rng, tmp_path):
    p, y = sample(rng, 60, 3)
    members = [{"name": "VGG16", "out_of_fold": {"accuracy": 0.875, "mcc": 0.5}, "note": ""}]
    page = written(EvaluationReport.from_predictions(y, p, details={"members": members}), tmp_path / "report.html")
    assert "out of fold accuracy" in page
    assert "0.875" in page
    assert "mcc" not in page.split("<h2>How it was made")[1]


def test_a_leaderboard_of_a_fit_is_shown_with_its_costs(rng, tmp_path):
    p, y = sample(rng, 60, 3)
    board = pd.DataFrame(
        {
            "name": ["a", "b"],
            "kind": "member",
            "accuracy": [0.9, 0.8],
            "difference": [0.0, -0.1],
            "low": [0.0, -0.15],
            "high": [0.0, -0.05],
            "seconds": [1.5, 2.5],
            "macs": pd.array([1234567, None], dtype="Int64"),
        }
    )
    page = written(EvaluationReport.from_predictions(y, p, leaderboard=board), tmp_path / "report.html")
    for text in ("-15.0 to -5.0", "<h3>Cost</h3>", "1,234,567", "multiply-accumulates"):
        assert text in page
    assert "+0.0" not in page
    without = board.drop(columns=["seconds", "macs"])
    page = written(EvaluationReport.from_predictions(y, p, leaderboard=without), tmp_path / "without.html")
    assert "<h3>Cost</h3>" not in page

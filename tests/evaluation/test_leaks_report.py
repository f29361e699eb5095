import numpy as np
import pandas as pd
import pytest
from tiny_members import tiny_member

from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.voting import SoftVoting
from ensemble_keras.data.leaks import find_leaks
from ensemble_keras.evaluation.report import EvaluationReport


@pytest.fixture
def leaky(images):
    """A report on six images of which one is a training image and right, and the others are not and half right."""
    y = np.array([0, 1, 0, 1, 0, 1])
    p = np.eye(2)[[0, 0, 1, 0, 0, 1]]
    leaks = find_leaks(images[5:], images[:6])
    return EvaluationReport.from_predictions(y, p, images=images[:6], leaks=leaks)


def test_training_images_are_the_first_note_and_stand_on_the_page(leaky, tmp_path):
    assert leaky.leaks["test_index"].tolist() == [5]
    assert leaky.notes[0] == (
        "Training images, copies of them or of their groups: 1 of these 6 images (pairs: 1 exact). The figures here "
        "are too good. On the other 5 images accuracy is 0.400."
    )
    leaky.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert leaky.notes[0] in page.partition("</header>")[0]
    assert "<h3>Training images among the test images</h3>" in page


def test_an_image_of_several_pairs_counts_once_and_no_others_may_be_left():
    leaks = pd.DataFrame({"test_index": [0, 0, 1], "kind": ["exact", "near", "group"]})
    report = EvaluationReport.from_predictions([0, 1], np.eye(2))
    assert report.leaks is None
    assert not report.notes
    report.leaks = leaks
    assert "2 of these 2 images" in report.notes[0]
    assert "(pairs: 1 exact, 1 near, 1 group)" in report.notes[0]
    assert "On the other" not in report.notes[0]
    report.leaks = leaks[:0]
    assert not report.notes


def test_the_page_shows_the_model_with_its_members(images, tmp_path):
    images, y = images[:, ::4, ::4], np.arange(12) % 2
    model = build_ensemble([tiny_member("a"), tiny_member("b")], SoftVoting([3, 1]))
    EvaluationReport.from_model(model, images, y, class_names=["x", "y"]).to_html(tmp_path / "with.html")
    assert (tmp_path / "with.html").read_text().count("The model: images, members") == 1
    EvaluationReport.from_predictions(y, np.full((12, 2), 0.5)).to_html(tmp_path / "without.html")
    assert "The model: images, members" not in (tmp_path / "without.html").read_text()

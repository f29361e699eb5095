import re
import warnings

import numpy as np
import pytest

from ensemble_keras.evaluation import fonts
from ensemble_keras.evaluation.drawing import svg
from ensemble_keras.evaluation.plots import plot_confusion

NAMES = ["肺炎", "正常", "Größe"]


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine without fonts for Chinese."""
    monkeypatch.setattr(fonts, "_installed", lambda: [])


@pytest.mark.usefixtures("no_fonts")
def test_characters_without_a_font_are_said_once():
    ax = plot_confusion(np.eye(3), class_names=NAMES)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert ax._repr_png_().startswith(b"\x89PNG")
    assert [str(one.message).partition(":")[0] for one in said] == ["No font has the characters 常正炎肺"]


@pytest.mark.usefixtures("no_fonts")
def test_a_page_leaves_them_to_the_browser():
    text = svg(plot_confusion(np.eye(3), class_names=NAMES))
    assert len(re.findall(">肺炎</text>", text)) == 2
    assert "</text>" not in svg(plot_confusion(np.eye(3), class_names=["a", "é", "Größe"]))


def test_an_installed_font_is_asked_for_what_the_own_lacks(monkeypatch):
    # STIX has the script letters that DejaVu Sans lacks, and comes with matplotlib.
    assert fonts.without_glyph("a é \ue0f2") == ["\ue0f2"]
    monkeypatch.setattr(fonts, "_installed", lambda: ["STIXNonUnicode"])
    assert fonts.without_glyph("a é \ue0f2") == []
    ax = plot_confusion(np.eye(2), class_names=["a", "\ue0f2"])
    assert ax._repr_png_().startswith(b"\x89PNG")
    assert ax.get_xticklabels()[1].get_fontfamily()[-1] == "STIXNonUnicode"

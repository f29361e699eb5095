"""Fonts: names in scripts that matplotlib's own font does not have, Chinese ones, say."""

import contextlib
import functools
import warnings

import matplotlib
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.text import Text
from matplotlib.textpath import TextToPath

# As Linux, macOS and Windows call those that have most scripts; all that are there are asked, in this order.
_KNOWN = (
    *("Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Noto Sans Devanagari", "Noto Sans Thai"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Segoe UI"),
)


@contextlib.contextmanager
def with_glyphs(figure):
    """Gives the texts of a figure fonts that have their characters, as far as there are any, while it is saved.

    Characters that no font has are said in one warning, where matplotlib has one for each.
    """
    texts = figure.findobj(Text)
    for text in texts:
        if not text.get_text().isascii():
            text.set_fontfamily(families())
    missing = without_glyph("".join(text.get_text() for text in texts))
    if missing:
        shown = "".join(missing[:10]) + ("…" if len(missing) > 10 else "")
        warnings.warn(
            f"No font has the characters {shown}: boxes stand in their place. Install one that has, such as Noto "
            "Sans CJK, or set `matplotlib.rcParams['font.family']`.",
            stacklevel=3,
        )
    with _said_once():
        yield


def width_of(text, font):
    """Returns the width of a text in points; `font` are `FontProperties`."""
    with _said_once():
        return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]


def families():
    """Returns the names of the fonts to look for a character in: those that are set, and those known to have many."""
    return [*matplotlib.rcParams["font.family"], *_installed()]


def without_glyph(text):
    """Returns the characters of a text that no font has, a sorted list."""
    characters = {character for character in text if not character.isspace()}
    if all(character.isascii() for character in characters):
        return []
    fonts = [get_font(fontManager.findfont(FontProperties(family=[family]))) for family in families()]
    return sorted(c for c in characters if not any(font.get_char_index(ord(c)) for font in fonts))


@functools.cache
def _installed():
    there = {font.name for font in fontManager.ttflist}
    return [name for name in _KNOWN if name in there]


@contextlib.contextmanager
def _said_once():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield

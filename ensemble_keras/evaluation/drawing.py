"""Drawing: what all plots share: colours, axes of a figure that a notebook shows, legends, SVG for a page.

Nothing of pyplot's state is read or changed, and no figure stays open. Colours are Okabe and Ito's, which
colour-blind readers tell apart; they stand out on light and on dark grounds.
"""

import io
import warnings

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from ensemble_keras.evaluation.fonts import with_glyphs, without_glyph

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
# The one colour of text and lines, so that a page can exchange it for its own.
INK = "#24292F"
GRID = "#8B949E"


class ShownFigure(Figure):
    """A figure that a notebook shows, as it does for one of pyplot's, with fonts for names in any script."""

    def savefig(self, *args, **kwargs):
        """Saves the figure, as matplotlib's does."""
        with with_glyphs(self):
            super().savefig(*args, **kwargs)

    def _repr_png_(self):
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


class _ShownAxes(Axes):
    """Axes that a notebook shows as their figure."""

    def _repr_png_(self):
        return ShownFigure._repr_png_(self.figure)


def shortened(name, limit=18):
    """Returns the name, its middle left out where it is longer than `limit`."""
    name = str(name)
    head = (limit - 1) // 2
    return name if len(name) <= limit else f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def own_axes(ax, size):
    """Returns the axes that are given, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    ax = ShownFigure(figsize=size, facecolor="white", layout="constrained").add_subplot(axes_class=_ShownAxes)
    ax.set_facecolor("white")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)
    ax.tick_params(color=GRID, labelcolor=INK, labelsize=9)
    ax.grid(True, color=GRID, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=INK, fontsize=10)
    return ax


def legend_below(ax, columns=None):
    """Puts the legend of the axes below them, in so many columns: one unless told, two for two lines."""
    # Below the axes no curve can run under it.
    below = ax.transAxes + ScaledTranslation(0, -0.45, ax.figure.dpi_scale_trans)
    legend = ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=below,
        frameon=False,
        fontsize=9,
        labelcolor=ax.xaxis.label.get_color(),
        ncols=columns or (2 if len(ax.lines) == 2 else 1),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def svg(ax):
    """Returns the figure of `ax` as text to be put inside an HTML page: its colours are the page's.

    Text and lines take the colour of the text around, blue lines that of the variable `--accent`.
    """
    buffer, metadata = io.BytesIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # What no font here has, a browser's may: it is given the text, not its outlines.
    missing = without_glyph("".join(text.get_text() for text in ax.figure.findobj(Text)))
    with matplotlib.rc_context({"svg.fonttype": "none" if missing else "path"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No font has the characters")
        ax.figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    for declaration in (' xmlns="http://www.w3.org/2000/svg"', ' xmlns:xlink="http://www.w3.org/1999/xlink"'):
        text = text.replace(declaration, "")
    return text.replace(INK.lower(), "currentColor").replace(BLUE.lower(), "var(--accent)")

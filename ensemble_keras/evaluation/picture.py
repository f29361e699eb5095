"""Picture: an ensemble as boxes and arrows, from the images by way of its members to its classes."""

import dataclasses
import math
import textwrap

import keras
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from ensemble_keras.artifact import member_names
from ensemble_keras.evaluation.anatomy import anatomy
from ensemble_keras.evaluation.drawing import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, own_axes, shortened
from ensemble_keras.evaluation.fonts import families, width_of
from ensemble_keras.measures.graph import has_graph
from ensemble_keras.measures.macs import count_macs

# In inches, which are the unit of the axes.
_GAP, _ROW, _BETWEEN, _LINE, _PADDING = 0.5, 0.72, 0.13, 0.185, 0.08
# In points, of the bold lines.
_SIZE = 9
_MOST_CLASSES = 8


@dataclasses.dataclass(frozen=True)
class _Box:
    """A box: its left edge, its middle from above, its width, its lines of text, of which one is bold, its colour."""

    left: float
    middle: float
    width: float
    lines: list
    color: str

    @property
    def height(self):
        return max(_ROW, _LINE * len(self.lines) + 0.16)

    @property
    def right(self):
        return self.left + self.width


def plot_ensemble(model, ax=None, *, card=None):
    """Draws an ensemble as boxes: images, members, combiner, classes.

    A member's box says how its image is resized and preprocessed, its backbone and its head, its parameters, how many
    of them are trainable, and its multiply-accumulates. An arrow to the combiner carries the member's share in the
    vote where the graph has such numbers. Backbones that heads share have boxes of their own. Members are nested
    models side by side, as `build_ensemble` puts them; a model without is drawn as one member.

    Args:
        model: A functional `keras.Model` from images to class probabilities, such as `build_ensemble` and
            `load_ensemble` give: built, saved or reloaded.
        ax: Matplotlib axes, which are emptied of ticks and frame; text shrinks to their size. Defaults to `None`:
            axes of a new figure.
        card: Dict, what `load_ensemble` gives beside the model, or `EnsembleClassifier.card_`: names of members,
            classes and combiner are taken from it. Defaults to `None`: the names of layers.

    Returns:
        The axes.

    Raises:
        ValueError: If the model has no graph of layers.

    Example:

    >>> members = [ek.build_member("CNN", 2, image_size=32, weights=None, name=name) for name in ("a", "b")]
    >>> ax = ek.plot_ensemble(ek.build_ensemble(members, ek.SoftVoting(weights=[3, 1])))
    >>> [text.get_text() for text in ax.texts if text.get_text().startswith("×")]
    ['× 0.75', '× 0.25']
    """
    if not has_graph(model):
        raise ValueError(
            "`model` must be a functional or built sequential `keras.Model`, whose layers are known. "
            f"Received: {model!r}."
        )
    card, found = card or {}, anatomy(model)
    rows = len(found.members) * (_ROW + _BETWEEN) - _BETWEEN
    boxes, arrows = _laid_out(model, found, card, rows)
    width, height = boxes[-1].right, max(rows, *(box.height for box in boxes))
    given, ax = ax, own_axes(ax, (width + 0.2, height + 0.2))
    ax.set(xlim=(-0.05, width + 0.05), ylim=((rows + height) / 2 + 0.05, (rows - height) / 2 - 0.05))
    ax.set_aspect("equal")
    ax.set_axis_off()
    size = _SIZE if given is None else _SIZE * _scale(given)
    for box in boxes:
        _draw_box(ax, box, size)
    for start, end, text in arrows:
        _draw_arrow(ax, start, end, text, size)
    return ax


def _laid_out(model, found, card, height):
    """Returns the boxes, the last that of the classes, and arrows: two boxes and a text each.

    Columns follow one another from left to right; members stand below one another, `height` in all, everything else
    at half that height or beside what it goes with.
    """
    names, middle, arrows = member_names(card), height / 2, []
    rows = {name: _ROW / 2 + (_ROW + _BETWEEN) * i for i, name in enumerate(found.members)}
    at = 0.0
    images = _Box(at, middle, 1.15, ["images", *_images(model, found.views)], INK)
    at, stems = images.right + _GAP, {}
    for stem in {stem.name: stem for stem in found.stems.values()}.values():
        beside = [rows[name] for name, own in found.stems.items() if own is stem]
        lines = [stem.name, _inside(stem), *_costs(stem)]
        stems[stem.name] = _Box(at, sum(beside) / len(beside), 2.2, lines, PURPLE)
        arrows.append((images, stems[stem.name], ""))
    at += 2.2 + _GAP if stems else 0
    members = {}
    for name, member in found.members.items():
        lines = [names.get(name, name), _inside(member), ", ".join(_costs(member))]
        members[name] = _Box(at, rows[name], 3.6, lines, BLUE)
        arrows.append((stems[found.stems[name].name] if name in found.stems else images, members[name], ""))
    at += 3.6 + (0.85 if found.weights else _GAP)
    if not found.joined:
        classes = _Box(at, middle, 1.3, _classes(model, card), GREEN)
        return [images, *members.values(), classes], [*arrows, *((box, classes, "") for box in members.values())]
    combiner = _Box(at, middle, 1.9, _combiner(found, card), ORANGE)
    shares = {name: f"× {share:.2f}" for name, share in found.weights.items()}
    arrows += [(box, combiner, shares.get(name, "")) for name, box in members.items()]
    classes = _Box(combiner.right + _GAP, middle, 1.3, _classes(model, card), GREEN)
    boxes = [images, *stems.values(), *members.values(), combiner, classes]
    return boxes, [*arrows, (combiner, classes, "")]


def _images(model, views):
    size = " × ".join("any" if side is None else str(side) for side in model.inputs[0].shape[1:])
    return [size, *([f"{views} views of each"] if views > 1 else [])]


def _inside(model):
    """Returns what a member or a stem does: preprocessing, network, head."""
    nested, head = [layer for layer in model.layers if has_graph(layer)], _head(model)
    parts = []
    if len(nested) == 1:
        own = [layer for layer in nested[0].layers if has_graph(layer)]
        parts += [*_preprocessing(nested[0]), own[0].name if len(own) == 1 else nested[0].name]
    elif len(head) < len(_weighted(model)):
        others = len(_weighted(model)) - len(head)
        parts += [*_preprocessing(model), f"{others} {'layer' if others == 1 else 'layers'} with weights"]
    if head:
        widths = [head[0].kernel.shape[0], *(dense.units for dense in head)]
        parts.append("head " + "–".join(f"{width:,}" for width in widths))
    else:
        parts.append(f"{model.outputs[0].shape[-1]:,} features")
    return " → ".join(parts)


def _head(model):
    """Returns the dense layers at a model's end."""
    last = max((i for i, layer in enumerate(model.layers) if layer.weights and not _is_dense(layer)), default=0)
    return [layer for layer in model.layers[last:] if _is_dense(layer)]


def _is_dense(layer):
    return isinstance(layer, keras.layers.Dense)


def _weighted(model):
    return [layer for layer in model.layers if layer.weights]


def _preprocessing(backbone):
    """Returns what a backbone does to images before the first layer that learns."""
    parts = []
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Resizing):
            parts.append(f"resized to {layer.height} × {layer.width}")
        elif isinstance(layer, keras.layers.Normalization | keras.layers.Rescaling) or layer.name == "preprocessing":
            parts.append("preprocessing")
        elif getattr(layer, "weights", None):
            break
    return list(dict.fromkeys(parts))


def _costs(model):
    """Returns two texts: parameters and how many of them are trainable; multiply-accumulates."""
    count = model.count_params()
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    kind = "frozen" if trainable == 0 else f"{_short(trainable)} trainable"
    return f"{_short(count)} parameters, {kind}", _macs(model)


def _macs(model):
    try:
        counted = count_macs(model)
    # Of images of any size, or of a size inside that only shows when it runs.
    except ValueError:
        return "MACs not known"
    return f"{'over ' if counted.unknown else ''}{_short(counted.total)} MACs"


def _short(number):
    """Returns a count with three digits that count: 950, 12.3 k, 4.05 M."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * scale and number >= 1e4:
            return f"{number / scale:.3g} {unit}" if number < 999.5 * scale else f"{number / scale:.0f} {unit}"
    return f"{number:,}"


def _combiner(found, card):
    kept = card.get("combiner")
    name = kept.get("class") if isinstance(kept, dict) else None
    layers = [
        f"{layer.name} {layer.kernel.shape[0]:,}–{layer.units:,}" if _is_dense(layer) else layer.name
        for layer in found.layers
    ]
    temperature = card.get("temperature")
    told = [f"temperature {temperature:.3f}"] if isinstance(temperature, float) else []
    return [str(name or "combiner"), *textwrap.wrap(found.joined, 26), *layers, *told]


def _classes(model, card):
    count = max(model.outputs[-1].shape[-1], 2)
    names = [str(name) for name in card.get("class_names") or []]
    left = [f"… {len(names) - _MOST_CLASSES:,} more"] if len(names) > _MOST_CLASSES else []
    return [f"{count:,} classes", *names[:_MOST_CLASSES], *left]


def _scale(ax):
    """Returns how large an inch of the picture is on the axes, at most 1."""
    extent = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    return min(1, extent.width / (right - left), extent.height / abs(top - bottom))


def _draw_box(ax, box, size):
    shape = FancyBboxPatch(
        (box.left, box.middle - box.height / 2),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=(*to_rgb(box.color), 0.1),
        edgecolor=box.color,
        linewidth=1.2,
    )
    ax.add_patch(shape)
    first = box.middle - _LINE * (len(box.lines) - 1) / 2
    for row, line in enumerate(box.lines):
        font = FontProperties(family=families(), size=_SIZE - (row > 0), weight="normal" if row else "bold")
        text = _fitted(line, box.width - 2 * _PADDING, font)
        font.set_size(font.get_size() * size / _SIZE)
        options = {"ha": "center", "va": "center", "color": INK, "parse_math": False}
        ax.text(box.left + box.width / 2, first + row * _LINE, text, fontproperties=font, **options)


def _fitted(text, width, font):
    """Returns the text, its middle left out as far as it is wider than so many inches."""
    shown, wide = text, _inches(text, font)
    while wide > width:
        shown = shortened(text, max(1, min(len(shown) - 1, int(len(shown) * width / wide))))
        wide = _inches(shown, font)
    return shown


def _inches(text, font):
    return width_of(text, font) / 72


def _draw_arrow(ax, start, end, text, size):
    (x, y), last = (start.right, start.middle), (end.left - 0.02, end.middle)
    # A text has room where the curve starts; a long arrow is at its height before the next column. Its end is
    # straight: the head needs a direction.
    straight, bend = (0.8, last[0] - 0.1) if text else (0.5, min(last[0] - 0.1, x + _GAP))
    turn = x + straight * (bend - x)
    points = [(x, y), (turn, y), (turn, last[1]), (bend, last[1]), last]
    curve = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO])
    style = {"arrowstyle": "-|>", "mutation_scale": 8 * size / _SIZE, "color": GRID, "linewidth": 1.1}
    ax.add_patch(FancyArrowPatch(path=curve, fill=False, **style))
    if text:
        is_below = y > last[1]
        place = {"ha": "left", "va": "top" if is_below else "bottom"}
        ax.text(x + 0.05, y + (0.03 if is_below else -0.03), text, color=INK, fontsize=8 * size / _SIZE, **place)

"""Specs: a backbone's name and options, read from text such as `"MobileNetV2(alpha=0.35)"`."""

import ast
import dataclasses
import re

_FORM = re.compile(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """A backbone's name and its options.

    Attributes:
        name: String. The registered name, as `list_backbones` spells it.
        options: Dict of the builder's keyword arguments.
    """

    name: str
    options: dict

    @property
    def label(self):
        """The canonical text: two texts that mean the same backbone have the same label."""
        options = ", ".join(f"{key}={value!r}" for key, value in sorted(self.options.items()))
        return f"{self.name}({options})" if options else self.name


def read_spec(text):
    """Reads a name and keyword options with literal values.

    Args:
        text: String, such as `"VGG16"` or `"CNN(filters=(8, 16), dropout=0.2)"`. It is parsed, never evaluated.

    Returns:
        The name as written and a dict of options.

    Raises:
        ValueError: If the text is not of that form.

    Example:
    >>> read_spec("CNN(filters=(8, 16))")
    ('CNN', {'filters': (8, 16)})
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise _malformed(text)
    name, arguments = form.groups()
    try:
        call = ast.parse(f"f({arguments or ''})", mode="eval").body
    except SyntaxError as error:
        raise _malformed(text) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise _malformed(text)
    names = [keyword.arg for keyword in call.keywords]
    if None in names or len(set(names)) < len(names):
        raise _malformed(text)
    try:
        return name, {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError as error:
        raise _malformed(text) from error


def layer_name(label):
    """Returns a Keras layer name for a label: letters, digits and underscores.

    Example:
    >>> layer_name("MobileNetV2(alpha=0.35)")
    'MobileNetV2_alpha_0_35'
    """
    return re.sub(r"[^0-9A-Za-z]+", "_", label).strip("_") or "backbone"


def _malformed(text):
    return ValueError(
        "A backbone must be a name, or a name with options whose values are literals, such as "
        f"'MobileNetV2(alpha=0.35)'. Received: {text!r}."
    )

"""Public names for the documentation: where each lives, links to it, and examples as code blocks.

A Griffe extension and a MkDocs hook in one module. The package loads its public names lazily, by a table `_HOME`
that static analysis cannot follow: it is read here.
"""

import ast
import functools
import pathlib
import re

import griffe

PACKAGE = pathlib.Path(__file__).parents[2] / "ensemble_keras"
_FENCE = re.compile(r"^(?: *)(?:```|~~~).*?^(?: *)(?:```|~~~)", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"^Example:\n+(?P<code>>>> .*?)(?=\n\n(?!>>> )|\Z)", re.MULTILINE | re.DOTALL)


class PublicNames(griffe.Extension):
    """Makes `ensemble_keras.name` an alias of the object where it is defined, and links names in docstrings."""

    def on_package(self, *, pkg, **kwargs):
        """Griffe calls this once the package is loaded."""
        for module in (pkg, pkg["search"]):
            for name, home in home_of(module.filepath).items():
                module.set_member(name, griffe.Alias(name, f"{module.path}.{home}.{name}", parent=module))

    def on_instance(self, *, obj, **kwargs):
        """Griffe calls this for every object of the package."""
        if obj.docstring is not None:
            obj.docstring.value = linked(fenced_example(obj.docstring.value), r"(?P<name>\w+)")


def on_page_markdown(markdown, page, **kwargs):
    """MkDocs calls this for every page: `ek.name` becomes a link, outside headings and code blocks."""
    return linked(markdown, r"ek\.(?P<name>\w+(?:\.\w+)?)")


def home_of(file):
    """Returns the table `_HOME` of a package's `__init__.py`: a dict from public name to module."""
    for node in ast.parse(pathlib.Path(file).read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "_HOME":
            return ast.literal_eval(node.value)
    raise ValueError(f"Expected a table `_HOME`. Received: {file}, which has none.")


@functools.cache
def public_paths():
    """Returns a dict from a public name, `"fine_tune"` or `"search.GeneticSearch"`, to its path."""
    names = [*home_of(PACKAGE / "__init__.py")]
    names += [f"search.{name}" for name in home_of(PACKAGE / "search" / "__init__.py")]
    return {name: f"ensemble_keras.{name}" for name in names}


def fenced_example(text):
    """Returns a docstring whose example, a doctest, is a code block."""
    text = text.replace('getfixture("tmp_path")', 'pathlib.Path("folder")')
    return _EXAMPLE.sub(r"**Example**\n\n```pycon\n\g<code>\n```", text)


def linked(text, pattern):
    """Returns Markdown in which inline code that is a public name links to its description."""

    def link(match):
        path = _path(match["name"])
        return f"[{match[0]}][{path}]" if path else match[0]

    code = re.compile(rf"(?<![\[`])`{pattern}`(?![\]`])")
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_outside_headings(code, link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _outside_headings(code, link, text[end:])])


def _path(name):
    """Returns the path of a public name, of one of the search, or of a method of either; `None` for other words."""
    paths = public_paths()
    if found := paths.get(name) or paths.get(f"search.{name}"):
        return found
    owner, _, method = name.rpartition(".")
    return f"{paths[owner]}.{method}" if owner in paths else None


def _outside_headings(code, link, text):
    return "\n".join(line if line.startswith("#") else code.sub(link, line) for line in text.split("\n"))

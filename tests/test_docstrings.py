"""Every public name is documented, on a page and in the code, and what docstrings say of defaults is true."""

import ast
import dataclasses
import functools
import inspect
import operator
import pathlib
import re

import pytest

import ensemble_keras as ek

API = pathlib.Path(__file__).parents[1] / "docs" / "api"
_ITEM = re.compile(r"^    (?:`?\*{0,2}(?P<name>\w+)`?): (?P<text>.*(?:\n(?:        .*)?)*)", re.MULTILINE)
# The value is code, a number, or the empty tuple; what follows in the sentence is an explanation.
_DEFAULT = re.compile(r"[Dd]efaults\s+to\s+(?:`(?P<code>[^`]+)`|(?P<number>-?\d[\d,_]*(?:\.\d+)?))")


def public_objects():
    """Yields `(name, object)` for every public name, and for the public methods of public classes."""
    names = [*ek.__all__, *(f"search.{name}" for name in ek.search.__all__)]
    names += [f"executors.{name}" for name in ("run_units", "Outcome", "ProcessExecutor", "RayExecutor")]
    for name in sorted(set(names) - {"__version__", "executors", "search"}):
        found = operator.attrgetter(name)(ek)
        yield name, found
        if inspect.isclass(found):
            for method, value in vars(found).items():
                if not method.startswith("_") and (callable(value) or isinstance(value, classmethod)):
                    yield f"{name}.{method}", getattr(found, method)


OBJECTS = dict(public_objects())
FUNCTIONS = {name: value for name, value in OBJECTS.items() if callable(value)}


def section(text, title):
    """Returns the items of a section of a Google-style docstring: a dict from name to its description."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    return {} if found is None else {item["name"]: item["text"] for item in _ITEM.finditer(found[1])}


def described_arguments(value):
    """Returns the arguments that a docstring describes; those of a dataclass are attributes, inherited ones too."""
    if dataclasses.is_dataclass(value):
        own = [inspect.cleandoc(kind.__doc__) for kind in value.__mro__ if dataclasses.is_dataclass(kind)]
        sections = [section(text, "Attributes") for text in own]
        return {name: text for found in reversed(sections) for name, text in found.items()}
    return section(inspect.getdoc(value) or "", "Args")


def signature(value):
    return {name: parameter for name, parameter in inspect.signature(value).parameters.items() if name != "self"}


@pytest.mark.parametrize("name", OBJECTS)
def test_public_name_has_a_docstring_that_begins_with_a_sentence(name):
    text = OBJECTS[name].__doc__
    assert text, f"{name} has no docstring"
    assert re.match(r"[A-Z`'].*[.:]", text.strip(), re.DOTALL)


@pytest.mark.parametrize("name", [name for name, value in OBJECTS.items() if inspect.isclass(value)])
def test_property_has_a_docstring_or_stands_among_the_attributes(name):
    described = section(inspect.cleandoc(OBJECTS[name].__doc__), "Attributes")
    for attribute, value in vars(OBJECTS[name]).items():
        if isinstance(value, property | functools.cached_property) and not attribute.startswith("_"):
            assert attribute in described or value.__doc__, attribute


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_described_and_no_others(name):
    value = FUNCTIONS[name]
    arguments, taken = described_arguments(value), signature(value)
    if not arguments:
        # A one-liner, or an object that the library makes.
        return
    named = {key for key, parameter in taken.items() if parameter.kind is not parameter.VAR_KEYWORD}
    assert named <= set(arguments), f"not described: {sorted(named - set(arguments))}"
    if len(named) == len(taken) and not dataclasses.is_dataclass(value):
        assert set(arguments) <= named, f"described, but not taken: {sorted(set(arguments) - named)}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_defaults_are_stated_and_true(name):
    """`None` needs no words, and may stand for what is named; what is "As in" elsewhere is stated there."""
    taken = signature(FUNCTIONS[name])
    for argument, said in described_arguments(FUNCTIONS[name]).items():
        default = taken[argument].default if argument in taken else inspect.Parameter.empty
        if default is inspect.Parameter.empty:
            continue
        if default is not None and not re.match(r"As (in|there)|See", said):
            assert re.search(r"[Dd]efaults\s+to", said), f"the default of {argument} is not stated"
        if default is not None or "efaults to `None`" in said:
            assert_states(said, default, argument)


def assert_states(said, default, argument):
    match = _DEFAULT.search(said)
    if match is None:
        # In words: "Defaults to ten from 0 to 0.02."
        return
    if match["number"]:
        stated = float(match["number"].replace(",", "").replace("_", ""))
    elif callable(default):
        default, stated = default.__name__, match["code"]
    else:
        stated = ast.literal_eval(match["code"])
    assert default == stated, f"the default of {argument} is {default!r}"


def test_every_public_name_is_on_one_page_of_the_documentation():
    lines = [line for page in API.glob("*.md") for line in page.read_text().splitlines()]
    described = [line.removeprefix("::: ensemble_keras.") for line in lines if line.startswith("::: ")]
    assert len(described) == len(set(described))
    public = {name for name in OBJECTS if "." not in re.sub(r"^(search|executors)\.", "", name)}
    assert sorted(public - set(described)) == []

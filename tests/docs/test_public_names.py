"""The documentation's extension links public names, and shows a docstring's example as a code block."""

import importlib.util
import pathlib

import pytest

import ensemble_keras as ek

pytest.importorskip("griffe", reason="needs the extra 'docs'")
FILE = pathlib.Path(__file__).parents[2] / "docs" / "extensions" / "public_names.py"


@pytest.fixture(scope="module")
def extension():
    spec = importlib.util.spec_from_file_location("public_names", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_read_without_importing_is_that_of_the_package(extension):
    expected = {*ek.__all__} - {"__version__", "executors", "search"} | {
        f"search.{name}" for name in ek.search.__all__
    }
    assert set(extension.public_paths()) == expected


def test_inline_code_that_is_a_public_name_becomes_a_link(extension):
    page = "# `ek.fine_tune`\n\nCall `ek.fine_tune`, not `ek.nothing`.\n\n```python\n`ek.fine_tune`\n```\n"
    assert extension.on_page_markdown(page, page=None) == page.replace(
        "Call `ek.fine_tune`", "Call [`ek.fine_tune`][ensemble_keras.fine_tune]"
    )


def test_names_of_the_search_and_of_methods_are_found(extension):
    linked = extension.on_page_markdown("`ek.search.GeneticSearch` `ek.ImageDataset.from_directory`", page=None)
    assert "[`ek.search.GeneticSearch`][ensemble_keras.search.GeneticSearch]" in linked
    assert "[`ek.ImageDataset.from_directory`][ensemble_keras.ImageDataset.from_directory]" in linked


@pytest.mark.parametrize("gap", ["\n\n", "\n"])
def test_an_example_becomes_a_code_block(extension, gap):
    text = f"Does it.\n\nExample:{gap}>>> one()\n1\n>>> two()\n2"
    assert extension.fenced_example(text) == "Does it.\n\n**Example**\n\n```pycon\n>>> one()\n1\n>>> two()\n2\n```"

import keras
import keras_tuner
import numpy as np
import pytest

from ensemble_keras.search import family as families
from ensemble_keras.search.family import Family, Gene, get_family, hyperparameter, list_families, register_family
from ensemble_keras.search.genome import active_values, genes


def build(images, values):
    return images


@pytest.fixture
def blocks():
    """Its second block is optional, and so is the dropout in it."""
    return Family(
        "blocks",
        {
            "number": (1, 2),
            "filters_1": [8, 16],
            "filters_2": Gene([8, 16], when={"number": [2]}),
            "dropout": Gene([0, 0.5], when={"number": (1, 2), "filters_2": (16,)}),
        },
        build,
    )


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(families, "_REGISTERED", {})


def declared(*chosen):
    space = keras_tuner.HyperParameters()
    space.merge([hyperparameter("family", tuple(family.name for family in chosen))])
    for family in chosen:
        space.merge(family.hyperparameters())
    return space


@pytest.mark.parametrize(
    ("given", "choices"),
    [
        ([1, 2], (1, 2)),
        ((0, 0.5), (0.0, 0.5)),
        ([np.int64(3)], (3,)),
        (("a", "b"), ("a", "b")),
        ([False, True], (False, True)),
    ],
)
def test_choices_are_plain_values_of_one_type(given, choices):
    found = Gene(given).choices
    assert found == choices
    assert [type(value) for value in found] == [type(value) for value in choices]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], r"must be a list or tuple of values. Received: \[\]"),
        (16, "must be a list or tuple of values. Received: 16"),
        ("relu", "must be a list or tuple of values. Received: 'relu'"),
        ([1, "a"], r"all numbers or all booleans. Received: \(1, 'a'\)"),
        ([1, True], "all numbers or all booleans"),
        ([(3, 3), (5, 5)], "all numbers or all booleans"),
        ([1, 2, 1], r"must differ from each other. Received: \(1, 2, 1\)"),
    ],
)
def test_malformed_choices_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        Gene(choices)


def test_genes_are_declared_with_the_conditions_of_all_that_they_depend_on(blocks):
    space = declared(blocks, Family("other", {"filters": (4, 8)}, build))
    assert [gene.name for gene in genes(space)] == [
        "family",
        "blocks/number",
        "blocks/filters_1",
        "blocks/filters_2",
        "blocks/dropout",
        "other/filters",
    ]
    values = {
        "family": "blocks",
        "blocks/number": 2,
        "blocks/filters_1": 8,
        "blocks/filters_2": 16,
        "blocks/dropout": 0.5,
        "other/filters": 4,
    }
    assert list(active_values(space, values)) == list(values)[:5]
    assert list(active_values(space, values | {"blocks/filters_2": 8})) == list(values)[:4]
    assert list(active_values(space, values | {"blocks/number": 1})) == list(values)[:3]
    assert list(active_values(space, values | {"family": "other"})) == ["family", "other/filters"]
    assert blocks.own_values(active_values(space, values | {"blocks/number": 1})) == {"number": 1, "filters_1": 8}


def test_the_kind_of_hyperparameter_keeps_the_values_types():
    family = Family("kinds", {"one": [3], "flag": [True, False], "rate": [0, 0.5], "name": ["a", "b"]}, build)
    space = declared(family)
    kinds = {gene.name: type(gene).__name__ for gene in genes(space)}
    assert kinds == {
        "family": "Fixed",
        "kinds/one": "Fixed",
        "kinds/flag": "Boolean",
        "kinds/rate": "Choice",
        "kinds/name": "Choice",
    }
    assert list(space.values.values()) == ["kinds", 3, True, 0.0, "a"]
    assert [type(value) for value in space.values.values()] == [str, int, bool, float, str]


def test_edited_genes_keep_their_type_and_the_family_stays_as_it_was(blocks):
    edited = blocks.edited({"filters_1": [32, np.int64(64)], "dropout": [0]})
    assert edited.genes["filters_1"].choices == (32, 64)
    assert edited.genes["dropout"].choices == (0.0,)
    assert type(edited.genes["dropout"].choices[0]) is float
    assert blocks.genes["filters_1"].choices == (8, 16)
    assert edited.build is build
    assert blocks.edited({"number": [2]}).genes["dropout"].when == {"number": (2,), "filters_2": (16,)}


def test_genes_that_cannot_take_effect_any_more_are_left_out(blocks):
    assert list(blocks.edited({"number": [1]}).genes) == ["number", "filters_1"]
    assert list(blocks.edited({"filters_2": [8]}).genes) == ["number", "filters_1", "filters_2"]
    assert list(blocks.edited({"number": [2]}).genes) == list(blocks.genes)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"filter_1": [8]}, "'blocks' has no gene 'filter_1'. Did you mean 'filters_1'"),
        ({"filters_2": ["8"]}, r"'filters_2' must be of type int. Received: \('8',\)"),
        ({"filters_2": [8.5]}, "'filters_2' must be of type int"),
        ({"filters_2": 8}, "must be a list or tuple"),
        ({"number": [2, 3]}, r"Other genes depend on 'number' .* only be narrowed: \(1, 2\). Received: \[3\]"),
    ],
)
def test_edits_that_make_no_sense_are_refused(blocks, choices, message):
    with pytest.raises(ValueError, match=message):
        blocks.edited(choices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("my family", {}, build), "must be letters, digits and single underscores. Received: 'my family'"),
        (("", {}, build), "must be letters, digits and single underscores"),
        (("a", {}, "build"), "`build` must be a function of images and values. Received: 'build'"),
        (
            ("a", {"filters": Gene([8], when={"block": [1]}), "blocks": [1]}, build),
            "'filters' must name a gene before it. Received: 'block'",
        ),
        (
            ("a", {"blocks": [1, 2], "filters": Gene([8], when={"blocks": [3]})}, build),
            r"'filters' must hold choices of 'blocks': \(1, 2\). Received: \(3,\)",
        ),
        (("a", {"blocks": [1], "filters": Gene([8], when={"blocks": []})}, build), "must hold choices of 'blocks'"),
    ],
)
def test_malformed_families_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Family(*arguments)


def test_a_family_of_ones_own_is_known_by_name(registry):
    family = register_family("mine", build, genes={"filters": [8, 16]})
    assert list_families()[-1] == "mine"
    assert get_family("mine") is family
    assert family.genes["filters"] == Gene((8, 16))
    again = register_family("mine", build, genes={"filters": [8]})
    assert get_family("mine") is again
    assert list_families().count("mine") == 1


def test_a_family_must_be_known_and_the_librarys_names_are_taken(registry):
    with pytest.raises(ValueError, match=r"Unknown family 'vg'. Did you mean 'vgg'\? See list_families\(\)."):
        get_family("vg")
    with pytest.raises(ValueError, match="'vgg' is taken by a family of the library"):
        register_family("vgg", build, genes={})


def test_every_family_of_the_library_has_its_own_name(registry):
    assert len(list_families()) == 9
    for name in list_families():
        assert get_family(name).name == name
        assert keras.tree.flatten(get_family(name).genes)

import hashlib
import json

import keras_tuner
import numpy as np
import pytest

from ensemble_keras.search.family import hyperparameter
from ensemble_keras.search.genome import active_values, genes, genome_id


@pytest.fixture
def space():
    """`vgg/blocks` is of the family vgg, `vgg/filters_3` of its third block."""
    space = keras_tuner.HyperParameters()
    space.Choice("family", ["cnn", "vgg"])
    with space.conditional_scope("family", ["cnn"]):
        space.Choice("cnn/filters", [8, 16])
    with space.conditional_scope("family", ["vgg"]):
        space.Choice("vgg/blocks", [2, 3])
        with space.conditional_scope("vgg/blocks", [3]):
            space.Choice("vgg/filters_3", [8, 16])
    space.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    return space


EVERYTHING = {
    "learning_rate": 1e-3,
    "family": "vgg",
    "cnn/filters": 8,
    "vgg/blocks": 3,
    "vgg/filters_3": 16,
    "tuner/epochs": 4,
}


def test_genes_are_in_the_order_of_declaration(space):
    assert [gene.name for gene in genes(space)] == [
        "family",
        "cnn/filters",
        "vgg/blocks",
        "vgg/filters_3",
        "learning_rate",
    ]
    assert genes(space) is not genes(space)


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({}, ["family", "vgg/blocks", "vgg/filters_3", "learning_rate"]),
        ({"vgg/blocks": 2}, ["family", "vgg/blocks", "learning_rate"]),
        # The third block is there by its number, but it is of a family that is not.
        ({"family": "cnn"}, ["family", "cnn/filters", "learning_rate"]),
    ],
)
def test_only_what_takes_effect_is_active(space, changed, names):
    values = EVERYTHING | changed
    active = active_values(space, values)
    assert list(active) == names
    assert active == {name: values[name] for name in names}


def test_what_depends_on_something_inactive_is_inactive():
    space = keras_tuner.HyperParameters()
    space.merge(
        [
            hyperparameter("a", (1, 2)),
            hyperparameter("b", (1, 2), {"a": (2,)}),
            hyperparameter("c", (1, 2), {"b": (2,)}),
        ]
    )
    assert list(active_values(space, {"a": 2, "b": 2, "c": 2})) == ["a", "b", "c"]
    # A parent's value that is left over from another genome fulfils no condition.
    assert list(active_values(space, {"a": 1, "b": 2, "c": 2})) == ["a"]


def test_the_values_that_the_space_holds_play_no_part(space):
    space.values["family"] = "cnn"
    assert active_values(space, EVERYTHING)["family"] == "vgg"


def test_a_missing_value_is_refused_only_where_it_is_active(space):
    values = {name: value for name, value in EVERYTHING.items() if name != "vgg/filters_3"}
    assert "vgg/filters_3" not in active_values(space, values | {"vgg/blocks": 2})
    with pytest.raises(ValueError, match=r"Received: none for 'vgg/filters_3'. Its values: 8, 16."):
        active_values(space, values)


def test_values_are_plain_python(space):
    values = EVERYTHING | {"vgg/filters_3": np.int64(16), "learning_rate": np.float64(1e-3)}
    kinds = [type(value) for value in active_values(space, values).values()]
    assert kinds == [str, int, int, float]


def test_equal_networks_have_one_identity(space):
    inactive = EVERYTHING | {"cnn/filters": 16}
    renewed = keras_tuner.HyperParameters.from_config(json.loads(json.dumps(space.get_config())))
    ids = {
        genome_id(active_values(space, EVERYTHING)),
        genome_id(active_values(space, inactive)),
        genome_id(active_values(space, dict(reversed(EVERYTHING.items())))),
        genome_id(active_values(renewed, json.loads(json.dumps(EVERYTHING)))),
    }
    assert len(ids) == 1


def test_the_identity_is_the_sha256_of_the_canonical_json():
    text = '{"family":"cnn","lr":0.001}'
    assert genome_id({"lr": 0.001, "family": "cnn"}) == hashlib.sha256(text.encode()).hexdigest()


def test_values_of_different_types_are_different():
    # KerasTuner hashes strings: {"a": 1} and {"a": "1"} are one to it.
    assert len({genome_id({"a": value}) for value in (1, 1.0, True, "1", "1.0", "true")}) == 6
    assert genome_id({"a": 1, "b": 2}) != genome_id({"a": 2, "b": 1})
    assert genome_id({"a": np.int32(1)}) == genome_id({"a": 1})


def test_what_has_no_canonical_form_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        genome_id({"a": float("nan")})
    with pytest.raises(TypeError, match="not JSON serializable"):
        genome_id({"a": {1, 2}})

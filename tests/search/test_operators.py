import collections

import keras_tuner
import numpy as np
import pytest
from search_problems import family_space, nk_space

from ensemble_keras.search.genome import active_values, genes
from ensemble_keras.search.operators import cross, mutate, neighbours, random_genome, tournament


def is_valid(genome):
    """Whether a genome of `family_space` has what is active and nothing else, each within its range."""
    space = family_space()
    if active_values(space, genome) != genome:
        return False
    return all(
        np.isfinite(gene.value_to_prob(genome[gene.name])) and type(genome[gene.name]) is type(gene.default)
        for gene in genes(space)
        if gene.name in genome
    )


def test_random_genomes_are_valid_and_every_value_occurs(rng):
    drawn = [random_genome(genes(family_space()), rng) for _ in range(300)]
    assert all(map(is_valid, drawn))
    assert {genome.get("cnn/filters") for genome in drawn} == {None, 8, 16, 32}
    assert {genome.get("vgg/width") for genome in drawn} == {None, 8, 16, 32, 64}
    assert {genome.get("vgg/blocks") for genome in drawn} == {None, 1, 2, 3, 4}
    assert {genome.get("cnn/norm") for genome in drawn} == {None, True, False}
    assert len({genome["learning_rate"] for genome in drawn}) == 300


def test_mutation_changes_one_gene_to_each_other_value(rng):
    declared = genes(nk_space())
    genome = random_genome(declared, rng)
    children = [mutate(declared, genome, rng) for _ in range(3600)]
    assert {sum(child[name] != genome[name] for name in genome) for child in children} == {1}
    changes = collections.Counter(item for child in children for item in child.items() - genome.items())
    # 36 of them, each 100 times.
    assert len(changes) == 12 * 3
    assert 60 < min(changes.values()) < max(changes.values()) < 140


def test_mutation_by_probability_changes_one_gene_at_least(rng):
    declared = genes(nk_space())
    genome = random_genome(declared, rng)
    children = [mutate(declared, genome, rng, prob=1 / 12) for _ in range(2000)]
    changes = [sum(child[name] != genome[name] for name in genome) for child in children]
    assert min(changes) == 1
    # Binomial (12, 1/12), where 0 becomes 1.
    assert np.mean(changes) == pytest.approx(1 + (11 / 12) ** 12, abs=0.06)


def test_mutation_with_probability_1_changes_every_gene(rng):
    declared = genes(nk_space())
    genome = random_genome(declared, rng)
    child = mutate(declared, genome, rng, prob=1)
    assert all(child[name] != genome[name] for name in genome)


def test_mutated_genomes_have_what_is_active_only(rng):
    declared = genes(family_space())
    genome = {"family": "cnn", "cnn/filters": 8, "cnn/norm": True, "cnn/momentum": 0.6}
    genome |= {"learning_rate": 1e-3, "optimizer": "adamw"}
    children = [mutate(declared, genome, rng) for _ in range(300)]
    assert all(map(is_valid, children))
    assert all(child != genome for child in children)
    assert any("vgg/width" in child for child in children)
    assert any(child.get("cnn/norm") is False and "cnn/momentum" not in child for child in children)


def test_a_space_without_a_choice_cannot_be_mutated(rng):
    space = keras_tuner.HyperParameters()
    space.Fixed("optimizer", "adamw")
    assert mutate(genes(space), {"optimizer": "adamw"}, rng) == {"optimizer": "adamw"}


def test_uniform_crossover_takes_each_gene_from_either_parent(rng):
    declared = genes(nk_space())
    first, second = ({f"gene{number}": value for number in range(12)} for value in (0, 1))
    children = np.array([list(cross(declared, first, second, rng).values()) for _ in range(1000)])
    assert children.shape == (1000, 12)
    np.testing.assert_allclose(children.mean(axis=0), 0.5, atol=0.06)
    # Genes are drawn one by one.
    np.testing.assert_allclose(np.corrcoef(children.T) - np.eye(12), 0, atol=0.15)


def test_one_point_crossover_changes_the_parent_once(rng):
    declared = genes(nk_space())
    first, second = ({f"gene{number}": value for number in range(12)} for value in (0, 1))
    points = set()
    for _ in range(300):
        child = list(cross(declared, first, second, rng, crossover="one_point").values())
        points.add(sum(value == 0 for value in child))
        assert child == sorted(child)
    assert points == set(range(1, 12))


@pytest.mark.parametrize("crossover", ["uniform", "one_point"])
def test_children_of_different_families_are_valid(crossover, rng):
    declared = genes(family_space())
    for _ in range(300):
        parents = random_genome(declared, rng), random_genome(declared, rng)
        child = cross(declared, *parents, rng, crossover=crossover)
        assert is_valid(child)
        for name, value in child.items():
            given = [parent[name] for parent in parents if name in parent]
            assert value in given or not given


def test_an_unknown_crossover_is_refused(rng):
    with pytest.raises(ValueError, match="`crossover` must be one of 'uniform', 'one_point'"):
        cross([], {}, {}, rng, crossover="two_point")


def test_the_best_of_a_tournament_wins(rng):
    # The least of 3 of 10 without replacement: P(0) = 3/10, P(1) = 7/10 · 3/9, and 7 at most.
    winners = collections.Counter(tournament(10, 3, rng) for _ in range(5000))
    assert winners[0] / 5000 == pytest.approx(0.3, abs=0.03)
    assert winners[1] / 5000 == pytest.approx(7 / 30, abs=0.03)
    assert max(winners) <= 7
    assert {tournament(10, 10, rng) for _ in range(20)} == {0}
    assert {tournament(3, 10, rng) for _ in range(20)} == {0}
    assert {tournament(3, 1, rng) for _ in range(100)} == {0, 1, 2}


def test_neighbours_differ_in_one_gene():
    space = nk_space(3)
    around = list(neighbours(genes(space), {"gene0": 0, "gene1": 2, "gene2": 3}))
    assert len(around) == len({tuple(one.items()) for one in around}) == 9
    assert {"gene0": 1, "gene1": 2, "gene2": 3} in around
    assert {"gene0": 0, "gene1": 2, "gene2": 0} in around


def test_neighbours_of_a_conditional_space_are_valid():
    genome = {"family": "vgg", "vgg/blocks": 2, "vgg/width": 16, "learning_rate": 1e-3, "optimizer": "adamw"}
    around = list(neighbours(genes(family_space()), genome))
    assert all(map(is_valid, around))
    # The other family with its defaults, 3 numbers of blocks, 3 widths, 10 learning rates.
    assert len(around) == 1 + 3 + 3 + 10
    assert around[0] == {
        "family": "cnn", "cnn/filters": 8, "cnn/norm": False, "learning_rate": 1e-3, "optimizer": "adamw"
    }  # fmt: skip

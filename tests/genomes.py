"""Genomes drawn at random, or the smallest ones: what spaces and families are tested on."""

from ensemble_keras.search.genome import genes


def random_values(space, rng):
    """Draws a value for every gene of a space, active or not."""
    return {gene.name: _drawn(gene.values, rng) for gene in genes(space)}


def random_genome(family, rng):
    """Draws the values of a family's genes that take effect."""
    values = {}
    for name, gene in family.genes.items():
        if all(values.get(parent) in allowed for parent, allowed in gene.when.items()):
            values[name] = _drawn(gene.choices, rng)
    return values


def _drawn(values, rng):
    values = list(values)
    return values[rng.integers(len(values))]

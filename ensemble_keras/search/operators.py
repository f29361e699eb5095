"""Operators: genomes drawn, changed and mixed: mutation, crossover, tournament; pure functions of a generator.

A genome is a dict from name to value with what is active only (`genome.active_values`). `genes` is the list that
`genome.genes` returns; `rng` a `numpy.random.Generator`.
"""

import keras_tuner

from ensemble_keras._validation import check_choice
from ensemble_keras.search.genome import plain

CROSSOVERS = ("uniform", "one_point")


def random_genome(genes, rng):
    """Returns a genome drawn at random: each active gene from its own distribution, parents before children."""
    return _genome(genes, lambda gene: _draw(gene, rng))


def mutate(genes, genome, rng, *, prob=None):
    """Returns a copy in which one active gene, or several, have another value.

    What a changed gene activates is drawn at random; what it makes inactive is dropped.

    Args:
        genes: List of a space's genes.
        genome: Dict from name to value.
        rng: A `numpy.random.Generator`.
        prob: Float in [0, 1], with which each gene changes; one changes at least. Defaults to `None`: one changes.

    Returns:
        Dict from name to value. It equals `genome` only where no gene has a second value.

    Example:

    >>> import keras_tuner
    >>> space = keras_tuner.HyperParameters()
    >>> _ = space.Boolean("norm"), space.Fixed("filters", 16)
    >>> mutate(space.space, {"norm": True, "filters": 16}, np.random.default_rng(0))
    {'norm': False, 'filters': 16}
    """
    names = [gene.name for gene in genes if _is_active(gene, genome) and _can_change(gene)]
    if not names:
        return dict(genome)
    drawn = rng.random(len(names)) < (prob or 0)
    changed = {name for name, is_drawn in zip(names, drawn, strict=True) if is_drawn}
    changed = changed or {names[rng.integers(len(names))]}

    def choose(gene):
        if gene.name not in genome:
            return _draw(gene, rng)
        return _draw_other(gene, genome[gene.name], rng) if gene.name in changed else genome[gene.name]

    return _genome(genes, choose)


def cross(genes, first, second, rng, *, crossover="uniform"):
    """Returns a child that has each gene from one of two parents.

    A gene that only one parent has comes from that one, where it is active in the child; a gene that the child has
    and neither parent does is drawn at random.

    Args:
        genes: List of a space's genes.
        first: Dict from name to value, a parent.
        second: Dict from name to value, the other parent.
        rng: A `numpy.random.Generator`.
        crossover: `"uniform"`: each gene from either parent with equal probability; or `"one_point"`: the genes
            before a random one from the first parent, it and what follows from the second. Defaults to `"uniform"`.

    Returns:
        Dict from name to value. It may equal a parent.

    Raises:
        ValueError: If `crossover` is unknown.
    """
    check_choice("crossover", crossover, CROSSOVERS)
    names = [name for name in dict.fromkeys(gene.name for gene in genes) if name in first or name in second]
    if crossover == "uniform":
        from_first = rng.random(len(names)) < 0.5
    else:
        # Each parent gives one gene at least, where there are two.
        point = rng.integers(1, max(2, len(names)))
        from_first = [place < point for place in range(len(names))]
    giver = {name: first if chosen else second for name, chosen in zip(names, from_first, strict=True)}

    def choose(gene):
        for parent in (giver.get(gene.name, first), first, second):
            if gene.name in parent:
                return parent[gene.name]
        return _draw(gene, rng)

    return _genome(genes, choose)


def tournament(count, size, rng):
    """Returns the place of a tournament's winner among `count` contestants that stand in order, the best one first.

    Args:
        count: Int, 1 or above.
        size: Int, how many different ones are drawn; the best of them wins. At 1 each is as likely; at `count` the
            best one wins always.
        rng: A `numpy.random.Generator`.
    """
    return int(rng.choice(count, min(size, count), replace=False).min())


def neighbours(genes, genome):
    """Yields every genome that differs in one gene, in the order of the genes.

    What a changed gene activates has its default. A number without steps has ten values, as KerasTuner lists them.

    Args:
        genes: List of a space's genes.
        genome: Dict from name to value.

    Yields:
        Dicts from name to value.
    """
    for gene in genes:
        if _is_active(gene, genome):
            for value in _others(gene, genome[gene.name]):
                yield _with(genes, {**genome, gene.name: value})


def _with(genes, values):
    return _genome(genes, lambda gene: values.get(gene.name, gene.default))


def _genome(genes, choose):
    """Returns what `choose` gives for each gene that is active for the values before it."""
    genome = {}
    for gene in genes:
        if _is_active(gene, genome):
            genome[gene.name] = choose(gene)
    return genome


def _is_active(gene, genome):
    return all(condition.is_active(genome) for condition in gene.conditions)


def _can_change(gene):
    return _is_continuous(gene) or len(_values(gene)) > 1


def _is_continuous(gene):
    # Only numbers have steps; without one there are too many values to list.
    return getattr(gene, "step", 1) is None


def _draw(gene, rng):
    # Below 1: KerasTuner makes of it an int above the upper end.
    return plain(gene.prob_to_value(min(rng.random(), 1 - 1e-9)))


def _draw_other(gene, value, rng):
    if _is_continuous(gene):
        return _draw(gene, rng)
    others = _others(gene, value)
    return others[rng.integers(len(others))]


def _others(gene, value):
    return [other for other in _values(gene) if other != value]


def _values(gene):
    # KerasTuner lists an int's powers as floats.
    kind = int if isinstance(gene, keras_tuner.engine.hyperparameters.Int) else plain
    # Ten values of a number without steps are a set.
    return sorted(map(kind, gene.values)) if _is_continuous(gene) else list(map(kind, gene.values))

import keras
import numpy as np
import pytest
from contracts import assert_stock_only, predict_elsewhere
from genomes import random_genome

from ensemble_keras.measures.macs import count_macs
from ensemble_keras.members.initialisation import reinitialised
from ensemble_keras.search.family import _BUILT_IN, get_family
from ensemble_keras.search.space import HyperImageClassifier

each_family = pytest.mark.parametrize("family", [get_family(name) for name in _BUILT_IN], ids=lambda f: f.name)


def values_of(family, genome):
    training = {"learning_rate": 1e-3, "weight_decay": 1e-4, "dropout": 0.0}
    return {"family": family.name, **{f"{family.name}/{name}": value for name, value in genome.items()}, **training}


def smallest(family):
    class First:
        def integers(self, high):
            return 0

    return random_genome(family, First())


def network_of(family, genome, shape, num_classes=3):
    return HyperImageClassifier(num_classes, shape, families=[family]).network(values_of(family, genome))


def check_network(family, genome, shape):
    space, values = HyperImageClassifier(3, shape, families=[family]), values_of(family, genome)
    measured = space.measure(values)
    network = space.network(values)
    counted = count_macs(network)
    assert counted.unknown == []
    assert measured == {"parameters": network.count_params(), "macs": counted.total}
    assert_stock_only(network)
    assert network.input_shape == (None, *shape)
    assert network.output_shape == (None, 3)


@each_family
def test_a_random_genome_makes_a_classifier_of_known_cost(family):
    check_network(family, random_genome(family, np.random.default_rng(0)), (28, 28, 1))


@pytest.mark.slow
@each_family
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (8, 8, 1), (33, 17, 4), (96, 96, 3)], ids=str)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_further_genomes_and_sizes_make_classifiers_of_known_cost(family, shape, seed):
    check_network(family, random_genome(family, np.random.default_rng(seed)), shape)


@each_family
def test_images_become_probabilities_and_one_gradient_step_lowers_the_loss(family):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 8, 8, 1)).astype("float32")
    labels = np.arange(16) % 3
    network = network_of(family, smallest(family), (8, 8, 1))
    # Op by op is faster for two steps, but not where every operation is compiled.
    by_op = keras.backend.backend() == "tensorflow"
    network.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", run_eagerly=by_op)
    first, second = (network.train_on_batch(images, labels) for _ in range(2))
    assert second < first
    probabilities = network.predict_on_batch(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    # It sees the images: it tells random ones apart.
    assert np.ptp(probabilities, axis=0).max() > 1e-6


class Read(dict):
    """A dict that remembers what is asked of it."""

    def __init__(self, values):
        super().__init__(values)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


def config_of(family, genome):
    genome = Read(genome)
    images = keras.Input((16, 16, 1), name="images")
    config = keras.Model(images, family.build(images, genome), name="network").get_config()
    assert genome.names == set(genome)
    return config


@each_family
def test_exactly_the_active_genes_are_read_and_the_same_ones_give_the_same_network(family):
    genome = smallest(family)
    assert config_of(family, genome) == config_of(family, dict(reversed(genome.items())))


@pytest.mark.slow
@each_family
def test_every_gene_changes_the_network(family):
    plain = smallest(family)
    expected = config_of(family, plain)
    for name, gene in family.genes.items():
        # What the gene depends on is set so that it takes effect.
        needed = {parent: [allowed[0]] for parent, allowed in gene.when.items()}
        without = smallest(family.edited(needed))
        genome = smallest(family.edited({**needed, name: [gene.choices[-1]]}))
        reference = expected if without == plain else config_of(family, without)
        assert config_of(family, genome) != reference, name


@each_family
def test_new_weights_depend_on_a_seed_alone(family):
    network = network_of(family, smallest(family), (8, 8, 1))
    once, again = (reinitialised(network, seed=0) for _ in range(2))
    assert [w.path for w in once.weights] == [w.path for w in network.weights]
    for new, same, old in zip(once.weights, again.weights, network.weights, strict=True):
        np.testing.assert_array_equal(new, same)
        assert not np.ptp(new) or np.abs(np.subtract(new, old)).max() > 0, new.path


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_a_backbone_gives_float32_under_mixed_precision(name):
    policy, family = keras.config.dtype_policy(), get_family(name)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = network_of(family, smallest(family), (8, 8, 3))
    finally:
        keras.config.set_dtype_policy(policy)
    trunk = network.layers[1]
    assert trunk.outputs[0].dtype == network.outputs[0].dtype == "float32"
    # Nothing had to be put around it.
    assert not [layer for layer in trunk.layers if isinstance(layer, keras.Model)]


@pytest.mark.slow
def test_saved_networks_open_where_the_package_is_missing(tmp_path):
    rng = np.random.default_rng(0)
    networks = [network_of(family, random_genome(family, rng), (16, 16, 3)) for family in map(get_family, _BUILT_IN)]
    images = rng.integers(0, 256, (4, 16, 16, 3)).astype("float32")
    expected = [network.predict(images, verbose=0) for network in networks]
    for found, wanted in zip(predict_elsewhere(networks, images, tmp_path), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["transformer", "hybrid"])
def test_heads_must_divide_the_width(name):
    family = get_family(name).edited({"width": [64], "heads": [3]})
    genome = {**smallest(family), "width": 64, "heads": 3}
    with pytest.raises(ValueError, match="The width must be a multiple of the heads. Received: 64 for 3 heads."):
        family.build(keras.Input((8, 8, 1)), genome)


def test_a_bias_per_position_tells_the_positions_of_patches():
    # Two images with the same patches in another order are different images to a Transformer.
    family = get_family("transformer")
    genome = {"patch_size": 4, "width": 64, "heads": 2, "depth": 2, "mlp_ratio": 2, "dropout": 0.0}
    network = network_of(family, genome, (8, 8, 1))
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1)).astype("float32")
    swapped = image[:, [4, 5, 6, 7, 0, 1, 2, 3]]
    assert not np.allclose(network(image), network(swapped), atol=1e-5)
    embedding = network.layers[1].get_layer("embedding")
    assert embedding.bias.shape == (4, 64)
    embedding.bias.assign(np.zeros((4, 64)))
    np.testing.assert_allclose(network(image), network(swapped), atol=1e-5)


def test_patches_are_cut_row_by_row():
    from ensemble_keras.search.families.sequences import patches

    images = np.arange(2 * 9 * 10 * 2).reshape(2, 9, 10, 2).astype("float32")
    found = keras.ops.convert_to_numpy(patches(keras.ops.convert_to_tensor(images), 4))
    padded = np.pad(images, ((0, 0), (0, 3), (0, 2), (0, 0)))
    expected = [padded[:, i : i + 4, j : j + 4].reshape(2, -1) for i in (0, 4, 8) for j in (0, 4, 8)]
    np.testing.assert_array_equal(found, np.stack(expected, axis=1))

import pickle
import time

import keras
import keras_tuner
import numpy as np
import pytest
from genomes import random_values

import ensemble_keras as ek
from ensemble_keras.search.family import _BUILT_IN, Family, Gene, get_family
from ensemble_keras.search.genome import active_values, genes, genome_id
from ensemble_keras.search.space import HyperImageClassifier

SHAPE = (8, 8, 3)
TINY = {"cnn": {"blocks": [2], "filters": [4, 8], "dropout": [0.0]}}


class Counted:
    """A family's `build` that counts how often it is called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images, values):
        self.calls += 1
        x = keras.layers.Conv2D(values["filters"], 3, activation="relu", name="conv")(images)
        return x if values["depth"] == 1 else keras.layers.Conv2D(values["last"], 3, name="last")(x)


@pytest.fixture
def counted():
    genes = {"filters": (4, 8), "depth": (1, 2), "last": Gene((2, 3), when={"depth": (2,)})}
    return Family("counted", genes, Counted())


def values(**changed):
    return {
        "family": "counted",
        "counted/filters": 4,
        "counted/depth": 1,
        "counted/last": 2,
        "learning_rate": 1e-3,
        "weight_decay": 1e-2,
        "dropout": 0.0,
    } | {name.replace("counted_", "counted/"): value for name, value in changed.items()}


def space_of(family, **options):
    return HyperImageClassifier(3, SHAPE, families=[family], **options)


def test_the_space_of_all_families_is_declared_at_once_and_nothing_is_built(monkeypatch):
    monkeypatch.setattr(keras.layers.Layer, "__call__", None)
    [get_family(name) for name in _BUILT_IN]
    start = time.perf_counter()
    space = HyperImageClassifier(10, (32, 32, 3), families=_BUILT_IN)
    declared = space.hyperparameters()
    assert time.perf_counter() - start < 1
    assert {gene.name for gene in genes(declared)} == {
        "family",
        *(f"{name}/{gene}" for name in _BUILT_IN for gene in get_family(name).genes),
        "learning_rate",
        "weight_decay",
        "dropout",
    }
    assert list(genes(declared)[0].values) == list(_BUILT_IN)


def test_genes_are_active_where_their_conditions_hold(rng):
    space = HyperImageClassifier(10, (32, 32, 3), families=_BUILT_IN)
    declared = space.hyperparameters()
    for _ in range(50):
        drawn = random_values(declared, rng)
        family = get_family(drawn["family"])
        expected = [
            f"{family.name}/{name}"
            for name, gene in family.genes.items()
            if all(drawn[f"{family.name}/{parent}"] in allowed for parent, allowed in gene.when.items())
        ]
        active = active_values(declared, drawn)
        assert list(active) == ["family", *expected, "learning_rate", "weight_decay", "dropout"]
        # KerasTuner agrees.
        hp = declared.copy()
        hp.values = dict(drawn)
        hp.ensure_active_values()
        assert active_values(hp, hp.values) == hp.values == active


def test_the_space_handed_out_is_a_copy(counted):
    space = space_of(counted)
    space.hyperparameters().Choice("more", [1, 2])
    assert "more" not in space.hyperparameters().values


def test_a_network_is_a_member_named_after_family_and_genome(counted):
    space = space_of(counted)
    network = space.network(values(dropout=0.2))
    genome = genome_id(active_values(space.hyperparameters(), values(dropout=0.2)))
    assert network.name == f"counted_{genome[:8]}"
    assert network.layers[1].name == network.name
    assert network.get_layer("features").output.shape == (None, 4)
    assert network.get_layer("dropout").rate == 0.2
    assert network.output_shape == (None, 3)
    other = space.network(values(counted_filters=8))
    joined = ek.build_ensemble([network, other], ek.SoftVoting())
    x = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("float32")
    expected = (np.asarray(network(x)) + np.asarray(other(x))) / 2
    np.testing.assert_allclose(joined(x), expected, atol=1e-6)


def test_images_are_scaled_inside(counted):
    network = space_of(counted).network(values())
    scaled = keras.Model(network.layers[1].input, network.layers[1].get_layer("preprocessing").output)
    x = np.array([0, 127.5, 255], "float32") * np.ones((1, *SHAPE), "float32")
    np.testing.assert_allclose(scaled(x)[0, 0, 0], [-1, 0, 1], atol=1e-6)


def test_a_network_is_built_once(counted):
    space = space_of(counted)
    assert space.refusal(values()) is None
    measured = space.measure(values(counted_last=3))  # not active
    network = space.network(values())
    assert counted.build.calls == 1
    assert space.measure(values()) == measured
    assert counted.build.calls == 1
    # A trained network is not handed out twice.
    again = space.network(values())
    assert again is not network
    assert counted.build.calls == 2
    assert again.get_config() == network.get_config()


def test_the_size_is_that_of_the_network(counted):
    measured = space_of(counted).measure(values(counted_depth=2))
    # 3 x 3 convolutions of 3 -> 4 channels at 6 x 6 positions and 4 -> 2 at 4 x 4, and a dense layer 2 -> 3.
    macs = 9 * 3 * 4 * 36 + 9 * 4 * 2 * 16 + 2 * 3
    assert measured == {"parameters": 9 * 3 * 4 + 4 + 9 * 4 * 2 + 2 + 2 * 3 + 3, "macs": macs}


def test_what_is_above_a_limit_is_refused_with_both_figures(counted):
    figures = space_of(counted).measure(values())
    assert space_of(counted, max_parameters=figures["parameters"], max_macs=figures["macs"]).refusal(values()) is None
    small = space_of(counted, max_parameters=100)
    assert small.refusal(values()) == "The network has 127 parameters, above max_parameters=100."
    slow = space_of(counted, max_macs=1000)
    assert slow.refusal(values()) == "The network has 3,900 macs, above max_macs=1,000."


def test_what_makes_no_network_is_refused_with_the_reason():
    def build(images, values):
        raise ValueError("Heads do not divide the width.")

    space = HyperImageClassifier(3, SHAPE, families=[Family("odd", {}, build)])
    odd = space.hyperparameters().values
    assert space.refusal(odd) == "The network cannot be built: Heads do not divide the width."
    with pytest.raises(ValueError, match="Heads do not divide"):
        space.network(odd)
    with pytest.raises(ValueError, match="Received: none for 'weight_decay'"):
        space.network({"family": "odd", "learning_rate": 1e-3})


def test_features_must_be_a_map_or_vectors():
    def build(images, values):
        return keras.layers.Reshape((8, 24), name="rows")(images)

    space = HyperImageClassifier(3, SHAPE, families=[Family("sequence", {}, build)])
    with pytest.raises(ValueError, match=r"'sequence' must give a feature map .* Received: \(None, 8, 24\)"):
        space.network(space.hyperparameters().values)


def test_a_layer_of_unknown_cost_is_refused():
    @keras.saving.register_keras_serializable("tests")
    class Odd(keras.layers.Layer):
        def call(self, x):
            return x

    family = Family("odd", {}, lambda images, values: Odd(name="odd")(images))
    space = HyperImageClassifier(3, SHAPE, families=[family])
    assert "layers of the family 'odd' are not known: " in space.refusal(space.hyperparameters().values)


def test_families_and_training_can_be_edited():
    space = HyperImageClassifier(
        3,
        SHAPE,
        families={"cnn": {"filters": [8]}, "vgg": None},
        training={"learning_rate": [1e-3], "batch_size": [32, 64], "label_smoothing": (0.0, 0.2)},
    )
    kinds = {gene.name: type(gene).__name__ for gene in genes(space.hyperparameters())}
    assert {name.partition("/")[0] for name in kinds if "/" in name} == {"cnn", "vgg"}
    assert kinds["cnn/filters"] == kinds["learning_rate"] == "Fixed"
    assert kinds["batch_size"] == kinds["weight_decay"] == "Choice"
    assert kinds["label_smoothing"] == "Float"
    drawn = space.hyperparameters().values | {"batch_size": 64, "label_smoothing": 0.1, "weight_decay": 0.1}
    expected = ek.Training(epochs=7, learning_rate=1e-3, weight_decay=0.1, batch_size=64, label_smoothing=0.1)
    assert space.settings(drawn, 7) == expected


def test_build_compiles_with_the_learning_rate_and_declares_what_is_not_declared(counted):
    space = space_of(counted)
    hp = keras_tuner.HyperParameters()
    hp.Fixed("learning_rate", 0.5)
    model = space.build(hp)
    assert sorted(gene.name for gene in hp.space) == sorted(gene.name for gene in genes(space.hyperparameters()))
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    assert float(model.optimizer.learning_rate) == 0.5
    assert model.optimizer.weight_decay == 1e-4
    assert counted.build.calls == 1


# KerasTuner's own oracles use names that Python 3.10 deprecated.
@pytest.mark.filterwarnings("ignore:.*(current_thread|set the name|name attribute):DeprecationWarning")
@pytest.mark.slow
def test_it_serves_a_stock_tuner(counted, tmp_path, rng, monkeypatch):
    # On TensorFlow KerasTuner imports TensorBoard, whether a callback asks for it or not.
    monkeypatch.setattr(keras_tuner.RandomSearch, "_configure_tensorboard_dir", lambda *_: None)
    x, y = rng.integers(0, 256, (24, *SHAPE)).astype("float32"), np.arange(24) % 3
    tuner = keras_tuner.RandomSearch(
        space_of(counted), objective="val_accuracy", max_trials=2, directory=tmp_path, seed=1
    )
    # KerasTuner looks for conditional genes by building; here it finds all of them in one build.
    assert counted.build.calls == 1
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert counted.build.calls == 3
    trials = tuner.oracle.get_best_trials(2)
    assert [trial.status for trial in trials] == ["COMPLETED"] * 2
    for trial in trials:
        found = trial.hyperparameters.values
        assert active_values(space_of(counted).hyperparameters(), found) == found


def test_a_fault_of_a_family_is_a_reason_not_to_try_it_and_a_warning():
    def build(images, values):
        return images / values["filter"]

    space = space_of(Family("faulty", {"filters": [1, 2]}, build))
    with pytest.warns(UserWarning, match="cannot be built: KeyError: 'filter' Family 'faulty'"):
        reason = space.refusal(space.hyperparameters().values)
    assert reason == "The network cannot be built: KeyError: 'filter'"


def test_a_thread_that_measures_does_not_exchange_the_network_of_another(counted, monkeypatch):
    space, built = space_of(counted), HyperImageClassifier._construct
    first = space.hyperparameters().values
    second = {**first, "learning_rate": 3e-3, "dropout": 0.4}

    def interrupted(self, *arguments):
        monkeypatch.setattr(HyperImageClassifier, "_construct", built)
        network = built(self, *arguments)
        # As if another thread came now.
        self.measure(second)
        return network

    expected = space.network(first).name
    monkeypatch.setattr(HyperImageClassifier, "_construct", interrupted)
    assert space.network(first).name == expected
    assert space.network(second).name != expected


def test_it_goes_to_another_process_without_its_networks(counted):
    space = HyperImageClassifier(
        3, SHAPE, families=TINY, training={"dropout": [0.0, 0.5]}, max_parameters=10_000, max_macs=500_000
    )
    given = space.hyperparameters().values
    expected = space.measure(given)
    again = pickle.loads(pickle.dumps(space))
    assert again.hyperparameters().get_config() == space.hyperparameters().get_config()
    assert (again.max_parameters, again.max_macs, again.num_classes) == (10_000, 500_000, 3)
    assert again._kept is None
    assert again.measure(given) == expected
    assert again.network(given).get_config() == space.network(given).get_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be an int of at least 2. Received: 1"),
        ({"input_shape": (7, 32, 3)}, r"of at least 8 pixels a side. Received: \(7, 32, 3\)"),
        ({"input_shape": (32, 32)}, r"must be \(height, width, channels\)"),
        ({"input_shape": 32}, r"must be \(height, width, channels\)"),
        ({"families": "cnn"}, "must be a sequence of names or Family objects, .* Received: 'cnn'"),
        ({"families": []}, r"must be at least one, of different names. Received: \[\]"),
        ({"families": {}}, r"must be at least one, of different names. Received: \[\]"),
        ({"families": ["cnn", "cnn"]}, "must be at least one, of different names"),
        ({"families": ["rnn"]}, "Unknown family 'rnn'. Did you mean 'cnn'"),
        ({"families": {"cnn": {"filter": [8]}}}, "Did you mean 'filters'"),
        ({"training": {"learningrate": [1e-3]}}, "Unknown setting 'learningrate' in `training`. Did you mean"),
        ({"training": {"learning_rate": [-1.0]}}, "`learning_rate` must be above 0"),
        ({"training": {"dropout": [1.0]}}, r"`dropout` must be in \[0, 1\)"),
        ({"max_parameters": 0}, "`max_parameters` must be an int of at least 1. Received: 0"),
        ({"max_macs": 1e6}, "`max_macs` must be an int of at least 1. Received: 1000000.0"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"num_classes": 3, "input_shape": SHAPE} | options
    with pytest.raises(ValueError, match=message):
        HyperImageClassifier(arguments.pop("num_classes"), arguments.pop("input_shape"), **arguments)

import itertools
import json
import os
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from tiny_members import heads_on, tiny_backbone, tiny_member

from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.voting import SoftVoting
from ensemble_keras.measures.graph import calls, has_graph
from ensemble_keras.members.member import build_member
from ensemble_keras.search.family import list_families
from ensemble_keras.search.genome import genes
from ensemble_keras.search.source import to_source, write_champion
from ensemble_keras.search.space import HyperImageClassifier

# Run in a fresh process that cannot import the package: build, load, predict; save predictions and configs.
_ELSEWHERE = """
import json, runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ensemble_keras":
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
import keras, numpy as np
def configs(model):
    return [configs(x) if isinstance(x, keras.Model) else [type(x).__name__, x.get_config()] for x in model.layers]
for folder in sys.argv[1:]:
    model = runpy.run_path(folder + "/champion.py", run_name="champion")["build_model"]()
    model.load_weights(folder + "/champion.weights.h5")
    outputs = model.predict(np.load(folder + "/images.npy"), verbose=0)
    np.savez(folder + "/elsewhere.npz", *keras.tree.flatten(outputs))
    with open(folder + "/configs.json", "w") as file:
        json.dump(configs(model), file)
assert not any(name.startswith("ensemble_keras") for name in sys.modules)
"""


def recurrent():
    images = keras.Input((8, 8, 3))
    x = layers.Reshape((8, 24))(images)
    x = layers.GRU(6, return_sequences=True, dropout=0.1)(x)
    x = layers.Bidirectional(layers.GRU(5, return_sequences=True))(x)
    x, hidden, _ = layers.LSTM(4, return_sequences=True, return_state=True)(x)
    x = layers.GRU(4)(x, initial_state=hidden)
    return keras.Model(images, layers.Dense(3, activation="softmax")(x), name="recurrent")


def attention():
    images = keras.Input((8, 8, 3), name="images")
    x = layers.Conv2D(8, 2, strides=2, kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02))(images)
    patches = layers.Reshape((16, 8))(x)
    x = layers.LayerNormalization(epsilon=1e-6)(patches)
    x = layers.MultiHeadAttention(2, 4, dropout=0.1)(query=x, value=x, training=False)
    patches = layers.Add()([patches, x])
    _, scores = layers.MultiHeadAttention(2, 4, seed=0)(patches, patches, patches, return_attention_scores=True)
    x = layers.Dense(8, activation="gelu", kernel_regularizer="l2", bias_constraint="max_norm")(patches)
    x = layers.Concatenate(axis=-1)([patches[:, 0], layers.GlobalAveragePooling1D()(x), scores[:, 0, 0, ::2]])
    return keras.Model(images, layers.Dense(3, activation="softmax")(x), name="attention")


def shared_layers_and_operations():
    images = keras.Input((8, 8, 3))
    norm = layers.BatchNormalization(momentum=0.9)
    conv = layers.Conv2D(3, 3, padding="same", trainable=False)
    x = norm(conv(norm(images / 255.0)), training=False)
    x = keras.ops.relu(x) + conv(-x) * np.array([1, 2, 0.1], "float32")
    x = keras.ops.reshape(keras.ops.transpose(x, (0, 3, 1, 2)), (-1, 3, 64))
    x = keras.ops.sum(x[..., 1:], axis=-1) ** 2
    return keras.Model(images, keras.ops.softmax(0.01 * x), name="operations")


def networks_of_one_trunk():
    """Two networks that share a trunk and a layer, in a sequential one among others."""
    trunk, last = tiny_backbone(), layers.Dense(2, activation="softmax", name="last")
    images = keras.Input((8, 8, 3))
    one = keras.Model(images, last(trunk(images)), name="one")
    two = keras.Sequential([keras.Input((8, 8, 3)), trunk, layers.Dropout(0.5), last], name="two")
    return keras.Model(
        images, layers.Average()([one(images), two(images), tiny_member("three")(images)]), name="team"
    )


def sequential():
    return keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2)], name="row"
    )


NETWORKS = {
    "cnn": lambda: build_member("CNN", 3, image_size=8, weights=None),
    "recurrent": recurrent,
    "attention": attention,
    "operations": shared_layers_and_operations,
    "trunk": networks_of_one_trunk,
    "sequential": sequential,
    "voting": lambda: build_ensemble([tiny_member("a"), tiny_member("b")], SoftVoting([1, 3]), name="voting"),
    "dense": lambda: build_ensemble([tiny_member("a"), tiny_member("b")], ConcatenateDense(2, (4,)), name="dense"),
    "stems": lambda: build_ensemble(heads_on(tiny_backbone(), "a", "b"), SoftVoting(), name="stems"),
}
LARGE = {
    "mobilenet": lambda: keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3),
    "darknet": lambda: build_member("Darknet19", 3, image_size=32, weights=None, head="mlp", dropout=0.2),
    "densenet": lambda: keras.applications.DenseNet121(weights=None, input_shape=(32, 32, 3), classes=3),
}


def joined(networks):
    """One network that gives the outputs of several: all are built, saved and compiled at once."""
    images = keras.Input(networks[0].input_shape[1:])
    return keras.Model(images, [network(images) for network in networks], name="joined")


def random_network(family, number, size):
    """The network of a random genome of a family."""
    space = HyperImageClassifier(3, (size, size, 3), families=[family])
    for seed in itertools.count(1000 * number):
        values = {gene.name: gene.random_sample(seed + i) for i, gene in enumerate(genes(space.hyperparameters()))}
        if space.refusal(values) is None:
            return space.network(values)


def rebuilt(source):
    names = {"__name__": "rebuilt"}
    exec(compile(source, "champion.py", "exec"), names)
    return names["build_model"]()


def randomise(model):
    """Gives a model weights that no initializer gives, positive where they are variances."""
    rng = np.random.default_rng(0)
    model.set_weights([w * rng.uniform(0.9, 1.1, w.shape) + 0.001 for w in model.get_weights()])


def assert_same_graph(one, other):
    """Asserts that two models make the same calls of the same layers, with the same arguments, in the same order."""
    assert [type(x).__name__ for x in (one, *one.layers)] == [type(x).__name__ for x in (other, *other.layers)]
    assert (one.name, one.trainable) == (other.name, other.trainable)
    assert [tuple(w.shape) for w in one.weights] == [tuple(w.shape) for w in other.weights]
    numbers = [{id(tensor): f"input {i}" for i, tensor in enumerate(model.inputs)} for model in (one, other)]
    for number, steps in enumerate(zip(calls(one), calls(other), strict=True)):
        told = []
        for (layer, node), known in zip(steps, numbers, strict=True):
            arguments = keras.tree.map_structure(lambda x, known=known: known.get(id(x), str(x)), node.arguments.args)
            named = {key: known.get(id(value), str(value)) for key, value in node.arguments.kwargs.items()}
            name = layer.name if isinstance(layer, keras.Layer) else ""
            told.append((type(layer).__name__, name, arguments, named))
            known.update((id(tensor), f"step {number} output {i}") for i, tensor in enumerate(node.outputs))
        assert told[0] == told[1]
        if has_graph(steps[0][0]):
            assert_same_graph(steps[0][0], steps[1][0])
    assert [numbers[0][id(x)] for x in one.outputs] == [numbers[1][id(x)] for x in other.outputs]


def configs(model):
    return [configs(x) if isinstance(x, keras.Model) else [type(x).__name__, x.get_config()] for x in model.layers]


def check_elsewhere(networks, folder):
    """Checks that each champion, where the package is missing, is that network and predicts what it does."""
    for name, model in networks.items():
        randomise(model)
        assert write_champion(model, folder / name) == folder / name / "champion.py"
        images = np.random.default_rng(0).uniform(0, 2, (5, *model.input_shape[1:])).astype("float32")
        np.save(folder / name / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, *(str(folder / name) for name in networks)],
        check=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    for name, model in networks.items():
        here = keras.tree.flatten(model.predict(np.load(folder / name / "images.npy"), verbose=0))
        elsewhere = np.load(folder / name / "elsewhere.npz").values()
        for one, other in zip(here, elsewhere, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
            assert len(np.unique(one)) > 1, name
        assert (folder / name / "configs.json").read_text() == json.dumps(configs(model))


def assert_formatted(source):
    for command in (["format", "--check", "--diff"], ["check", "--ignore", "B018", "--select", "E,F,I,W,B,RUF,SIM"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", command[0], "--isolated", "--line-length", "118", *command[1:], "-"],
            input=source.encode(),
            capture_output=True,
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def check_source(model):
    source = to_source(model)
    again = rebuilt(source)
    assert_same_graph(again, model)
    assert to_source(again) == source
    assert_formatted(source)


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_the_source_builds_the_same_graph(name):
    check_source((NETWORKS | LARGE)[name]())


@pytest.mark.parametrize("family", ["cnn", "recurrent", "transformer"])
def test_a_random_genome_has_a_source(family):
    check_source(random_network(family, 0, size=8))


@pytest.mark.slow
def test_a_champion_is_the_same_network_where_the_package_is_missing(tmp_path):
    check_elsewhere({"all": joined([build() for build in NETWORKS.values()])}, tmp_path)


@pytest.mark.slow
def test_large_champions_are_the_same_networks_where_the_package_is_missing(tmp_path):
    check_elsewhere({name: build() for name, build in LARGE.items()}, tmp_path)


@pytest.mark.slow
def test_random_genomes_are_the_same_networks_where_the_package_is_missing(tmp_path):
    networks = [random_network(family, number, size=32) for family in list_families() for number in (1, 2)]
    for network in networks:
        check_source(network)
    check_elsewhere({"all": joined(networks)}, tmp_path)


class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


def own_activation(x):
    return x


def on_images(layer):
    images = keras.Input((8, 8, 3))
    return keras.Model(images, layer(images))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.Lambda(lambda x: x, name="odd"), "Layer 'odd' .Lambda. cannot be written.*Python function"),
        (Doubled(name="own"), "Layer 'own' .Doubled. cannot be written.*not a layer of `keras.layers`"),
        (
            layers.Dense(2, activation=own_activation, name="odd"),
            "Layer 'odd' .Dense. .*holds function own_activation",
        ),
        (layers.TimeDistributed(tiny_member("inside", size=3), name="all"), "'all'.*wraps a network.*'inside'"),
        (lambda x: x[..., :1] * np.zeros((8, 8, 200)), "Multiply. cannot be written.*constant of 12,800 numbers"),
    ],
)
def test_what_has_no_source_is_refused_by_name(layer, message):
    if isinstance(layer, layers.TimeDistributed):
        images = keras.Input((4, 3, 3, 3))
        model = keras.Model(images, layer(images))
    else:
        model = on_images(layer)
    with pytest.raises(ValueError, match=message):
        to_source(model)


def test_a_network_of_another_class_is_refused():
    class Own(keras.Model):
        pass

    images = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="Model 'own' .Own. cannot be written as source: its class is not Keras'"):
        to_source(Own(images, layers.Flatten()(images), name="own"))
    with pytest.raises(
        ValueError, match="must be a functional or built sequential model.*Received: Sequential 'empty'"
    ):
        to_source(keras.Sequential([layers.Dense(2)], name="empty"))


def test_a_half_frozen_network_is_refused_and_a_frozen_one_is_not():
    model = tiny_member("cold")
    model.trainable = False
    assert "trainable=False" in to_source(model)
    assert_same_graph(rebuilt(to_source(model)), model)
    model.get_layer("predictions").trainable = True
    with pytest.raises(ValueError, match="frozen as a whole, but its layer 'predictions' is not"):
        to_source(model)


@pytest.mark.parametrize("name", ["build model", "class", "keras", ""])
def test_the_function_must_have_a_name_of_its_own(name):
    with pytest.raises(ValueError, match=f"`function_name` must be a name for a function. Received: {name!r}"):
        to_source(tiny_member("a"), function_name=name)


@pytest.mark.slow
def test_a_run_of_the_source_prints_the_summary(tmp_path):
    path = write_champion(tiny_member("little"), tmp_path)
    done = subprocess.run([sys.executable, path], check=True, capture_output=True, text=True)
    assert 'Model: "little"' in done.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["champion.py", "champion.weights.h5"]


def test_the_docstring_tells_what_the_network_costs():
    model = tiny_member("little", size=8, width=4)
    [first, *_] = to_source(model).splitlines()
    assert first == '"""Network \'little\': 122 parameters, 3,896 multiply-accumulates per image."""'
    of_any_length = keras.Input((None, 4))
    model = keras.Model(of_any_length, layers.GRU(3)(of_any_length), name="any")
    assert to_source(model).startswith('"""Network \'any\': 81 parameters."""')


def test_names_become_variables_and_nothing_is_hidden():
    images = keras.Input((4,), name="class")
    x = layers.Dense(4, name="layers")(images)
    y = layers.Dense(4, name="2nd.dense")(x)
    model = keras.Model({"class": images}, {"a": layers.Add(name="sum")([x, y]), "b": y}, name="keras")
    source = to_source(model, function_name="network")
    assert "class_2 = keras.Input" in source
    assert "_2nd_dense = layers.Dense" in source
    names = {"__name__": "rebuilt"}
    exec(source, names)
    assert_same_graph(names["network"](), model)
    assert_formatted(source)


def test_a_network_within_gives_a_dict_of_outputs():
    images = keras.Input((4,), name="images")
    inner = keras.Model(images, {"a": layers.Dense(2)(images), "b": images}, name="inner")
    found = inner(images)
    model = keras.Model(images, layers.Concatenate()([found["a"], found["b"]]), name="outer")
    assert '[inner["a"], inner["b"]]' in to_source(model)
    assert_same_graph(rebuilt(to_source(model)), model)


def test_what_is_shared_by_what_is_shared_is_made_first():
    images, norm = keras.Input((8, 8, 3), name="images"), layers.BatchNormalization(name="norm")
    inner = keras.Sequential([keras.Input((8, 8, 3)), norm, layers.Flatten()], name="inner")
    trunk = keras.Model(images, inner(norm(images)), name="trunk")
    one = keras.Model(images, layers.Dense(2, name="a")(trunk(images)), name="one")
    two = keras.Model(images, layers.Dense(2, name="b")(trunk(norm(images))), name="two")
    model = keras.Model(images, [one(images), two(images), norm(images)], name="all")
    assert "def build_two(norm, trunk):" in to_source(model)
    check_source(model)


def test_a_refused_network_leaves_the_champion_as_it_was(tmp_path):
    path = write_champion(tiny_member("good"), tmp_path)
    before = path.read_text()
    with pytest.raises(ValueError, match="Layer 'own'"):
        write_champion(on_images(Doubled(name="own")), tmp_path)
    assert path.read_text() == before


def test_writing_draws_no_random_number():
    model = on_images(layers.Dropout(0.5))
    random.seed(0)
    before = random.getstate()
    to_source(model)
    assert random.getstate() == before

import json
import os
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
from ensemble_keras.search.source import to_source, write_champion

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
    np.save(folder + "/elsewhere.npy", keras.ops.convert_to_numpy(model(np.load(folder + "/images.npy"))))
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
    return keras.Model(images, keras.ops.softmax(x), name="shared_layers_and_operations")


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
    "voting": lambda: build_ensemble([tiny_member("a"), tiny_member("b")], SoftVoting([1, 3])),
    "concatenated": lambda: build_ensemble([tiny_member("a"), tiny_member("b")], ConcatenateDense(2, units=(4,))),
    "stems": lambda: build_ensemble(heads_on(tiny_backbone(), "a", "b"), SoftVoting()),
}
SLOW = {
    "mobilenet": lambda: keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3),
    "darknet": lambda: build_member("Darknet19", 3, image_size=32, weights=None, head="mlp", dropout=0.2),
    "densenet": lambda: keras.applications.DenseNet121(weights=None, input_shape=(32, 32, 3), classes=3),
}


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
        write_champion(model, folder / name)
        images = np.random.default_rng(0).uniform(size=(5, *model.input_shape[1:])).astype("float32")
        np.save(folder / name / "images.npy", images)
        np.save(folder / name / "here.npy", keras.ops.convert_to_numpy(model(images)))
    subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, *(str(folder / name) for name in networks)],
        check=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    for name, model in networks.items():
        here, elsewhere = (np.load(folder / name / f"{place}.npy") for place in ("here", "elsewhere"))
        np.testing.assert_array_equal(elsewhere, here, err_msg=name)
        assert np.ptp(here, axis=0).max() > 0, name
        assert (folder / name / "configs.json").read_text() == json.dumps(configs(model))


def assert_formatted(source):
    for command in (["format", "--check", "--diff"], ["check", "--ignore", "B018", "--select", "E,F,I,W,B,RUF,SIM"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", command[0], "--isolated", "--line-length", "118", *command[1:], "-"],
            input=source.encode(),
            capture_output=True,
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_source_builds_the_same_graph(name):
    model = (NETWORKS | SLOW)[name]()
    source = to_source(model)
    assert_same_graph(rebuilt(source), model)
    assert to_source(rebuilt(source)) == source
    assert_formatted(source)


def test_champions_are_the_same_networks_where_the_package_is_missing(tmp_path):
    check_elsewhere({name: build() for name, build in NETWORKS.items()}, tmp_path)


@pytest.mark.slow
def test_large_champions_are_the_same_networks_where_the_package_is_missing(tmp_path):
    check_elsewhere({name: build() for name, build in SLOW.items()}, tmp_path)


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

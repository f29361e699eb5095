import itertools

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from tiny_members import heads_on, tiny_backbone, tiny_member

from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.gating import ArchitectureGate
from ensemble_keras.combiners.parts import member_tensors
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting, HardVoting, SoftVoting
from ensemble_keras.evaluation.anatomy import anatomy
from ensemble_keras.evaluation.picture import plot_ensemble
from ensemble_keras.members.member import build_member

TEMPERED = {"member_temperatures": [2.0, 1.5, 1.2], "temperature": 0.7}


def reloaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def boxes(ax):
    return [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]


@pytest.mark.parametrize(
    ("combiner", "options", "joined", "weights"),
    [
        (SoftVoting(), {}, "mean of probabilities", []),
        (SoftVoting([3, 1, 1]), {}, "mean of probabilities", [0.6, 0.2, 0.2]),
        (SoftVoting(), TEMPERED, "mean of probabilities", []),
        (SoftVoting([3, 1, 1]), TEMPERED, "mean of probabilities", [0.6, 0.2, 0.2]),
        (GeometricVoting([3, 1, 1]), TEMPERED, "mean of log-probabilities", [0.6, 0.2, 0.2]),
        (HardVoting(), {}, "count of votes", []),
        (ConcatenateDense(2), {}, "dense layers on features", []),
        (StackedMetaLearner(2), {}, "dense layers on predictions", []),
        (StackedMetaLearner(2, passthrough=True), {}, "dense layers on predictions and features", []),
        # Its numbers beside the entropy are no weights.
        (ArchitectureGate([{"depth": d} for d in (1.0, 2.0, 3.0)]), {}, "dense layers on predictions", []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.layers.Layer) else None,
)
def test_what_joins_members_is_read_from_the_built_and_the_reloaded_model(
    tmp_path, combiner, options, joined, weights
):
    built = build_ensemble([tiny_member(name) for name in "abc"], combiner, **options)
    for model in (built, reloaded(built, tmp_path)):
        found = anatomy(model)
        assert list(found.members) == ["a", "b", "c"]
        assert found.joined == joined
        np.testing.assert_allclose(list(found.weights.values()), weights)
        assert {layer.name for layer in found.layers} <= {layer.name for layer in model.layers}
        assert bool(found.layers) == ("dense" in joined)


def test_members_are_those_of_a_report_and_stand_beside_others_on_their_stem(tmp_path):
    a, b = tiny_backbone(0, "a"), tiny_backbone(1, "b")
    members = [*heads_on(a, "a1"), *heads_on(b, "b1"), *heads_on(a, "a2"), *heads_on(b, "b2"), tiny_member("own")]
    for model in (built := build_ensemble(members, SoftVoting()), reloaded(built, tmp_path)):
        found = anatomy(model)
        assert list(found.members) == ["a1", "a2", "b1", "b2", "own"]
        assert set(found.members) == set(member_tensors(model))
        assert {name: stem.name for name, stem in found.stems.items()} == {
            "a1": "a1_stem",
            "a2": "a1_stem",
            "b1": "b1_stem",
            "b2": "b1_stem",
        }


def test_any_functional_ensemble_has_members_and_what_it_is_joined_by():
    images = keras.Input((8, 8, 3))
    outputs = keras.layers.Maximum()([tiny_member(name)(images) for name in "ab"])
    found = anatomy(keras.Model(images, outputs))
    assert list(found.members) == ["a", "b"]
    assert found.joined == "Maximum"


def test_a_model_that_is_no_ensemble_is_its_only_member():
    for model in (build_member(tiny_backbone(), 2, name="alone"), tiny_member("alone")):
        found = anatomy(model)
        assert list(found.members) == ["alone"]
        assert found.joined == ""
        assert len(boxes(plot_ensemble(model))) == 3


def test_the_picture_says_what_members_are_and_how_they_vote(tmp_path):
    frozen = build_member("CNN(filters=(4,))", 2, image_size=32, weights=None, name="frozen")
    frozen.trainable = False
    head = build_member(tiny_backbone(name="cnn"), 2, name="own", image_size=8)
    resized = build_member(
        keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Resizing(8, 8), head.layers[1]]), 2, name="resized"
    )
    model = build_ensemble([frozen, resized], SoftVoting([3, 1]), test_time_augmentation="horizontal_flip")
    card = {
        "members": [{"name": "resized"}, {"name": "frozen"}],
        "class_names": ["normal", "pneumonia"],
        "combiner": {"class": "SoftVoting"},
        "temperature": 1.25,
    }
    for shown in (model, reloaded(model, tmp_path)):
        said = texts(plot_ensemble(shown, card=card))
        assert {"images", "32 × 32 × 3", "2 views of each"} <= set(said)
        assert {"frozen", "preprocessing → cnn → head 4–2"} <= set(said)
        assert any(text.startswith("122 parameters, frozen, ") for text in said)
        assert any("resized to 8 × 8" in text for text in said)
        assert any(", 130 trainable, 3,896 MACs" in text for text in said)
        assert {"× 0.75", "× 0.25"} <= set(said)
        assert {"SoftVoting", "mean of probabilities", "temperature 1.250"} <= set(said)
        assert {"2 classes", "normal", "pneumonia"} <= set(said)


def test_what_the_combiner_learned_is_told():
    model = build_ensemble([tiny_member(name) for name in "abc"], ConcatenateDense(2, units=(16,), name="joined"))
    assert {"joined_hidden_0 12–16", "joined_head 16–2"} <= set(texts(plot_ensemble(model)))


def test_a_card_may_say_anything_else():
    model = build_ensemble([tiny_member(name) for name in "ab"], SoftVoting())
    card = {"class_names": None, "combiner": {"class": 3}, "temperature": "warm", "members": 2}
    assert {"a", "b", "3", "2 classes"} <= set(texts(plot_ensemble(model, card=card)))
    assert "combiner" in texts(plot_ensemble(model, card={"combiner": "vote"}))


def test_a_cost_that_is_not_known_is_said_to_be_so():
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    members = [keras.Model(images, keras.layers.Dense(2, "softmax")(x), name=name) for name in "ab"]
    said = texts(plot_ensemble(build_ensemble(members, SoftVoting())))
    assert "any × any × 3" in said
    assert sum("MACs not known" in text for text in said) >= 1


@pytest.mark.parametrize("given", [False, True])
def test_no_text_leaves_its_box_and_no_box_touches_another(given):
    long = "W" * 200
    stem = tiny_backbone(0, "i" * 100)
    members = [tiny_member(f"member{i}{long}") for i in range(6)] + heads_on(stem, "h1", "h2", "h3")
    model = build_ensemble(members, SoftVoting(range(1, 10)))
    card = {"class_names": [f"{i}{long}" for i in range(2)], "combiner": {"class": long}}
    ax = plot_ensemble(model, Figure(figsize=(5, 3)).add_subplot() if given else None, card=card)
    ax.figure.draw_without_rendering()
    drawn = [box.get_window_extent() for box in boxes(ax)]
    assert len(drawn) == 13
    for one, other in itertools.combinations(drawn, 2):
        assert not one.overlaps(other)
    for text in ax.texts:
        extent = text.get_window_extent()
        inside = [box for box in drawn if box.x0 <= extent.x0 and extent.x1 <= box.x1]
        if text.get_text().startswith("×"):
            assert not any(box.overlaps(extent) for box in drawn)
        else:
            assert any(box.y0 <= extent.y0 and extent.y1 <= box.y1 for box in inside), text.get_text()
    assert all(ax.figure.bbox.x0 <= box.x0 and box.x1 <= ax.figure.bbox.x1 for box in drawn)


def test_nine_members_fit_a_notebook_and_many_classes_a_box():
    model = build_ensemble([tiny_member(f"m{i}", 100) for i in range(9)], HardVoting())
    ax = plot_ensemble(model, card={"class_names": [f"class {k}" for k in range(100)]})
    width, height = ax.figure.get_size_inches()
    assert width < 10
    assert height < 8.5
    assert min(text.get_fontsize() for text in ax.texts) == 8
    assert "… 92 more" in texts(ax)


def test_a_model_without_a_graph_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="`model` must be a functional or built sequential"):
        plot_ensemble(Own())

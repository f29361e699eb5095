import numpy as np
import pytest
from little_memory import refuse_batches
from tiny_members import tiny_member

import ensemble_keras as ek
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.evaluation.validation import validate


@pytest.fixture
def dataset(images):
    return ek.ImageDataset.from_arrays(images, np.arange(len(images)) % 2)


def test_every_accuracy_is_that_of_the_model_joined_alone(dataset, images):
    members = {name: tiny_member(name, size=32, width=width) for name, width in (("a", 3), ("b", 5))}
    concatenate = ek.ConcatenateDense(2)
    joined = build_ensemble(list(members.values()), concatenate)
    expected = {name: model.predict(images, verbose=0) for name, model in {**members, "joined": joined}.items()}
    expected = {name: np.mean(p.argmax(axis=1) == dataset.labels) for name, p in expected.items()}
    combiners = {"soft": ek.SoftVoting(weights=[1, 0]), "joined": concatenate}
    found = validate(members, combiners, dataset, verbose=0)
    assert found["member"] == pytest.approx({name: expected[name] for name in "ab"})
    assert found["ensemble"] == pytest.approx({"soft": expected["a"], "joined": expected["joined"]})
    assert validate(members, {"soft": combiners["soft"]}, dataset, verbose=0)["member"] == found["member"]


def test_a_combiner_of_some_members_gets_theirs(dataset):
    members = {name: tiny_member(name, size=32, width=width) for name, width in (("a", 3), ("b", 5), ("c", 4))}
    concatenate = ek.ConcatenateDense(2)
    expected = build_ensemble([members["c"], members["a"]], concatenate)
    both = {"ab": ek.SoftVoting(weights=[0, 1]), "ca": concatenate}
    found = validate(members, both, dataset, joined={"ab": [0, 1], "ca": [2, 0]}, verbose=0)
    p = expected.predict(dataset.load(image_size=32), verbose=0)
    assert found["ensemble"] == pytest.approx(
        {"ab": found["member"]["b"], "ca": np.mean(p.argmax(axis=1) == dataset.labels)}
    )


def test_combiners_see_members_at_their_temperatures(images):
    members = {name: tiny_member(name, size=32) for name in "ab"}
    # One says class 1 of every image, the other class 0, and is surer of it.
    for member, bias in zip(members.values(), ([0.0, 0.4], [2.0, 0.0]), strict=True):
        member.get_layer("predictions").set_weights([np.zeros((4, 2)), np.array(bias)])
    dataset, vote = ek.ImageDataset.from_arrays(images, np.ones(len(images), int)), {"soft": ek.SoftVoting()}
    assert validate(members, vote, dataset, verbose=0)["ensemble"] == {"soft": 0.0}
    assert validate(members, vote, dataset, temperatures=[0.1, 10.0], verbose=0)["ensemble"] == {"soft": 1.0}


def test_a_member_without_memory_costs_its_own_figure_and_those_of_the_combiners(dataset, monkeypatch):
    refuse_batches(monkeypatch, lambda model, _: model.name == "a")
    members = {name: tiny_member(name, size=32) for name in "ab"}
    found = validate(members, {"soft": ek.SoftVoting()}, dataset, verbose=0)
    assert list(found["member"]) == ["b"]
    assert found["ensemble"] == {}

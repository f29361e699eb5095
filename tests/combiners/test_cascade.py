import keras
import numpy as np
import pytest
from tiny_members import heads_on, tiny_backbone, tiny_member

from ensemble_keras.artifact import load_ensemble, save_ensemble
from ensemble_keras.combiners.calibration import apply_temperature
from ensemble_keras.combiners.cascade import Cascade
from ensemble_keras.combiners.concatenation import ConcatenateDense
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import HardVoting, SoftVoting
from ensemble_keras.data.dataset import ImageDataset

SETTINGS = {
    "order": ["b", "c", "a"],
    "weights": [0.5, 0.3, 0.2],
    "member_temperatures": [0.5, 2.0],
    "temperatures": [1.0, 0.8],
    "thresholds": [None, None],
}


@pytest.fixture(scope="module")
def members():
    return [tiny_member(name, width=width) for name, width in (("a", 4), ("b", 5), ("c", 6))]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (21, 8, 8, 3), dtype="uint8")


def card(thresholds):
    return {"cascade": {**SETTINGS, "thresholds": thresholds}, "class_names": ["no", "yes"], "filter": "bilinear"}


def votes(members, images):
    """What the first member, and the first two, say together at their temperatures."""
    p = {member.name: member.predict(images, verbose=0) for member in members}
    at = [np.asarray(apply_temperature(p["b"], 0.5)), np.asarray(apply_temperature(p["c"], 2.0))]
    return [at[0], np.asarray(apply_temperature(np.average(at, axis=0, weights=[5, 3]), 0.8))]


def between(vote, share):
    """A threshold that such a share is below, half-way between two images."""
    sure = np.sort(vote.max(axis=1))
    return float(sure[int(share * len(sure)) :][:2].mean())


COMBINERS = {
    "soft": lambda: SoftVoting([1, 2, 3]),
    "hard": HardVoting,
    "stacking": lambda: StackedMetaLearner(2),
    "passthrough": lambda: StackedMetaLearner(2, passthrough=True),
}


@pytest.mark.parametrize("name", COMBINERS)
def test_images_that_all_members_saw_get_what_the_model_says(name, members, images):
    options = {"member_temperatures": [2.0, 1.0, 0.5], "temperature": 1.5} if name == "soft" else {}
    model = build_ensemble(members, COMBINERS[name](), **options)
    found, asked = Cascade(model, card([None, None])).predict(images, return_members=True)
    np.testing.assert_allclose(found, model.predict(images, verbose=0), rtol=0, atol=1e-6)
    assert asked.tolist() == [3] * len(images)


def test_the_others_leave_with_the_calibrated_vote_in_the_order_of_the_images(members, images):
    model = build_ensemble(members, SoftVoting())
    first, second = votes(members, images)
    thresholds = [between(first, 0.6), between(second, 0.5)]
    found, asked = Cascade(model, card(thresholds)).predict(images, return_members=True)
    at_first = first.max(axis=1) >= thresholds[0]
    at_second = ~at_first & (second.max(axis=1) >= thresholds[1])
    expected = np.where(
        at_first[:, None], first, np.where(at_second[:, None], second, model.predict(images, verbose=0))
    )
    assert asked.tolist() == np.where(at_first, 1, np.where(at_second, 2, 3)).tolist()
    assert len(set(asked)) == 3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert found.dtype == np.float32
    # One image at a time gives the same.
    cascade = Cascade(model, card(thresholds), batch_sizes=(1, 2))
    np.testing.assert_allclose(np.concatenate([cascade.predict(i[None]) for i in images]), expected, atol=1e-5)


def test_nothing_is_asked_of_members_that_no_image_reaches(members, images):
    cascade = Cascade(build_ensemble(members, SoftVoting()), card([0.0, None]))
    called = []
    cascade._ways[0].members[1:] = [called.append] * 2
    assert cascade.predict(images, return_members=True)[1].tolist() == [1] * len(images)
    assert called == []


def test_the_file_keeps_it(members, images, tmp_path):
    model = build_ensemble(members, SoftVoting())
    threshold = between(votes(members, images)[0], 0.5)
    expected, asked = Cascade(model, card([threshold, None])).predict(images, return_members=True)
    save_ensemble(model, tmp_path / "model.keras", card=card([threshold, None]), verbose=0)
    again, count = Cascade(*load_ensemble(tmp_path / "model.keras")).predict(images, return_members=True)
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-6)
    assert count.tolist() == asked.tolist()


@pytest.mark.parametrize("passthrough", [False, True])
def test_members_of_one_stem_make_a_cascade_that_runs_it_once(passthrough, images):
    # Dark ones: heads on raw pixels would be too sure of others to be told apart.
    images //= 50
    members = [*heads_on(tiny_backbone(), "a", "b"), tiny_member("c")]
    model = build_ensemble(members, StackedMetaLearner(2, passthrough=passthrough))
    first, second = votes(members, images)
    thresholds = [between(first, 0.6), between(second, 0.5)]
    cascade = Cascade(model, card(thresholds))
    found, asked = cascade.predict(images, return_members=True)
    expected = [first, second, model.predict(images, verbose=0)]
    assert set(asked) == {1, 2, 3}
    np.testing.assert_allclose(found, np.stack(expected)[asked - 1, np.arange(21)], rtol=0, atol=1e-5)
    # The first and the last of the members asked have the stem; the last one starts from its features.
    shapes = [member.compiled.model.input_shape for member in cascade._ways[0].members]
    assert shapes == [(None, 8, 8, 3)] * 2 + [(None, 4)]


def test_a_sigmoid_member_counts_as_two_classes(members, images):
    sigmoid = tiny_member("b", 1, activation="sigmoid")
    model = build_ensemble([members[0], sigmoid, members[2]], SoftVoting())
    p = sigmoid.predict(images, verbose=0)
    expected = np.asarray(apply_temperature(np.hstack([1 - p, p]), 0.5))
    np.testing.assert_allclose(Cascade(model, card([0.0, None])).predict(images), expected, rtol=0, atol=1e-5)


def test_a_dataset_is_read_in_blocks(members, images, monkeypatch):
    monkeypatch.setattr("ensemble_keras.combiners.cascade._BLOCK", 8)
    cascade = Cascade(build_ensemble(members, SoftVoting()), card([0.5, 0.6]))
    dataset = ImageDataset.from_arrays(images, np.arange(21) % 2)
    np.testing.assert_allclose(cascade.predict(dataset), cascade.predict(images), rtol=0, atol=1e-6)


def test_a_card_without_settings_says_how_to_make_them(members):
    with pytest.raises(ValueError, match=r"no entry 'cascade'. Make one .*fit_cascade\(predictions, y, costs"):
        Cascade(build_ensemble(members, SoftVoting()), {"class_names": ["no", "yes"]})


def test_other_members_are_refused(members):
    with pytest.raises(ValueError, match="of other members than the model: b, c, a. Received: a model of a, b"):
        Cascade(build_ensemble(members[:2], SoftVoting()), card([None, None]))
    with pytest.raises(ValueError, match="no members whose predictions are joined"):
        Cascade(build_ensemble(members, ConcatenateDense(2)), card([None, None]))


def test_a_model_that_cannot_be_taken_apart_is_refused(members):
    model = build_ensemble(members, SoftVoting(), test_time_augmentation="horizontal_flip")
    with pytest.raises(ValueError, match="cannot be taken apart: .* without test-time augmentation"):
        Cascade(model, card([None, None]))


def test_images_of_another_kind_are_refused(members):
    cascade = Cascade(build_ensemble(members, SoftVoting()), card([None, None]))
    with pytest.raises(ValueError, match=r"images of shape \(n, height, width, 3\)"):
        cascade.predict(np.zeros((8, 8, 3), "uint8"))


def test_the_model_keeps_its_weights_and_its_own_predict(members, images):
    model = build_ensemble(members, SoftVoting())
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.weights]
    expected = model.predict(images, verbose=0)
    Cascade(model, card([0.6, 0.6])).predict(images)
    np.testing.assert_array_equal(model.predict(images, verbose=0), expected)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


DOWN = {
    "order": ["b", "a", "c"],
    "weights": [0.5, 0.2, 0.3],
    "member_temperatures": [0.5, 1.5],
    "temperatures": [1.0, 0.7],
}


def margin(vote):
    return np.abs(vote[:, 0] - vote[:, 1])


def middle(values):
    """A number half of them are below, and none is equal to."""
    values = np.sort(values)
    return float(values[len(values) // 2 - 1 :][:2].mean())


def both_ways(members, images):
    """Settings that send images everywhere, and by hand what they give, with the members asked."""
    first, second = votes(members, images)
    p = {member.name: np.asarray(member.predict(images, verbose=0)) for member in members}
    at = [np.asarray(apply_temperature(p["b"], 0.5)), np.asarray(apply_temperature(p["a"], 1.5))]
    down = np.asarray(apply_temperature(np.average(at, axis=0, weights=[5, 2]), 0.7))
    ranks = [np.sort(margin(vote)) for vote in (first, second, down)]
    leave, below = (float(ranks[0][i : i + 2].mean()) for i in (15, 8))
    # On each way, half-way between the images that leave after the second member.
    goes_down = margin(first) < below
    goes_up = ~goes_down & (margin(first) < leave)
    late, early = middle(margin(second)[goes_up]), middle(margin(down)[goes_down])
    settings = {
        **SETTINGS,
        "score": "margin",
        "thresholds": [leave, late],
        "down": {**DOWN, "thresholds": [leave, early], "below": below},
    }
    said, asked = [], []
    for i in range(len(images)):
        vote, threshold = (down, early) if margin(first)[i] < below else (second, late)
        steps = [margin(first)[i] >= leave, margin(vote)[i] >= threshold, True]
        asked.append(steps.index(True) + 1)
        said.append([first[i], vote[i], None][asked[-1] - 1])
    return settings, said, asked, goes_down


def check_both_ways(members, images, model):
    settings, said, asked, goes_down = both_ways(members, images)
    full = model.predict(images, verbose=0)
    expected = [full[i] if p is None else p for i, p in enumerate(said)]
    cascade = Cascade(model, {**card([None, None]), "cascade": settings})
    found, count = cascade.predict(images, return_members=True)
    assert count.tolist() == asked
    # Each way has images that leave there and some that do not.
    assert {(n, bool(d)) for n, d in zip(asked, goes_down, strict=True)} == {
        (1, False),
        (2, False),
        (3, False),
        (2, True),
        (3, True),
    }
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    return cascade


def test_the_very_unsure_go_to_the_dearest_member_and_back(members, images):
    cascade = check_both_ways(members, images, build_ensemble(members, SoftVoting()))
    up, down = cascade._ways
    # Each member is one step, for images of both ways.
    assert [down.members[i] is up.members[j] for i, j in ((0, 0), (1, 2), (2, 1))] == [True] * 3


@pytest.mark.parametrize("stem", ["ab", "ac", "bc"])
def test_a_shared_stem_is_run_once_on_either_way(stem, images):
    images //= 50
    shared = heads_on(tiny_backbone(), *stem)
    [other] = set("abc") - set(stem)
    members = sorted([*shared, tiny_member(other, width=5)], key=lambda member: member.name)
    cascade = check_both_ways(members, images, build_ensemble(members, StackedMetaLearner(2)))
    for way in cascade._ways:
        assert [member.taken is None for member in way.members].count(False) == 1

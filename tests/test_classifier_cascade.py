import numpy as np
import pytest
from synthetic import noisy, random_backbone

import ensemble_keras as ek

COSTS = [9, 1, 4]


def fit(count=3, **arguments):
    x, y = noisy(90, seed=0)
    backbones = [random_backbone(name, 8 - 2 * i, seed=i) for i, name in enumerate("abc"[:count])]
    return ek.EnsembleClassifier(backbones, image_size=16, cv=3, verbose=0, **arguments).fit(x, y)


@pytest.fixture(scope="module")
def fitted():
    return fit()


def test_the_file_holds_the_cascade_that_is_returned(fitted, tmp_path):
    x, _ = noisy(80, seed=1)
    _, y = noisy(90, seed=0)
    cascade = fitted.fit_cascade(max_loss=0.05, costs=COSTS)
    fitted.save(tmp_path / "a.keras")
    model, card = ek.load_ensemble(tmp_path / "a.keras")
    names = [member.name for member in fitted.members_]
    expected = ek.fit_cascade(
        fitted.out_of_fold_, y, COSTS, names=names, max_loss=0.05, combined=fitted.ensemble_out_of_fold_
    )
    assert card["cascade"] == expected
    assert card["cascade"]["order"] == [names[1], names[2], names[0]]
    probabilities, asked = cascade.predict(x, return_members=True)
    again, members = ek.Cascade(model, card).predict(x, return_members=True)
    np.testing.assert_array_equal(members, asked)
    np.testing.assert_allclose(again, probabilities, atol=1e-6)
    assert (asked < 3).any()


def test_costs_are_measured_unless_given(fitted, monkeypatch):
    def measured(members, batch_size):
        assert batch_size == 32
        return {"latency_ms": np.array([float(member.name[0] == "a") + 1 for member in members])}

    monkeypatch.setattr("ensemble_keras.classifier.member_costs", measured)
    fitted.fit_cascade()
    assert fitted.card_["cascade"]["max_loss"] == 0.001
    assert fitted.card_["cascade"]["costs"] == [0.25, 0.25, 0.5]
    assert fitted.card_["cascade"]["order"][-1].startswith("a")


def test_members_that_the_vote_leaves_out_are_not_asked():
    classifier = fit(combiner=ek.SoftVoting(weights=[1, 0, 1]))
    classifier.fit_cascade(costs=COSTS)
    names = [member.name for member in classifier.members_]
    assert classifier.card_["cascade"]["order"] == [names[2], names[0]]
    assert classifier.card_["cascade"]["costs"] == pytest.approx([4 / 13, 9 / 13])


def test_groups_share_a_fold():
    x, y = noisy(90, seed=0)
    groups = np.arange(90) // 3
    classifier = ek.EnsembleClassifier(
        [random_backbone("a"), random_backbone("b", seed=1)], image_size=16, cv=3, verbose=0
    )
    classifier.fit(x, y, groups=groups).fit_cascade(costs=[2, 1])
    expected = ek.fit_cascade(
        classifier.out_of_fold_,
        y,
        [2, 1],
        names=[member.name for member in classifier.members_],
        combined=classifier.ensemble_out_of_fold_,
        groups=groups,
    )
    assert classifier.card_["cascade"] == expected


@pytest.mark.parametrize("arguments", [{"count": 1}, {"combiner": "concatenate"}])
def test_a_model_that_joins_no_predictions_has_none(arguments):
    classifier = fit(**arguments)
    with pytest.raises(ValueError, match="asks two or more members .* Fit with combiner='soft_voting'"):
        classifier.fit_cascade()


def test_what_cannot_be_kept_leaves_the_card_as_it_was():
    classifier = fit(2, test_time_augmentation="horizontal_flip")
    with pytest.raises(ValueError, match="without test-time augmentation"):
        classifier.fit_cascade(costs=[2, 1])
    with pytest.raises(ValueError, match="`max_loss` must be"):
        classifier.fit_cascade(max_loss=-1, costs=[2, 1])
    with pytest.raises(ValueError, match="`costs` must be 2 numbers"):
        classifier.fit_cascade(costs=COSTS)
    assert "cascade" not in classifier.card_

import pytest

from ensemble_keras.search.halving import SuccessiveHalving
from ensemble_keras.search.options import build_oracle, halving_of, objectives_of, shared_settings


def shared(settings, searched=(), **options):
    options = {"monitor": "val_loss", "epochs": 4, "batch_size": 8} | options
    return shared_settings(settings, searched=searched, **options)


def test_an_objective_is_one_with_its_direction_or_several():
    objective, figure = objectives_of("val_loss")
    assert (objective.name, objective.direction, figure) == ("val_loss", "min", "val_loss")
    several, figure = objectives_of(("val_accuracy", "macs"))
    assert [(one.name, one.direction) for one in several] == [("val_accuracy", "max"), ("macs", "min")]
    assert figure == "val_accuracy"


def test_objectives_that_will_not_do_are_refused():
    for wrong, message in (
        ([], "must be one of 'val_loss'.*Received: None"),
        (["macs"], "must be one of 'val_loss'"),
        (["val_loss", "flops"], "must be one of .*'macs'"),
        (3, "must be a name or a list of names. Received: 3"),
    ):
        with pytest.raises(ValueError, match=message):
            objectives_of(wrong)


def test_settings_of_all_trials_have_all_epochs_patience_unless_told_otherwise():
    assert shared({}) == {"patience": 4, "monitor": "val_loss", "batch_size": 8}
    assert shared({"patience": 2}, searched=["batch_size"]) == {"patience": 2, "monitor": "val_loss"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.1}, r"`settings` must not hold 'learning_rate', .* `training=.'learning_rate': .0.1.}`"),
        ({"dropout": 0.1}, "must not hold 'dropout', which the space searches"),
        ({"monitor": "val_auc"}, "that no other argument sets. Received: 'monitor'"),
        ({"label_smothing": 0.1}, "Did you mean 'label_smoothing'?"),
        ({"label_smoothing": 1.5}, "`label_smoothing` must be in"),
    ],
)
def test_settings_that_will_not_do_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        shared(settings, searched=["learning_rate", "dropout"])


def test_an_oracle_has_further_options_but_none_twice():
    assert build_oracle("local", {"max_trials": 3}, {"num_initial": 2}).num_initial == 2
    for twice in ({"max_trials": 4}, {"folder": "x"}):
        with pytest.raises(ValueError, match=f"does not give by itself. Received: {next(iter(twice))}"):
            build_oracle("local", {"max_trials": 3}, twice)


def test_halving_is_as_given_or_by_its_defaults_or_off():
    own = SuccessiveHalving(2, 4)
    assert [halving_of(one) for one in (own, True, False, None)] == [own, SuccessiveHalving(), None, None]
    with pytest.raises(ValueError, match="`halving` must be a SuccessiveHalving, True or None. Received: 3"):
        halving_of(3)

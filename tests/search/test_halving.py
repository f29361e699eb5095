import pytest

from ensemble_keras.search.halving import Judge, SuccessiveHalving


def test_rungs_grow_by_the_factor_and_end_before_the_last_epoch():
    assert SuccessiveHalving(min_epochs=2, reduction_factor=3).rungs(54) == [2, 6, 18]
    assert SuccessiveHalving(min_epochs=5).rungs(5) == []


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_the_best_third_goes_on(objective):
    figures = [0.9, 0.1, 0.5, 0.3, 0.7]
    bound = SuccessiveHalving().bounds([[figure] for figure in figures], 2, objective)[1]
    # With a sixth trial two of six go on: it must be at least as good as the second of the five.
    assert bound == (0.7 if objective == "val_accuracy" else 0.3)


def test_nobody_stops_before_there_are_enough_to_compare():
    halving = SuccessiveHalving(reduction_factor=4)
    assert halving.bounds([[0.5], [0.6]], 8, "val_accuracy") == {}
    assert halving.bounds([[0.5], [0.6], [0.4]], 8, "val_accuracy") == {1: 0.6}


def test_a_trial_that_stopped_is_not_counted_further_on():
    curves = [[0.5], [0.6, 0.7, 0.8], [0.4], [0.7, 0.8, 0.9], [0.6, 0.6, 0.7]]
    bounds = SuccessiveHalving().bounds(curves, 9, "val_accuracy")
    assert bounds == {1: 0.6, 3: 0.9}


def test_the_judge_names_the_figure_and_what_was_needed():
    judge = Judge("val_loss", {3: 0.5})
    assert judge(2, {"val_loss": 9.0}) is None
    assert judge(3, {"val_loss": 0.5}) is None
    assert judge(3, {"val_loss": 0.51}) == "stopped early: val_loss 0.5100 after 3 epochs, 0.5000 was needed to go on"


@pytest.mark.parametrize(("name", "value"), [("min_epochs", 0), ("reduction_factor", 1), ("min_epochs", True)])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an int of at least"):
        SuccessiveHalving(**{name: value})


def test_an_unknown_figure_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'val_loss'"):
        SuccessiveHalving().bounds([], 3, "valloss")

import pytest

from ensemble_keras.members.curves import best_epoch, mean_curve


@pytest.mark.parametrize(("objective", "best"), [("val_loss", 2), ("val_accuracy", 1)])
def test_the_best_epoch_is_the_first_with_the_best_figure(objective, best):
    figures = [(1.0, 0.3), (0.7, 0.8), (0.5, 0.8), (0.5, 0.7)]
    curve = [{"val_loss": loss, "val_accuracy": accuracy} for loss, accuracy in figures]
    assert best_epoch(curve, objective) == best


def test_a_mean_counts_images_and_takes_the_last_figures_of_what_stopped():
    long, short = [{"val_loss": v} for v in (3.0, 2.0, 1.0)], [{"val_loss": v} for v in (6.0, 5.0)]
    assert [figures["val_loss"] for figures in mean_curve([long, short], [2, 1])] == pytest.approx([4, 3, 7 / 3])

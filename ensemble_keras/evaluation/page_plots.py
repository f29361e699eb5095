"""Page plots: the plots that stand on a report's page, as SVG."""

import keras
import numpy as np

from ensemble_keras.combiners.calibration import apply_temperature
from ensemble_keras.evaluation import ensemble_plots, picture, plots
from ensemble_keras.evaluation.drawing import svg
from ensemble_keras.measures.calibration import expected_calibration_error
from ensemble_keras.measures.diversity import diversity
from ensemble_keras.measures.graph import has_graph
from ensemble_keras.measures.metrics import log_losses

_SCORES = ("precision", "recall", "f1")


def plots_of(report):
    """Returns the plots of a report by name, each a text of SVG, a list of such with captions, or `None`."""
    heat_map, no_diversity = _diversity(report)
    return {
        "confusion_plot": confusion(report),
        "members_plot": svg(report.plot_members()),
        "roc": svg(report.plot_roc()),
        "precision_recall": svg(report.plot_precision_recall()),
        "class_scores": [
            {
                "caption": f"{'F1' if score == 'f1' else score} of each class, by classifier",
                "svg": svg(report.plot_class_scores(score=score)),
            }
            for score in _SCORES
        ],
        "reliability": _reliability(report),
        "risk_coverage": svg(report.plot_risk_coverage()),
        "set_sizes": None if report.prediction_sets is None else svg(report.plot_set_sizes()),
        "diversity": heat_map,
        "no_diversity": no_diversity,
        "curves": _curves(report),
        "picture": _picture(report),
    }


def confusion(report):
    """Returns the confusion matrix as SVG."""
    return svg(report.plot_confusion())


def before_temperature(probabilities, temperature):
    """Returns what probabilities were before they were given at this temperature: `p ** temperature`, normed."""
    p = np.maximum(probabilities.astype("float64"), np.finfo("float32").tiny) ** temperature
    return p / p.sum(axis=1, keepdims=True)


def _reliability(report):
    """Returns the reliability diagrams, before and after the temperature that the ensemble has or should have."""
    p = report.probabilities
    own, suggested = (report.details.get(name) for name in ("temperature", "suggested_temperature"))
    tables = {"as the model gives them": p}
    if isinstance(own, float):
        tables = {"before temperature": before_temperature(p, own), f"after temperature, {own:.3f}": p}
    elif isinstance(suggested, float):
        after = keras.ops.convert_to_numpy(apply_temperature(p, suggested))
        tables[f"at the temperature of the out-of-fold predictions, {suggested:.3f}"] = after
    return [
        {
            "caption": caption,
            "svg": svg(ensemble_plots.plot_reliability(p, report.y_true)),
            "error": expected_calibration_error(p, report.y_true),
            "log_loss": float(log_losses(report.y_true, p).mean()),
        }
        for caption, p in tables.items()
    ]


def _diversity(report):
    """Returns the heat map of how often members differ in being right, or `None` and why there is none."""
    members = report.member_probabilities
    if len(members) < 2:
        return None, ""
    try:
        table = diversity(np.stack(list(members.values()), axis=1), report.y_true, names=list(members))
    # Of too few images, or of a member with its classes in another order: said instead of the map.
    except ValueError as error:
        return None, f"No map of diversity: {error}"
    return svg(ensemble_plots.plot_diversity(table)), ""


def _curves(report):
    return [
        {"member": member, "metric": metric, "svg": svg(plots.plot_history(history, metric=metric))}
        for member, history in report.history.items()
        for metric in ("accuracy", "loss")
        if metric in history
    ]


def _picture(report):
    """Returns the ensemble as boxes, `None` where the model is not known or has no graph."""
    model = None if report.explained is None else report.explained.model
    if not has_graph(model):
        return None
    return svg(picture.plot_ensemble(model, card={**report.details, "class_names": report.class_names}))

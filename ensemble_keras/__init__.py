"""ensemble_keras: a labelled set of images in, one Keras model out."""

import importlib

from ensemble_keras._version import __version__

# Public name -> the module that holds it. Loaded on first use, so that `import ensemble_keras` costs nothing.
_HOME = {
    "ImageDataset": "data.dataset",
    "find_leaks": "data.leaks",
    "build_augmentation": "data.augmentation",
    "list_augmentations": "data.augmentation",
    "list_backbones": "backbones.registry",
    "build_backbone": "backbones.registry",
    "register_backbone": "backbones.registry",
    "FeatureStore": "features.store",
    "extract_features": "features.extraction",
    "build_member": "members.member",
    "out_of_fold_predictions": "members.out_of_fold",
    "SoftVoting": "combiners.voting",
    "HardVoting": "combiners.voting",
    "GeometricVoting": "combiners.voting",
    "ConcatenateDense": "combiners.concatenation",
    "StackedMetaLearner": "combiners.stacking",
    "ArchitectureGate": "combiners.gating",
    "fit_combiner": "combiners.fitting",
    "select_members": "combiners.selection",
    "convex_weights": "combiners.mixtures",
    "pareto_front": "combiners.pareto",
    "fit_temperature": "combiners.calibration",
    "fit_temperatures": "combiners.calibration",
    "apply_temperature": "combiners.calibration",
    "build_ensemble": "combiners.ensemble",
    "compiled": "combiners.inference",
    "fit_cascade": "combiners.cascade_fitting",
    "cascade_curve": "combiners.cascade_fitting",
    "Cascade": "combiners.cascade",
    "save_ensemble": "artifact",
    "load_ensemble": "artifact",
    "EnsembleClassifier": "classifier",
    "EvaluationReport": "evaluation.report",
    "plot_augmentation": "evaluation.plots",
    "plot_diversity": "evaluation.ensemble_plots",
    "plot_pareto": "evaluation.ensemble_plots",
    "plot_cascade": "evaluation.ensemble_plots",
    "plot_ensemble": "evaluation.picture",
    "plot_confusion": "evaluation.plots",
    "plot_roc": "evaluation.plots",
    "plot_history": "evaluation.plots",
    "plot_members": "evaluation.plots",
    "plot_precision_recall": "evaluation.class_plots",
    "plot_class_scores": "evaluation.class_plots",
    "plot_reliability": "evaluation.ensemble_plots",
    "plot_risk_coverage": "evaluation.uncertainty_plots",
    "plot_set_sizes": "evaluation.uncertainty_plots",
    "grad_cam": "evaluation.explain",
    "member_grad_cams": "evaluation.explain",
    "occlusion": "evaluation.occlusion",
    "randomized_map_similarity": "evaluation.randomization",
    "overlay": "evaluation.overlays",
    "plot_explanations": "evaluation.overlays",
    "plot_search_progress": "evaluation.search_plots",
    "plot_family_shares": "evaluation.search_plots",
    "plot_search_front": "evaluation.search_plots",
    "plot_lineage": "evaluation.search_plots",
    "ablation": "evaluation.ablation",
    "compare": "measures.significance",
    "compare_all": "measures.significance",
    "metric_intervals": "measures.intervals",
    "choose_operating_point": "measures.operating_point",
    "OperatingPoint": "measures.operating_point",
    "fit_conformal": "measures.conformal",
    "ConformalSets": "measures.conformal",
    "uncertainty": "measures.uncertainty",
    "risk_coverage": "measures.uncertainty",
    "count_macs": "measures.macs",
    "MacCount": "measures.macs",
    "measure_latency": "measures.cost",
    "member_costs": "measures.cost",
    "describe_architecture": "measures.architecture",
    "expected_calibration_error": "measures.calibration",
    "diversity": "measures.diversity",
    "marginal_gains": "measures.diversity",
    "tune_member": "members.tuning",
    "Training": "members.settings",
    "FineTuning": "members.settings",
    "fine_tune": "members.fine_tuning",
    "deep_ensemble": "members.one_architecture",
    "snapshot_ensemble": "members.one_architecture",
    "prune_model": "compression.pruning",
    "distill": "compression.distillation",
    "quantize_model": "compression.quantization",
    "compare_sizes": "evaluation.size_report",
    "plot_sizes": "evaluation.size_report",
    "average_weights": "members.soups",
    "soup": "members.soups",
}

# Public names in modules of their own, such as `ensemble_keras.search.GeneticSearch`.
_MODULES = ("executors", "search")

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)

"""Search: looks for architectures, and joins the best different ones to one model."""

import importlib

# Public name -> the module that holds it. Loaded on first use: a search needs what nothing else does.
_HOME = {
    "HyperImageClassifier": "space",
    "Family": "family",
    "Gene": "family",
    "register_family": "family",
    "list_families": "family",
    "genome_id": "genome",
    "active_values": "genome",
    "ArchitectureSearch": "tuner",
    "GeneticSearch": "tuner",
    "SparseSearch": "sparse",
    "SuccessiveHalving": "halving",
    "SearchOracle": "oracle",
    "GeneticOracle": "genetic",
    "LocalOracle": "local",
    "RandomOracle": "baselines",
    "BayesianOracle": "baselines",
    "HyperbandOracle": "baselines",
    "SearchEnsemble": "pool",
    "ensemble_from_search": "pool",
    "to_source": "source",
    "write_champion": "source",
}

__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)

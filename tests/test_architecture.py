"""The way of the data is one-directional: a stage imports what stands to its left, never to its right."""

import ast
import pathlib
import subprocess
import sys

import pytest

import ensemble_keras

PACKAGE = pathlib.Path(ensemble_keras.__file__).parent
# Keras has no call for gradients that any backend answers.
ASKS_THE_BACKEND = {"evaluation/gradients.py"}
STAGES = [
    "data",
    "backbones",
    "features",
    "members",
    "combiners",
    "compression",
    "search",
    "artifact",
    "evaluation",
    "pipeline",
    "classifier",
    "commands",
    "cli",
]
# Anyone may use these; they use none of the stages.
TOOLS = {"_validation", "_progress", "_terminal", "_version", "devices", "executors", "memory", "runs"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


def stage_of(module):
    """`ensemble_keras.data.dataset` -> `data`."""
    return module.split(".")[1] if "." in module else ""


def own_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ensemble_keras"):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if stage_of(module) else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ensemble_keras"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    imported = {stage_of(module) for module in own_imports(path)} - TOOLS - {""}
    if own in TOOLS:
        allowed = set()
    elif own == "measures":
        allowed = {"measures"}
    elif own in ("commands", "cli"):
        # The command line calls public names only by way of the package, and a few readers below it.
        allowed = {*STAGES, *ensemble_keras.__all__}
    else:
        allowed = {"measures", *STAGES[: STAGES.index(own) + 1]}
    assert imported <= allowed, f"{own} imports {sorted(imported - allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_imports_a_backend(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    if path.relative_to(PACKAGE).as_posix() not in ASKS_THE_BACKEND:
        assert not names & {"tensorflow", "jax", "torch"}


def test_every_public_name_resolves_and_has_a_docstring():
    for name in ensemble_keras.__all__:
        if name != "__version__":
            assert getattr(ensemble_keras, name).__doc__, name
    assert set(ensemble_keras.__all__) <= set(dir(ensemble_keras))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        ensemble_keras.Nothing  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, ensemble_keras; print([m for m in ('keras', 'sklearn', 'pandas', 'PIL') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_importing_the_classifier_does_not_draw_or_log():
    code = (
        "import logging, random, sys, keras, sklearn, pandas, numpy as np\n"
        "before, loaded = (random.getstate(), np.random.get_state()[1].sum()), set(sys.modules)\n"
        "loaded = set(sys.modules)\n"
        "from ensemble_keras import EnsembleClassifier\n"
        "assert (random.getstate(), np.random.get_state()[1].sum()) == before\n"
        "assert not logging.getLogger('ensemble_keras').handlers\n"
        "print([m for m in ('matplotlib.figure', 'jinja2', 'keras_tuner') if m in sys.modules and m not in loaded])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, stderr=subprocess.DEVNULL).strip() == "[]"

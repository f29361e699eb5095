"""The notebooks run from top to bottom without a network, and are saved as they ran."""

import importlib.util
import json
import pathlib
import re
import sys

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))

# What is asked of the variables of a notebook after it ran; JSON.
FINDINGS = {
    "chest_xray": {
        "images": "[len(train), len(test)]",
        "shared patients": "len({*train.groups} & {patient(name) for name in test.names})",
        "accuracy": "float(report.summary['accuracy'])",
        "warmth inside the shadow": "float(np.median(ratios))",
        "difference after loading": "float(np.abs(again - report.probabilities).max())",
        "page": "os.path.getsize('report.html')",
    },
    "cifar100_search": {
        "trials": "len(trials)",
        "accuracy": "float(report.summary['accuracy'])",
        "difference after loading": "float(np.abs(again - report.probabilities).max())",
        "champion": "'import keras' in champion.read_text()",
    },
    "choosing_a_combiner": {
        "combiners": "sorted(said)",
        "accuracy of soft voting": "float(table.loc['soft_voting', 'test accuracy'])",
        "memory": "memory.mean().tolist()",
        "promises": "[[row['accuracy there'], row['test accuracy']] for row in promises.values()]",
        "calibration errors": "[float(ek.expected_calibration_error(p, test.labels)) for p in (soft, calibrated)]",
        "members asked": "float(np.mean(asked))",
    },
}
# The settings for real data, changed to what a test can afford.
REAL = {
    "chest_xray": {'"chest_xray"': '"{data}"', "IMAGE_SIZE = 224": "IMAGE_SIZE = 112"},
    "cifar100_search": {
        '"cifar100"': '"{data}"',
        "TRAINING_IMAGES = None": "TRAINING_IMAGES = 1_000",
        "MAX_MACS = 50_000_000": "MAX_MACS = 3_000_000",
        "TRIALS = 200": "TRIALS = 3",
        "EPOCHS = 30": "EPOCHS = 1",
    },
    "choosing_a_combiner": {'"cifar10"': '"{data}"', "10_000, 10_000": "1_000, 1_000"},
}


def read(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def streams(notebook, name):
    outputs = (output for cell in code_cells(notebook) for output in cell.outputs)
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)


def settings(notebook):
    """Returns the one cell to change, and the text of the real settings from the cell before it."""
    (place,) = (i for i, cell in enumerate(notebook.cells) if "settings" in cell.metadata.get("tags", []))
    (real,) = re.findall(r"```python\n(.*?)```", notebook.cells[place - 1].source, re.DOTALL)
    return notebook.cells[place], real


def assigned(code):
    return sorted(
        name for names in re.findall(r"^(\w+(?:, \w+)*) = ", code, re.MULTILINE) for name in names.split(", ")
    )


def check_outputs(notebook):
    """Fails on errors, on warnings, and on plots that are not seen."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert streams(notebook, "stderr") == ""
    assert "Warning" not in streams(notebook, "stdout")
    for cell in cells:
        assert not any(output.output_type == "error" for output in cell.outputs)
        # The last lines show: what is drawn into axes, or is axes.
        if re.search(r"plt\.subplots|^(ek|report)\.plot_\w+", cell.source, re.MULTILINE):
            assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_notebooks_for_all_that_is_asked():
    assert sorted(FINDINGS) == sorted(REAL) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_saved_with_the_outputs_of_the_sources_as_they_are(name, script):
    notebook = read(name)
    check_outputs(notebook)
    assert notebook.metadata["executed_sources"] == script.digest(notebook), "run `make notebooks`"


@pytest.mark.parametrize("name", NAMES)
def test_saved_small_and_without_a_trace_of_the_machine(name):
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1_500_000
    notebook = read(name)
    texts = json.dumps(
        [output for cell in code_cells(notebook) for output in cell.outputs if "image/png" not in output]
    )
    assert re.findall(r"(?<![\w.<])/(?:tmp|home|root|work|usr|Users|content)\b[^\"]{0,40}", texts) == []
    assert set(notebook.metadata) == {"kernelspec", "language_info", "executed_sources"}


@pytest.mark.parametrize("name", NAMES)
def test_one_cell_has_all_settings_and_the_real_ones_are_the_same_names(name):
    cell, real = settings(read(name))
    assert assigned(cell.source) == assigned(real)
    assert all(old in real for old in REAL[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("colab", [False, True])
def test_the_first_cell_installs_in_colab_only(name, colab, monkeypatch):
    called = []

    class Shell:
        def run_line_magic(self, magic, line):
            called.append((magic, line))

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")  # Put back afterwards: the cell sets it.
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", object())
    first = code_cells(read(name))[0].source
    exec(TransformerManager().transform_cell(first), {"get_ipython": Shell})
    assert called == ([("pip", "install --quiet ensemble-keras")] if colab else [])


def findings(script, notebook, folder, expressions):
    """Executes a notebook and returns the values of expressions in it."""
    pairs = ", ".join(f"{key!r}: {value}" for key, value in expressions.items())
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{pairs}}}))"))
    script.execute(notebook, folder)
    found = json.loads(notebook.cells.pop().outputs[0].text)
    check_outputs(notebook)
    return found


@pytest.mark.slow
def test_chest_xray_runs_and_finds_the_shadows(script, tmp_path):
    found = findings(script, read("chest_xray"), tmp_path, FINDINGS["chest_xray"])
    assert found["images"] == [300, 199]
    assert found["shared patients"] == 0
    assert found["accuracy"] > 0.65
    assert found["warmth inside the shadow"] > 1.5
    assert found["difference after loading"] < 1e-5
    assert found["page"] < 5_000_000


@pytest.mark.slow
def test_cifar100_search_runs_and_joins_networks_that_learned(script, tmp_path):
    found = findings(script, read("cifar100_search"), tmp_path, FINDINGS["cifar100_search"])
    assert found["trials"] == 8
    assert found["accuracy"] > 0.85
    assert found["difference after loading"] < 1e-5
    assert found["champion"]


@pytest.mark.slow
def test_choosing_a_combiner_runs_and_shows_what_it_says(script, tmp_path):
    found = findings(script, read("choosing_a_combiner"), tmp_path, FINDINGS["choosing_a_combiner"])
    assert len(found["combiners"]) == 9
    assert found["accuracy of soft voting"] > 0.75
    of_training_images, out_of_fold, of_test_images = found["memory"]
    assert of_training_images - of_test_images > 0.03 > abs(out_of_fold - of_test_images)
    (_, _), (promised, kept) = found["promises"]
    assert promised - kept > 0.03
    before, after = found["calibration errors"]
    assert after < before
    assert 1 <= found["members asked"] < 4


@pytest.fixture
def real_data(shared, tmp_path, monkeypatch):
    """A function from a notebook's name to the path of its real data."""

    def path(name):
        if name == "chest_xray":
            return shared / "data" / "chest_xray"
        monkeypatch.syspath_prepend(str(shared / "data"))
        from shared_data import load_cifar

        (x, y), (x_test, y_test), _ = load_cifar("cifar100" if name == "cifar100_search" else "cifar10")
        np.savez(
            tmp_path / "cifar.npz", x_train=x[:4000], y_train=y[:4000], x_test=x_test[:2000], y_test=y_test[:2000]
        )
        return tmp_path / "cifar.npz"

    return path


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_runs_on_real_data_with_one_changed_cell(name, script, real_data, tmp_path):
    notebook, data = read(name), real_data(name)
    cell, real = settings(notebook)
    for old, new in REAL[name].items():
        real = real.replace(old, new.format(data=data))
    cell.source = real
    (tmp_path / "run").mkdir()
    script.execute(notebook, tmp_path / "run")
    check_outputs(notebook)

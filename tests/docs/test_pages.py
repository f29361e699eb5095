"""Every Python block of the documentation and the README runs: each page as one script, from top to bottom."""

import ast
import dataclasses
import inspect
import pathlib
import re
import shlex

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from synthetic import pictures

import ensemble_keras as ek
from ensemble_keras import cli

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
# These take seconds or have no code; the others train networks.
QUICK = {
    *(f"docs/guide/{name}.md" for name in ("data", "features")),
    *(f"docs/how-to/{name}.md" for name in ("groups", "imbalanced", "server")),
    *(f"docs/migration/{name}.md" for name in ("aucmedi", "notebook")),
    "docs/faq.md",
}
_FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

# The README shows a real job: the same lines with small networks and images.
SMALLER = {
    '["DenseNet121", "MobileNetV2", "Xception", "CNN"],': '["CNN(filters=(4,))", "CNN(filters=(8,))"], image_size=16,'
    " cv=2, training=ek.Training(epochs=1),",
    "max_trials=200": "max_trials=2",
    "epochs=30": "epochs=1",
}
CLUSTER = "scheduler:8786"


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page; `note` is a comment right above it that begins with "not run"."""

    page: str
    line: int
    language: str
    code: str
    note: str

    def tree(self):
        """Returns the parsed code, its lines numbered as in the page."""
        return ast.parse("\n" * (self.line - 1) + self.code, self.page)


def blocks(page):
    text = (ROOT / page).read_text()
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(page, line, match["language"], match["code"], match["note"] or ""))
    assert text.count("\n```") == 2 * len(found), f"{page} has a fence that is indented or not closed"
    return found


def pages_with_code():
    return [page for page in ["README.md", *PAGES] if any(block.language == "python" for block in blocks(page))]


def python_calls():
    for page in pages_with_code():
        for block in blocks(page):
            if block.language == "python":
                for node in ast.walk(block.tree()):
                    if isinstance(node, ast.Call) and re.fullmatch(r"ek(\.\w+)+", ast.unparse(node.func)):
                        yield pytest.param(node, id=f"{page}:{node.lineno}-{ast.unparse(node.func)}")


@pytest.mark.parametrize("call", list(python_calls()))
def test_calls_give_arguments_that_there_are(call):
    function = eval(ast.unparse(call.func), {"ek": ek})
    taken = inspect.signature(function).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        assert {keyword.arg for keyword in call.keywords if keyword.arg} <= set(taken)


# Two epochs on some hundred images may well be too few; the page says what happens then.
@pytest.mark.filterwarnings("ignore:.*fine-tuning did not beat its start:UserWarning")
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page in QUICK else [pytest.mark.slow]) for page in pages_with_code()]
)
def test_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names, replaced = {"__name__": "__main__"}, {}
    if page == "README.md":
        replaced = SMALLER
        assert all(old in (ROOT / page).read_text() for old in replaced)
        names["x"], names["y"] = digits()
        write_class_folders(tmp_path / "xrays")
    for block in blocks(page):
        if block.note.startswith("not run") or CLUSTER in block.code:
            continue
        if block.language == "python":
            run(block, names, replaced)
        if block.language == "bash" and page != "README.md":
            for command in commands(block):
                assert cli.main(command) == 0


def run(block, names, replaced):
    code = block.code
    for old, new in replaced.items():
        code = code.replace(old, new)
    exec(compile(dataclasses.replace(block, code=code).tree(), block.page, "exec"), names)


def commands(block):
    """Returns the arguments of each `ensemble-keras` command of a block."""
    lines = [shlex.split(line, comments=True) for line in block.code.replace("\\\n", " ").splitlines()]
    return [line[1:] for line in lines if line and line[0] == "ensemble-keras"]


def digits():
    images, labels = load_digits(return_X_y=True)
    grey = np.kron(images[:200].reshape(-1, 8, 8), np.ones((4, 4))) * 15
    return np.repeat(grey[..., None], 3, axis=-1).astype("uint8"), labels[:200]


def write_class_folders(folder):
    images, labels = pictures(40, 2)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / ("train" if i < 24 else "test") / ("NORMAL", "PNEUMONIA")[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def sections(page):
    """Yields `(text, files)` for each section of a page: its text, and the saved results that it names."""
    for part in re.split(r"\n\n(?=#)", (ROOT / page).read_text()):
        yield part, re.findall(r"`(benchmarks/results/\w+\.md)`", part)


@pytest.mark.parametrize("page", PAGES)
def test_scripts_results_and_examples_that_a_page_names_exist(page):
    named = re.findall(r"`((?:benchmarks|examples)/[\w/]+\.\w+)`", (ROOT / page).read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_figures_of_how_it_works_stand_in_the_saved_results_that_it_names():
    for part, files in sections("docs/how-it-works.md"):
        saved = "".join((ROOT / file).read_text() for file in files)
        # Figures with a decimal point; not names with numbers in them, such as MobileNetV2(alpha=0.35).
        figures = re.findall(r"(?<![=\w.])[+-]?\d+\.\d+(?![\w.]*\))", re.sub(r"\w+\(alpha=[\d.]+\)", "", part))
        assert [figure for figure in figures if figure not in saved] == []

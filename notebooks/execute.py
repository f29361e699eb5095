"""Executes the notebooks from top to bottom and saves them with their outputs.

    python notebooks/execute.py                     # all of them
    python notebooks/execute.py chest_xray.ipynb    # one

Each runs in a folder of its own, which is gone afterwards, on the small data that it makes itself.
It takes a minute or two for each on two CPU cores.
"""

import argparse
import hashlib
import os
import pathlib
import tempfile
import time

import nbclient
import nbformat

HERE = pathlib.Path(__file__).parent
TIMEOUT = 1800  # seconds for one cell, on a busy machine, too


def main():
    """Executes the notebooks that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="files in this folder (default: all notebooks)")
    names = parser.parse_args().names or sorted(path.name for path in HERE.glob("*.ipynb"))
    for name in names:
        start = time.perf_counter()
        notebook = nbformat.read(HERE / name, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, folder)
        # Says, in a test, whether the outputs are those of the cells beside them.
        notebook.metadata["executed_sources"] = digest(notebook)
        nbformat.write(notebook, HERE / name)
        size = (HERE / name).stat().st_size / 1e6
        print(f"{name}: {time.perf_counter() - start:.0f} s, {size:.1f} MB", flush=True)


def execute(notebook, folder):
    """Executes a notebook in place.

    Args:
        notebook: A `NotebookNode`. Its outputs are replaced; what a reader sees is kept.
        folder: Path. The notebook's working directory.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises an error.
    """
    # Plots are to be those that a notebook shows, whatever the environment wants of matplotlib.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        # What TensorFlow's C++ says of missing GPUs goes to the terminal; Python's warnings stay.
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    # The kernel's own entry has the version of Python, which differs from machine to machine.
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # What a progress bar leaves behind.
            cell.outputs = [one for one in cell.outputs if any(one.get("data", {"": one}).values())]


def digest(notebook):
    """Returns a digest of the code of a notebook, a string."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n\n".join(sources).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()

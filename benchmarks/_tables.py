"""Tables: what every benchmark prints and saves."""

import datetime
import os
import pathlib
import platform

import keras
import numpy as np
import sklearn

RESULTS = pathlib.Path(__file__).parent / "results"


def save_table(name, title, header, rows, *, notes=()):
    """Prints a Markdown table and saves it under `results/`, with the device, the date and the versions."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, f"|{'---|' * len(header)}")
    device = f"{os.cpu_count()} CPU cores ({platform.machine()}), {keras.backend.backend()} backend"
    versions = f"Keras {keras.__version__}, NumPy {np.__version__}, scikit-learn {sklearn.__version__}"
    facts = f"{datetime.date.today().isoformat()}; {device}; {versions}; Python {platform.python_version()}."
    text = "\n".join([f"# {title}", "", facts, "", *lines, "", *[f"- {note}" for note in notes]]).rstrip() + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)

"""A bar in a notebook is brought up to date in place, and goes."""

import nbclient
import nbformat

CODE = """
import time

from ensemble_keras._progress import progress_bar

with progress_bar("Counting", 4) as advance:
    for _ in range(4):
        time.sleep(0.25)
        advance()
print("done")
"""


class Recorder(nbclient.NotebookClient):
    """A client that keeps the texts of all displays, the ones that were replaced, too."""

    def process_message(self, message, cell, index):
        if message["msg_type"] in ("display_data", "update_display_data"):
            self.texts.append(message["content"]["data"]["text/plain"])
        return super().process_message(message, cell, index)


def test_a_notebook_shows_the_bar_and_keeps_nothing_of_it():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    client = Recorder(notebook, kernel_name="python3", timeout=60)
    client.texts = []
    client.execute()
    shown = [text for text in client.texts if text]
    assert shown[0].startswith("Counting")
    assert "0/4" in shown[0]
    assert "4/4" in shown[-1]
    bar, printed = notebook.cells[0].outputs
    assert not any(bar.data.values())
    assert printed.text == "done\n"

"""Progress: one bar that shows what is done, how fast, and what is left."""

import contextlib
import time

# Seconds between two states of a bar in a notebook: each is a message to the page.
_EVERY = 0.2


@contextlib.contextmanager
def progress_bar(description, total, *, unit="images", verbose=1):
    """Shows a bar while the block runs and gives a function that says how many more are done.

    In a notebook the bar goes when the block ends, so that what is saved holds results only.

    Args:
        description: Text before the bar.
        total: Number of units in all.
        unit: What is counted. Defaults to `"images"`.
        verbose: 0 shows nothing, and so does a `total` of 0.

    Yields:
        `advance(count, description=None)`, the second to show another text from now on.
    """
    # Loaded with the first bar: whoever only imports the library does not wait for it.
    import rich
    from rich import progress

    class Speed(progress.ProgressColumn):
        def render(self, task):
            return f"{task.speed:,.{0 if task.speed >= 10 else 1}f} {unit}/s" if task.speed else ""

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=12),
        progress.MofNCompleteColumn(),
        Speed(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    shown = bool(verbose and total)
    in_notebook = shown and rich.get_console().is_jupyter
    with progress.Progress(*columns, disable=not shown or in_notebook) as bar:
        task = bar.add_task(description, total=total)
        with _in_notebook(bar) if in_notebook else contextlib.nullcontext(lambda: None) as show:

            def advance(count=1, description=None):
                bar.update(task, advance=count, description=description)
                show()

            yield advance


@contextlib.contextmanager
def _in_notebook(bar):
    """Shows a bar below the cell and gives a function that brings it up to date."""
    # Rich's own way warns where ipywidgets is missing, and leaves an empty output for each bar.
    from IPython.display import display
    from rich.console import Console

    console, last = Console(width=100, force_jupyter=False, color_system=None), -_EVERY
    handle = display({"text/plain": ""}, raw=True, display_id=True)

    def show():
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            with console.capture() as text:
                console.print(bar.get_renderable())
            handle.update({"text/plain": text.get()}, raw=True)

    try:
        show()
        yield show
    finally:
        handle.update({"text/plain": "", "text/html": ""}, raw=True)

"""Progress: one bar that shows what is done, how fast, and what is left."""

import contextlib


@contextlib.contextmanager
def progress_bar(description, total, *, unit="images", verbose=1):
    """Shows a bar while the block runs and gives a function that says how many more are done.

    Args:
        description: Text before the bar.
        total: Number of units in all.
        unit: What is counted. Defaults to `"images"`.
        verbose: 0 shows nothing, and so does a `total` of 0.

    Yields:
        `advance(count, description=None)`, the second to show another text from now on.
    """
    # Loaded with the first bar: whoever only imports the library does not wait for it.
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
    with progress.Progress(*columns, disable=not (verbose and total)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count=1, description=None: bar.update(task, advance=count, description=description)

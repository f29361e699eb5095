"""Progress: one bar that shows what is done, how fast, and what is left."""

import contextlib

from rich import progress as rich_progress


class _Speed(rich_progress.ProgressColumn):
    def render(self, task):
        return f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else ""


@contextlib.contextmanager
def progress_bar(description, total, *, unit="images", verbose=1):
    """Shows a bar while the block runs and gives a function that says how many more are done.

    Args:
        description: Text before the bar.
        total: Number of units in all.
        unit: What is counted. Defaults to `"images"`.
        verbose: 0 shows nothing.

    Yields:
        `advance(count)`.
    """
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.MofNCompleteColumn(),
        _Speed(),
        rich_progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with rich_progress.Progress(*columns, disable=not verbose) as bar:
        task = bar.add_task(description, total=total, unit=unit)
        yield lambda count=1: bar.advance(task, count)

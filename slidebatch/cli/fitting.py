"""The display of `train`: a bar on a terminal, a line for each epoch everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def fitting(stream: TextIO) -> Iterator[Callable[[Any], None]]:
    """A listener for `training.loop.Told`s while it is open."""
    console = Console(file=stream, highlight=False, soft_wrap=True)
    columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def tell(told: Any) -> None:
            bar.update(task, completed=told.step, total=told.steps, description=f"loss {told.loss:.3f}")
            if told.note:
                console.print(told.note)
            if told.row is not None:
                console.print(line(told.row))

        yield tell


def line(row: dict[str, float]) -> str:
    """A row of the log as one line: epoch, loss, seconds, scores."""
    rest = {k: v for k, v in row.items() if k not in ("epoch", "learning_rate")}
    return f"epoch {row['epoch']:.0f}: " + ", ".join(f"{k} {v:.4g}" for k, v in rest.items())

"""One call after another in this process: the reference that every other executor equals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from slidebatch.allocator import keep_memory
from slidebatch.executors.protocol import Call
from slidebatch.stages import Receipt, perform, warm


class Serial:
    """Does calls itself."""

    dashboard: str | None = None

    def __init__(self) -> None:
        keep_memory()

    def warm(self, work: str) -> None:
        warm(work)

    def run(self, calls: Iterable[Call]) -> Iterator[Receipt]:
        for call in calls:
            yield perform(*call.arguments)

    def everywhere(self, function: Callable[..., None], *arguments: object) -> None:
        function(*arguments)

    def close(self) -> None:
        """Nothing to let go."""

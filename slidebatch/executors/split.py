"""Workers with GPUs for the networks, and workers without for all other stages: two executors as one.

A stage's calls come together, so the first says whose they are; nothing needs to be sent by resources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from slidebatch.executors.protocol import Call, Executor
from slidebatch.plan import network_of
from slidebatch.stages import Receipt


class Split:
    """Gives the networks' stage to `gpu` and every other to `cpu`."""

    def __init__(self, gpu: Executor, cpu: Executor) -> None:
        self.gpu, self.cpu = gpu, cpu

    @property
    def dashboard(self) -> str | None:
        return self.gpu.dashboard

    def warm(self, work: str) -> None:
        self.gpu.warm(work)
        self.cpu.warm(work)

    def run(self, calls: Iterable[Call]) -> Iterator[Receipt]:
        rest = iter(calls)
        first = next(rest, None)
        if first is None:
            return
        yield from (self.gpu if network_of(first.stage)[0] == "infer" else self.cpu).run(chain([first], rest))

    def everywhere(self, function: Callable[..., None], *arguments: object) -> None:
        self.gpu.everywhere(function, *arguments)
        self.cpu.everywhere(function, *arguments)

    def close(self) -> None:
        self.cpu.close()
        self.gpu.close()

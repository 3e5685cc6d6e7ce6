"""Reading ahead and writing behind: what is made next, and what was made last, is done while this thread goes on.

Both are bounded, and keep the order. Of a fault the one that uses them hears, and nothing more is begun.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(make: Callable[[T], R], items: Iterable[T], depth: int) -> Generator[R, None, None]:
    """`make` of each item, in order, by one thread that is at most `depth` ahead; 0: made when asked for.

    An exception of `make` is raised where its answer would have come; whoever stops listening waits for what is
    being made, and nothing more is begun.
    """
    if depth == 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(1)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Behind:
    """Does what it is given by one thread, in order, at most `depth` of it waiting; 0: at once, by the caller.

    waited_s  seconds for which the caller had to wait, for room or, with 0, for the thing itself

    Leaving the block waits for all of it. What one thing raises is raised by the next call or at the block's end; what
    was to come after it is not done. Where the block itself is left by an exception, nothing more is begun.
    """

    def __init__(self, depth: int) -> None:
        self.depth, self.waited_s = depth, 0.0
        self._pool = ThreadPoolExecutor(1) if depth else None
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def do(self, thing: Callable[[], None]) -> None:
        """Have it done."""
        began = time.perf_counter()
        if self._pool is None:
            thing()
        else:
            self._settle(self.depth)
            self._waiting.append(self._pool.submit(self._unless_failed, thing))
        self.waited_s += time.perf_counter() - began

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        began = time.perf_counter()
        try:
            if error is None:
                self._settle(0)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self.waited_s += time.perf_counter() - began

    def _settle(self, most: int) -> None:
        """Wait until at most so many are under way; raise what one of those that ended raised."""
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            self._waiting.popleft().result()

    def _unless_failed(self, thing: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            thing()
        except BaseException:
            self._failed = True
            raise

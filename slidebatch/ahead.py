"""Reading ahead: what is made next is made while the last is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(make: Callable[[T], R], items: Iterable[T], depth: int) -> Iterator[R]:
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

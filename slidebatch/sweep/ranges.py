"""Lists of job numbers as schedulers write them: "0-3,7,9-12"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from slidebatch.errors import ConfigError


def compress(numbers: Iterable[int]) -> str:
    """Numbers (0 and above) in ascending order as ranges, each once. None: "".

    >>> compress([3, 0, 1, 2, 7])
    '0-3,7'
    """
    spans: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def expand(text: str) -> list[int]:
    """The numbers of such a text, in ascending order; the inverse of `compress`.

    >>> expand("0-3,7")
    [0, 1, 2, 3, 7]

    :raises ConfigError: anything but numbers and ranges that ascend.
    """
    found: list[int] = []
    for part in text.split(",") if text else []:
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        low, high = (int(span[1]), int(span[2] or span[1])) if span else (0, -1)
        if low > high or (found and low <= found[-1]):
            raise ConfigError(f"{text}: found {part!r}; expected numbers and ranges that ascend, such as 0-3,7.")
        found += range(low, high + 1)
    return found

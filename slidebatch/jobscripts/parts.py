"""Job numbers as the arrays that a scheduler takes: split at its limit, and through a file where it has no lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slidebatch.jobscripts.schedulers import Rules
from slidebatch.sweep.ranges import compress, expand

LONGEST_LIST = 1000
"""Characters of a list of ranges; longer ones go through a file, because directives are cut at some length."""


@dataclass(frozen=True)
class Part:
    """One array, or one job that is none.

    indices  of the array, as ranges ("0-3,7"); None: a single job, no array
    offset   what an index, or 0 for a single job, is short of the number that is meant
    through  file on whose line (from 0) of that number the job stands; None: the number is the job
    """

    indices: str | None
    offset: int
    through: Path | None

    @property
    def size(self) -> int:
        """How many jobs it has."""
        return 1 if self.indices is None else len(expand(self.indices))


def parts_of(missing: Sequence[int], rules: Rules, largest: int, indirection: Callable[[], Path]) -> Iterator[Part]:
    """The arrays that give each missing job once.

    :param missing: numbers of jobs, ascending. None: no part.
    :param largest: most jobs of an array; its indices are below that.
    :param indirection: writes the missing jobs, one a line, and gives the file; called where it is needed.
    """
    told = compress(missing)
    plain = len(told) <= LONGEST_LIST if rules.lists else "," not in told
    through = None if plain or not missing else indirection()
    numbers = missing if through is None else range(len(missing))
    windows: dict[int, list[int]] = {}
    for number in numbers:
        windows.setdefault(number // largest, []).append(number % largest)
    for window, indices in windows.items():
        if len(indices) == 1 and not rules.one:
            yield Part(None, window * largest + indices[0], through)
        else:
            yield Part(compress(indices), window * largest, through)

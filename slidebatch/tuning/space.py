"""The decode settings that can be tuned: their ranges, and the values that a plain grid tries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Value = float | int
Settings = tuple[tuple[str, Value], ...]
"""Names and values of tuned settings, in the order of `SPACE`: a key of what is known already."""


@dataclass(frozen=True)
class Knob:
    """One setting: tried from `low` to `high` by `step`, or, in a grid, at the values of `grid`."""

    low: Value
    high: Value
    step: Value
    grid: tuple[Value, ...]

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.step, int)


SPACE: dict[str, Knob] = {
    "seed_threshold": Knob(0.2, 0.9, 0.02, (0.36, 0.44, 0.5, 0.56, 0.64, 0.72)),
    "foreground_threshold": Knob(0.2, 0.8, 0.02, (0.4, 0.5, 0.6)),
    "grow_px": Knob(0, 12, 1, (2, 4, 6)),
    "min_seed_px": Knob(1, 41, 2, (3, 11)),
    "min_area_px": Knob(4, 84, 4, (16, 32)),
}
"""Steps are wide on purpose: finer ones fit noise, and a value that is tried again costs nothing."""


def grid(names: Sequence[str]) -> Iterator[Settings]:
    """Every combination of the grid values of the named settings."""
    for values in itertools.product(*(SPACE[n].grid for n in names)):
        yield tuple(zip(names, values, strict=True))

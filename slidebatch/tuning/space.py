"""The settings that can be tuned: their ranges, and the values that a plain grid tries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from slidebatch.errors import ConfigError

Value = float | int | str
Settings = tuple[tuple[str, Value], ...]
"""Names and values of tuned settings, in the order of their space: a key of what is known already."""


@dataclass(frozen=True)
class Knob:
    """One setting: tried from `low` to `high` by `step`, or, in a grid, at the values of `grid`."""

    low: float | int
    high: float | int
    step: float | int
    grid: tuple[float | int, ...]

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.step, int)


@dataclass(frozen=True)
class Pick:
    """One setting with a few named values, all of them in a grid."""

    grid: tuple[str, ...]


Space = Mapping[str, Knob | Pick]

SPACE: dict[str, Knob | Pick] = {
    "seed_threshold": Knob(0.2, 0.9, 0.02, (0.36, 0.44, 0.5, 0.56, 0.64, 0.72)),
    "foreground_threshold": Knob(0.2, 0.8, 0.02, (0.4, 0.5, 0.6)),
    "grow_px": Knob(0, 12, 1, (2, 4, 6)),
    "min_seed_px": Knob(1, 41, 2, (3, 11)),
    "min_area_px": Knob(4, 84, 4, (16, 32)),
}
"""Decoding. Steps are wide on purpose: finer ones fit noise, and a value that is tried again costs nothing."""

RULES: dict[str, Knob | Pick] = {
    "iou_threshold": Knob(0.1, 0.9, 0.05, (0.3, 0.5, 0.7)),
    "fill_threshold": Knob(0.0, 0.9, 0.05, (0.1, 0.2, 0.5)),
    "min_votes": Knob(1, 64, 1, (1, 2, 3)),
    "masks": Pick(("best", "majority", "weighted")),
    "scores": Pick(("best", "agreement", "mean")),
    "least_share": Knob(0.0, 0.9, 0.1, (0.0, 0.5)),
}
"""How nuclei of an ensemble's members become one. Votes go up to the number of members."""

MEMBER: dict[str, Knob | Pick] = {
    "weight": Knob(1, 5, 1, (1, 2)),
    "score_threshold": Knob(0.0, 0.95, 0.05, (0.0, 0.5, 0.7)),
}
"""What each member has for itself; `weight.2` is the second one's."""

NAMES = (*SPACE, *RULES, *MEMBER)
MOST_POINTS = 20_000
"""Points of a grid that are worth waiting for."""


def chosen(space: Space, names: Sequence[str] | None) -> tuple[str, ...]:
    """The settings of a space that are asked for, all without names; one without a number is every member's.

    ConfigError: the space has no such setting.
    """
    if names is None:
        return tuple(space)
    unknown = [n for n in names if not any(n in (k, k.partition(".")[0]) for k in space)]
    if unknown:
        raise ConfigError(f"settings {', '.join(unknown)}: expected some of {', '.join(space)}.")
    return tuple(k for k in space if k in names or k.partition(".")[0] in names)


def grid(space: Space, names: Sequence[str]) -> Iterator[Settings]:
    """Every combination of the grid values of the named settings. ConfigError: they are too many."""
    points = prod(len(space[n].grid) for n in names)
    if points > MOST_POINTS:
        raise ConfigError(
            f"a grid of {len(names)} settings has {points} points, at most {MOST_POINTS} are searched: "
            "name fewer settings (--settings), or take the sampler optuna."
        )
    for values in itertools.product(*(space[n].grid for n in names)):
        yield tuple(zip(names, values, strict=True))

"""Slow, obvious references for `ensemble`: sets of pixels, exact fractions, double loops."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np

from slidebatch.instances import Instances

Pixels = frozenset[tuple[int, int]]


def pixels(table: Instances) -> list[Pixels]:
    """The pixels (y, x) of every row in the table's frame."""
    found = []
    for i in range(len(table)):
        corner = table.box[i, :2].astype(int)
        found.append(frozenset((int(y), int(x)) for y, x in np.argwhere(table.mask(i)) + corner))
    return found


def box_pixels(box: np.ndarray) -> list[Pixels]:
    """The pixels of integer boxes (N, 4), all of each."""
    return [frozenset((y, x) for y in range(y0, y1) for x in range(x0, x1)) for y0, x0, y1, x1 in box.tolist()]


def overlapping(box: np.ndarray) -> list[list[int]]:
    """Pairs i < j of boxes (N, 4) that share a positive area, in lexicographic order."""
    return [[i, j] for i, j in combinations(range(len(box)), 2) if boxes_meet(box[i], box[j])]


def boxes_meet(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the shared part of two boxes has a positive height and a positive width."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    return bool(height > 0 and width > 0)


def order(table: Instances) -> list[int]:
    """Rows sorted by score down, box, area, mask bytes and member."""

    def key(i: int) -> tuple[object, ...]:
        packed = table.bits[table.offset[i] : table.offset[i + 1]].tobytes()
        return (
            -int(table.score[i]),
            table.box[i].tolist(),
            int(table.mask(i).sum()),
            packed,
            int(table.member[i]),
        )

    return sorted(range(len(table)), key=key)


def conflict(a: Pixels, b: Pixels, threshold: float) -> bool:
    """Whether the intersection over union of two sets of pixels is more than the threshold in millionths."""
    return bool(a | b) and Fraction(len(a & b), len(a | b)) > Fraction(round(threshold * 10**6), 10**6)


def keep(rows: Sequence[int], areas: Sequence[Pixels], threshold: float) -> list[bool]:
    """Greedy suppression of rows that are given from best to worst."""
    kept: list[int] = []
    for i in rows:
        if not any(conflict(areas[i], areas[j], threshold) for j in kept):
            kept.append(i)
    return [i in kept for i in range(len(areas))]


def owners(rows: Sequence[int], areas: Sequence[Pixels]) -> list[Pixels]:
    """What each row keeps when all are painted from worst to best."""
    image: dict[tuple[int, int], int] = {}
    for i in reversed(rows):
        image.update(dict.fromkeys(areas[i], i))
    return [frozenset(place for place, owner in image.items() if owner == i) for i in range(len(areas))]

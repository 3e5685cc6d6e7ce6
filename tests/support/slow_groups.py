"""Slow, obvious references for groups of rows and their masks: lists, sets of pixels, exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tests.support.slow_nms import Pixels

Pair = frozenset[int]


def leaders(rows: Sequence[int], conflicts: set[Pair]) -> list[int]:
    """The first kept row that conflicts with each, itself where it is kept; rows from best to worst."""
    kept: list[int] = []
    found = [-1] * len(rows)
    for i in rows:
        before = [j for j in kept if frozenset((i, j)) in conflicts]
        found[i] = before[0] if before else i
        kept += [] if before else [i]
    return found


def groups(leader: Sequence[int]) -> dict[int, list[int]]:
    """The rows of each leader."""
    return {g: [i for i, head in enumerate(leader) if head == g] for g in sorted(set(leader))}


def voices(rows: Sequence[int], group: Sequence[int], member: Sequence[int]) -> list[int]:
    """The first row of each member in a group, in the order of rows from best to worst."""
    found: dict[int, int] = {}
    for i in rows:
        if i in group:
            found.setdefault(member[i], i)
    return sorted(found.values())


def noisy_or(scores: Sequence[int], top: int) -> Fraction:
    """Top times the chance that not all of them err, exactly."""
    doubt = Fraction(1)
    for s in scores:
        doubt *= 1 - Fraction(s, top)
    return top * (1 - doubt)


def half_up(value: Fraction) -> int:
    """The nearest integer, the larger one of two that are equally near."""
    return int((value + Fraction(1, 2)) // 1)


def elected(group: Sequence[int], lead: int, weight: Sequence[int], areas: Sequence[Pixels], vote: tuple) -> Pixels:
    """The pixels that win the weighted vote of a group; vote: the share in 0..1 and the absent weight."""
    share, absent = Fraction(round(vote[0] * 10**6), 10**6), vote[1]
    bar = share * (sum(weight[i] for i in group) + absent)
    won = set()
    for place in set().union(*(areas[i] for i in group)):
        have = sum(weight[i] for i in group if place in areas[i])
        if have > bar or (have == bar and place in areas[lead]):
            won.add(place)
    return largest_piece(frozenset(won))


def largest_piece(area: Pixels) -> Pixels:
    """The largest 4-connected piece, of equally large ones the one with the first pixel in raster order."""
    left, pieces = set(area), []
    while left:
        grown, edge = set(), {min(left)}
        while edge:
            grown |= edge
            near = {(y + dy, x + dx) for y, x in edge for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))}
            edge = (near & left) - grown
        left -= grown
        pieces.append(frozenset(grown))
    return min(pieces, key=lambda p: (-len(p), min(p)), default=frozenset())


def owners_without_slivers(rows: Sequence[int], areas: Sequence[Pixels], share: float) -> list[Pixels]:
    """What each keeps where rows, from best to worst, take what is free, and slivers take nothing."""
    taken: set[tuple[int, int]] = set()
    left: list[Pixels] = [frozenset()] * len(areas)
    for i in rows:
        own = areas[i] - taken
        if len(own) >= Fraction(round(share * 10**6), 10**6) * len(areas[i]):
            left[i] = own
            taken |= own
    return left

"""The seam report: do nuclei border on each other along seams more than elsewhere?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slidebatch.pages import Section, Table, Text, number
from slidebatch.report.told import Told
from slidebatch.results import Seams

DEVIATIONS = 3.0
"""Seams fail only where straight borders are this many standard deviations more than expected: few are chance."""

MOST_ROWS = 50


@dataclass(frozen=True)
class Judged:
    """The seams of one slide, or of all together."""

    name: str
    seams: Seams
    failed: bool


def failing(seams: Seams, most_ratio: float) -> bool:
    """Whether seams leave more straight borders than allowed, beyond chance (both counts taken as Poisson's).

    Also where lines between seams have none at all to compare with.
    """
    if not seams.along_px or not seams.between_px:
        return False
    share = seams.along_px / seams.between_px
    expected = seams.between * share
    deviation = math.sqrt(seams.along + seams.between * share**2)
    return seams.along > most_ratio * expected and seams.along - expected > DEVIATIONS * deviation


def together(all_seams: Sequence[Seams]) -> Seams:
    """The sums of several slides' counts and lengths; a count that one does not know is not known."""

    def total(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    told = [total([getattr(s, name) for s in all_seams]) for name in ("candidates", "pieces", "joined")]
    lines = [sum(getattr(s, name) for s in all_seams) for name in ("along", "between", "along_px", "between_px")]
    return Seams(told[0], told[1], told[2], lines[0], lines[1], lines[2], lines[3])


def seams(told: Told) -> Section | None:
    """The seams of slides, evenly over the run, and of all of these together; None where none are looked at."""
    if not told.spec.seam_slides or not told.done or "seams" not in told.results.manifest:
        return None
    count = min(told.spec.seam_slides, len(told.done))
    names = [told.done[round(place)]["slide"] for place in np.linspace(0, len(told.done) - 1, count)]
    limit = told.spec.seam_ratio
    each = [Judged(n, s, failing(s, limit)) for n, s in ((n, told.results.seams(n)) for n in names)]
    whole = together([one.seams for one in each])
    sum_of = Judged(f"all {count} together", whole, failing(whole, limit))
    failed = any(one.failed for one in [sum_of, *each])
    if not whole.along_px:
        return Section("Seams", [Text(f"None: each of {count} slides or fields lies in one tile and one patch.")])
    crossed = [one for one in each if one.seams.along_px]
    shown = sorted(crossed, key=lambda one: (not one.failed, -(one.seams.ratio or 0)))[:MOST_ROWS]
    text = (
        "Pairs of nuclei with a straight common border along seams of tiles and patches, against equal lines between "
        f"seams. The ratio, per length of line, is about 1 where seams leave no trace; beyond {number(limit)}, and "
        f"more than {DEVIATIONS:g} standard deviations beyond what is expected, they have failed."
    )
    looked = f"{count} of {len(told.done)} slides or fields were looked at; seams cross {len(crossed)} of these."
    verdict = [Text("Seams have failed: nuclei are cut where tiles or patches meet.", warning=True)] if failed else []
    table = Table(HEADS, [_row(one) for one in ([sum_of, *shown] if count > 1 else shown)])
    return Section("Seams", [*verdict, Text(text), Text(looked), table], failed=failed)


HEADS = (
    *("slide", "ratio", "borders along seams", "between seams", "seams (px)", "lines between (px)"),
    *("pieces at seams", "nuclei joined of them", ""),
)


def _row(one: Judged) -> list[str]:
    found = one.seams
    ratio = "none to compare" if found.ratio is None else number(found.ratio, 3)
    counts = (found.along, found.between, found.along_px, found.between_px, found.pieces, found.joined)
    return [one.name, ratio, *(number(count) for count in counts), "failed" if one.failed else ""]

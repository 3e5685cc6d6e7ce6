"""What a report is made of: the results, what the config asks of the page, and who failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slidebatch.assay import AssaySpec
from slidebatch.pages import ReportSpec
from slidebatch.results import Results

Failure = Mapping[str, Any]


@dataclass(frozen=True)
class Told:
    """The results of a run, how its page is to be, and how it is judged as an assay."""

    results: Results
    spec: ReportSpec
    assay: AssaySpec

    @cached_property
    def done(self) -> tuple[dict[str, Any], ...]:
        """The manifest's entries of finished slides, in the run's order."""
        return tuple(e for e in self.results.manifest["slides"] if e["state"] == "done")

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """What failed: slide, stage, why, attempts; so far, while the run goes on."""
        path = self.results.path
        if self.results.state == "done":
            file = path / "failures.jsonl"
            told = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        else:
            told = [json.loads(file.read_bytes()) for file in sorted((path / "work" / "failed").glob("*.json"))]
        known = {failure["slide"] for failure in told}
        others = [e for e in self.results.manifest["slides"] if e["state"] == "failed" and e["slide"] not in known]
        return (*told, *({"slide": e["slide"], "why": "failures.jsonl does not say"} for e in others))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the tables of nuclei."""
        return tuple(self.results.dataset().schema.names) if self.done else ()

    @cached_property
    def area(self) -> str:
        """The column of areas: in micrometres where all pixel sizes are known."""
        known = bool(self.done) and all(e.get("mpp") is not None for e in self.done)
        return "area_um2" if known and "area_um2" in self.columns else "area"

    def measured(self, prefix: str) -> list[str]:
        """The columns whose names begin so, in the tables' order."""
        return [name for name in self.columns if name.startswith(prefix)]


UNITS = {
    "area_um2": "area (µm²)",
    "area": "area (px)",
    "perimeter_um": "perimeter (µm)",
    "eccentricity": "eccentricity (0 circle, 1 line)",
    "solidity": "solidity (area / convex hull)",
    "nearest_um": "nearest neighbour (µm)",
    "nearest_px": "nearest neighbour (px)",
    "score": "score (0 to 1)",
}


def words(column: str) -> str:
    """A column of the table with its unit, as axes name it.

    >>> words("mean_DNA"), words("nucleus_to_ring_GFP"), words("votes")
    ('mean DNA (grey levels)', 'nucleus to ring GFP (ratio)', 'votes')
    """
    for prefix, text, unit in (
        ("nucleus_to_ring_", "nucleus to ring", "ratio"),
        ("mean_", "mean", "grey levels"),
        ("od_", "stain", "optical density"),
    ):
        if column.startswith(prefix):
            return f"{text} {column.removeprefix(prefix)} ({unit})"
    return UNITS.get(column, column)

"""Adds up what is measured of some nuclei while labels and image go by in bands of rows.

A band is read once; nothing is kept of it but sums, and the values themselves where percentiles are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.measurements.runs import label_runs, ring_runs
from slidebatch.measurements.shapes import add_border, hull_areas
from slidebatch.measurements.spec import Recipe
from slidebatch.measurements.stains import density_table, optical_density
from slidebatch.measurements.sums import (
    add_densities,
    add_moments,
    add_values,
    collect,
    deal,
    percentiles_of,
)

COUNTED = 4096
"""Values of a nucleus that span less than this are counted, not sorted: many times as fast."""

Runs = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Nuclei:
    """The N nuclei to measure: label (N,) int64, ascending, and box (N, 4) int32 (y0, x0, y1, x1), half-open."""

    label: Ints
    box: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Band:
    """Some rows of labels and image.

    top, left  of the first of its h rows and w columns, in the frame of the boxes
    labels     (halo + h + halo, w) uint32, 0 beyond what there is; the halo is the recipe's
    image      (C, h, w): the channels to measure
    colour     (3, h, w): red, green and blue, where stains are measured
    """

    top: int
    left: int
    labels: npt.NDArray[np.uint32]
    image: npt.NDArray[Any]
    colour: npt.NDArray[Any] | None = None


@dataclass
class Values:
    """Sums of C channels over the pixels of N nuclei or rings; see `add_values`."""

    count: Ints
    total: Floats
    kept: list[tuple[Runs, npt.NDArray[Any]]] | None

    @classmethod
    def empty(cls, n: int, channels: int, keep: bool) -> Values:
        return cls(np.zeros(n, np.int64), np.zeros((n, channels, 5)), [] if keep else None)

    def add(self, runs: Runs, image: npt.NDArray[Any]) -> None:
        """Add the pixels of some runs of a band."""
        add_values(self.count, self.total, runs, image)
        if self.kept is not None:
            self.kept.append((runs, collect(runs, image)))

    def statistics(self) -> dict[str, Floats]:
        """mean, std (of all pixels), min and max: (N, C) each; NaN where there is no pixel, or one that is NaN."""
        total, first, square, low, high = np.moveaxis(self.total, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            n = np.where(self.count > 0, self.count, np.nan)[:, None]
            mean = total / n
            std = np.sqrt(np.maximum(square / n - (mean - first) ** 2, 0))
        bad = np.isnan(mean)
        return {"mean": mean, "std": std, "min": np.where(bad, np.nan, low), "max": np.where(bad, np.nan, high)}

    def percentiles(self, wanted: Iterable[float]) -> Floats:
        """Percentiles of every channel: (N, C, P)."""
        shares = np.array(list(wanted), np.float64) / 100
        n, channels = self.total.shape[:2]
        found = np.full((n, channels, len(shares)), np.nan)
        start = np.concatenate([[0], np.cumsum(self.count)])
        for c in range(channels if self.kept else 0):
            values = np.empty(start[-1], self.kept[0][1].dtype if self.kept else np.uint8)
            filled = start[:-1].copy()
            for runs, part in self.kept or ():
                deal(values, filled, runs, part[c])
            counted = np.zeros(COUNTED if np.issubdtype(values.dtype, np.integer) else 0, np.int64)
            found[:, c] = percentiles_of(values, start, shares, counted)
        return found


@dataclass
class Tally:
    """What has been added up of N nuclei; make one with `Tally.of`.

    moment   (N, 6) int64, see `add_moments`
    steps    (N, 3) int64, see `add_border`
    spans    rows of all boxes, `start` (N + 1,) where each begins
    inside, ring   values
    density  (N, 3) float64, sums of optical densities of red, green and blue
    """

    nuclei: Nuclei
    recipe: Recipe
    moment: Ints
    steps: Ints
    spans: npt.NDArray[np.int32]
    start: Ints
    inside: Values
    ring: Values
    density: Floats
    place: npt.NDArray[np.int32] = field(repr=False)

    @classmethod
    def of(cls, nuclei: Nuclei, recipe: Recipe) -> Tally:
        """Nothing added up yet."""
        n, channels, keep = len(nuclei.label), len(recipe.names), bool(recipe.percentiles)
        start = np.concatenate([[0], np.cumsum(nuclei.box[:, 2] - nuclei.box[:, 0], dtype=np.int64)])
        spans = np.empty((start[-1], 2), np.int32)
        spans[:, 0], spans[:, 1] = np.iinfo(np.int32).max, -1
        place = np.full(nuclei.label[-1] - nuclei.label[0] + 1 if n else 0, -1, np.int32)
        if n:
            place[nuclei.label - nuclei.label[0]] = np.arange(n)
        return cls(
            nuclei,
            recipe,
            np.zeros((n, 6), np.int64),
            np.zeros((n, 3), np.int64),
            spans,
            start,
            Values.empty(n, channels, keep),
            Values.empty(n, channels, keep),
            np.zeros((n, 3)),
            place,
        )

    @property
    def missing(self) -> Ints:
        """Labels of nuclei of which no pixel went by: (M,) int64."""
        return self.nuclei.label[self.moment[:, 0] == 0]

    def add(self, band: Band) -> None:
        """Add the rows of a band; bands come from top to bottom, each row once."""
        recipe, halo = self.recipe, self.recipe.halo_px
        first, height = int(self.nuclei.label[0]), len(band.labels) - 2 * halo
        beside = min(halo, 1)  # rows above and below whose border pixels those of the band look at
        seen = label_runs(band.labels[halo - beside : halo + height + beside], -beside, self.place, first)
        runs = seen[(seen[:, 0] >= 0) & (seen[:, 0] < height)]
        corner = self.nuclei.box[:, :2].astype(np.int64)
        add_moments(self.moment, self.spans, self.start, runs, corner, (band.top, band.left))
        if recipe.shape:
            add_border(self.steps, band.labels, halo, seen)
        if recipe.values:
            self.inside.add(runs, band.image)
        if recipe.ring:
            self.ring.add(ring_runs(band.labels, halo, recipe.ring_px, self.place, first), band.image)
        if band.colour is not None:
            self._add_colour(runs, band.colour)

    def hulls(self) -> Ints:
        """Pixels of each nucleus's convex hull: (N,)."""
        nobody = np.zeros(0, np.int64)  # asked for the names of columns, where nothing need be compiled
        return hull_areas(self.spans, self.start) if len(self.nuclei.label) else nobody

    def _add_colour(self, runs: Runs, colour: npt.NDArray[Any]) -> None:
        white = self.recipe.white
        if np.issubdtype(colour.dtype, np.integer):
            add_densities(self.density, runs, colour, density_table(colour.dtype, white))
            return
        densities = optical_density(collect(runs, colour), white or 1.0, (white or 1.0) / 255)
        rows = np.repeat(runs[:, 3], runs[:, 2] - runs[:, 1])
        for c in range(3):
            self.density[:, c] += np.bincount(rows, densities[c], len(self.density))


def tally(bands: Iterable[Band], nuclei: Nuclei, recipe: Recipe) -> Tally:
    """Measure nuclei while bands go by; the bands must hold each nucleus whole, with the recipe's reach around it.

    Nothing depends on how the rows are cut into bands, nor on what else the bands hold.
    """
    found = Tally.of(nuclei, recipe)
    if len(nuclei.label):
        for band in bands:
            found.add(band)
    return found

"""A results folder as an object: everything that a run left, lazily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slidebatch.errors import ResultsError
from slidebatch.results import arrays, outlined, picture, straight, tables
from slidebatch.results import wells as by_well
from slidebatch.results.manifest import MISSING, Entry, meant, read_manifest
from slidebatch.results.outlined import Outline
from slidebatch.results.picture import Region
from slidebatch.results.straight import Seams
from slidebatch.results.wells import Statistic

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds
    import xarray as xr
    from matplotlib.axes import Axes

_NESTED = ("facts", "channels", "files")
"""Parts of the manifest's entries that are no single value; the facts are columns of the summary."""


@dataclass(frozen=True)
class Results:
    """A results folder. Make one with `open_results`.

    path      the folder
    manifest  what its manifest.json said when it was opened (see docs/results.md)

    While a run goes on, what can be read are the slides that an earlier start has finished; open the folder again to
    see more.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def state(self) -> str:
        """ "done", or "running" while slides are still to come (also after an interruption)."""
        return str(self.manifest["state"])

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of all slides (or fields), in the run's order."""
        return tuple(self._entries)

    @cached_property
    def slides(self) -> pd.DataFrame:
        """One row per slide or field: slide, state, plate, row, column, well, field, nuclei...

        Failed ones too (state "failed", nuclei missing). Counts, seconds and facts come with the summary,
        once the run is done. No slides: no rows.
        """
        import pandas as pd

        entries = self.manifest["slides"]
        listed = pd.DataFrame(entries, columns=_columns(entries)).astype({"nuclei": "Int64"})
        if self.state != "done":
            return listed
        extra = [name for name in self.summary.columns if name not in listed.columns]
        return listed.merge(self.summary[["slide", *extra]], on="slide", how="left")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per finished slide, as summary.parquet has it. ResultsError if it is not there."""
        import pandas as pd

        path = self.path / "summary.parquet"
        if not path.is_file():
            raise ResultsError(f"{path} is missing; expected one row per slide: {MISSING}.")
        return pd.read_parquet(path)

    def entry(self, slide: str) -> Entry:
        """What the manifest says of a slide. ResultsError for an unknown one, with the nearest name."""
        if slide not in self._entries:
            raise ResultsError(
                f"{self.path} holds no slide {slide!r}; {meant(str(slide), self.names)}? See .slides for all of them."
            )
        return dict(self._entries[slide])

    def labels(self, slide: str, level: int = 0) -> xr.DataArray:
        """The label image of a slide: lazy uint32 (y, x), 0 = background, else the nucleus's `label`.

        :param level: of the pyramid, 0 the finest.
        :returns: a DataArray over dask chunks. Coordinates y and x are pixel centres in the
            table's frame (the slide's first pixel has its centre at 0): table columns y and x times mpp. In
            micrometres where the pixel size is known, else in level-0 pixels (attribute `unit`).
        :raises ResultsError: unknown or unfinished slide, no such level.
        """
        entry = self._done(slide)
        return arrays.stored(self.path / "labels.zarr" / entry["labels"], entry, "labels", level)

    def image(self, slide: str, level: int = 0) -> xr.DataArray:
        """The image of a slide on the grid of its labels: lazy (c, y, x), coordinates as in `labels`, channels by name.

        The copy that the run made, or where it made none the slide itself, which must still lie where it did.

        :raises ResultsError: unknown or unfinished slide, no such level, or a source that cannot be read.
        """
        entry = self._done(slide)
        if entry.get("image"):
            return arrays.stored(self.path / "labels.zarr" / entry["image"], entry, "image", level)
        return arrays.from_source(entry, level)

    def instances(
        self, slide: str | None = None, columns: Sequence[str] | None = None, where: tables.Where | None = None
    ) -> pd.DataFrame:
        """The nuclei of one slide, or of all that are done, in the run's order.

        :param columns: which to read, in this order; None: slide, label (the pixel value), what the run measured,
            and plate, row, column, well and field for plates.
        :param where: which rows: ("area", ">", 50), a list of such conditions that all hold, or a pyarrow expression.
            Files and parts of files that cannot hold such rows are not read.
        :returns: one row per nucleus. No nuclei: no rows, the same columns.
        :raises ResultsError: unknown or unfinished slide, its table is missing, no such column.
        """
        return tables.read(self.dataset(slide), columns, where)

    def dataset(self, slide: str | None = None) -> ds.Dataset:
        """The table behind `instances` as a pyarrow dataset, for more than memory holds."""
        return tables.dataset(self.path, self._finished if slide is None else [self._done(slide)])

    def wells(self, columns: Sequence[str] | None = None, statistic: Statistic = "median") -> pd.DataFrame:
        """One row per well: plate, row, column, well, fields, nuclei, the facts, and a statistic of measurements.

        :param columns: measurements to read; None: all.
        :param statistic: over all nuclei of the well, of all its finished fields: median, mean, std, min or max.
        :returns: wells in the run's order; NaN for a well without nuclei.
        :raises ResultsError: a result that is no plate, no such column.
        """
        if not any(entry.get("well") for entry in self.manifest["slides"]):
            raise ResultsError(f"{self.path} holds slides, not wells; see .slides and .instances().")

        def nuclei_of(fields: Sequence[Entry]) -> pd.DataFrame:
            return tables.read(tables.dataset(self.path, fields), columns, None)

        return by_well.table_of(self._finished, nuclei_of, statistic)

    def outlines(self, slide: str, where: tables.Where | None = None) -> Iterator[Outline]:
        """The outlines of a slide's nuclei, one at a time: label, and rings along the edges of its pixels.

        Points are (y, x) in level-0 pixels, in the table's frame. In raster order of regions, by label in each; memory
        holds one region. `where` as for `instances`.
        """
        table = self.instances(slide, ["label", "y0", "x0", "y1", "x1"], where)
        return outlined.outlines(self.labels(slide), table, self.entry(slide).get("scale") or 1.0)

    def crop(self, slide: str, label: int, margin: float = 16) -> xr.Dataset:
        """A nucleus and what lies around it: `labels` (y, x) and `image` (c, y, x), lazy, with coordinates.

        :param margin: around its box, in level-0 pixels; cut off at the slide's edge.
        :raises ResultsError: no such nucleus.
        """
        found = self.instances(slide, ["y0", "x0", "y1", "x1"], ("label", "==", int(label)))
        if not len(found):
            raise ResultsError(f"{slide} has no nucleus {label}; see the column label of .instances({slide!r}).")
        y0, x0, y1, x1 = (float(v) for v in found.iloc[0])
        region = (y0 - margin, x0 - margin, y1 + margin, x1 + margin)
        return picture.cut(self, slide, region)

    def plot(
        self,
        slide: str,
        region: Region | None = None,
        channel: str | int | None = None,
        outlines: bool = True,
        most_px: int = 2000,
        axes: Axes | None = None,
    ) -> Axes:
        """A picture of a slide with the outlines of its nuclei, in micrometres where they are known; its axes.

        :param region: (y0, x0, y1, x1) in level-0 pixels; None: the whole slide.
        :param channel: the one that is shown, in grey; None: colour where there are R, G and B, else the first.
        :param most_px: pixels of the longer side at most: where the region has more, a coarser level is shown.
        :param axes: of matplotlib, to draw on; None: a new figure of pyplot.
        :raises ResultsError: unknown or unfinished slide, a region outside it, no such channel.
        """
        return picture.plot(self, slide, region, picture.View(channel, most_px, outlines, axes))

    def seams(self, slide: str) -> Seams:
        """What became of nuclei that tiles cut, and whether straight borders between nuclei lie along seams.

        Reads two rows or columns of labels at each seam, and at as many places between seams for comparison.

        :raises ResultsError: unknown or unfinished slide, or a run that does not say where its seams are.
        """
        if "seams" not in self.manifest:
            raise ResultsError(f"{self.path} does not say where its seams are; run it again with this slidebatch.")
        rows = self.summary[self.summary["slide"] == slide].to_dict("records") if self.state == "done" else []
        counts = {str(name): value for name, value in rows[0].items()} if rows else {}
        return straight.seams(self.labels(slide), self.manifest["seams"], counts)

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        return {entry["slide"]: entry for entry in self.manifest["slides"]}

    @property
    def _finished(self) -> list[Entry]:
        return [entry for entry in self.manifest["slides"] if entry["state"] == "done"]

    def _done(self, slide: str) -> Entry:
        """The entry of a finished slide."""
        entry = self.entry(slide)
        if entry["state"] != "done":
            raise ResultsError(f"{self.path}: {slide} is not finished (state: {entry['state']}); {MISSING}.")
        return entry


def _columns(entries: list[Entry]) -> list[str]:
    first = ("slide", "state", *tables.PLACE_COLUMNS, "nuclei")
    names = dict.fromkeys([*first, *(name for entry in entries for name in entry)])
    return [name for name in names if name not in _NESTED]


def open_results(path: str | Path) -> Results:
    """Open the results folder of a run for reading.

    :param path: the folder (the config's `output.path`), finished or not.
    :raises ResultsError: not a results folder, broken, or of a format that this version does not read.
    """
    folder = Path(path)
    return Results(folder, read_manifest(folder))

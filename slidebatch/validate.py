"""Judges a results folder: valid OME-Zarr, and raster, table and counts that agree one to one.

Owns the checks, none of the writing. Label images are read in regions of at most `REGION_PX` pixels a side
(grown to whole chunks), so memory grows with the nuclei of one slide (48 bytes each), not with its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import ResultsError
from slidebatch.results import Results, datasets, open_group, open_results

if TYPE_CHECKING:
    import pandas as pd

REGION_PX = 2048


@dataclass
class Raster:
    """What a label image says of its labels 1..n: area (n,) int64 in pixels; box (n, 4) int64 half-open
    (y0, x0, y1, x1) in pixels of the image, zeros where a label has no pixel. Row i is label i + 1.
    """

    area: npt.NDArray[np.int64]
    box: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, n: int) -> Raster:
        return cls(np.zeros(n, np.int64), np.tile(np.array([_FAR, _FAR, 0, 0], np.int64), (n, 1)))

    def grown(self, n: int) -> Raster:
        """The same with room for labels up to n."""
        more = Raster.empty(max(0, n - len(self.area)))
        return Raster(np.concatenate([self.area, more.area]), np.concatenate([self.box, more.box]))

    def add(self, labels: npt.NDArray[Any], y0: int, x0: int) -> Raster:
        """With the pixels of one region (Y, X) whose corner is at (y0, x0) counted too."""
        y, x = np.nonzero(labels)
        ids = labels[y, x].astype(np.int64)
        if not len(ids):
            return self
        order = np.argsort(ids, kind="stable")
        ids, y, x = ids[order], y[order] + y0, x[order] + x0
        start = np.flatnonzero(np.diff(ids, prepend=0))
        out = self.grown(int(ids[-1]))
        row = ids[start] - 1
        out.area[row] += np.diff(start, append=len(ids))
        for column, values in ((0, y), (1, x)):
            low, high = np.minimum.reduceat(values, start), np.maximum.reduceat(values, start) + 1
            out.box[row, column] = np.minimum(out.box[row, column], low)
            out.box[row, column + 2] = np.maximum(out.box[row, column + 2], high)
        return out


_FAR = np.iinfo(np.int64).max


def regions(shape: tuple[int, int], step: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """The regions of an image (Y, X) in raster order, each a whole number of chunks of `step` (y, x)."""
    side = tuple(max(1, REGION_PX // s) * s for s in step)
    for y0 in range(0, shape[0], side[0]):
        for x0 in range(0, shape[1], side[1]):
            yield slice(y0, min(y0 + side[0], shape[0])), slice(x0, min(x0 + side[1], shape[1]))


def survey(array: Any) -> Raster:
    """The raster of a 2-D label array (Y, X), read region by region. No labels: no rows."""
    raster = Raster.empty(0)
    for window in regions(array.shape, array.chunks):
        raster = raster.add(np.asarray(array[window]), window[0].start, window[1].start)
    return raster


def validate(path: str | Path) -> list[str]:
    """Check a results folder.

    :param path: the folder of a run.
    :returns: faults, one sentence each, in the order of the slides; empty if the folder is valid. A run that
        is not done is a fault; of quarantined slides only the manifest is checked.
    :raises ResultsError: the folder is no results folder at all.
    """
    results = open_results(path)
    faults = list(_ome_faults(results))
    if results.state != "done":
        faults.append(f"{results.path}: the run is not done (state: {results.state}); resume it.")
    for entry in results.manifest["slides"]:
        if entry["state"] == "done":
            faults += _guarded(results, entry)
    return [*faults, *_count_faults(results)]


def _guarded(results: Results, entry: dict[str, Any]) -> list[str]:
    try:
        return list(_slide_faults(results, entry))
    except ResultsError as error:
        return [str(error)]


def _slide_faults(results: Results, entry: dict[str, Any]) -> Iterator[str]:
    slide = entry["slide"]
    dataset = results.dataset(slide)
    judged = [name for name in ("label", "area", "y0", "x0", "y1", "x1") if name in dataset.schema.names]
    table = results.instances(slide, judged)
    group = open_group(results.path / "labels.zarr" / entry["labels"])
    array: Any = group[datasets(group)[0]["path"]]
    if entry.get("shape") is not None and tuple(array.shape) != tuple(entry["shape"]):
        yield f"{slide}: the label image is {array.shape}, the manifest says {tuple(entry['shape'])}."
    raster = survey(array)
    yield from (f"{slide}: {text}" for text in _label_faults(raster, table["label"].to_numpy()))
    if len(table) == len(raster.area):
        # A table row is compared only where both sides have all labels: else every row would differ.
        table = table.sort_values("label", kind="stable")
        yield from (f"{slide}: {text}" for text in _row_faults(raster, table, entry.get("scale") or 1.0))
    if entry.get("nuclei") is not None and entry["nuclei"] != len(table):
        yield f"{slide}: the manifest counts {entry['nuclei']} nuclei, the table has {len(table)}."


def _label_faults(raster: Raster, labels: npt.NDArray[Any]) -> Iterator[str]:
    """Are the labels of the raster, and the rows of the table, each 1..n?"""
    painted = np.flatnonzero(raster.area) + 1
    rows, counts = np.unique(labels, return_counts=True)
    yield from _some("labels in the raster have no row in the table", np.setdiff1d(painted, rows))
    yield from _some("rows of the table have no pixel in the raster", np.setdiff1d(rows, painted))
    yield from _some("labels have more than one row in the table", rows[counts > 1])
    gaps = np.setdiff1d(np.arange(1, len(painted) + 1), painted)
    yield from _some("labels are missing from 1..n", gaps)


def _row_faults(raster: Raster, table: pd.DataFrame, scale: float) -> Iterator[str]:
    """Do area and box of every row equal those of its pixels? Rows are sorted by label.

    Areas count pixels of the label image; boxes are in level-0 pixels, `scale` label pixels each.
    """
    labels = table["label"].to_numpy()
    if "area" in table:
        wrong = table["area"].to_numpy() != raster.area
        yield from _some("labels have another area than their row says", labels[wrong])
    low, high = np.floor(raster.box[:, :2] / scale), np.ceil(raster.box[:, 2:] / scale)
    for name, expected in zip(("y0", "x0", "y1", "x1"), (*low.T, *high.T), strict=True):
        if name in table:
            wrong = table[name].to_numpy() != expected
            yield from _some(f"labels have another {name} than their row says", labels[wrong])


def _some(what: str, labels: npt.NDArray[Any]) -> Iterator[str]:
    """One sentence with the count and the first few labels; nothing if there are none."""
    if len(labels):
        shown = ", ".join(str(int(v)) for v in labels[:5]) + (", ..." if len(labels) > 5 else "")
        yield f"{len(labels)} {what}: {shown}."


def _count_faults(results: Results) -> Iterator[str]:
    """Does the summary count what the tables hold?"""
    if results.state != "done":
        return
    try:
        summary = results.summary
    except ResultsError as error:
        yield str(error)
        return
    said = dict(zip(summary["slide"], summary["nuclei"], strict=True))
    for entry in results.manifest["slides"]:
        slide = entry["slide"]
        if entry["state"] != "done":
            continue
        if slide not in said:
            yield f"{slide}: the summary has no row for it."
        elif entry.get("nuclei") is not None and said[slide] != entry["nuclei"]:
            yield f"{slide}: the summary counts {said[slide]} nuclei, the manifest {entry['nuclei']}."


def _ome_faults(results: Results) -> Iterator[str]:
    """What ome-zarr-models objects to, per group."""
    from ome_zarr_models.v05 import HCS, Image, ImageLabel

    entries = [entry for entry in results.manifest["slides"] if entry["state"] == "done"]
    plates = {_plate_group(entry) for entry in entries if entry.get("row") is not None and entry.get("image")}
    checks: list[tuple[str, Any]] = [(plate, HCS) for plate in sorted(plates)]
    for entry in entries:
        checks += [(entry["image"], Image)] if entry.get("image") else []
        checks.append((entry["labels"], ImageLabel))
    for name, model in checks:
        try:
            model.from_zarr(open_group(results.path / "labels.zarr" / name))
        except ResultsError as error:
            yield str(error)
        except Exception as error:  # whatever the judge raises is a fault of the group
            reason = " ".join(str(error).split())[:300]
            yield f"labels.zarr/{name or '.'}: not valid OME-Zarr 0.5 ({model.__name__}): {reason}"


def _plate_group(entry: dict[str, Any]) -> str:
    """Group of the plate inside labels.zarr: the image's path less row, column and field."""
    return "/".join(entry["image"].split("/")[:-3])

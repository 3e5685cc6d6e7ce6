"""Writes a results folder by hand, as docs/results.md describes it, for tests of its readers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from slidebatch import ngff

MPP = 0.5


@dataclass(frozen=True)
class Made:
    """One slide or field of the folder: its id, labels (Y, X), and its well and field (None: no plate)."""

    slide: str
    labels: npt.NDArray[np.uint32]
    well: tuple[str, str] | None = None
    field: int = 0

    @property
    def group(self) -> str:
        """Group of the image inside labels.zarr."""
        return self.slide if self.well is None else f"{self.well[0]}/{self.well[1]}/{self.field}"


def squares(shape: tuple[int, int], side_px: int = 6, gap_px: int = 3) -> npt.NDArray[np.uint32]:
    """Squares on a grid, numbered 1..n in raster order: uint32 (Y, X)."""
    labels = np.zeros(shape, np.uint32)
    step, n = side_px + gap_px, 0
    for y in range(0, shape[0] - side_px, step):
        for x in range(0, shape[1] - side_px, step):
            n += 1
            labels[y : y + side_px, x : x + side_px] = n
    return labels


def table_of(labels: npt.NDArray[np.uint32], scale: float = 1.0) -> pd.DataFrame:
    """The table of nuclei that belongs to labels, the slow and obvious way."""
    rows = []
    for label in range(1, int(labels.max(initial=0)) + 1):
        y, x = np.nonzero(labels == label)
        box = {"y0": y.min() / scale, "x0": x.min() / scale}
        far = {"y1": (y.max() + 1) / scale, "x1": (x.max() + 1) / scale}
        low = {name: int(np.floor(v)) for name, v in box.items()}
        high = {name: int(np.ceil(v)) for name, v in far.items()}
        place = {"y": (y.mean() + 0.5) / scale - 0.5, "x": (x.mean() + 0.5) / scale - 0.5}
        rows.append({"label": label, **place, **low, **high, "area": len(y)})
    table = pd.DataFrame(rows, columns=["label", "y", "x", "y0", "x0", "y1", "x1", "area"])
    kinds = dict.fromkeys(("y", "x"), "float64") | dict.fromkeys(("y0", "x0", "y1", "x1"), "int32")
    return table.astype({"label": "uint32", "area": "uint32", **kinds})


def write_results(folder: Path, slides: list[Made], image: bool = True, scale: float = 1.0) -> Path:
    """A finished results folder with these slides (or fields of one plate), two levels each."""
    store = folder / "labels.zarr"
    plate = any(made.well for made in slides)
    if plate:
        _group(store, ngff.plate("made", [m.well for m in slides if m.well], fields=1))
    for made in slides:
        _write_slide(store, made, image or plate)
        table = folder / "instances" / f"{made.slide}.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        table_of(made.labels, scale).to_parquet(table)
    entries = [_entry(made, image or plate, scale) for made in slides]
    pd.DataFrame(entries)[["slide", "nuclei"]].assign(seconds=1.0).to_parquet(folder / "summary.parquet")
    write_manifest(folder, {"format_version": 1, "name": "made", "state": "done", "slides": entries})
    return folder


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


def read_manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text()))


def _entry(made: Made, image: bool, scale: float) -> dict[str, Any]:
    row, column = made.well or (None, None)
    return {
        "slide": made.slide,
        "state": "done",
        "labels": f"{made.group}/labels/nuclei" if image else made.group,
        "image": made.group if image else None,
        "plate": "made" if made.well else None,
        "row": row,
        "column": column,
        "well": f"{row}{column}" if made.well else None,
        "field": made.field if made.well else None,
        "source": f"{made.slide}.tif",
        "mpp": MPP,
        "scale": scale,
        "shape": list(made.labels.shape),
        "nuclei": int(made.labels.max(initial=0)),
    }


def _group(path: Path, attributes: dict[str, Any]) -> None:
    zarr.open_group(str(path), mode="a", zarr_format=3).attrs.update(attributes)


def _write_slide(store: Path, made: Made, image: bool) -> None:
    labels = store / made.group
    if made.well:
        _group(store / made.well[0], {})
        _group(store / made.well[0] / made.well[1], ngff.well([str(made.field)]))
    if image:
        pixels = (made.labels[None] > 0).astype(np.uint8) * 200
        _write_levels(labels, pixels, ngff.image(made.slide, 2, MPP, ["DNA"], rgb=False))
        _group(labels / "labels", ngff.labels_group())
        labels = labels / "labels" / "nuclei"
    _write_levels(labels, made.labels, ngff.label_image(2, MPP, "../../" if image else None))


def _write_levels(path: Path, pixels: npt.NDArray[Any], attributes: dict[str, Any]) -> None:
    _group(path, attributes)
    for level in (0, 1):
        part = pixels[..., :: 2**level, :: 2**level]
        chunks = (*(1,) * (part.ndim - 2), 32, 32)
        names = ["c", "y", "x"][-part.ndim :]
        array = zarr.create_array(str(path / str(level)), shape=part.shape, dtype=part.dtype, chunks=chunks,
                                  dimension_names=names, zarr_format=3)  # fmt: skip
        array[...] = part

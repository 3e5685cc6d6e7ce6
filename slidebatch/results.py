"""Reads a results folder: slides, label images, images and tables, lazily.

Owns the reading side of the folder that a run writes (see docs/results.md). Nothing here writes. A folder
that is still being written can be read for the slides that are done.

    results = slidebatch.open_results("results/plate")
    results.slides                  # one row per slide or field
    results.labels("A01")           # lazy (y, x) array of labels, micrometre coordinates
    results.instances("A01")        # one row per nucleus; `label` is the pixel value
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slidebatch.errors import ResultsError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import xarray as xr
    import zarr

FORMAT_VERSION = 1
"""The format of results folders that this version reads."""

PLACE_COLUMNS = ("plate", "row", "column", "well", "field")
_NESTED = ("facts", "channels")
"""Parts of the manifest's entries that are no single value; the facts are columns of the summary."""
_MISSING = "run slidebatch on the same folder again to complete it"


@dataclass(frozen=True)
class Results:
    """A results folder. Make one with `open_results`.

    path      the folder
    manifest  what its manifest.json says (see docs/results.md)
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
        return tuple(entry["slide"] for entry in self.manifest["slides"])

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
            raise ResultsError(f"{path} is missing; expected one row per slide: {_MISSING}.")
        return pd.read_parquet(path)

    def entry(self, slide: str) -> dict[str, Any]:
        """What the manifest says of a slide. ResultsError for an unknown one, with the nearest name."""
        for entry in self.manifest["slides"]:
            if entry["slide"] == slide:
                return dict(entry)
        near = difflib.get_close_matches(slide, self.names, 1)
        hint = f"did you mean {near[0]}" if near else f"expected one of {_few(self.names)}"
        raise ResultsError(f"{self.path} holds no slide {slide!r}; {hint}? See .slides for all of them.")

    def labels(self, slide: str, level: int = 0) -> xr.DataArray:
        """The label image of a slide: lazy uint32 (y, x), 0 = background, else the nucleus's `label`.

        :param level: of the pyramid, 0 the finest.
        :returns: a DataArray over dask chunks. Coordinates y and x are pixel centres in the
            table's frame (the slide's first pixel has its centre at 0): table columns y and x times mpp. In
            micrometres where the pixel size is known, else in level-0 pixels (attribute `unit`).
        :raises ResultsError: unknown or unfinished slide, no such level.
        """
        return self._array(slide, "labels", level, ("y", "x"))

    def image(self, slide: str, level: int = 0) -> xr.DataArray:
        """The copied image of a slide: lazy (c, y, x), coordinates as in `labels`.

        :raises ResultsError: also where the run copied no image (`output.image: none`); use the slide itself.
        """
        entry = self.entry(slide)
        if not entry.get("image"):
            source = entry.get("source")
            raise ResultsError(
                f"{self.path} holds no copy of the image of {slide}; read the slide itself ({source}), "
                "or run with --set output.image=copy."
            )
        return self._array(slide, "image", level, ("c", "y", "x"))

    def instances(self, slide: str | None = None) -> pd.DataFrame:
        """The nuclei of one slide, or of all that are done, in the run's order.

        :returns: one row per nucleus; columns slide, label (the pixel value), then what the run measured;
            plate, row, column, well and field too for plates. No nuclei: no rows, the same columns.
        :raises ResultsError: unknown or unfinished slide, or its table is missing.
        """
        import pandas as pd

        if slide is not None:
            self._done(slide, "labels")
            return self._table(slide)
        tables = [self._table(e["slide"]) for e in self.manifest["slides"] if e["state"] == "done"]
        full = [table for table in tables if len(table)] or tables[:1]
        return pd.concat(full, ignore_index=True) if full else pd.DataFrame({"slide": [], "label": []})

    def _table(self, slide: str) -> pd.DataFrame:
        import pandas as pd

        path = self.path / "instances" / f"{slide}.parquet"
        if not path.is_file():
            raise ResultsError(f"{path} is missing; expected the table of the nuclei of {slide}: {_MISSING}.")
        table = pd.read_parquet(path)
        entry = self.entry(slide)
        place = {name: entry[name] for name in PLACE_COLUMNS if entry.get(name) is not None}
        front = {"slide": slide, **place}
        own = table.drop(columns=[name for name in front if name in table.columns])
        own = own[["label", *[name for name in own.columns if name != "label"]]]
        for at, (name, value) in enumerate(front.items()):
            own.insert(at if name == "slide" else len(own.columns), name, value)
        return own

    def _done(self, slide: str, what: str) -> Path:
        """Folder of the zarr group of a finished slide's labels or image."""
        entry = self.entry(slide)
        if entry["state"] != "done":
            raise ResultsError(f"{self.path}: {slide} is not finished (state: {entry['state']}); {_MISSING}.")
        return self.path / "labels.zarr" / entry[what]

    def _array(self, slide: str, what: str, level: int, dims: tuple[str, ...]) -> xr.DataArray:
        import dask.array as da
        import xarray as xr

        group = open_group(self._done(slide, what))
        levels = datasets(group)
        if not 0 <= level < len(levels):
            raise ResultsError(f"{what} of {slide} have no level {level}; expected 0 to {len(levels) - 1}.")
        array: Any = group[levels[level]["path"]]
        # Whole shards: a smaller piece would read and decode the shard's index again and again.
        pixels = da.from_zarr(array, chunks=array.shards or array.chunks)
        entry = self.entry(slide)
        step_px = _scale(levels[level]) / _scale(levels[0]) / (entry.get("scale") or 1.0)
        mpp = entry.get("mpp")
        sizes = dict(zip(dims, array.shape, strict=True))
        coords = {axis: centres(sizes[axis], step_px) * (mpp or 1.0) for axis in ("y", "x")}
        attributes = {"unit": "pixel" if mpp is None else "micrometer", "step": step_px * (mpp or 1.0)}
        return xr.DataArray(pixels, dims=dims, coords=coords, name=f"{slide} {what}", attrs=attributes)


def centres(size: int, step_px: float) -> npt.NDArray[np.float64]:
    """Centres of `size` pixels, each `step_px` level-0 pixels wide, in level-0 pixels: float64 (size,).

    >>> centres(2, 2.0)
    array([0.5, 2.5])
    """
    import numpy as np

    return (np.arange(size, dtype=np.float64) + 0.5) * step_px - 0.5


def datasets(group: zarr.Group) -> list[dict[str, Any]]:
    """The levels that an image group's metadata names, finest first. ResultsError if it names none."""
    attributes: Any = group.attrs.asdict()
    try:
        return list(attributes["ome"]["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError) as error:
        where = group.store_path
        raise ResultsError(f"{where}: expected OME-Zarr multiscales, found none; {_MISSING}.") from error


def _scale(dataset: dict[str, Any]) -> float:
    """Width of a pixel of a level along x, in the unit of its metadata."""
    return float(next(t["scale"][-1] for t in dataset["coordinateTransformations"] if t["type"] == "scale"))


def _columns(entries: list[dict[str, Any]]) -> list[str]:
    first = ("slide", "state", *PLACE_COLUMNS, "nuclei")
    names = dict.fromkeys([*first, *(name for entry in entries for name in entry)])
    return [name for name in names if name not in _NESTED]


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 5 else shown or "none"


def open_group(path: Path) -> zarr.Group:
    """An existing zarr group of the results, for reading. ResultsError if it is not there."""
    import zarr

    try:
        return zarr.open_group(str(path), mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise ResultsError(f"{path}: expected a zarr group, found none; {_MISSING}.") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a results folder. ResultsError: foreign, broken, or of another format."""
    file = path / "manifest.json"
    if not path.is_dir():
        raise ResultsError(f"{path} is no folder; expected the results folder of a run (its output.path).")
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ResultsError(
            f"{path} holds no manifest.json, so it is not a results folder (or its run was never planned); "
            "name the folder that the config calls output.path."
        ) from None
    except ValueError as error:
        raise ResultsError(f"{file} is not JSON ({error}); {_MISSING}.") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ResultsError(
            f"{file} has format version {version!r}; this slidebatch reads {FORMAT_VERSION}: "
            "open it with the slidebatch that wrote it."
        )
    if not isinstance(manifest.get("slides"), list) or "state" not in manifest:
        raise ResultsError(f"{file} lists no slides or no state; {_MISSING}.")
    return dict(manifest)


def open_results(path: str | Path) -> Results:
    """Open the results folder of a run for reading.

    :param path: the folder (the config's `output.path`), finished or not.
    :raises ResultsError: not a results folder, broken, or of a format that this version does not read.
    """
    folder = Path(path)
    return Results(folder, read_manifest(folder))

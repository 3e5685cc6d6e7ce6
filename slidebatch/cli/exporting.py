"""The command that writes results as other programs' files: export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from slidebatch.cli.app import Folder, app
from slidebatch.cli.exits import exits
from slidebatch.cli.options import spread
from slidebatch.cli.show import say

SOME_LEFT_OUT = 3
"""Exit status where slides that failed are left out: finished, but some inputs are at fault."""


@dataclass(frozen=True)
class ExportOptions:
    """What `export` must and may be told."""

    to: Annotated[Literal["geojson", "csv", "coco", "dsb", "ome-tiff", "ngff04"], typer.Option(help="The format.")]
    output: Annotated[
        Path, typer.Option(help="File to write; for geojson and ome-tiff a folder, or the file of one slide.")
    ]
    slide: Annotated[list[str] | None, typer.Option(help="A slide's id; repeatable.  [default: all]")] = None
    columns: Annotated[
        str | None, typer.Option(help="Columns of the table, by commas, for csv and geojson.  [default: all]")
    ] = None
    object_type: Annotated[
        Literal["detection", "annotation"], typer.Option(help="What QuPath takes nuclei of a geojson for.")
    ] = "detection"
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False


@app.command()
@exits
@spread
def export(results: Folder, options: ExportOptions) -> int:
    """Write results as other programs' files: QuPath, tables, COCO, Data Science Bowl, OME-TIFF, older OME-Zarr.

    \b
    Example:
        slidebatch export results/slide --to geojson --output exports/qupath
        slidebatch export results/plate --to csv --output nuclei.csv --columns slide,well,label,area
        slidebatch export results/slide --to ome-tiff --output labels.ome.tif --slide tissue
    """
    from slidebatch.allocator import one_heap

    one_heap()  # before libraries start threads
    from slidebatch.export import Wish
    from slidebatch.export import export as write

    columns = None if options.columns is None else tuple(options.columns.replace(",", " ").split())
    slides = tuple(options.slide or ())
    wish = Wish(options.to, options.output, slides, columns, options.object_type, options.force)
    done = write(results, wish)
    say(f"{done.output}: {len(done.slides)} slides")
    if done.left_out:
        say(f"left out, for they failed: {', '.join(done.left_out)}")
    return SOME_LEFT_OUT if done.left_out else 0

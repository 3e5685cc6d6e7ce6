"""The command that writes the page to look at: report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from slidebatch.cli.app import Folder, app
from slidebatch.cli.exits import exits
from slidebatch.cli.options import spread
from slidebatch.cli.show import say


@dataclass(frozen=True)
class ReportOptions:
    """What `report` may be told; what is not given is as the run's config says."""

    column: Annotated[str | None, typer.Option(help="The assay's readout, such as nucleus_to_ring_GFP.")] = None
    thumbnails: Annotated[int | None, typer.Option(min=0, max=48, help="Pieces of images, at most.")] = None
    thumbnail_px: Annotated[int | None, typer.Option(min=64, max=512, help="Their side.")] = None
    seam_slides: Annotated[int | None, typer.Option(min=0, help="Slides whose seams are looked at, at most.")] = None
    seam_ratio: Annotated[float | None, typer.Option(min=0.01, help="Beyond this ratio seams have failed.")] = None


@app.command()
@exits
@spread
def report(results: Folder, options: ReportOptions) -> int:
    """Write report/index.html: failures, pictures, plates, assay, distributions, seams, throughput, config.

    A run writes it at its end; of one that is going on it shows what can be read so far.

    \b
    Example:
        slidebatch report results/plate
        slidebatch report results/plate --column nucleus_to_ring_GFP --thumbnails 24
    """
    from slidebatch.plate_assay import spec_of as assay_of
    from slidebatch.report import spec_of, write_report
    from slidebatch.results import open_results

    opened = open_results(results)
    said = {k: v for k, v in vars(options).items() if v is not None and k != "column"}
    assay = assay_of(opened)
    if options.column is not None:
        assay = assay.model_copy(update={"column": options.column})
    return say(f"report: {write_report(opened, spec_of(opened).model_copy(update=said), assay)}")

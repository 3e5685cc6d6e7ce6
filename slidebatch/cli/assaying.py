"""The command that judges a plate as an assay: assay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from slidebatch.cli.app import Folder, app
from slidebatch.cli.exits import exits
from slidebatch.cli.options import spread
from slidebatch.cli.show import say_lines


@dataclass(frozen=True)
class AssayOptions:
    """What `assay` may be told; what is not given is as the run's config says."""

    column: Annotated[str | None, typer.Option(help="The readout, such as nucleus_to_ring_GFP.")] = None
    statistic: Annotated[Literal["median", "mean"] | None, typer.Option(help="Of a well's nuclei.")] = None
    control: Annotated[str | None, typer.Option(help="Fact that tells controls.")] = None
    negative: Annotated[str | None, typer.Option(help="Its value for negative controls.")] = None
    positive: Annotated[str | None, typer.Option(help="Its value for positive controls.")] = None
    dose: Annotated[str | None, typer.Option(help="Fact that tells doses.")] = None
    resamples: Annotated[int | None, typer.Option(min=0, help="Bootstrap draws; 0: no intervals.")] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draws.")] = None
    json: Annotated[Path | None, typer.Option("--json", help="Also write everything here, as JSON.")] = None


@app.command()
@exits
@spread
def assay(results: Folder, options: AssayOptions) -> int:
    """Judge a plate as an assay: Z', robust Z' and SSMD of its controls, dose response with EC50.

    \b
    Example:
        slidebatch assay results/plate --column nucleus_to_ring_GFP
        slidebatch assay results/mine --column mean_GFP --control Type --negative DMSO --positive Drug --dose uM
    """
    from slidebatch.plate_assay import describe, judge, spec_of
    from slidebatch.results import open_results
    from slidebatch.store import write_atomically

    opened = open_results(results)
    said = {k: v for k, v in vars(options).items() if v is not None and k != "json"}
    judged = judge(opened, spec_of(opened).model_copy(update=said))
    if options.json is not None:
        write_atomically(options.json, ("[" + ",\n".join(one.to_json() for one in judged) + "]\n").encode())
    say_lines(describe(one) for one in judged)
    return 0

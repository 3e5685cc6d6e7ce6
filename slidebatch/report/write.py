"""Puts a report together and writes it."""

from __future__ import annotations

from pathlib import Path

from slidebatch.assay import AssaySpec
from slidebatch.pages import Page, ReportSpec, Section, render
from slidebatch.plate_assay import spec_of as assay_of
from slidebatch.report.assays import assays
from slidebatch.report.distributions import distributions
from slidebatch.report.head import config, failed_inputs, slides, summary
from slidebatch.report.ledger import throughput
from slidebatch.report.pictures import pictures
from slidebatch.report.plates import plates
from slidebatch.report.seams import seams
from slidebatch.report.told import Told
from slidebatch.results import Results, open_results
from slidebatch.store import write_atomically


def write_report(results: Results | str | Path, spec: ReportSpec | None = None, assay: AssaySpec | None = None) -> Path:
    """Write report/index.html into a results folder, whole or the one before; its path.

    spec, assay  how the page is, and how a plate is judged; None: what the run's config said
    errors       ResultsError: no results folder, or tables of finished slides are missing

    Of a run that is not finished the page shows what can be read so far, and says so.
    """
    opened = results if isinstance(results, Results) else open_results(results)
    told = Told(opened, spec or spec_of(opened), assay or assay_of(opened))
    path = opened.path / "report" / "index.html"
    write_atomically(path, render(page(told)).encode())
    return path


def spec_of(results: Results) -> ReportSpec:
    """What the config of a run says about its report; of a run before there were reports, the defaults."""
    return ReportSpec.model_validate((results.manifest.get("config") or {}).get("report") or {})


def page(told: Told) -> Page:
    """The page as values: sections in order, those that tell of faults first."""
    made = [
        failed_inputs(told),
        summary(told),
        pictures(told),
        *plates(told),
        assays(told),
        distributions(told),
        slides(told),
        seams(told),
        throughput(told),
        config(told),
    ]
    there: list[Section] = sorted((s for s in made if s is not None), key=lambda s: not s.failed)
    manifest = told.results.manifest
    name = str(manifest.get("name", told.results.path.name))
    with_what = (manifest.get("versions") or {}).get("slidebatch")
    model = ((manifest.get("config") or {}).get("model") or {}).get("name")
    parts = [
        f"results in {told.results.path.name}",
        model and f"network {model}",
        with_what and f"slidebatch {with_what}",
    ]
    return Page(name, " · ".join(part for part in parts if part), there)

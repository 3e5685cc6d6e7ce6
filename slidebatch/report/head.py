"""What a reader wants first: what failed, how far the run is, and its few large numbers."""

from __future__ import annotations

import json

from slidebatch.lease import held
from slidebatch.pages import Figures, Folded, Section, Table, Text, number
from slidebatch.report.told import Told

MOST_ROWS = 100
"""Rows of a table at most; the files hold all."""


def failed_inputs(told: Told) -> Section | None:
    """The inputs that failed, if any did."""
    if not told.failures:
        return None
    shown = told.failures[:MOST_ROWS]
    rows = [[str(f.get(name, "")) for name in ("slide", "stage", "why", "attempts")] for f in shown]
    blocks: list[Text | Table] = [Table(("input", "stage", "why", "attempts"), rows)]
    if len(told.failures) > MOST_ROWS:
        blocks.append(Text(f"{len(told.failures) - MOST_ROWS} more are in failures.jsonl."))
    return Section(f"Failed inputs ({len(told.failures)})", blocks, failed=True)


def summary(told: Told) -> Section:
    """How many slides are done, and what was found in them."""
    blocks: list[Text | Figures] = []
    results, slides = told.results, told.results.manifest["slides"]
    if results.state != "done":
        how = "is going on" if held(results.path / "work") else "was interrupted; its command, given again, goes on"
        blocks.append(
            Text(f"The run {how}: {len(told.done)} of {len(slides)} inputs can be read so far.", warning=True)
        )
    nuclei = sum(int(e.get("nuclei") or 0) for e in told.done)
    figures = [
        ("inputs done", f"{len(told.done):,} of {len(slides):,}"),
        ("failed", number(len(told.failures))),
        ("nuclei", number(nuclei)),
    ]
    mm2 = area_mm2(told)
    if mm2:
        figures += [("area (mm²)", number(mm2)), ("nuclei per mm²", number(nuclei / mm2))]
    wells = {(e.get("plate"), e["well"]) for e in told.done if e.get("well")}
    if wells:
        figures.append(("wells", number(len(wells))))
    return Section("Summary", [*blocks, Figures(figures)])


def area_mm2(told: Told) -> float | None:
    """The area of all finished slides; None where a pixel size is not known."""
    if not told.done or any(e.get("mpp") is None for e in told.done):
        return None
    um2 = [e["shape"][0] * e["shape"][1] * (e["mpp"] / (e.get("scale") or 1.0)) ** 2 for e in told.done]
    return float(sum(um2)) / 1e6


def slides(told: Told) -> Section | None:
    """One row per slide, where they are no wells of a plate."""
    rows = [
        [e["slide"], number(e.get("nuclei")), f"{e['shape'][0]:,} x {e['shape'][1]:,}", number(e.get("mpp"))]
        for e in told.done
        if not e.get("well")
    ]
    if not rows:
        return None
    blocks: list[Text | Table] = [Table(("slide", "nuclei", "rows x columns (px)", "µm per px"), rows[:MOST_ROWS])]
    if len(rows) > MOST_ROWS:
        blocks.append(Text(f"{len(rows) - MOST_ROWS} more are in summary.parquet."))
    return Section("Slides", blocks)


def config(told: Told) -> Section:
    """What was run: versions, the network, and the config with all that was left to it filled in."""
    manifest = told.results.manifest
    computed = {**manifest.get("computed", {}), **manifest.get("digests", {})}
    rows = [[name, str(value)] for name, value in {**computed, **manifest.get("versions", {})}.items()]
    text = json.dumps(manifest.get("config") or {}, indent=2, ensure_ascii=False)
    folded = Folded("The config as the run resolved it (JSON, which is YAML too)", text)
    return Section("Config", [folded, Table(("what", "which"), rows)])

"""The throughput of a run, from its summary: what each stage took, what it waited for, how busy the device was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slidebatch.pages import Figures, Gallery, Section, Table, Text, number
from slidebatch.pages.charts import Axis, bars
from slidebatch.report.told import Told

if TYPE_CHECKING:
    import pandas as pd

WITHIN = (("network_s", "network"), ("wait_s", "waiting for patches"), ("store_s", "waiting to store"))


def throughput(told: Told) -> Section | None:
    """Seconds by stage, and speed; None while the run goes on, and where nothing is done."""
    if told.results.state != "done" or not told.done:
        return None
    summary = told.results.summary
    stages = {c.removeprefix("seconds_"): _sum(summary, c) for c in summary.columns if c.startswith("seconds_")}
    seconds = sum(stages.values())
    if not seconds:
        return None
    rows = [[stage, number(s, 3), f"{s / seconds:.1%}", *_waits(summary, stage)] for stage, s in stages.items()]
    rows.append(["all", number(seconds, 3), "", "", "", ""])
    table = Table(("stage", "seconds of workers", "share", *(f"{text} (s)" for _, text in WITHIN)), rows)
    chart = bars(
        {stage: _parts(summary, stage, s) for stage, s in stages.items()},
        Axis("Seconds by stage", "seconds of workers", "stage"),
    )
    text = (
        "Seconds are those that workers spent, added up over all workers and slides; a run with several workers took "
        "less time by the clock, which is told where one start of the run did all of it."
    )
    return Section("Throughput", [Text(text), Figures(_speed(told, summary, seconds)), table, Gallery([chart])])


def _sum(summary: pd.DataFrame, column: str) -> float:
    return float(summary[column].sum()) if column in summary else 0.0


def _speed(told: Told, summary: pd.DataFrame, seconds: float) -> list[tuple[str, str]]:
    """mm2/s and nuclei/s by the clock and of one worker; the share of the stage infer in which the device computed."""
    figures = []
    mm2 = _sum(summary, "mm2") if summary["mm2"].notna().all() else 0.0
    clock = told.results.manifest.get("clock")
    if clock:
        if mm2:
            figures.append(("mm²/s by the clock", number(mm2 / clock["seconds"], 3)))
        figures.append(("nuclei/s by the clock", number(_sum(summary, "nuclei") / clock["seconds"], 3)))
        figures.append(("seconds by the clock, workers", f"{number(clock['seconds'], 3)}, {clock['workers']:.0f}"))
    if mm2:
        figures.append(("mm²/s per worker", number(mm2 / seconds, 3)))
    figures.append(("nuclei/s per worker", number(_sum(summary, "nuclei") / seconds, 3)))
    infer, network = _sum(summary, "seconds_infer"), _sum(summary, "network_s")
    if infer and "network_s" in summary:
        device = str((told.results.manifest.get("computed") or {}).get("device", "cpu"))
        what = "network's share of infer (CPU)" if device == "cpu" else "GPU busy during infer"
        figures.append((what, f"{network / infer:.0%}"))
    fed, kept = _sum(summary, "fed_px"), _sum(summary, "kept_px")
    if kept:
        figures.append(("pixels fed per pixel kept", number(fed / kept, 3)))
    return figures


def _waits(summary: pd.DataFrame, stage: str) -> list[str]:
    there = [number(_sum(summary, c), 3) if stage == "infer" and c in summary else "" for c, _ in WITHIN]
    return there


def _parts(summary: pd.DataFrame, stage: str, seconds: float) -> list[tuple[str, float]]:
    """A stage's seconds in parts: of infer what the network took and what was waited for."""
    if stage != "infer":
        return [("work", seconds)]
    parts = [(text, _sum(summary, column)) for column, text in WITHIN if column in summary]
    known = sum(much for _, much in parts)
    # Waiting and computing overlap on a GPU: then they are more than the stage, and are not put side by side.
    return [*parts, ("work", max(0.0, seconds - known))] if known <= seconds else [("work", seconds)]

"""The report of a sweep: best points, the effect of each parameter, cost against score; Markdown and one HTML page."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from slidebatch import pages
from slidebatch.pages.charts import drawing, styled
from slidebatch.store import write_atomically
from slidebatch.sweep.collect import COST, SCORE, Collected
from slidebatch.sweep.effects import Effect, effects
from slidebatch.sweep.pictures import cost_picture, effects_picture, png

BEST = 10
FAILED = 20

Cells = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading with sentences, a table (its first row the heads), and a picture."""

    title: str
    text: tuple[str, ...] = ()
    cells: Cells = ()
    picture: str | None = None
    failed: bool = False


def write_report(found: Collected) -> Path:
    """`report/index.html`, which holds its pictures, and `report/report.md` with them beside it; the page's path."""
    folder = found.sweep.folder / "report"
    name, made = found.sweep.spec.name, effects(found)
    with styled():
        pictures = _pictures(found, made)
        parts = sections(found, made, pictures)
        for file, figure in pictures.items():
            write_atomically(folder / file, png(figure))
        write_atomically(folder / "report.md", markdown(name, parts).encode())
        write_atomically(folder / "index.html", page(name, parts, pictures).encode())
    return folder / "index.html"


def _pictures(found: Collected, made: Sequence[Effect]) -> dict[str, Figure]:
    """The pictures by the names of their files; none without scores."""
    if found.measure is None or not len(found.done):
        return {}
    cost = {"cost.png": cost_picture(found)}
    return {**cost, "effects.png": effects_picture(found, made)} if made else cost


def sections(found: Collected, made: Sequence[Effect], pictures: Collection[str]) -> list[Section]:
    """What the report says, in order: failures first."""
    parts = [*_failed(found), _summary(found), _best(found)]
    if made:
        parts.append(_effects(found, made))
    if "cost.png" in pictures:
        text = "A point on the line scores more than every point that took no longer."
        parts.append(Section("Cost against score", (text,), picture="cost.png"))
    return parts


def _failed(found: Collected) -> list[Section]:
    failed = found.table[found.table["state"] == "failed"]
    if not len(failed):
        return []
    shown = failed[["number", "id", "error"]].head(FAILED)
    rows = [[str(number), id, _line(error)] for number, id, error in shown.itertuples(index=False)]
    return [Section(f"Failed points ({len(failed)})", cells=[["number", "id", "error"], *rows], failed=True)]


def _line(text: str) -> str:
    return next(iter(str(text).splitlines()), "")


def _summary(found: Collected) -> Section:
    counts = found.table["state"].value_counts()
    wall, cpu = (_span(float(found.table[COST + name].sum())) for name in ("wall_s", "cpu_s"))
    told = [
        f"{counts.get('done', 0)} of {found.points} points done, {counts.get('failed', 0)} failed.",
        f"{wall} of points, {cpu} of processors; "
        f"most memory {found.table[COST + 'peak_bytes'].max() / 2**20:.0f} MiB; "
        f"hosts: {', '.join(sorted(set(found.table[COST + 'host']) - {''})) or 'none'}.",
    ]
    if found.measure is not None:
        better = "larger" if found.sweep.spec.score.largest else "smaller"
        told.append(f"Ranked by {found.measure.removeprefix(SCORE)}; {better} is better.")
    return Section("Summary", tuple(told))


def _span(seconds: float) -> str:
    """A time to read: "95 s", "41 min", "12.5 h"."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.1f} h"


def _best(found: Collected) -> Section:
    varying = [k for k in found.parameters if found.table[k].nunique() > 1]
    named = ["name"] if (found.table["name"] != "").any() else []
    shown = ["number", *named, *varying, *([found.measure] if found.measure else []), COST + "wall_s"]
    rows = [[_cell(v) for v in row] for row in found.ranked[shown].head(BEST).itertuples(index=False)]
    return Section("Best points", cells=[[s.removeprefix(SCORE) for s in shown], *rows])


def _effects(found: Collected, made: Sequence[Effect]) -> Section:
    text = (
        "Mean over all points with a value, whatever the other parameters were. Share: how much of the variance of "
        "the score lies between these means; what parameters do together is in none of them.",
    )
    rows = [
        [e.parameter, f"{e.share:.1%}", *(_cell(v) for v in row)]
        for e in made
        for row in e.values.itertuples(index=False)
    ]
    heads = ["parameter", "share", "value", "points", "mean", "low quartile", "high quartile"]
    return Section("Effect of each parameter", text, [heads, *rows], "effects.png")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return str(value)


def markdown(name: str, parts: Sequence[Section]) -> str:
    """The report as Markdown, pictures as files beside it."""
    lines = [f"# {name}", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        lines += [line for text in part.text for line in (text, "")]
        if part.cells:
            head, *rows = [[c.replace("|", "\\|") for c in row] for row in part.cells]
            table = [head, ["---"] * len(head), *rows]
            lines += ["| " + " | ".join(row) + " |" for row in table] + [""]
        if part.picture:
            lines += [f"![{part.title}]({part.picture})", ""]
    return "\n".join(lines)


def page(name: str, parts: Sequence[Section], pictures: Mapping[str, Figure]) -> str:
    """The report as one HTML page that holds its pictures; inside `styled`."""
    subtitle = f"a sweep; slidebatch {importlib.metadata.version('slidebatch')}"
    return pages.render(pages.Page(name, subtitle, [_html(part, pictures) for part in parts]))


def _html(part: Section, pictures: Mapping[str, Figure]) -> pages.Section:
    blocks: list[pages.Block] = [pages.Text(text) for text in part.text]
    if part.picture:
        blocks.append(pages.Gallery([drawing(pictures[part.picture], part.title)]))
    if part.cells:
        blocks.append(pages.Table(part.cells[0], part.cells[1:]))
    return pages.Section(part.title, blocks, failed=part.failed)

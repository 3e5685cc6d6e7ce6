"""The report of a sweep: best points, the effect of each parameter, cost against score; Markdown and one HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from slidebatch.store import write_atomically
from slidebatch.sweep.collect import COST, SCORE, Collected
from slidebatch.sweep.effects import Effect, effects
from slidebatch.sweep.pictures import cost_picture, effects_picture

BEST = 10
FAILED = 20

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}"
    "td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}th{background:#f2f2f2}img{max-width:100%}"
)

Cells = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading with sentences, a table (its first row the heads), and a picture."""

    title: str
    text: tuple[str, ...] = ()
    cells: Cells = ()
    picture: str | None = None


def write_report(found: Collected) -> Path:
    """`report/index.html`, which holds its pictures, and `report/report.md` with them beside it; the page's path."""
    folder = found.sweep.folder / "report"
    made = effects(found)
    pictures: dict[str, bytes] = {}
    if found.measure is not None and len(found.done):
        pictures["cost.png"] = cost_picture(found)
        if made:
            pictures["effects.png"] = effects_picture(found, made)
    parts = sections(found, made, pictures)
    for name, png in pictures.items():
        write_atomically(folder / name, png)
    write_atomically(folder / "report.md", markdown(found.sweep.spec.name, parts).encode())
    write_atomically(folder / "index.html", page(found.sweep.spec.name, parts, pictures).encode())
    return folder / "index.html"


def sections(found: Collected, made: Sequence[Effect], pictures: Mapping[str, bytes]) -> list[Section]:
    """What the report says, in order."""
    parts = [_summary(found), _best(found)]
    if made:
        parts.append(_effects(found, made))
    if "cost.png" in pictures:
        text = "A point on the line scores more than every point that took no longer."
        parts.append(Section("Cost against score", (text,), picture="cost.png"))
    failed = found.table[found.table["state"] == "failed"]
    if len(failed):
        shown = failed[["number", "id", "error"]].head(FAILED)
        rows = [[str(number), id, _line(error)] for number, id, error in shown.itertuples(index=False)]
        parts.append(Section(f"Failed points ({len(failed)})", cells=[["number", "id", "error"], *rows]))
    return parts


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


def page(name: str, parts: Sequence[Section], pictures: Mapping[str, bytes]) -> str:
    """The report as one HTML page that holds its pictures."""
    body = [f"<h1>{escape(name)}</h1>"]
    for part in parts:
        body.append(f"<h2>{escape(part.title)}</h2>")
        body += [f"<p>{escape(text)}</p>" for text in part.text]
        if part.cells:
            head, *rows = part.cells
            body += ["<table>", _html_row(head, "th"), *(_html_row(row, "td") for row in rows), "</table>"]
        if part.picture:
            held = base64.b64encode(pictures[part.picture]).decode()
            body.append(f'<p><img alt="{escape(part.title)}" src="data:image/png;base64,{held}"></p>')
    head = f'<meta charset="utf-8"><title>{escape(name)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

"""What `chaos.py` holds a run to: the bytes of the undisturbed run, and no finished task done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from chaos_round import stage_of

from slidebatch.plan import Plan

BELOW = {"maps": ("infer",), "seams": ("paint", "pyramid")}
"""Stages whose files lie in what a stage lays out anew when it is done again."""


def contents(results: Path) -> dict[str, str]:
    """Digests of all that a run leaves apart from `work`, without times and without where it ran."""
    files = [p for p in results.rglob("*") if p.is_file() and "work" not in p.relative_to(results).parts]
    found = {str(p.relative_to(results)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}
    manifest = json.loads((results / "manifest.json").read_text())
    del manifest["config"]["cluster"], manifest["clock"]
    found["manifest.json"] = json.dumps(manifest)
    summary = pd.read_parquet(results / "summary.parquet")
    timeless = [c for c in summary.columns if not c.endswith("_s") and not c.startswith("seconds_")]
    found["summary.parquet"] = str(summary[timeless].to_json(orient="records"))
    return found


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Files that differ, are missing or are too many."""
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def task_seconds(lines: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Mean seconds of a task by stage, of an undisturbed run."""
    begun: dict[str, int] = {}
    took: dict[str, list[float]] = {}
    for line in lines:
        if line["what"] == "begin":
            begun[line["task"]] = line["ns"]
        elif line["what"] == "end":
            took.setdefault(stage_of(line["task"]), []).append((line["ns"] - begun[line["task"]]) / 1e9)
    return {stage: sum(s) / len(s) for stage, s in took.items()}


def done_again(plan: Plan, lines: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Tasks that were begun although they were done, and those whose files were cut at rest but were not.

    A task in which no slide failed is done from its end on, until one of its files is cut, what its files lie in is
    laid out anew, or the run ends with failed slides: then it has tidied up, and only failed slides are left to do.
    """
    slides = {f"{s}-{n}": {i.slide for i in t.items} for s in plan.stages for n, t in enumerate(plan.tasks(s))}
    done: set[str] = set()
    finished: set[int] = set()
    again, cut = [], []
    for line in lines:
        task = line.get("task", "")
        if line["what"] == "end":
            done |= set() if line["failed"] else {task}
        elif line["what"] == "cut":
            done.discard(task)
            cut += [task] * line["at_rest"]
        elif line["what"] == "tidied":
            done = {t for t in done if stage_of(t) == "prepare"}
            finished = {n for n, s in enumerate(plan.slides) if s.slide not in line["failed"]}
        elif line["what"] == "begin":
            if task in done or slides[task] <= finished:
                again.append(task)
            cut = [t for t in cut if t != task]
            below = BELOW.get(stage_of(task), ())
            done -= {t for t in done if t.startswith(below) and slides[t] & slides[task]} if below else set()
    return again, cut

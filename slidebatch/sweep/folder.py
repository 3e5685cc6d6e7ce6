"""The folder of a sweep: what was asked and the points, written once; results, one file a point.

sweep.json       what was asked: the spec, the base config, digests; written last, never changed
base.json        the base config, with the settings of all points
points.jsonl     a line of JSON for the sweep, then one for each point
results/         a file for each finished point: parameters, metrics, cost, or why it failed
points/          what each point leaves (weights, label images), and the ledger of its attempts
maps/            decode: runs whose class maps the points share
logs/            output of the jobs that this machine ran
work/            the lease of a starting command; where jobs start, and how often points are tried
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from slidebatch.errors import ConfigError, ResultsError
from slidebatch.shipped import find_config
from slidebatch.store import digest, disk_faults, read_json, write_atomically, write_json
from slidebatch.sweep.points import Point, base_of, check_points, points_of
from slidebatch.sweep.spec import SweepSpec

FORMAT = 1
CHANGEABLE: dict[str, Any] = {
    **dict.fromkeys(("retries", "deaths", "name"), True),
    "output": True,
    "score": {"measure", "largest"},
}
"""What the same sweep may be told otherwise later: how hard to try, and what reports rank by."""


@dataclass(frozen=True)
class Asked:
    """A sweep as its config asks for it, nothing written yet."""

    spec: SweepSpec
    base: dict[str, Any]
    points: tuple[Point, ...]

    @cached_property
    def content(self) -> dict[str, Any]:
        """What the points and their results depend on."""
        return {"spec": self.spec.model_dump(mode="json", exclude=CHANGEABLE), "base": self.base}

    @cached_property
    def digest(self) -> str:
        """Of all that results depend on, and of the points with their order."""
        return digest(FORMAT, self.content, [p.to_line() for p in self.points])


@dataclass(frozen=True)
class Sweep:
    """A sweep on disk. started: the folder in which its command was given, where relative paths begin."""

    folder: Path
    spec: SweepSpec
    base: dict[str, Any]
    digest: str
    points: tuple[Point, ...]
    started: Path

    @property
    def jobs(self) -> int:
        """How many jobs the points are dealt out to."""
        return -(-len(self.points) // self.spec.points_per_job)

    def job(self, index: int) -> tuple[Point, ...]:
        """The points of a job, from 0. ConfigError: there is no such job."""
        if not 0 <= index < self.jobs:
            raise ConfigError(f"{self.folder} has no job {index}; expected 0 to {self.jobs - 1}.")
        size = self.spec.points_per_job
        return self.points[index * size : (index + 1) * size]

    def result(self, point: Point) -> Path:
        """The file of a point that is finished."""
        return self.folder / "results" / f"{point.key}.json"

    def place(self, point: Point) -> Path:
        """What a point leaves."""
        return self.folder / "points" / point.key

    @property
    def base_file(self) -> Path:
        """The base config."""
        return self.folder / "base.json"


def ask(spec: SweepSpec) -> Asked:
    """The sweep that a config asks for, every point checked. ConfigError: what is wrong, and where."""
    base = base_of(spec)
    points = points_of(spec)
    check_points(spec, base, points)
    _check_score(spec)
    return Asked(spec, base, points)


def _check_score(spec: SweepSpec) -> None:
    """ConfigError where the run that scores trained weights has no config."""
    if spec.score.run is not None:
        find_config(spec.score.run)


def begin(asked: Asked, resume: bool = False) -> Sweep:
    """Write a sweep's folder, or open the one that is there.

    Points are written once. ConfigError: the folder holds another sweep (what differs is named) or anything else,
    or a sweep that has not begun is to be resumed.
    """
    folder = Path(asked.spec.output.path).absolute()
    there = (folder / "sweep.json").is_file()
    if resume and not there:
        raise ConfigError(f"{folder} holds no sweep to resume; give the command without --resume to begin one.")
    with disk_faults():
        if there:
            _refuse_other(folder, asked)
        else:
            _refuse_foreign(folder)
            _write(folder, asked)
        _write_samples(asked)
        told = asked.spec
        started = {"folder": os.getcwd(), "spec": told.model_dump(mode="json", include=CHANGEABLE)}
        write_json(folder / "work" / "start.json", started)
    return open_sweep(folder)


def _write(folder: Path, asked: Asked) -> None:
    lines = [p.to_line() for p in asked.points]
    head = {"digest": asked.digest, "lines": digest(lines), "points": len(lines)}
    write_json(folder / "base.json", asked.base, durable=True)
    write_atomically(folder / "points.jsonl", "\n".join([json.dumps(head), *lines, ""]).encode(), durable=True)
    told = {"format": FORMAT, "digest": asked.digest, "spec": asked.spec.model_dump(mode="json"), "base": asked.base}
    write_json(folder / "sweep.json", told, durable=True)


def _write_samples(asked: Asked) -> None:
    """Write what points read of made-up images, before several of them would at once."""
    told = asked.base.get("input") if asked.spec.kind in ("run", "decode") else None
    named = [asked.spec.sample, told.get("sample") if isinstance(told, dict) else None]
    if kinds := list(dict.fromkeys(kind for kind in named if kind is not None)):
        from slidebatch.planning import SAMPLES  # late: a job of a sweep need not load what plans a run
        from slidebatch.sample import write_sample

        for kind in kinds:
            write_sample(kind, SAMPLES / kind)


def _refuse_foreign(folder: Path) -> None:
    """A folder with other things in it is never written to."""
    ours = {"base.json", "points.jsonl", "work"}  # an earlier command was killed while it wrote these
    if folder.is_dir() and any(p.name not in ours and p.suffix != ".partial" for p in folder.iterdir()):
        raise ConfigError(f"{folder} holds files that are no sweep; set output.path to an empty or new folder.")


def _refuse_other(folder: Path, asked: Asked) -> None:
    there = open_sweep(folder)
    before = Asked(there.spec, there.base, there.points)
    if before.digest == asked.digest:
        return
    changes = _changes(_flat(before.content), _flat(asked.content)) or "another version of slidebatch made it"
    raise ConfigError(
        f"{folder} holds another sweep ({changes}); give its own settings again to resume it, or set another "
        "output.path."
    )


def _changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The keys whose values differ, the first few."""
    names = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    told = [f"{k.removeprefix('spec.')}: {old.get(k)!r} there, {new.get(k)!r} here" for k in names[:3]]
    return "; ".join(told + (["..."] if len(names) > 3 else []))


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values as one level, keys joined by dots."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {above + key: value}
    return out


def open_sweep(folder: str | Path) -> Sweep:
    """The sweep in a folder. ResultsError: there is none, or its points are damaged."""
    place = Path(folder).absolute()
    try:
        told, start = read_json(place / "sweep.json"), read_json(place / "work" / "start.json")
        head, *lines = (place / "points.jsonl").read_text().splitlines()
    except (OSError, ValueError) as error:
        raise ResultsError(f"{folder} holds no sweep ({error}); name the output.path of one that has begun.") from error
    whole = json.loads(head)
    if whole["digest"] != told["digest"] or whole["lines"] != digest(lines):
        raise ResultsError(f"{place / 'points.jsonl'} is not as it was written; put back what was there.")
    points = tuple(Point(**json.loads(line)) for line in lines)
    return Sweep(place, _spec(told["spec"], start["spec"]), told["base"], told["digest"], points, Path(start["folder"]))


def _spec(told: dict[str, Any], later: dict[str, Any]) -> SweepSpec:
    """The spec as it was first, with what the last command changed of it."""
    merged = told | {k: told[k] | v if isinstance(v, dict) else v for k, v in later.items()}
    return SweepSpec.model_validate_json(json.dumps(merged))

"""Small sweeps for tests, of functions that note what they do, and the commands that run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slidebatch.config import check
from slidebatch.sweep import Sweep, SweepSpec, ask, begin
from slidebatch.yaml_place import Document
from tests.conftest import ROOT


def spec(folder: Path, points: int = 6, **more: Any) -> SweepSpec:
    """A sweep of `x` from 0, a job for all points; `set` is merged over the log's place."""
    fixed = {"log": str(folder / "log"), "gate": str(folder / "gate"), "mended": str(folder / "mended")}
    values: dict[str, Any] = {
        "kind": "call",
        "base": "tests.support.sweep_points.point",
        "grid": {"x": list(range(points))},
        "output": {"path": str(folder / "sweep")},
        "points_per_job": points,
        **more,
        "set": {**fixed, **more.get("set", {})},
    }
    return read(values)


def read(values: dict[str, Any]) -> SweepSpec:
    """A spec as a config file gives it."""
    return check(SweepSpec, Document("sweep.yaml", values, None))


def begun(folder: Path, points: int = 6, **more: Any) -> Sweep:
    """Such a sweep on disk."""
    return begin(ask(spec(folder, points, **more)))


def written(folder: Path, points: int = 6, **more: Any) -> Path:
    """The config file of such a sweep."""
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(spec(folder, points, **more).model_dump(mode="json")))
    return path


def start(*words: object, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """A command of slidebatch in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    told = [sys.executable, "-m", "slidebatch", *map(str, words)]
    return subprocess.Popen(told, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


def until(true: Callable[[], object], process: subprocess.Popen[str] | None = None, seconds: float = 300) -> None:
    """Wait for something to become true; fails if it does not, or if the process ends before."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        assert process is None or process.poll() is None or true(), process.communicate()
        time.sleep(0.005)


def results(sweep: Sweep) -> dict[int, Any]:
    """Results by number of the point."""
    return {f["number"]: f for f in (json.loads(p.read_text()) for p in (sweep.folder / "results").glob("*.json"))}

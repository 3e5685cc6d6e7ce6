"""Timed runs: a config from a few values, the seconds of every stage, and rows of a table."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from slidebatch import batch
from slidebatch.config import RunConfig
from slidebatch.events import Event, OnEvent, RunEnded, StageEnded, StageStarted

WORKERS = 2
"""Cores that every benchmark uses: as many workers of one thread."""


@dataclass
class Clock:
    """Listens to a run: when its first stage began, how long each stage took, when the run ended.

    `processor` is processor time of the run's processes by stage: what else runs on the machine hardly counts.
    """

    stages: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    mark_s: float = 0.0
    begun: float = 0.0
    total_s: float = 0.0
    also: OnEvent | None = None

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, StageStarted) and not self.begun:
            self.begun = now
        if isinstance(event, StageStarted):
            self.mark_s = processor_s()
        if isinstance(event, StageEnded):
            self.stages[event.stage] = event.seconds
            self.processor[event.stage] = processor_s() - self.mark_s
        if isinstance(event, RunEnded):
            self.total_s = now - self.begun
        if self.also is not None:
            self.also(event)


def processor_s() -> float:
    """Processor time that this process and those below it have taken so far."""
    own = psutil.Process()
    times = [p.cpu_times() for p in (own, *own.children(recursive=True)) if p.is_running()]
    return sum(t.user + t.system for t in times)


def config(images: Path, results: Path, **sections: Any) -> RunConfig:
    """A config: the shipped network, two workers of one thread, no report; `sections` are merged over that."""
    values: dict[str, Any] = {
        "name": results.name,
        "input": {"path": str(images), "kind": "slides"},
        "model": {"name": "small_unet", "device": "cpu", "threads": 1},
        "output": {"path": str(results)},
        "cluster": {"kind": "local", "workers": WORKERS},
        "report": {"enabled": False},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return RunConfig.model_validate(values)


def timed(settings: RunConfig, also: OnEvent | None = None) -> Clock:
    """Run, and how long it took. SystemExit where an input failed."""
    clock = Clock(also=also)
    outcome = batch.run(settings, clock)
    if outcome.failed:
        raise SystemExit(f"{outcome.failed} inputs failed: see {outcome.results / 'failures.jsonl'}")
    return clock


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """Median, and least to most, of repeated values."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def arguments(docstring: str | None, repeats: int = 3) -> argparse.ArgumentParser:
    """The options that all benchmarks share. One network thread everywhere, for libraries too."""
    os.environ["OMP_NUM_THREADS"] = "1"
    parser = argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small size that only shows that the script works")
    parser.add_argument("--repeats", type=int, default=repeats, help="how often everything is timed")
    parser.add_argument("--weights", help="weights of small_unet, a .safetensors file; default: the shipped ones")
    parser.add_argument("--folder", type=Path, help="where files are made; default: a temporary folder")
    return parser


def model_of(options: argparse.Namespace) -> dict[str, Any]:
    """The section `model` of small_unet with the weights asked for."""
    return {"name": "small_unet", "device": "cpu", "threads": 1, "weights": options.weights}

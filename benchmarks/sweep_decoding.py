"""What 64 decode settings cost beside one: a sweep runs the network once and decodes its class maps 64 times.

    python benchmarks/sweep_decoding.py [--quick] [--images 24]

Real images (2018 Data Science Bowl, validation), the shipped network. In turn: the command `slidebatch sweep` with one
point; with 64 points in one job; and in this process 64 times the decoding of the same class maps to label images,
and 64 times their scoring. Bar: 64 points cost at most 1.5 times one point and 64 decodings. Wall time, and processor
time of the command and all that it started.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import data_folder
from timing import WORKERS, arguments, config, model_of, row, spread

from slidebatch.config import load
from slidebatch.decode import label_image
from slidebatch.metrics import scores
from slidebatch.sweep import open_sweep
from slidebatch.tuning import Choice
from slidebatch.tuning.cases import read_cases
from slidebatch.tuning.network import Network
from slidebatch.tuning.trial import score_cases

GRID: dict[str, list[Any]] = {
    "decode.seed_threshold": [0.36, 0.44, 0.5, 0.6],
    "decode.foreground_threshold": [0.4, 0.5, 0.6, 0.7],
    "decode.grow_px": [2, 6],
    "decode.min_area_px": [16, 64],
}
"""The points of conf/sweep/decode.yaml."""

BAR = 1.5


@dataclass(frozen=True)
class Cost:
    """Seconds of wall time, and of processor time."""

    wall_s: float
    processor_s: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall_s + other.wall_s, self.processor_s + other.processor_s)

    def over(self, other: Cost) -> tuple[float, float]:
        return self.wall_s / other.wall_s, self.processor_s / other.processor_s

    def __str__(self) -> str:
        return f"{self.wall_s:.1f} ({self.processor_s:.1f})"


def cost_of(work: Callable[[], Any]) -> Cost:
    """What some work costs: here, and in the processes that it starts and waits for."""
    wall, before = time.perf_counter(), processor_s()
    work()
    return Cost(time.perf_counter() - wall, processor_s() - before)


def processor_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def link_images(folder: Path, count: int) -> Path:
    """The first validation images, in a folder of their own."""
    data = data_folder() / "dsb2018"
    folder.mkdir()
    for name in (data / "validation.txt").read_text().split()[:count]:
        (folder / f"{name}.png").symlink_to(data / "images" / f"{name}.png")
    return folder


def write_sweep(folder: Path, name: str, grid: dict[str, list[Any]], options: argparse.Namespace) -> Path:
    """The config of a sweep over the linked images, in a folder of its own."""
    base = folder / "base.json"
    cluster = {"kind": "serial"} if options.quick else {}
    settings = config(folder / "images", folder / "unused", model=model_of(options), cluster=cluster)
    base.write_text(settings.model_dump_json())
    asked = {
        "name": name,
        "kind": "decode",
        "base": str(base),
        "grid": grid,
        "score": {"truth": str(data_folder() / "dsb2018" / "labels")},
        "output": {"path": str(folder / name)},
        "points_per_job": 64,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(asked))
    return path


def run_sweep(settings: Path) -> None:
    """The command. SystemExit with what it said where it fails."""
    command = [sys.executable, "-m", "slidebatch", "sweep", str(settings)]
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}: {ended.stderr[-2000:]}")


def alone(folder: Path) -> tuple[Cost, Cost, int]:
    """Decoding for all points of a sweep that has ended and nothing else, scoring as often, and the pixels of once."""
    (maps,) = (folder / "maps").iterdir()
    cases = read_cases(maps, data_folder() / "dsb2018" / "labels", Choice()).cases
    sweep = open_sweep(folder)
    specs = [load(str(sweep.base_file), point.overrides).decode for point in sweep.points]
    labels = [label_image(case.kept[0], specs[0]) for case in cases]  # compiles
    score_cases(cases, Network(specs[0]))
    decoding = cost_of(lambda: [[label_image(case.kept[0], spec) for case in cases] for spec in specs])
    scoring = cost_of(lambda: [[scores(a, case.truth) for a, case in zip(labels, cases, strict=True)] for _ in specs])
    return decoding, scoring, sum(case.truth.size for case in cases)


def main() -> None:
    """Print a row for each turn, then what all say."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=24)
    options = parser.parse_args()
    grid = dict(list(GRID.items())[:1]) if options.quick else GRID
    first = {key: values[:1] for key, values in grid.items()}
    points = math.prod(map(len, grid.values()))
    row("one point s", f"{points} points s", f"{points} decodings s", f"{points} scorings s", "over one + decodings")
    row("---", "---", "---", "---", "---")
    found: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        for turn in range(options.repeats):
            folder = Path(made) / str(turn)
            folder.mkdir()
            link_images(folder / "images", 3 if options.quick else options.images)
            one, many = (write_sweep(folder, name, g, options) for name, g in (("one", first), ("many", grid)))
            costs = [cost_of(lambda settings=settings: run_sweep(settings)) for settings in (one, many)]
            decoding, scoring, pixels = alone(folder / "many")
            found.append(costs[1].over(costs[0] + decoding))
            told = f"{found[-1][0]:.2f} ({found[-1][1]:.2f})"
            row(*costs, decoding, scoring, told)
    wall, processor = zip(*found, strict=True)
    print(
        f"\n{pixels / 1e6:.1f} megapixels, {WORKERS} workers; in brackets processor time\n"
        f"{points} points over one point and {points} decodings: {spread(wall)}, bar {BAR}; in processor time "
        f"{spread(processor)}"
    )


if __name__ == "__main__":
    main()

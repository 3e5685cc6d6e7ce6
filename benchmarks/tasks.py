"""What the engine costs by task: plans of 100,000 tasks whose own work is next to nothing, by the dense oracle.

    python benchmarks/tasks.py [--quick] [--tasks 100000] [--batch plate|slide] [--kind local|serial]

Every image, block, tile and region is a task of its own (`tiling.bundle: false`), so that there are as many as a batch
of 100 gigapixels has. Two batches:

plate   12,500 images of 64 x 64 px with four nuclei each, at eight tasks an image; labels and copies of the images
slide   one image of 8,000 x 8,000 px with tiles of 32 px, a nucleus each, and regions of 64 px

Each run has a process of its own; `local` has two workers, `serial` none. Wall time is that of the whole run, from the
call to its return (planning, starting workers and the manifest included), over its tasks. Processor time is parted into
the driver's own thread, its other threads (Dask's client and scheduler; in a serial run zarr's and the readers') and
the workers. Memory is the highest resident size of the driver. Beside it two floors: messages through Dask, one a task,
that do nothing; and the files that a task leaves (attempt, shard of nuclei, receipt), written as the engine does and
written with fsync.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import tifffile
from memory import peak_bytes, reset
from timing import WORKERS, arguments, config, row

from slidebatch.config import RunConfig
from slidebatch.events import Event, RunStarted, StageEnded, TaskDone
from slidebatch.geometry import whole

TASKS, QUICK = 100_000, 200
FIELD_PX, TILE_PX, REGION_PX = 64, 32, 64
PER_WELL = 33
"""Images of a well: up to 12,672 of a plate of 384 wells."""

PER_FIELD, PER_TILE = 8, 1.58
"""Tasks of an image of the plate, and of a tile of the slide with its part of blocks, regions and levels."""

FILES = 2_000
"""Tasks whose files are written for the floor."""

PATIENCE_S = 4 * 3600
BAR_MS, BAR_MB = 5, 1000


@dataclass
class Phase:
    """A part of a run. Seconds of wall time and of processor time; bytes of the driver."""

    name: str
    tasks: int = 0
    wall_s: float = 0.0
    driver_s: float = 0.0
    others_s: float = 0.0
    workers_s: float = 0.0
    work_s: float = 0.0
    peak_bytes: int = 0


@dataclass
class Meter:
    """Listens to a run and parts its time: start, each stage with what comes before it, end.

    `work_s` is what tasks took from having left their attempt file to having made their outputs.
    """

    phases: list[Phase] = field(default_factory=list)
    work_s: float = 0.0
    _mark: tuple[float, ...] = ()

    def begin(self) -> None:
        reset(os.getpid())
        self._mark = _spent()

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskDone):
            self.work_s += event.seconds
        if isinstance(event, RunStarted):
            self.cut("start")
        if isinstance(event, StageEnded):
            self.cut("pyramid" if event.stage.startswith("pyramid") else event.stage, event.total)

    def cut(self, name: str, tasks: int = 0) -> None:
        """What was spent since the last cut belongs to the phase `name`."""
        now = _spent()
        if name not in [p.name for p in self.phases]:
            self.phases.append(Phase(name))
        phase = next(p for p in self.phases if p.name == name)
        for part, before, after in zip(("wall_s", "driver_s", "others_s", "workers_s"), self._mark, now, strict=True):
            # Workers that have left take their sum away.
            setattr(phase, part, getattr(phase, part) + max(after - before, 0.0))
        phase.tasks += tasks
        phase.work_s += self.work_s
        phase.peak_bytes = max(phase.peak_bytes, peak_bytes(os.getpid()))
        reset(os.getpid())
        self._mark, self.work_s = now, 0.0


def _spent() -> tuple[float, ...]:
    """Wall time; processor seconds of this process's main thread, of its other threads, and of its children."""
    own = psutil.Process()
    total = sum(own.cpu_times()[:2])
    main = next(t for t in own.threads() if t.id == own.pid)
    driver = main.user_time + main.system_time
    below = 0.0
    for child in own.children(recursive=True):
        try:
            below += sum(child.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return time.perf_counter(), driver, total - driver, below


# What is run


def write_plate(folder: Path, tasks: int) -> dict[str, Any]:
    """Small images of a plate with their truth; the sections of its config."""
    truth = squares((FIELD_PX, FIELD_PX))
    (folder / "images").mkdir(parents=True)
    (folder / "truth").mkdir()
    for i in range(-(-tasks // PER_FIELD)):
        well, number = i // PER_WELL, i % PER_WELL + 1
        name = f"{'ABCDEFGHIJKLMNOP'[well // 24]}{well % 24 + 1:02d}"
        tifffile.imwrite(folder / "images" / f"p_{name}_f{number}_DNA.tif", image_of(truth, seed=i))
        np.save(folder / "truth" / f"{name}_f{number}.npy", truth)
    return {"input": {"kind": "auto", "pattern": "{plate}_{well}_f{field}_{channel}.tif"}, "tiling": {}}


def write_slide(folder: Path, tasks: int) -> dict[str, Any]:
    """One large image with its truth; the sections of its config."""
    side = math.ceil(math.sqrt(tasks / PER_TILE)) * TILE_PX
    truth = squares((side, side))
    (folder / "images").mkdir(parents=True)
    (folder / "truth").mkdir()
    tifffile.imwrite(folder / "images" / "slide.tif", image_of(truth, seed=1), tile=(256, 256))
    np.save(folder / "truth" / "slide.npy", truth)
    return {"tiling": {"core_px": TILE_PX}}


WRITERS: dict[str, Callable[[Path, int], dict[str, Any]]] = {"plate": write_plate, "slide": write_slide}


def squares(shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """A nucleus of 12 px in the middle of every square of 32 px."""
    y, x = np.indices(shape, sparse=True)
    number = y // TILE_PX * -(-shape[1] // TILE_PX) + x // TILE_PX + 1
    inside = (abs(y % TILE_PX - 15.5) < 6) & (abs(x % TILE_PX - 15.5) < 6)
    return np.where(inside, number, 0).astype(np.int32)


def image_of(truth: npt.NDArray[np.int32], seed: int) -> npt.NDArray[np.uint8]:
    """Bright nuclei on a dark ground with noise."""
    noise = np.random.default_rng(seed).integers(0, 20, truth.shape, np.uint8)
    return np.where(truth > 0, np.uint8(150), np.uint8(20)) + noise


def settings(folder: Path, kind: str, sections: dict[str, Any]) -> RunConfig:
    """A run of trivial tasks."""
    small = {"patch_px": 64, "core_px": FIELD_PX, "largest_px": 16, "bundle": False}
    return config(
        folder / "images",
        folder / kind,
        input=sections.get("input", {}),
        model={"name": "oracle", "settings": {"truth": str(folder / "truth")}},
        tissue={"enabled": "off"},
        tiling={**small, **sections["tiling"]},
        output={"chunk_px": REGION_PX, "shard_px": REGION_PX},
        cluster={"kind": kind, "workers": WORKERS if kind == "local" else "auto"},
    )


# What a process of its own measures


def measured(asked: RunConfig) -> dict[str, Any]:
    """Run, and what it took."""
    import distributed  # noqa: F401  (a driver imports it: that memory is no task's)

    from slidebatch import batch

    base, meter = peak_bytes(os.getpid()), Meter()
    meter.begin()
    outcome = batch.run(asked, meter)
    meter.cut("end")
    if outcome.failed:
        raise SystemExit(f"{outcome.failed} inputs failed: see {outcome.results / 'failures.jsonl'}")
    return {"base_bytes": base, "phases": [asdict(p) for p in meter.phases]}


def dask_alone(tasks: int) -> dict[str, Any]:
    """As many messages through the window of `local`, one call each, that do nothing."""
    from slidebatch.executors import Call, Local
    from slidebatch.executors.window import Sent
    from slidebatch.executors.workers import Done

    class Bare(Local):
        def _send(self, calls: tuple[Call, ...], times: int = 1, passed: int = 0) -> None:
            key = f"{calls[0].stage}-{calls[0].task}"
            # As if it had taken a second, so that the next one comes alone too.
            future = self.client.submit(Done, calls, 1.0, key=key, pure=False)
            self._sent[key] = Sent(calls, future, times, passed)
            future.add_done_callback(self._over.put)

    base, executor, meter = peak_bytes(os.getpid()), Bare(WORKERS), Meter()
    executor.client.wait_for_workers(WORKERS)
    meter.begin()
    calls: Iterable[Call] = (Call("/results/work", "decode", i, "0" * 32) for i in range(tasks))
    for _ in executor.run(calls):
        pass
    meter.cut("messages", tasks)
    executor.close()
    return {"base_bytes": base, "phases": [asdict(p) for p in meter.phases]}


def files_alone(folder: Path, durable: bool) -> float:
    """Seconds a task for its files: attempt, shard of one nucleus, its checksum, receipt, attempt removed."""
    from slidebatch.instances import from_masks
    from slidebatch.store import checksum, write_atomically, write_shard

    nucleus = from_masks([whole((12, 12))], [np.ones((12, 12), bool)])
    write_shard(folder / "one", nucleus.arrays(), "0" * 24)
    stored = (folder / "one").read_bytes()
    told = {"fingerprint": "0" * 24, "outputs": {"../nuclei/one": [len(stored), 0]}, "slides": {}, "failed": []}
    begun = time.perf_counter()
    for i in range(FILES):
        shard, receipt, attempt = (folder / name / f"{durable}-{i}" for name in ("nuclei", "receipts", "attempts"))
        write_atomically(attempt, json.dumps({"session": "0" * 32, "slide": "slide"}).encode())
        write_atomically(shard, stored, durable)
        checksum(shard)
        write_atomically(receipt, json.dumps(told).encode(), durable)
        attempt.unlink()
    return (time.perf_counter() - begun) / FILES


def in_child(told: dict[str, Any]) -> dict[str, Any]:
    """What a process of its own measures."""
    command = [sys.executable, str(Path(__file__)), "--child"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    asked = json.dumps(told)
    ended = subprocess.run(command, env=environment, input=asked, capture_output=True, text=True, timeout=PATIENCE_S)
    if ended.returncode:
        raise SystemExit(f"a run ended with {ended.returncode}: {ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def report(name: str, found: dict[str, Any]) -> None:
    """A table of the phases, in milliseconds a task."""
    phases = [Phase(**p) for p in found["phases"]]
    whole_run = Phase("whole run", peak_bytes=max(p.peak_bytes for p in phases))
    for part in ("tasks", "wall_s", "driver_s", "others_s", "workers_s", "work_s"):
        setattr(whole_run, part, sum(getattr(p, part) for p in phases))
    print(f"\n{name}\n")
    row("phase", "tasks", "wall s", "ms a task", "driver ms", "its other threads", "workers", "driver MB")
    row(*["---"] * 8)
    for p in [*phases, whole_run]:
        spent = (p.wall_s, p.driver_s, p.others_s, p.workers_s)
        each = [f"{1000 * s / p.tasks:.2f}" if p.tasks > 1 else "" for s in spent]
        row(p.name, p.tasks or "", f"{p.wall_s:.1f}", *each, f"{p.peak_bytes / 1e6:.0f}")
    conclude(whole_run, found["base_bytes"], 1 if "serial" in name else WORKERS)


def conclude(run: Phase, base_bytes: int, at_once: int) -> None:
    """The figures that have a bar."""
    each_ms, work_ms = 1000 * run.wall_s / run.tasks, 1000 * run.work_s / run.tasks / at_once
    processor_ms = 1000 * (run.driver_s + run.others_s + run.workers_s) / run.tasks
    print(
        f"\n{run.tasks} tasks: {each_ms:.2f} ms a task (bar {BAR_MS}), of which {work_ms:.2f} were their own work; "
        f"processor time {processor_ms:.2f} ms a task; driver {run.peak_bytes / 1e6:.0f} MB (bar {BAR_MB}), "
        f"{(run.peak_bytes - base_bytes) / 1e6:.0f} beyond its imports",
        flush=True,
    )


def main() -> None:
    """Print a table per run."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--tasks", type=int, help=f"tasks of a run; default: {TASKS}")
    parser.add_argument("--batch", choices=list(WRITERS), help="only this one, and no floors")
    parser.add_argument("--kind", choices=["local", "serial"], help="only this one")
    parser.add_argument("--child", action="store_true", help="not for people: one run, told on standard input")
    options = parser.parse_args()
    if options.child:
        told = json.loads(sys.stdin.read())
        print(json.dumps(dask_alone(told["messages"]) if "messages" in told else measured(RunConfig(**told))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        run_all(options, Path(made), options.tasks or (QUICK if options.quick else TASKS))


def run_all(options: argparse.Namespace, folder: Path, tasks: int) -> None:
    """The floors, then every batch by every executor."""
    if options.batch is None:
        report("messages alone", in_child({"messages": tasks}))
        for durable in (False, True):
            told = "with fsync" if durable else "as the engine writes them"
            print(f"files alone, {told}: {1000 * files_alone(folder, durable):.2f} ms a task")
    for name in [options.batch] if options.batch else list(WRITERS):
        sections = WRITERS[name](folder / name, tasks)
        for kind in [options.kind] if options.kind else ["local", "serial"]:
            report(f"{name}, {kind}", in_child(settings(folder / name, kind, sections).model_dump(mode="json")))


if __name__ == "__main__":
    main()

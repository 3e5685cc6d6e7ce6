"""What merging costs beside writing the result, and whether it is exact, on a dense touching field.

    python benchmarks/merging.py [--quick]

At least 200,000 touching nuclei, 20 px apart, whose class maps come from the dense oracle. Maps are made once
and kept; then the stages that follow (decode, seams, paint, pyramid, measure, table) are run again and again
with two workers, each time beside two processes that write the very same finished labels and pyramid with zarr
alone: same codec, chunks and shards, arrays in memory. Three ratios: with decoding counted as the writing of its
shards (the nuclei of all tiles; what finds them has a bar of its own in decoding.py), with all of decoding, and
with measuring, which belongs to no bar.

Exact means: every true nucleus has exactly one partner (IoU above 0.5) among the final labels, and each of
those has one.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from images import touching_field, write_plain, write_truth
from timing import WORKERS, Clock, arguments, config, median, row, spread, timed

from slidebatch.events import Event, StageEnded
from slidebatch.geometry import Box
from slidebatch.store import create_array, read_shard, write_shard
from slidebatch.tiling import parts

SPACING_PX = 20
SIDE_PX, QUICK_PX = 9400, 700
PATIENCE_S = 600
BEFORE = {"prepare", "maps", "infer"}
"""Stages that come before merging."""

Labels = npt.NDArray[np.integer[Any]]


def matches(truth: Labels, found: Labels) -> dict[str, int]:
    """How many true nuclei were lost, merged and split, how many are invented, and pixels that differ."""
    area_t, area_f = np.bincount(truth.ravel()), np.bincount(found.ravel())
    both = (truth > 0) & (found > 0)
    pair, shared = np.unique(truth[both].astype(np.int64) << 32 | found[both].astype(np.int64), return_counts=True)
    t, f = pair >> 32, pair & 0xFFFFFFFF
    iou = shared / (area_t[t] + area_f[f] - shared)
    hit = iou > 0.5
    true_ids, found_ids = np.flatnonzero(area_t[1:]) + 1, np.flatnonzero(area_f[1:]) + 1
    # A nucleus holds another's share where more than half of that other lies in it.
    inside_found = np.bincount(f[shared > area_t[t] / 2], minlength=len(area_f))
    inside_true = np.bincount(t[shared > area_f[f] / 2], minlength=len(area_t))
    return {
        "true": len(true_ids),
        "found": len(found_ids),
        "lost": len(np.setdiff1d(true_ids, t[hit])),
        "invented": len(np.setdiff1d(found_ids, f[hit])),
        "merged": int((inside_found > 1).sum()),
        "split": int((inside_true > 1).sum()),
        "differing pixels": int(((truth > 0) != (found > 0)).sum() + (shared[~hit]).sum()),
    }


def finished(results: Path, level: int) -> Any:
    """A level of the finished label image, on disk."""
    return zarr.open_array(str(results / "labels.zarr" / "field" / str(level)), mode="r")


def levels_of(results: Path) -> int:
    """How many levels the finished label image has."""
    return len(list((results / "labels.zarr" / "field").glob("[0-9]*")))


def again(results: Path) -> None:
    """Take away all results but the maps and what comes before them."""
    for path in (results / "labels.zarr", results / "instances", results / "work" / "finished"):
        shutil.rmtree(path, ignore_errors=True)


def alone(folder: Path, out: Path, tasks: list[tuple[int, Box]], turn: Any, barrier: Any, times: Any) -> None:
    """A process that writes regions of finished levels, which it holds in memory, as long as any are left."""
    levels = {level: np.load(folder / f"{level}.npy") for level, _ in tasks}
    arrays = {level: zarr.open_array(str(out / str(level)), mode="r+") for level in levels}
    barrier.wait()
    begun, processor = time.perf_counter(), time.process_time()
    while True:
        with turn.get_lock():
            i = turn.value
            turn.value += 1
        if i >= len(tasks):
            break
        level, region = tasks[i]
        arrays[level][region.slices()] = levels[level][region.slices()]
    times.put((begun, time.perf_counter(), time.process_time() - processor))


def zarr_s(folder: Path, out: Path, results: Path) -> tuple[float, float]:
    """Seconds in which two processes write all levels of the finished label image with zarr alone; processor time."""
    tasks = []
    for level in range(levels_of(results)):
        array = finished(results, level)
        shard = array.shards or array.shape
        create_array(out / str(level), array.shape, "uint32", array.chunks, array.shards, ("y", "x"))
        tasks += [(level, region) for region in parts(array.shape, shard)]
    spawn = multiprocessing.get_context("spawn")
    turn, barrier, times = spawn.Value("i", 0), spawn.Barrier(WORKERS), spawn.Queue()
    asked = (folder, out, tasks, turn, barrier, times)
    processes = [spawn.Process(target=alone, args=asked) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    found = [times.get(timeout=PATIENCE_S) for _ in processes]
    for process in processes:
        process.join()
    if contents(out) != contents(results / "labels.zarr" / "field"):
        raise SystemExit("zarr alone wrote other chunks than the run: the comparison would not be fair")
    shutil.rmtree(out)
    starts, ends, processor = zip(*found, strict=True)
    return max(ends) - min(starts), sum(processor)


class Shards:
    """Listens to a run: after decode, the time in which two processes could write its shards of nuclei again."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.wall_s: list[float] = []
        self.processor_s: list[float] = []

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StageEnded) or event.stage != "decode":
            return
        shards = [read_shard(p) for p in sorted((self.results / "work" / "nuclei").rglob("*.safetensors"))]
        begun, processor = time.perf_counter(), time.process_time()
        for arrays in shards:
            write_shard(self.results / "work" / "again.safetensors", arrays, "")
        self.wall_s.append((time.perf_counter() - begun) / WORKERS)
        self.processor_s.append(time.process_time() - processor)


def contents(group: Path) -> dict[str, int]:
    """Sizes of the files that hold pixels."""
    return {str(p.relative_to(group)): p.stat().st_size for p in group.rglob("c/**/*") if p.is_file()}


def settle_config(folder: Path) -> Any:
    """The oracle's run on the field."""
    return config(
        folder / "images",
        folder / "results",
        model={"name": "oracle", "settings": {"truth": str(folder / "truth")}},
        tissue={"enabled": "off"},
        tiling={"patch_px": 1024},
        output={"keep_maps": True},
    )


def main() -> None:
    """Print the exactness, the ratio, and the seconds of every stage."""
    options = arguments(__doc__).parse_args()
    side = QUICK_PX if options.quick else SIDE_PX
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        truth = touching_field(side, SPACING_PX)
        write_truth(folder / "truth", "field", truth)
        write_plain(folder / "images" / "field.tif", truth.shape)
        settings = settle_config(folder)
        infer_s = timed(settings).stages["infer"]
        told = matches(truth, np.asarray(finished(folder / "results", 0)[:]))
        print(", ".join(f"{name}: {value}" for name, value in told.items()))
        for level in range(levels_of(folder / "results")):
            np.save(folder / f"{level}.npy", finished(folder / "results", level)[:])
        clocks, writes, shards = [], [], Shards(folder / "results")
        for _ in range(options.repeats):
            again(folder / "results")
            clocks.append(timed(settings, also=shards))
            writes.append(zarr_s(folder, folder / "alone", folder / "results"))
        report(clocks, writes, shards)
        print(f"infer {infer_s:.1f} s")


def report(clocks: list[Clock], writes: list[tuple[float, float]], shards: Shards) -> None:
    """Rows of stages, then the ratios."""
    stages = [name for name in clocks[0].stages if name not in BEFORE]
    walls = {name: [c.stages[name] for c in clocks] for name in stages}
    used = {name: [c.processor[name] for c in clocks] for name in stages}
    walls["shards of decode, written"], used["shards of decode, written"] = shards.wall_s, shards.processor_s
    wall, processor = zip(*writes, strict=True)
    row("stage", "s", "over zarr alone", "processor s", "over zarr alone")
    row(*["---"] * 5)
    for name in walls:
        took, worked = median(walls[name]), median(used[name])
        row(name, f"{took:.2f}", f"{took / median(wall):.2f}", f"{worked:.2f}", f"{worked / median(processor):.2f}")
    row("zarr alone", f"{median(wall):.2f}", "1.00", f"{median(processor):.2f}", "1.00")
    counted = {
        "merging": set(walls) - {"decode", "measure"},
        "with all of decode": set(stages) - {"measure"},
        "with decode and measure": set(stages),
    }
    for title, names in counted.items():
        ratios = [sum(walls[n][i] for n in names) / w for i, w in enumerate(wall)]
        worked_ratios = [sum(used[n][i] for n in names) / w for i, w in enumerate(processor)]
        print(f"\n{title} over zarr alone {spread(ratios)}; in processor time {spread(worked_ratios)}")
    print("\nbar of merging 2.5")


if __name__ == "__main__":
    main()

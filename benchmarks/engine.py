"""What the engine costs beside the bare network, and what patches cost beside the pixels kept.

    python benchmarks/engine.py [--quick]

A run of the shipped network on 61 megapixels: a mirrored mosaic of a real slide, written as a JPEG-tiled TIFF
and read through the engine's door, with two workers of one thread each. Its wall time, from the start of the
first stage to the end of the run, over the time in which two processes of one thread each run the bare network
on exactly the patches that the run fed: read and normalised before, in memory, taken one after another by
whichever process is free. Runs and bare passes alternate.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from images import real_slide, write_mosaic
from timing import WORKERS, Clock, arguments, config, median, model_of, row, spread, timed

from slidebatch import batch
from slidebatch.config import RunConfig
from slidebatch.infer import live_cells, read_patch
from slidebatch.job import Job

SHAPE = (7000, 8720)
QUICK = (700, 900)
PATIENCE_S = 600


def fed_patches(job: Job) -> Iterator[npt.NDArray[np.float32]]:
    """Every patch that the run fed to its network, (C, Y, X) float32, in order."""
    for task in job.tasks("infer"):
        for item in task.items:
            for cell in live_cells(job, item.slide, item.box):
                yield read_patch(job, item.slide, job.plan.patches.patch_box(cell))


def save_patches(results: Path, path: Path) -> int:
    """Store the patches fed, one after another, as one array; how many there are."""
    job = Job(results / "work")
    patches = np.stack(list(fed_patches(job)))
    np.save(path, patches)
    return len(patches)


def bare(path: Path, model: Any, turn: Any, barrier: Any, times: Any) -> None:
    """A process that runs the network on patches, as long as there are any left to take."""
    from slidebatch import models
    from slidebatch.allocator import keep_memory

    keep_memory()  # as the engine's workers do; without it the bare network is slower
    network: Any = models.load(model, "cpu")
    patches = np.load(path)  # in memory, before the clock starts
    network.maps(patches[:1], [])
    barrier.wait()
    begun, processor = time.perf_counter(), time.process_time()
    while True:
        with turn.get_lock():
            i = turn.value
            turn.value += 1
        if i >= len(patches):
            break
        network.maps(patches[i : i + 1], [])
    times.put((begun, time.perf_counter(), time.process_time() - processor))


def bare_s(path: Path, settings: RunConfig) -> tuple[float, float]:
    """Seconds that two processes need for all patches, from the first start to the last end; processor time."""
    spawn = multiprocessing.get_context("spawn")
    turn, barrier, times = spawn.Value("i", 0), spawn.Barrier(WORKERS), spawn.Queue()
    processes = [spawn.Process(target=bare, args=(path, settings.model, turn, barrier, times)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    found = [times.get(timeout=PATIENCE_S) for _ in processes]
    for process in processes:
        process.join()
    starts, ends, processor = zip(*found, strict=True)
    return max(ends) - min(starts), sum(processor)


def main() -> None:
    """Print the two ratios."""
    options = arguments(__doc__).parse_args()
    shape = QUICK if options.quick else SHAPE
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        image = write_mosaic(folder / "images" / "mosaic.tif", real_slide(), shape)
        settings = config(image, folder / "choice", model=model_of(options))
        costs = batch.plan(settings)
        cell, patch = costs.planned.plan.patches.cell, costs.planned.plan.patches.patch
        # `auto` times a few shapes, which noise may sway: all runs and bare passes take the one chosen here.
        fixed = {"patch_px": patch[0]} if cell[0] == cell[1] else {}
        pixels = f"{shape[0] * shape[1] / 1e6:.1f} MP"
        print(f"{pixels}, patches of {patch[0]} x {patch[1]}, fed over kept {costs.costs.overhead:.3f} (bar 1.6)\n")
        row("patches", "run s", "bare s", "run over bare", "processor: run s", "bare s", "run over bare")
        row(*["---"] * 7)
        clocks, alone = [], []
        patches, count = folder / "patches.npy", 0
        for i in range(options.repeats):
            settings = config(image, folder / f"run{i}", model=model_of(options), tiling=fixed)
            clocks.append(timed(settings))
            count = count or save_patches(folder / f"run{i}", patches)
            alone.append(bare_s(patches, settings))
            pairs = [(clocks[-1].total_s, alone[-1][0]), (sum(clocks[-1].processor.values()), alone[-1][1])]
            row(count, *(cell for a, b in pairs for cell in (f"{a:.1f}", f"{b:.1f}", f"{a / b:.3f}")))
        report(clocks, alone)


def report(clocks: list[Clock], alone: list[tuple[float, float]]) -> None:
    """The ratios, and where the time goes."""
    ratios = [c.total_s / b for c, (b, _) in zip(clocks, alone, strict=True)]
    processor = [sum(c.processor.values()) / b for c, (_, b) in zip(clocks, alone, strict=True)]
    print(f"\nengine cost {spread(ratios)}, bar 1.15; in processor time {spread(processor)}")
    named = {name: median([c.stages[name] for c in clocks]) for name in clocks[0].stages}
    named["rest"] = median([c.total_s - sum(c.stages.values()) for c in clocks])
    print("seconds by stage: " + ", ".join(f"{name} {value:.2f}" for name, value in named.items()))


if __name__ == "__main__":
    main()

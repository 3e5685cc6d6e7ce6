"""Megapixels per second on a GPU: of the network alone, with its copies, and of whole runs; how busy the GPU is.

    benchmarks/gpu.sh                           # makes an environment and calls this; ten minutes at most
    python benchmarks/gpu.py [--folder build/gpu]
    python benchmarks/gpu.py --device cpu --quick   # tries the script where there is no GPU

Each measurement is kept as soon as it is there, in a file for this device, torch and source; the same command goes on
where it was stopped (status 1), until all is measured (status 0), and prints the tables. It begins no measurement that
would not end before SLIDEBATCH_DEADLINE. Kept pixels count: a patch is a cell and a margin at each side.

Network alone: patches lie on the device, answers stay there; seconds by CUDA events, median of five turns. The
yardstick is PyTorch's own network in float32, batch norm not folded, no TF32. With copies: the engine's network from
pinned memory and back, by the wall. Whole runs: a mosaic of a real slide (without real images: of the made-up one),
from the start of the first stage to the end of the run; GPU-busy: the network's seconds on the device, by its own
clock, over those of the stage that runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from gpu_ways import Way, on_device_s, streamed_s, ways
from images import ROOT, real_slide, write_mosaic
from timing import config, median, row, timed

from slidebatch import models
from slidebatch.deadline import deadline
from slidebatch.errors import EnvironmentFault, OutOfTime, SlidebatchError
from slidebatch.release import release
from slidebatch.sample.tissue import tissue_slide
from slidebatch.store import digest, write_json

MARGIN_PX = 56
DOES_NOT_FIT = "does not fit"
SHOWN = (
    *("precision", "s", "megapixels/s", "infer s", "its megapixels/s", "GPU-busy"),
    *("waits for patches", "for storing", "other stages, s"),
)
STAGES = ("prepare", "infer", "decode", "seams", "paint", "measure")


@dataclass(frozen=True)
class Sizes:
    """What is measured: cells and batches of the network, passes of a turn, and the whole runs' slide (Y, X)."""

    cells_px: tuple[int, ...]
    batches: tuple[int, ...]
    seconds: float
    slide: tuple[int, int]
    runs: int


FULL = Sizes((256, 512, 1024, 1536), (1, 4, 8, 16), 0.2, (16384, 16384), 2)
QUICK = Sizes((64,), (1, 2), 0.01, (512, 640), 1)

Measure = Callable[[], dict[str, Any]]


def header(device: str) -> dict[str, str]:
    """What a measurement depends on besides its own name."""
    told = {"torch": models.torch_version(), "slidebatch": release(), "python": platform.python_version()}
    if device == "cpu":
        return {"device": "CPU: figures mean nothing", "driver": "none", **told, "commit": commit()}
    gpu = models.gpus()[0]
    name = f"{gpu.name}, {gpu.memory_bytes / 1e9:.0f} GB, capability {gpu.capability}"
    return {"device": name, "driver": models.driver_version() or "unknown", **told, "commit": commit()}


def commit() -> str:
    """The checkout's commit, and whether files differ from it; "unknown" where it is a copy without git."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.strip()


class Kept:
    """Measurements on disk, by name."""

    def __init__(self, folder: Path, told: dict[str, str], sizes: Sizes) -> None:
        self.path = folder / f"measured-{digest(told, asdict(sizes))[:12]}.json"
        self.told = told
        self.found: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self.found = json.loads(self.path.read_text())["measured"]

    def keep(self, name: str, found: dict[str, Any]) -> None:
        self.found[name] = found
        write_json(self.path, {"header": self.told, "measured": self.found})


# The network


def network_plan(device: str, sizes: Sizes, compiled: bool) -> Iterator[tuple[str, Measure]]:
    """Every measurement of the network: the small ones first."""
    for way in ways(device, compiled):
        for cell in sizes.cells_px:
            for batch in sizes.batches:
                yield (
                    f"network|{way.name}|{cell}|{batch}",
                    lambda way=way, cell=cell, batch=batch: alone(way, cell, batch, sizes, device),
                )
    precision = models.settle(models.ModelSpec(device=device, engine="eager"), device).precision  # type: ignore[arg-type]
    for cell in sizes.cells_px:
        for batch in sizes.batches:
            yield (
                f"copies|{precision}|{cell}|{batch}",
                lambda cell=cell, batch=batch: with_copies(precision, cell, batch, sizes, device),
            )


def alone(way: Way, cell: int, batch: int, sizes: Sizes, device: str) -> dict[str, Any]:
    """Megapixels kept per second by one way of running the network, and the device's memory that it took."""
    side = cell + 2 * MARGIN_PX
    try:
        if device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds = on_device_s(way, (batch, 3, side, side), device, sizes.seconds)
        peak = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    except torch.OutOfMemoryError:
        return {"rates": [], "peak_bytes": 0}
    return {"rates": [batch * cell**2 / s / 1e6 for s in seconds], "peak_bytes": peak}


def with_copies(precision: str, cell: int, batch: int, sizes: Sizes, device: str) -> dict[str, Any]:
    """The same with the engine's own way to the device and back; and the share in which the device computed."""
    spec = models.ModelSpec(device=device, engine="eager", precision=precision, batch=batch)  # type: ignore[arg-type]
    network: Any = models.load(spec, device)
    side = cell + 2 * MARGIN_PX
    try:
        found = streamed_s(network, (batch, 3, side, side), sizes.seconds)
    except EnvironmentFault:
        return {"rates": [], "busy": []}
    if network.halvings:
        return {"rates": [], "busy": []}
    return {"rates": [batch * cell**2 / wall / 1e6 for wall, _ in found], "busy": [busy / wall for wall, busy in found]}


# Whole runs


def run_plan(device: str, sizes: Sizes, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Every whole run."""
    for precision in ("auto", "float32"):
        for turn in range(sizes.runs):
            yield f"run|{precision}|{turn}", lambda p=precision: whole_run(p, device, sizes, folder)


def mosaic(sizes: Sizes, folder: Path) -> tuple[Path, str]:
    """The slide of the whole runs, written once; what it is made of."""
    try:
        image, name = real_slide(), "a real slide"
    except SystemExit:
        image, name = tissue_slide((1024, 1536), 0)[0], "the made-up slide"
    path = folder / f"{name.replace(' ', '-')}-{sizes.slide[0]}-{sizes.slide[1]}" / "images" / "mosaic.tif"
    if not path.is_file():
        aside = write_mosaic(path.parent.parent / "aside.tif", image, sizes.slide)
        path.parent.mkdir(exist_ok=True)
        os.replace(aside, path)
    return path, name


def whole_run(precision: str, device: str, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """A run: megapixels per second, and where the time of the stage that runs the network goes."""
    path, name = mosaic(sizes, folder)
    results = folder / "run"
    shutil.rmtree(results, ignore_errors=True)
    kind = "local" if device == "cpu" or find_spec("dask_cuda") is None else "cuda"
    model = {"name": "small_unet", "device": device, "precision": precision}
    workers: dict[str, Any] = {"workers": 1} if device == "cpu" else {"workers": "auto"}
    settings = config(path.parent, results, model=model, cluster={"kind": kind, **workers})
    clock = timed(settings)
    [told] = pq.read_table(results / "summary.parquet").to_pylist()
    shutil.rmtree(results, ignore_errors=True)
    spent = {k: told[k] for k in ("network_s", "wait_s", "store_s", "seconds_infer", "batch_halvings")}
    stages = {s: clock.stages[s] for s in STAGES}
    pixels = sizes.slide[0] * sizes.slide[1]
    gpus = max(1, len(models.gpus())) if kind == "cuda" else 1
    return {
        **{"total_s": clock.total_s, "px": pixels, "stages": stages, "spent": spent, "nuclei": told["nuclei"]},
        **{"kind": kind, "workers": gpus, "of": name, "cores": os.cpu_count()},
    }


# What is shown


def shown(kept: Kept, sizes: Sizes) -> None:
    """Print all tables."""
    print("\n".join(f"* {name}: {value}" for name, value in kept.told.items()), "\n")
    network_table(kept, sizes, "network", "network alone, megapixels kept per second (over the yardstick's best)")
    network_table(kept, sizes, "copies", "with copies, megapixels kept per second (share in which the device computes)")
    runs_table(kept)


def network_table(kept: Kept, sizes: Sizes, part: str, title: str) -> None:
    names = list(dict.fromkeys(k.split("|")[1] for k in kept.found if k.startswith(f"{part}|")))
    print(title + "\n")
    columns = [(cell, batch) for cell in sizes.cells_px for batch in sizes.batches]
    row("run", *(f"{cell} px x {batch}" for cell, batch in columns))
    row(*["---"] * (len(columns) + 1))
    rate = {k: median(v["rates"]) if v["rates"] else None for k, v in kept.found.items() if k.startswith(f"{part}|")}
    yardstick = max((r for k, r in rate.items() if r and k.split("|")[1] == names[0]), default=None)
    for name in names:
        row(name, *(_cell(kept, f"{part}|{name}|{cell}|{batch}", yardstick) for cell, batch in columns))
    print()


def _cell(kept: Kept, key: str, yardstick: float | None) -> str:
    found = kept.found[key]
    if not found["rates"]:
        return DOES_NOT_FIT
    rate = median(found["rates"])
    if "busy" in found:
        return f"{speed(rate)} ({median(found['busy']):.0%})"
    return speed(rate) + (f" ({rate / yardstick:.2f})" if yardstick else "")


def speed(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def runs_table(kept: Kept) -> None:
    found = {k: v for k, v in kept.found.items() if k.startswith("run|")}
    [first, *_] = found.values()
    with_what = f"kind {first['kind']}, workers with a GPU: {first['workers']}, cores: {first['cores']}"
    print(f"whole runs on {first['px'] / 1e6:.1f} megapixels of {first['of']}; {with_what}\n")
    row(
        "precision",
        "s",
        "megapixels/s",
        "infer s",
        "megapixels/s",
        "GPU-busy",
        "waits for patches",
        "for storing",
        "others, s",
    )
    row(*["---"] * 9)
    for key, run in found.items():
        infer, spent = run["stages"]["infer"], run["spent"]
        share = {k: f"{spent[k] / (infer * run['workers']):.0%}" for k in ("network_s", "wait_s", "store_s")}
        rest = ", ".join(f"{name} {run['stages'][name]:.1f}" for name in STAGES if name != "infer")
        speeds = [speed(run["px"] / seconds / 1e6) for seconds in (run["total_s"], infer)]
        row(key.split("|")[1], f"{run['total_s']:.1f}", speeds[0], f"{infer:.1f}", speeds[1], *share.values(), rest)


def go_on(plan: Iterator[tuple[str, Measure]], kept: Kept) -> int:
    """Measure what is missing, as long as there is time; how much is still missing."""
    limit, missing = deadline(None), 0
    for name, measure in plan:
        kind = name.split("|")[0]
        if name in kept.found:
            continue
        if missing or limit.passed(kind):
            missing += 1
            continue
        began = time.perf_counter()
        try:
            kept.keep(name, measure())
        except OutOfTime as error:
            sys.stderr.write(f"{name}: {error}\n")
            missing += 1
            continue
        limit.saw(kind, time.perf_counter() - began)
        sys.stderr.write(f"{name}: {time.perf_counter() - began:.1f} s\n")
    return missing


def main() -> int:
    """Measure, and print the tables once all is there."""
    os.environ["OMP_NUM_THREADS"] = "1"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: only to try the script")
    parser.add_argument("--quick", action="store_true", help="a small size that only shows that the script works")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too: minutes more")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "gpu", help="where measurements are kept")
    options = parser.parse_args()
    missing_gpu = models.why_no_gpu() if options.device == "cuda" else None
    if missing_gpu is not None:
        sys.stderr.write(f"error: no GPU to measure: {missing_gpu}; --device cpu --quick tries the script\n")
        return 2
    sizes = QUICK if options.quick else FULL
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(options.folder, header(options.device), sizes)
    plan = [*run_plan(options.device, sizes, options.folder), *network_plan(options.device, sizes, options.compile)]
    try:
        missing = go_on(iter(plan), kept)
    except SlidebatchError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if missing:
        sys.stderr.write(f"{missing} of {len(plan)} measurements are missing: give the same command again\n")
        return 1
    shown(kept, sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a plan will cost, and whether it fits: bytes per worker, bytes and files on disk, tasks, time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slidebatch import memory
from slidebatch.errors import PlanError
from slidebatch.executors.room import Room
from slidebatch.measure import band_rows
from slidebatch.measurements import column_names
from slidebatch.overlaps import overlaps
from slidebatch.plan import Plan, SlidePlan, level_shape
from slidebatch.tiling import fed_px, grid_shape

OVERVIEW_PX = 1_000_000
STRIP_PX = 16_000_000
NUCLEUS_PX = 600
"""Pixels of slide per nucleus: 6,700 nuclei per mm2 at 0.5 um per pixel, over a whole slide."""

NUCLEUS_ON_DISK = 350
"""Bytes of shards, seam table and table rows per nucleus, without what is measured."""

MAPS_SHARE, LABELS_SHARE, IMAGE_SHARE = 0.5, 0.08, 0.9
"""Stored bytes per raw byte of class maps, labels and images, at the wrong end of what was seen."""

KEPT_PER_SECOND = {"cpu": 0.6e6, "cuda": 30e6}
"""Pixels fed per second and worker, for a first guess at the time."""


@dataclass(frozen=True)
class Costs:
    """Projected costs of a plan with `workers` workers, and `cpu_workers` besides for what needs no GPU."""

    workers: int
    worker: memory.Projection
    disk_bytes: int
    files: int
    tasks: dict[str, int]
    kept_px: int
    fed_px: int
    seconds: float
    cpu_workers: int = 0

    @property
    def overhead(self) -> float:
        """Pixels fed per pixel kept."""
        return self.fed_px / max(self.kept_px, 1)


def project(plan: Plan, workers: int, free_bytes: int | None = None) -> Costs:
    """Add up what a plan will take. With `free_bytes`, no more workers than fit it, but one."""
    worker = _worker(plan)
    if free_bytes is not None:
        workers = max(1, min(workers, free_bytes // worker.peak))
    shapes = [s.shape for s in plan.slides]
    kept = sum(h * w for h, w in shapes) * len(_networks(plan))
    fed = sum(fed_px(shapes, network.patches) for network in _networks(plan))
    tasks = {stage: len(plan.tasks(stage)) for stage in plan.stages}
    return Costs(
        workers=workers,
        worker=worker,
        disk_bytes=sum(_disk(plan, s) for s in plan.slides),
        files=sum(_files(plan, s) for s in plan.slides) + sum(tasks.values()),
        tasks=tasks,
        kept_px=kept,
        fed_px=fed,
        seconds=fed / KEPT_PER_SECOND[plan.device] / workers,
    )


def _networks(plan: Plan) -> list[Plan]:
    """The plans of its networks, each for itself."""
    return [plan.of(k) for k in range(max(1, len(plan.members)))]


def check(plan: Plan, costs: Costs, room: Room) -> None:
    """Refuse a plan that cannot fit the workers' memory or the disk of its results. PlanError says which."""
    _check_memory(costs, room)
    disk = shutil.disk_usage(_existing(Path(plan.output.path))).free
    if costs.disk_bytes > disk:
        raise PlanError(
            f"{plan.output.path} would take about {_gb(costs.disk_bytes)}, but {_gb(disk)} are free on its disk; "
            "free some or set output.path to another disk"
        )


def _check_memory(costs: Costs, room: Room) -> None:
    peak, workers = costs.worker.peak, costs.workers + costs.cpu_workers
    needed = peak * costs.workers + costs.worker.peak_besides * costs.cpu_workers
    ways = "a smaller tiling.patch_px or a smaller output.shard_px"
    if room.each_bytes is not None and peak > room.each_bytes:
        raise PlanError(
            f"one worker would take {_gb(peak)} of memory (most in {costs.worker.worst}), but its job has "
            f"{_gb(room.each_bytes)}; set a larger cluster.job.memory_gb, {ways}"
        )
    if room.shared_bytes is not None and needed > room.shared_bytes:
        some = "one worker" if workers == 1 else f"{workers} workers"
        fewer = "" if workers == 1 else "fewer cluster.workers, "
        raise PlanError(
            f"{some} would take {_gb(needed)} of memory (most in {costs.worker.worst}), but "
            f"{_gb(room.shared_bytes)} are free; set {fewer}{ways}"
        )


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _worker(plan: Plan) -> memory.Projection:
    """Bytes of one worker, by stage, at the largest slide, tile and region."""
    networks = _networks(plan)
    layers = max(1, sum(len(n.card.maps) for n in networks))
    largest = max(plan.slides, key=lambda s: s.shape[0] * s.shape[1])
    image = max(len(s.names) * np.dtype(s.dtype).itemsize for s in plan.slides)
    pixels = largest.shape[0] * largest.shape[1]
    read = plan.tiles.core_px + 2 * (plan.tiles.halo_px + plan.tiles.ring_px)
    tile_px = min(read * read, pixels)
    region_px = min(plan.output.shard_px**2, pixels)
    nuclei = pixels // NUCLEUS_PX
    near = min(1.0, 4 * (plan.tiles.halo_px + plan.largest_px) / plan.tiles.core_px)
    return memory.Projection(
        prepare=memory.prepare_bytes(len(largest.names), min(OVERVIEW_PX, pixels), min(STRIP_PX, pixels)),
        infer=max(_infer_bytes(network, pixels) for network in networks),
        decode=memory.decode_bytes(tile_px, layers),
        seams=memory.seams_bytes(nuclei, int(nuclei * near)),
        paint=memory.paint_bytes(region_px, image if largest.image else 0) + nuclei * memory.NUCLEUS // 4,
        measure=max(_measure(plan, s) for s in plan.slides),
    )


def _measure(plan: Plan, slide: SlidePlan) -> int:
    """Bytes of measuring a region of a slide, or of putting its table together."""
    pixels, side = slide.shape[0] * slide.shape[1], plan.output.shard_px
    how, image = slide.recipe, len(slide.names) * np.dtype(slide.dtype).itemsize
    region_px = min(side * side, pixels)
    width = min(side + 2 * (plan.largest_px + 2 * how.reach_px), slide.shape[1])
    band_px = min((band_rows(plan.output) + 2 * how.halo_px) * width, pixels)
    measured = memory.measure_bytes(band_px, image, region_px // NUCLEUS_PX, len(how.names))
    kept = memory.kept_bytes(region_px, image) if how.percentiles and how.values else 0
    nuclei, band = pixels // NUCLEUS_PX, min(side * slide.shape[1], pixels) // NUCLEUS_PX
    table = memory.table_bytes(nuclei, band, len(column_names(how)))
    return max(measured + kept + nuclei * memory.NUCLEUS, table)


def _infer_bytes(plan: Plan, pixels: int) -> int:
    """Bytes of the stage that runs one network, without `memory.BASE`, on a slide of so many pixels."""
    layers = max(len(plan.card.maps), 1)
    patch_px = plan.patches.patch[0] * plan.patches.patch[1]
    block_px = min(plan.block[0] * plan.block[1], max(pixels, patch_px))
    batch, channels = plan.model.batch_on(plan.device), plan.card.channels
    if plan.device == "cpu" or plan.card.family != "dense":
        return memory.infer_bytes(patch_px, batch, channels, layers, block_px)
    fed_px = batch * patch_px
    return memory.gpu_infer_bytes(fed_px * channels * 4, fed_px * layers, block_px * layers, overlaps(plan.device))


def _disk(plan: Plan, slide: SlidePlan) -> int:
    """Bytes on disk of one slide: maps, labels with pyramid, nuclei, and the image's copy."""
    pixels = slide.shape[0] * slide.shape[1]
    image = len(slide.names) * np.dtype(slide.dtype).itemsize * IMAGE_SHARE if slide.image else 0
    labels = 4 * LABELS_SHARE
    maps = sum(len(n.card.maps) for n in _networks(plan)) * MAPS_SHARE
    nucleus = NUCLEUS_ON_DISK + 4 * len(column_names(slide.recipe))
    return int(pixels * (maps + (labels + image) * 4 / 3 + nucleus / NUCLEUS_PX / 4))


def _files(plan: Plan, slide: SlidePlan) -> int:
    """Files of one slide: a shard per block, tile and region, and metadata."""

    def count(shape: tuple[int, int], step: tuple[int, int]) -> int:
        rows, columns = grid_shape(shape, step)
        return rows * columns

    sides = [plan.output.shard_at(k) for k in range(slide.levels() + 1)]
    regions = sum(count(level_shape(slide.shape, k), (side, side)) for k, side in enumerate(sides))
    tiles = count(slide.shape, (plan.tiles.core_px,) * 2)
    copies = 2 if slide.image else 1
    return (
        sum(count(slide.shape, n.block) for n in _networks(plan)) + tiles + copies * (regions + slide.levels() + 3) + 8
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _gb(value: float) -> str:
    return f"{value / 1e9:.1f} GB"


def _how(plan: Plan) -> str:
    """What computes a dense network, in words; nothing for others, and for ensembles."""
    if plan.members:
        return ""
    told = (plan.model.engine, plan.model.precision, "" if plan.model.tta == "none" else f"tta {plan.model.tta}")
    return "" if "auto" in told else f" ({', '.join(filter(None, told))})"


def _patches(network: Plan) -> str:
    """How a network's patches are cut, and by which name where there are several."""
    (height, width), cell = network.patches.patch, network.patches.cell
    return f"patches: {height} x {width} px around cells of {cell[0]} x {cell[1]}, margin {network.patches.margin_px}"


def describe(plan: Plan, costs: Costs) -> str:
    """A table of the plan for people: one line per thing."""
    area = sum(s.shape[0] * s.shape[1] for s in plan.slides)
    slides = [
        f"  {s.slide}: {s.shape[0]} x {s.shape[1]} px (level {s.grid.level}, scale {s.grid.scale:g}, "
        f"{'unknown' if s.mpp_plan is None else format(s.mpp_plan, '.4g')} um/px)"
        for s in plan.slides
    ]
    besides = f" and {costs.cpu_workers} without a GPU" if costs.cpu_workers else ""
    shown = slides if len(slides) <= 12 else [*slides[:10], f"  ... and {len(slides) - 10} more"]
    return "\n".join(
        [
            f"plan of {plan.name}: {len(plan.slides)} images, {area / 1e6:.1f} megapixels, "
            f"{plan.card.name} on {plan.device}{_how(plan)}",
            *shown,
            *(_patches(network) for network in _networks(plan)),
            f"fed over kept {costs.overhead:.2f}",
            f"tiles: cores of {plan.tiles.core_px} px, halo {plan.tiles.halo_px}, ring {plan.tiles.ring_px}",
            "tasks: " + ", ".join(f"{n} {stage}" for stage, n in costs.tasks.items()),
            f"workers: {costs.workers}{besides}, each at most {_gb(costs.worker.peak)} (most in {costs.worker.worst})",
            f"disk: about {_gb(costs.disk_bytes)} in {costs.files} files at {plan.output.path}",
            f"time: about {_duration(costs.seconds)} of network time",
        ]
    )

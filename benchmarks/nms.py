"""How long suppression takes on 100,000 and 1,000,000 nuclei, beside torchvision in the same run.

    OMP_NUM_THREADS=1 python benchmarks/nms.py

The field: ellipses about 20 px wide, one per 900 px2, about 0.9 overlapping pairs of boxes a nucleus, a fixed
seed. One core: nothing in `ensemble` uses threads, and torch is held to one. Compilation is done before, on a
small field. Times are the best of three; every step is also listed by itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision

from ensemble import fuse, iou, nms
from slidebatch.geometry import Box
from slidebatch.instances import Instances, from_masks

AREA_PER_NUCLEUS_PX2 = 900
IOU_THRESHOLD = 0.3
SHAPES = 64


def field(n: int) -> Instances:
    """n ellipses of 14 to 27 px a side at random places, with random scores."""
    random = np.random.default_rng(1)
    side_px = int((n * AREA_PER_NUCLEUS_PX2) ** 0.5)
    shapes = [tuple(random.integers(14, 28, 2).tolist()) for _ in range(SHAPES)]
    stamps = from_masks([Box(0, 0, h, w) for h, w in shapes], [ellipse(h, w) for h, w in shapes])
    table = stamps.take(random.integers(0, SHAPES, n))
    corner = random.integers(0, side_px, (n, 2))
    box = (table.box + np.tile(corner, 2)).astype(np.int32)
    score = random.integers(0, 65536, n).astype(np.uint16)
    return Instances(box, score, table.member, table.votes, table.cut, table.offset, table.bits)


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    return (y[:, None] ** 2 + x[None] ** 2) <= 0.25


def seconds(step: Callable[[], object], attempts: int = 3) -> float:
    """The best of a few attempts."""
    best = float("inf")
    for _ in range(attempts):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return best


def steps(table: Instances) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    packed = (table.box, table.offset, table.bits)
    area, pairs = iou.mask_area(*packed), iou.box_pairs(table.box)
    keys = (table.score, table.box, area, table.offset, table.bits, table.member)
    order, conflicts = nms.total_order(*keys), nms.mask_conflicts(*packed, IOU_THRESHOLD)
    flags = np.ones(len(conflicts), bool)
    return {
        "box_pairs": lambda: iou.box_pairs(table.box),
        "mask_overlap": lambda: iou.mask_overlap(*packed, pairs),
        "total_order": lambda: nms.total_order(*keys),
        "greedy_nms": lambda: nms.greedy_nms(order, conflicts, flags),
        "box_pairs + greedy_nms": lambda: nms.greedy_nms(order, iou.box_pairs(table.box), np.ones(len(pairs), bool)),
        "components": lambda: nms.components(len(table), conflicts),
        "resolve_overlaps": lambda: fuse.resolve_overlaps(order, *packed),
        "box_nms": lambda: nms.box_nms(table.box, table.score, IOU_THRESHOLD),
        "mask_nms": lambda: nms.mask_nms(table.score, *packed, table.member, IOU_THRESHOLD),
    }


def torchvision_nms(table: Instances) -> Callable[[], object]:
    xyxy = torch.from_numpy(np.ascontiguousarray(table.box[:, [1, 0, 3, 2]], np.float32))
    score = torch.from_numpy(table.score.astype(np.float32))
    return lambda: torchvision.ops.nms(xyxy, score, IOU_THRESHOLD)


def main() -> None:
    """Print a table of seconds, and the ratio to torchvision at the smallest size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nuclei", type=int, nargs="+", default=[100_000, 1_000_000])
    sizes = parser.parse_args().nuclei
    torch.set_num_threads(1)
    for step in steps(field(500)).values():  # compile
        step()
    for n in sizes:
        table = field(n)
        found = {name: seconds(step) for name, step in steps(table).items()}
        for name, took_s in found.items():
            print(f"{n:>9,} nuclei  {name:<24} {took_s:8.3f} s")
        if n == min(sizes):
            took_s = seconds(torchvision_nms(table), attempts=1)
            ratio = took_s / found["box_nms"]
            print(f"{n:>9,} nuclei  {'torchvision.ops.nms':<24} {took_s:8.3f} s  = {ratio:.1f} x box_nms")


if __name__ == "__main__":
    main()

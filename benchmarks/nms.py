"""What suppression, votes and fusion of masks cost, on one core, by number of nuclei; torchvision beside them.

    OMP_NUM_THREADS=1 python benchmarks/nms.py

The field: ellipses 20 to 40 px wide, one in 36 x 36 px, neighbours often touching. Two members found nine in
ten of them each, with boxes that jitter by up to 2 px a side; a fixed seed. Processor time, the best of three.
Nothing in `ensemble` uses threads, and torch is held to one. Compilation is done before, on a small field.
`mask_nms` is all that suppression by masks needs: pairs, overlaps, areas, order, walk. torchvision's `batched_nms`
gets the boxes of the same field as one class, since a slide is one image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision

from ensemble import blend, fuse, groups, iou, nms
from slidebatch.geometry import Box
from slidebatch.instances import Instances, from_masks

PITCH_PX, LEAST_PX, MOST_PX, JITTER_PX = 36, 20, 40, 2
FOUND = 0.9
IOU_THRESHOLD = 0.5
MOST_FOR_TORCHVISION = 100_000
"""Its cost grows with the square of the number: 1,000,000 would take it an hour or so."""


def field(n: int) -> Instances:
    """n rows of two members that see the same nuclei, each a little otherwise."""
    random = np.random.default_rng(1)
    truths = int(n / (2 * FOUND)) + 100
    across = int(np.ceil(truths**0.5))
    cell = np.stack(np.divmod(np.arange(truths), across), axis=1) * PITCH_PX
    corner, side = cell + random.integers(0, 9, (truths, 2)), random.integers(LEAST_PX, MOST_PX + 1, (truths, 2))
    truth, member = np.tile(np.arange(truths), 2), np.repeat([0, 1], truths)
    seen = random.permutation(np.flatnonzero(random.random(2 * truths) < FOUND))[:n]
    truth, member = truth[seen], member[seen]
    box = np.concatenate([corner, corner + side], axis=1)[truth] + random.integers(-JITTER_PX, JITTER_PX + 1, (n, 4))
    stamps, number = stamped()
    table = stamps.take(number[tuple((box[:, 2:] - box[:, :2]).T)])
    score = random.integers(0, 65536, n).astype(np.uint16)
    columns = (table.votes, table.cut, table.offset, table.bits)
    return Instances(box.astype(np.int32), score, member.astype(np.uint8), *columns)


def stamped() -> tuple[Instances, np.ndarray]:
    """An ellipse of every size that occurs, and the row of each size."""
    sides = range(LEAST_PX - 2 * JITTER_PX, MOST_PX + 2 * JITTER_PX + 1)
    shapes = [(h, w) for h in sides for w in sides]
    number = np.zeros((sides.stop, sides.stop), np.int64)
    for row, shape in enumerate(shapes):
        number[shape] = row
    return from_masks([Box(0, 0, h, w) for h, w in shapes], [ellipse(h, w) for h, w in shapes]), number


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    return (y[:, None] ** 2 + x[None] ** 2) <= 0.25


def seconds(step: Callable[[], object], attempts: int) -> float:
    """Processor time: the best of a few attempts."""
    best = float("inf")
    for _ in range(attempts):
        start = time.process_time()
        step()
        best = min(best, time.process_time() - start)
    return best


def steps(table: Instances) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    packed = (table.box, table.offset, table.bits)
    area, pairs = iou.mask_area(*packed), iou.box_pairs(table.box)
    keys = (table.score, table.box, area, table.offset, table.bits, table.member)
    order, conflicts = nms.total_order(*keys), nms.mask_conflicts(*packed, IOU_THRESHOLD)
    leader = nms.leaders(order, conflicts, np.ones(len(conflicts), bool))
    weight = table.score.astype(np.int64)

    def voted() -> object:
        voice = groups.voices(leader, order, table.member)
        return groups.votes(leader, voice), groups.noisy_or(leader, voice, table.score)

    return {
        "box_pairs": lambda: iou.box_pairs(table.box),
        "mask_overlap": lambda: iou.mask_overlap(*packed, pairs),
        "total_order": lambda: nms.total_order(*keys),
        "leaders": lambda: nms.leaders(order, conflicts, np.ones(len(conflicts), bool)),
        "components": lambda: nms.components(len(table), conflicts),
        "box_nms": lambda: nms.box_nms(table.box, table.score, IOU_THRESHOLD),
        "mask_nms": lambda: nms.mask_nms(table.score, *packed, table.member, IOU_THRESHOLD),
        "voices, votes, noisy_or": voted,
        "fill": lambda: groups.fill(table.member, order, conflicts),
        "fuse_masks": lambda: blend.fuse_masks(leader, weight, packed),
        "resolve_overlaps": lambda: fuse.resolve_overlaps(order, *packed, 0.25),
    }


def torchvision_nms(table: Instances) -> Callable[[], object]:
    xyxy = torch.from_numpy(np.ascontiguousarray(table.box[:, [1, 0, 3, 2]], np.float32))
    score, slide = torch.from_numpy(table.score.astype(np.float32)), torch.zeros(len(table), dtype=torch.int64)
    return lambda: torchvision.ops.batched_nms(xyxy, score, slide, IOU_THRESHOLD)


def measured(n: int, attempts: int) -> dict[str, float]:
    """Seconds of every step on n nuclei, torchvision's too where they are few enough."""
    table = field(n)
    found = {name: seconds(step, attempts) for name, step in steps(table).items()}
    if n <= MOST_FOR_TORCHVISION:
        found["torchvision batched_nms"] = seconds(torchvision_nms(table), 1)
    pairs = len(iou.box_pairs(table.box)) / n
    print(f"{n:,} nuclei: {pairs:.2f} pairs of boxes a nucleus, {len(table.bits) / n:.0f} bytes of mask", flush=True)
    return found


def main() -> None:
    """Print a table of seconds by step and number of nuclei."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nuclei", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3, help="how often everything is timed; the best counts")
    parser.add_argument("--quick", action="store_true", help="a small field that only shows that the script works")
    options = parser.parse_args()
    sizes = [2_000] if options.quick else options.nuclei
    torch.set_num_threads(1)
    for step in [*steps(field(500)).values(), torchvision_nms(field(500))]:  # compile
        step()
    found = [measured(n, options.repeats) for n in sizes]
    print("| step | " + " | ".join(f"{n:,}" for n in sizes) + " |\n|---|" + "---|" * len(sizes))
    for name in found[0]:
        cells = [f"{one[name]:.3f} s" if name in one else "" for one in found]
        print(f"| `{name}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

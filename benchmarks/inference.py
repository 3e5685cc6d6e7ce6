"""Megapixels of class maps kept per second on two cores, by engine, precision and patch, and how answers differ.

    python benchmarks/inference.py [--quick] [--compile]

Two processes of one thread each, as the engine's workers are, run the shipped network on patches held in memory, both
the same at the same time. Kept pixels count: a patch is a cell and a margin at each side. The yardstick is PyTorch on
the network as it is (batch norm folded, channels last, float32) at its own best patch. All are timed in turn,
several times; a ratio is one of times in the same turn, in processor time, and the median counts.
The second table compares class maps of real images with those of the network as it is, in grey levels of 255.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from timing import WORKERS, arguments, median, model_of, row

CELLS_PX = (256, 512, 1024)
MARGIN_PX = 56
PLAIN = ("as trained", "batch norm folded")
PATIENCE_S = 1800

Maps = npt.NDArray[np.uint8]
Run = Callable[[npt.NDArray[np.float32]], Maps]


class Time(NamedTuple):
    """One pass of a process over a patch."""

    name: str
    cell_px: int
    turn: int
    wall_s: float
    processor_s: float


def runs(settings: dict[str, Any], compiled: bool) -> Iterator[tuple[str, Run]]:
    """Every way of running the network, the plain ones first: name, and patches (1, 3, Y, X) to maps."""
    import torch

    from slidebatch.models.blocks import fold_batch_norm, ready
    from slidebatch.models.small_unet import class_maps

    torch.set_num_threads(1)
    network = untouched(settings)
    folded = fold_batch_norm(copy.deepcopy(network))
    yield PLAIN[0], lambda patch: class_maps(network, patch)
    yield PLAIN[1], lambda patch: class_maps(folded, patch)
    yield from offered(settings)
    if compiled:
        import torch._inductor.config as inductor

        inductor.freezing = True
        for precision in (torch.float32, torch.bfloat16):
            fast: Any = torch.compile(ready(network).to(precision).to(memory_format=torch.channels_last))
            name = f"torch.compile, {str(precision).removeprefix('torch.')}"
            yield name, lambda patch, f=fast, p=precision: _compiled_maps(f, p, patch)


def _compiled_maps(network: Any, precision: Any, patch: npt.NDArray[np.float32]) -> Maps:
    import torch

    with torch.inference_mode():
        image = torch.from_numpy(patch).to(precision).contiguous(memory_format=torch.channels_last)
        chance = network(image).float().softmax(1)[:, 1:]
        return (chance * 255).round().to(torch.uint8).contiguous().numpy()


def untouched(settings: dict[str, Any]) -> Any:
    """The network with its weights, as PyTorch runs it."""
    import torch

    from slidebatch.models import networks
    from slidebatch.models.spec import ModelSpec
    from slidebatch.models.weights_file import load_weights, read_card, weights_path

    spec = ModelSpec(**settings)
    path = weights_path(spec.name, spec.options)
    stored = read_card(path)
    network = networks.build(stored.network, stored.architecture)
    load_weights(network, path, stored.network)
    return network.to(memory_format=torch.channels_last).eval()


def offered(settings: dict[str, Any]) -> Iterator[tuple[str, Run]]:
    """Every engine and precision that this machine offers."""
    from slidebatch import models
    from slidebatch.errors import ModelError
    from slidebatch.models.spec import ModelSpec

    for engine in ("eager", "onnx", "openvino"):
        for precision in ("float32", "bfloat16"):
            spec = ModelSpec(**settings).model_copy(update={"engine": engine, "precision": precision})
            try:
                network: Any = models.load(spec, "cpu")
            except ModelError:
                continue
            yield f"{engine}, {precision}", lambda patch, n=network: n.maps(patch, [])


def worker(settings: dict[str, Any], sizes: dict[str, Any], barrier: Any, times: Any) -> None:
    """A process that times every run on every patch, in step with the others."""
    from slidebatch.allocator import keep_memory

    keep_memory()  # as the engine's workers do
    found = dict(runs(settings, sizes["compile"]))
    patches = {c: np.random.default_rng(0).random((1, 3, *2 * [c + 2 * MARGIN_PX]), np.float32) for c in sizes["cells"]}
    taken = []
    for cell, patch in patches.items():
        for run in found.values():
            run(patch)  # compiles
        for turn in range(sizes["repeats"]):
            for name, run in found.items():
                barrier.wait(PATIENCE_S)
                taken.append(Time(name, cell, turn, *timed(run, patch)))
    times.put(taken)


def timed(run: Run, patch: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Seconds by the wall and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    run(patch)
    return time.perf_counter() - wall, time.process_time() - processor


def all_times(settings: dict[str, Any], sizes: dict[str, Any]) -> list[Time]:
    """The times of both processes, added up: wall and processor seconds of a pass, mean of the two."""
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(WORKERS), spawn.Queue()
    processes = [spawn.Process(target=worker, args=(settings, sizes, barrier, queue)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=PATIENCE_S) for _ in processes]
    for process in processes:
        process.join()
    return [Time(*a[:3], (a[3] + b[3]) / 2, (a[4] + b[4]) / 2) for a, b in zip(*found, strict=True)]


def speeds(times: list[Time]) -> None:
    """Print kept megapixels per second by run and patch, and the ratio to the yardstick."""
    names, cells = list(dict.fromkeys(t.name for t in times)), sorted({t.cell_px for t in times})
    rate = {(t.name, t.cell_px, t.turn): WORKERS * t.cell_px**2 / t.processor_s / 1e6 for t in times}
    wall = {(t.name, t.cell_px, t.turn): WORKERS * t.cell_px**2 / t.wall_s / 1e6 for t in times}
    turns = range(max(t.turn for t in times) + 1)

    def middle(name: str, cell: int) -> float:
        return median([rate[name, cell, i] for i in turns])

    plain = max(((n, c) for n in PLAIN for c in cells), key=lambda key: middle(*key))
    print(f"yardstick: PyTorch, {plain[0]}, cells of {plain[1]} px\n")
    row("run", *(f"{c}, of the processor (by the wall)" for c in cells), "over the yardstick (least to most)")
    row(*["---"] * (len(cells) + 2))
    for name in names:
        best = max(cells, key=lambda c: middle(name, c))
        ratios = [rate[name, best, i] / rate[*plain, i] for i in turns]
        shown = [f"{middle(name, c):.2f} ({median([wall[name, c, i] for i in turns]):.2f})" for c in cells]
        row(name, *shown, f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def differences(settings: dict[str, Any], side_px: int) -> None:
    """Print how class maps of real images differ from those of the network as it is."""
    from decoding import maps_of
    from images import dsb_mosaic, real_slide

    from slidebatch import models
    from slidebatch.models.small_unet import class_maps
    from slidebatch.models.spec import ModelSpec

    network, card = untouched(settings), models.card(ModelSpec(**settings))
    images = {"real slide": real_slide()[:side_px, :side_px], "Data Science Bowl": dsb_mosaic(side_px)}
    row("run", "images", "largest", "mean", "bytes that differ", "by more than 2")
    row(*["---"] * 6)
    for image, pixels in images.items():
        plain = maps_of(Plain(card, lambda p: class_maps(network, p)), pixels).astype(int)
        for name, run in offered(settings):
            off = np.abs(maps_of(Plain(card, run), pixels) - plain)
            row(name, image, off.max(), f"{off.mean():.4f}", f"{(off > 0).mean():.3%}", f"{(off > 2).mean():.4%}")


class Plain:
    """A run as the engine sees networks."""

    def __init__(self, card: Any, run: Run) -> None:
        self.card, self._run = card, run

    def maps(self, patches: npt.NDArray[np.float32], places: Any) -> Maps:
        return self._run(np.ascontiguousarray(patches))


def main() -> None:
    """Print both tables."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--compile", action="store_true", help="time torch.compile too; needs a C++ compiler")
    options = parser.parse_args()
    cells = CELLS_PX[:1] if options.quick else CELLS_PX
    sizes = {"cells": cells, "repeats": options.repeats, "compile": options.compile}
    print("megapixels kept per second on two cores\n")
    speeds(all_times(model_of(options), sizes))
    print("\ngrey levels of 255 by which class maps differ from the network's own\n")
    differences(model_of(options), 300 if options.quick else 1536)


if __name__ == "__main__":
    main()

"""Training throughput: steps fed with real crops, over the same steps on crops that already lie in memory.

    python benchmarks/training.py [--quick] [--steps 20] [--set KEY=VALUE ...]

One process, the settings of conf/train/small_unet.yaml (crops of 256 px, batches of 8, two threads, one loader). In
turn, several times: (a) steps of the training loop whose batches `feed.batches` draws, warps, recolours and sends from
its loader; (b) the same steps on a few random batches made beforehand. A few steps before each part are not counted:
the loader has filled its queue by then, and neither part lives on what was made during the other. Wall time; a ratio
is that of two parts of one turn, and the median counts. Without real images it trains on made-up ones.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `slidebatch train` does, before torch is loaded

import numpy as np
import psutil
from images import data_folder, touching_field
from PIL import Image
from timing import arguments, median, row, spread

BAR = 1.10
UNCOUNTED = 6
"""Steps before a part is timed; more than the loader holds ready."""

AHEAD = 32
"""Batches that are never asked for, so that the loader has something to do to the end."""

KEPT = 4
"""Random batches in memory."""


class Part(NamedTuple):
    """Seconds a step: by the wall, waited for the batch, and processor time of the loaders."""

    wall_s: float
    waited_s: float
    loader_s: float


def settings(options: argparse.Namespace, folder: Path) -> Any:
    """The shipped training config, on real images or on made-up ones in `folder`."""
    from slidebatch.config import read
    from slidebatch.training.spec import TrainSpec

    try:
        if options.quick:
            raise SystemExit
        where = [f"data.path={data_folder() / 'dsb2018'}"]
    except SystemExit:
        where = [f"data.path={made_up(folder / 'set')}", "data.exclude=null", "data.mix={}"]
    overrides = [f"output={folder / 'out'}", *where, *(options.set or [])]
    return read(TrainSpec, "conf/train/small_unet.yaml", overrides)


def made_up(folder: Path, count: int = 6) -> Path:
    """A training set of dense fields of nuclei, in folders; its folder."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        labels = touching_field(400, spacing_px=24, seed=i)
        image = (60 + 100 * (labels > 0) + np.random.default_rng(i).normal(0, 8, labels.shape)).clip(0, 255)
        rgb = np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(rgb).save(folder / "images" / f"{i}.png")
        Image.fromarray(labels.astype(np.uint16)).save(folder / "labels" / f"{i}.png")
    return folder


def random_batches(spec: Any, size: tuple[int, int], channels: int) -> Iterator[list[Any]]:
    """A few batches of noise, over and over: images, classes and weights as crops have them."""
    import torch

    torch.manual_seed(0)
    shape = (spec.batch, *size)
    made = [
        [torch.rand(spec.batch, channels, *size), torch.randint(0, 3, shape).to(torch.uint8), torch.ones(shape)]
        for _ in range(KEPT)
    ]
    return itertools.cycle(made)


def prepared(spec: Any) -> tuple[Any, Any]:
    """The crops of a training as its loop makes them, and its architecture."""
    from slidebatch.models import networks
    from slidebatch.training import feed
    from slidebatch.training.dataset import load, split

    made = networks.architecture(spec.network.name, spec.network.settings)
    return feed.source(load(spec.data, split(spec.data, spec.seed).fit), spec, made.channels), made


class Trainer:
    """A training of its own on one stream of batches."""

    def __init__(self, spec: Any, stream: Iterator[Any], steps: int) -> None:
        from slidebatch.training import loop
        from slidebatch.training.ranks import Ranks
        from slidebatch.training.state import begin

        device = _device(spec)
        self.loop, self.stream = loop, stream
        self.course = loop.Course(spec, Ranks(0, 1, device), loop.dtype(spec.precision, device.type), steps, print)
        self.state = begin(spec, device)
        self.state.network.train()
        self.done = 0

    def part(self, steps: int) -> Part:
        """Some uncounted steps, and then the seconds of each of `steps`."""
        self._run(UNCOUNTED)
        before, started = loaders_s(), time.perf_counter()
        waited = self._run(steps)
        wall = time.perf_counter() - started
        return Part(wall / steps, waited / steps, (loaders_s() - before) / steps)

    def _run(self, steps: int) -> float:
        waited = 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(self.stream)
            waited += time.perf_counter() - asked
            self.loop.step(self.state, self.state.network, batch, self.done, self.course)
            self.done += 1
        return waited


def _device(spec: Any) -> Any:
    import torch

    from slidebatch.models import pick_device

    torch.set_num_threads(spec.threads)
    return torch.device(pick_device(spec.device))


def loaders_s() -> float:
    """Processor time that the processes below this one have taken."""
    times = [p.cpu_times() for p in psutil.Process().children(recursive=True) if p.is_running()]
    return sum(t.user + t.system for t in times)


def turns(spec: Any, steps: int, repeats: int) -> Iterator[tuple[Part, Part]]:
    """Both parts, once for each turn; the one that begins changes."""
    from slidebatch.training import feed

    crops, made = prepared(spec)
    each = steps + UNCOUNTED
    fed = feed.batches(crops, spec, range(each * repeats + AHEAD))
    real = Trainer(spec, fed, each * repeats)
    bare = Trainer(spec, random_batches(spec, crops.size, made.channels), each * repeats)
    for turn in range(repeats):
        if turn % 2:
            second = bare.part(steps)
            yield real.part(steps), second
        else:
            yield real.part(steps), bare.part(steps)


def main() -> None:
    """Print a row for each turn, and the ratio."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of a part")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="override a setting; repeatable")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        spec = settings(options, Path(folder))
        row("turn", "fed: s a step", "of that waited", "loader s a step", "bare: s a step", "fed over bare")
        row(*["---"] * 6)
        ratios = []
        for turn, (real, bare) in enumerate(turns(spec, 2 if options.quick else options.steps, options.repeats), 1):
            ratios.append(real.wall_s / bare.wall_s)
            row(turn, *(f"{v:.3f}" for v in (*real, bare.wall_s)), f"{ratios[-1]:.3f}")
    met = "met" if median(ratios) <= BAR else "missed"
    print(f"\ntraining, fed over bare: {spread(ratios)}, bar {BAR}: {met}")


if __name__ == "__main__":
    main()

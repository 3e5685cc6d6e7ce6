"""Training throughput: steps fed with real crops, over the same steps on crops that already lie in memory.

    python benchmarks/training.py [--quick] [--steps 20] [--set KEY=VALUE ...]

One process, the settings of conf/train/small_unet.yaml (crops of 256 px, batches of 8, two threads, one loader). In
turn, several times: (a) steps of the training loop whose batches `feed.batches` draws, warps, recolours and sends from
its loader; (b) the same steps on a few random batches made beforehand. A few steps before each part are not counted:
the loader has filled its queue by then, and neither lives on what it made during the other part. Wall time; the ratio
of a turn is that of its two parts, and the median counts. Without real images it draws from made-up ones.
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

import numpy as np
import psutil
from images import data_folder
from PIL import Image
from timing import arguments, median, row, spread

BAR = 1.10
UNCOUNTED = 6
"""Steps before a part is timed; more than the loader holds ready."""

KEPT = 4
"""Random batches in memory."""


class Part(NamedTuple):
    """Seconds of some steps: in all, waited for batches, and the loader's processor time."""

    wall_s: float
    waited_s: float
    loader_s: float


def settings(options: argparse.Namespace, folder: Path) -> Any:
    """The shipped training config on real images, or on made-up ones in `folder`."""
    from slidebatch.config import read
    from slidebatch.training.spec import TrainSpec

    overrides = [f"output={folder / 'out'}"]
    try:
        overrides.append(f"data.path={data_folder() / 'dsb2018'}" if not options.quick else "")
    except SystemExit:
        overrides.append("")
    if not overrides.pop(1 if overrides[-1] == "" else len(overrides)) if overrides[-1] == "" else False:
        overrides += made_up(folder / "images")
    return read(TrainSpec, "conf/train/small_unet.yaml", [*overrides, *options.set])

"""Training of dense networks: `train` fits one from a config and exports it.

spec.py       what a config may say         warp.py, colour.py  how a crop is changed
readers.py    folders, DSB, COCO            targets.py          classes and pixel weights
dataset.py    which images may be seen      losses.py           cross-entropy, Dice
crops.py      random crops                  optimise.py         optimisers, schedules, averages
grid.py       a fixed grid of patches       loop.py, ranks.py   the loop, on one or several GPUs
feed.py       batches, made beside it       state.py            checkpoints
score.py      scores on held-out images     record.py           log and curves
export.py     weights with their card       limits.py           time and GPU memory
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from slidebatch.lease import lease
from slidebatch.training.spec import TrainSpec

__all__ = ["TrainSpec", "train"]

PLACES = ("output", "data.path", "data.images", "network.start")
"""Settings that are a matter of one machine: cards do not tell them."""


def train(config: str, overrides: Sequence[str] = (), tell: Callable[..., None] | None = None) -> Path | None:
    """Train as a config says (`conf/train/small_unet.yaml`), or go on where the same command was stopped.

    :param overrides: `key=value` each, as for `slidebatch run --set`.
    :param tell: called with a `loop.Told` after each step and each epoch.
    :returns: the exported weights, `<output>/<network>.safetensors`, their card beside them; None in processes of
        torchrun that leave the writing to the first.
    :raises ConfigError: a wrong config, an output folder that cannot be made, a training set that is missing or
        incomplete, or a checkpoint in the output folder that was made with other settings. LeaseError: another
        training holds the output folder. EnvironmentFault: its disk is full or gone, or the GPU's memory. OutOfTime:
        SLIDEBATCH_DEADLINE leaves no time for another epoch.
    Broken training images are named in warnings and left out.
    """
    # Threads that spin while they wait take the cores from the process that makes crops; read as torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from slidebatch.config import read  # late: reading a config must not import torch, nor this the CLI's needs
    from slidebatch.store import disk_faults
    from slidebatch.training.export import export
    from slidebatch.training.loop import run
    from slidebatch.training.ranks import first_here

    spec = read(TrainSpec, config, overrides)
    with disk_faults(), lease(Path(spec.output) / "work") if first_here() else nullcontext():
        state = run(spec, tell or (lambda _: None))
        if not first_here():
            return None
        told = [o for o in overrides if o.split("=")[0] not in PLACES]
        named = Path(config).name if Path(config).is_absolute() else config
        return export(state, spec, f"slidebatch train {named}" + "".join(f" --set {o}" for o in told))

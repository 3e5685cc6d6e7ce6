"""Training of the networks that ship with slidebatch: `train` fits one from a config and exports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slidebatch.training.spec import TrainSpec

__all__ = ["TrainSpec", "train"]


def train(config: str, overrides: Sequence[str] = ()) -> Path:
    """Train as a config says (`conf/train/small_unet.yaml`), or go on where the same command was stopped.

    :param overrides: `key=value` each, as for `slidebatch run --set`.
    :returns: the exported weights, `<output>/small_unet.safetensors`, their card beside them.
    :raises ConfigError: a wrong config, a training set that is missing or incomplete, or a checkpoint in the
        output folder that was made with other settings.
    """
    from slidebatch.config import read  # late: reading a config must not import torch, nor this the CLI's needs
    from slidebatch.training.export import export
    from slidebatch.training.loop import run

    spec = read(TrainSpec, config, overrides)
    return export(run(spec), spec, f"slidebatch train {config}" + "".join(f" --set {o}" for o in overrides))

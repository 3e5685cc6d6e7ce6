"""Several processes that train one network, as `torchrun` starts them: one for each GPU, each with its part of a batch.

    torchrun --nproc-per-node 4 -m slidebatch train conf/train/small_unet.yaml

The first process scores, logs and keeps checkpoints; the others wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from slidebatch.errors import ConfigError
from slidebatch.models import pick_device
from slidebatch.training.spec import TrainSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train: its number, how many there are, and its device."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process scores and writes."""
        return self.rank == 0

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are shared among all; itself where there is one process."""
        if self.ranks == 1:
            return network
        if self.device.type == "cuda":
            return DistributedDataParallel(network, [self.device.index])
        return DistributedDataParallel(network)

    def told(self, value: T) -> T:
        """What the first process has, in all of them."""
        if self.ranks == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held, device=self.device)
        return held[0]


def first_here() -> bool:
    """Whether this process is the only one or torchrun's first: outside of `joined`, too."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(spec: TrainSpec) -> Iterator[Ranks]:
    """This process among those of torchrun, or alone. ConfigError where a batch has no crop for each."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if spec.batch % ranks:
        raise ConfigError(f"batch: {spec.batch} crops cannot be shared by {ranks} processes; make it a multiple.")
    kind = pick_device(spec.device)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if ranks == 1:
        yield Ranks(0, 1, device)
        return
    if kind == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), ranks, device)
    finally:
        distributed.destroy_process_group()

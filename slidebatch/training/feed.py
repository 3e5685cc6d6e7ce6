"""Batches of crops, made beside the training by processes of their own, each batch known by its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from slidebatch.errors import ConfigError
from slidebatch.models.networks import Architecture
from slidebatch.training.crops import Crop, Crops, check_channels
from slidebatch.training.dataset import Example
from slidebatch.training.grid import Grid
from slidebatch.training.spec import CropsSpec, TrainSpec

Batch = list[Any]
"""Images (N, C, Y, X) float32; for dense networks classes (N, Y, X) uint8 and weights (N, Y, X) float32, for detectors
a list of N `Truth`s."""


class Source(Protocol):
    """Crops by number, their (y, x) size, and how many are an epoch."""

    size: tuple[int, int]

    def __getitem__(self, number: int) -> Crop: ...
    def __len__(self) -> int: ...


class _Numbered(Dataset[Crop]):
    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Crop:
        return self.source[number]


def source(examples: Sequence[Example], spec: TrainSpec, channels: int) -> Source:
    """The crops that the settings ask for."""
    for example in examples:  # here rather than in a loader, where an error is a traceback
        check_channels(example.image.shape[0], channels)
    kind = Crops if isinstance(spec.sampling, CropsSpec) else Grid
    return kind(examples, spec, channels)


def check_size(size: tuple[int, int], architecture: Architecture) -> None:
    """ConfigError where a network takes no crops of this (y, x) size."""
    stride, patch = architecture.stride_px, getattr(architecture, "patch_px", None)
    if size != patch and any(side % stride for side in size):
        also = "" if patch is None else f", or make them {patch[0]} x {patch[1]} px"
        raise ConfigError(
            f"sampling: crops of {size[0]} x {size[1]} px (y, x) do not fit the network; make their sides "
            f"multiples of {stride} px{also}."
        )


def steps_per_epoch(crops: Source, spec: TrainSpec) -> int:
    """Whole batches in an epoch, at least one."""
    return max(1, len(crops) // spec.batch)


def collated(crops: Sequence[Crop]) -> Batch:
    """Crops as a batch: tensors stacked, truths side by side."""
    parts = list(zip(*crops, strict=True))
    return [torch.stack(part) if isinstance(part[0], Tensor) else list(part) for part in parts]


def batches(
    crops: Source, spec: TrainSpec, steps: range, share: tuple[int, int] = (0, 1), pinned: bool = False
) -> Iterator[Batch]:
    """The batches of some steps in order.

    share   (rank, ranks) of a process that takes its part of each batch
    pinned  into memory from which a GPU fetches them by itself
    """
    rank, ranks = share
    numbers = [range(k * spec.batch + rank, (k + 1) * spec.batch, ranks) for k in steps]
    return iter(
        DataLoader(
            _Numbered(crops),
            batch_sampler=numbers,  # type: ignore[arg-type]
            collate_fn=collated,
            num_workers=spec.loaders,
            prefetch_factor=4 if spec.loaders else None,
            pin_memory=pinned,
        )
    )

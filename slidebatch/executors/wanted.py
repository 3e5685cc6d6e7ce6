"""What a run asks of an executor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slidebatch.executors.spec import ClusterSpec


@dataclass(frozen=True)
class Wanted:
    """The workers that a run wants.

    spec          the config's `cluster`
    workers       how many
    work          the run's work folder
    until         seconds since the epoch at which waiting for calls ends, or None
    gpu           whether networks run on GPUs
    cpu_workers   workers besides, without a GPU, for the stages that need none
    """

    spec: ClusterSpec
    workers: int
    work: Path
    until: float | None = None
    gpu: bool = False
    cpu_workers: int = 0

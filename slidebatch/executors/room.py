"""What memory the workers of a cluster have, as far as it can be known before they are there."""

from __future__ import annotations

from dataclasses import dataclass

from slidebatch.executors import machine
from slidebatch.executors.spec import JOBS, ClusterSpec


@dataclass(frozen=True)
class Room:
    """Memory for workers.

    shared_bytes   what all of them have together on this machine, or None where they are elsewhere
    each_bytes     what each has for itself, or None where that is not known
    """

    shared_bytes: int | None
    each_bytes: int | None


def room(spec: ClusterSpec) -> Room:
    """The memory for the workers that the config asks for."""
    if spec.kind in JOBS:
        return Room(None, int(spec.job.memory_gb * 1e9))
    return Room(None if spec.kind == "existing" else machine.free_bytes(), None)

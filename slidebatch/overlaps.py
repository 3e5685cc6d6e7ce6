"""How far reading, network and storing of maps overlap on a device, and what that holds in memory."""

from __future__ import annotations

from dataclasses import dataclass

from slidebatch.cores import usable_cores

MOST_READERS = 8


@dataclass(frozen=True)
class Overlaps:
    """Bounds of the queues around a network; all 0: one thing after another, by one thread.

    reads    batches that are read before they are asked for
    readers  threads that read the patches of a batch
    stores   blocks that wait to be stored while the network goes on
    """

    reads: int = 0
    readers: int = 0
    stores: int = 0


def overlaps(device: str) -> Overlaps:
    """What suits a device ("cpu", "cuda").

    A GPU outruns a core that reads by far, so as many threads read as there are cores, up to `MOST_READERS`.
    """
    if device == "cpu":
        return Overlaps()
    return Overlaps(reads=2, readers=min(MOST_READERS, usable_cores()), stores=2)

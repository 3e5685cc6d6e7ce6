"""What this machine has of what slidebatch needs: looked at, one finding a thing.

machine.py   Python, cores, memory, torch, GPUs and their driver
packages.py  the package itself, its dependencies and extras
folder.py    the file system of a folder: renames, syncs, locks, free space
queues.py    commands of batch schedulers
"""

from __future__ import annotations

from pathlib import Path

from slidebatch.doctor import folder, machine, packages, queues
from slidebatch.doctor.finding import Finding

__all__ = ["Finding", "examine"]


def examine(place: Path) -> list[Finding]:
    """Look at this machine and at the file system of a folder, which need not be there yet. Leaves nothing behind."""
    return [*machine.look(), *packages.look(), *folder.look(place), *queues.look()]

"""What this machine has for workers: cores and memory."""

from __future__ import annotations

from pathlib import Path

import psutil

from slidebatch.cores import usable_cores

__all__ = ["free_bytes", "usable_cores"]


def free_bytes() -> int:
    """Memory that new processes may take: what the machine has free, or less where a control group allows less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free
    return min(free, limit - used)

"""What a point costs: time, processor time, memory, GPU, and the machine that paid.

Memory is resident bytes: of this process as the system counted them, and, looked at a few times a second, of this
process and all that it started together (pages that they share count in each).
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

EVERY_S = 0.25


@dataclass
class Cost:
    """Filled in when the metered block ends, also by an error.

    wall_s, cpu_s     seconds, and processor seconds of this process and those it started and waited for
    peak_bytes        most memory
    gpu               name of the GPU that torch has in this process; none: ""
    gpu_peak_bytes    most memory that torch held on it
    """

    began: str = ""
    ended: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    gpu: str = ""
    gpu_peak_bytes: int = 0
    host: str = field(default_factory=socket.gethostname)

    def told(self) -> dict[str, Any]:
        """As JSON's values."""
        return dict(vars(self))


@contextmanager
def metered() -> Iterator[Cost]:
    """Measure what happens inside."""
    cost, end = Cost(began=_now()), threading.Event()
    _forget_peak()
    watch = threading.Thread(target=_watch, args=(cost, end), daemon=True)
    watch.start()
    wall, cpu = time.perf_counter(), _cpu_s()
    try:
        yield cost
    finally:
        cost.wall_s, cost.cpu_s = time.perf_counter() - wall, _cpu_s() - cpu
        end.set()
        watch.join()
        cost.peak_bytes = max(cost.peak_bytes, _own_peak_bytes())
        cost.ended = _now()
        _see_gpu(cost)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _cpu_s() -> float:
    return sum(os.times()[:4])


def _watch(cost: Cost, end: threading.Event) -> None:
    own = psutil.Process()
    while not end.wait(EVERY_S):
        cost.peak_bytes = max(cost.peak_bytes, _tree_bytes(own))


def _tree_bytes(own: psutil.Process) -> int:
    """Resident bytes of a process and of all below it; those that just ended count nothing."""
    total = 0
    with suppress(psutil.Error):
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _forget_peak() -> None:
    """Begin a new high-water mark: of this process where Linux lets it, of the GPU where torch is loaded."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def _own_peak_bytes() -> int:
    """The high-water mark of this process; where the system tells none, what it holds now."""
    with suppress(OSError, IndexError):
        told = Path("/proc/self/status").read_text()
        return int(told.split("VmHWM:")[1].split()[0]) * 1024
    return int(psutil.Process().memory_info().rss)


def _see_gpu(cost: Cost) -> None:
    if (cuda := _cuda()) is not None:
        cost.gpu = str(cuda.get_device_name())
        cost.gpu_peak_bytes = int(cuda.max_memory_allocated())


def _cuda() -> Any | None:
    """torch.cuda where a point has loaded torch and used a GPU; metering loads neither."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None

"""Python, cores, memory, torch, GPUs and their driver."""

from __future__ import annotations

import platform
import sys

from slidebatch import memory, models
from slidebatch.doctor.finding import Finding
from slidebatch.executors.machine import free_bytes, usable_cores

PYTHON = (3, 11)


def look() -> list[Finding]:
    """Findings of the machine itself."""
    return [_python(), _cores(), _memory(), _torch(), *_gpus()]


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable}) on {platform.platform(terse=True)}"
    if sys.version_info < PYTHON:
        return Finding("machine: Python", "fault", found, "everything", "install Python 3.11 or newer")
    return Finding("machine: Python", "fine", found, "everything")


def _cores() -> Finding:
    return Finding("machine: cores", "fine", f"{usable_cores()} usable", "one worker each")


def _memory() -> Finding:
    free = free_bytes()
    found = f"{free / 1e9:.1f} GB free"
    if free < memory.BASE:
        remedy = f"free some: a worker takes {memory.BASE / 1e9:.1f} GB before its first task"
        return Finding("machine: memory", "fault", found, "workers", remedy)
    return Finding("machine: memory", "fine", f"{found}, for {free // memory.BASE} workers at most", "workers")


def _torch() -> Finding:
    try:
        version = models.torch_version()
    except ImportError as error:
        return Finding("machine: torch", "fault", f"cannot be imported ({error})", "networks", "install torch again")
    return Finding("machine: torch", "fine", version, "networks")


def _gpus() -> list[Finding]:
    try:
        why, there = models.why_no_gpu(), models.gpus()
    except ImportError:  # told as a fault of torch
        return []
    if why is not None:
        return [Finding("machine: GPU", "absent", why, "device: cuda", "networks run on the CPU without one")]
    driver = f", driver {models.driver_version() or 'unknown'}"
    told = [f"{g.name}, {g.memory_bytes / 1e9:.0f} GB, capability {g.capability}{driver}" for g in there]
    return [Finding(f"machine: GPU {i}", "fine", words, "networks") for i, words in enumerate(told)]

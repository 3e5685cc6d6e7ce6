"""What of GPUs torch finds on this machine, and if nothing, what is missing."""

from __future__ import annotations

import ctypes
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from slidebatch.errors import ModelError


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, its memory, and its compute capability ("9.0")."""

    name: str
    memory_bytes: int
    capability: str


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, in CUDA's order; none where there is no driver."""
    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return tuple(Gpu(p.name, p.total_memory, f"{p.major}.{p.minor}") for p in found)


def why_no_gpu() -> str | None:
    """What is missing for networks to run on a GPU here; None where nothing is."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA; install PyPI's own torch"
    if not driver():
        return "no NVIDIA driver is installed (libcuda.so.1 is missing)"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides every GPU"
    return f"the NVIDIA driver finds no GPU that torch {torch.__version__} (CUDA {torch.version.cuda}) can use"


def torch_version() -> str:
    """The version of torch, and the CUDA it was built for."""
    return f"{torch.__version__} ({f'CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'})"


def driver() -> bool:
    """Whether NVIDIA's driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def driver_version() -> str | None:
    """The version of NVIDIA's driver, "580.95.05"; None where neither the kernel nor nvidia-smi tells."""
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        pass
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return told[0] if told else None


def pick_device(device: str) -> str:
    """The device that "auto", "cpu", "cuda" or "cuda:1" means here. ModelError for a GPU that is not there."""
    missing = why_no_gpu()
    if device == "auto":
        return "cpu" if missing else "cuda"
    if device.startswith("cuda") and missing:
        raise ModelError(
            f"device {device} was asked for, but torch {torch.__version__} finds no CUDA device here: {missing}; "
            "use device: cpu, or run on a machine with a GPU and its driver."
        )
    return device

"""The way of patches to what computes them, and of the answers back: at once on a CPU, beside the computing on a GPU.

On a GPU patches lie in pinned memory, from which it fetches them by itself on a stream of their own, while it computes
what came before; answers go back the same way. What is begun is computed in the order in which it was begun. Seconds
are the GPU's own, between two events in its queue, so that they are true however far the queue is ahead of this
process.
Source: PyTorch's "CUDA semantics" (asynchronous execution; pinned memory buffers; caching allocator, record_stream).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slidebatch.errors import EnvironmentFault

Patches = npt.NDArray[np.float32]
"""(N, C, Y, X)."""

Maps = npt.NDArray[np.uint8]
"""(N, K, Y, X)."""

Compute = Callable[[Tensor], Sequence[Tensor]]
"""Patches (N, C, Y, X) float32 on a device -> answers there."""

FULL = re.compile(r"out of memory|_ALLOC_FAILED|unable to find an engine to execute")
"""What CUDA, cuBLAS and cuDNN say where memory runs out; the last: no routine of cuDNN's had room for its workspace."""

BROKEN = re.compile(r"\b(CUDA|cuDNN|CUDNN|CUBLAS|cuBLAS|NVML)\b.*?\b(error|ERROR|STATUS_\w+|failed)\b", re.DOTALL)


class Begun(Protocol):
    """Answers that are being computed."""

    def answers(self) -> list[npt.NDArray[Any]]:
        """Wait for them; once."""


class Lane(Protocol):
    """The way to one device and back, used by one thread.

    ahead   how many batches may be begun before the answers of the first are waited for
    busy_s  seconds in which the device computed; counted when answers are taken
    """

    ahead: int
    busy_s: float

    def room(self, shape: tuple[int, ...]) -> Patches:
        """Memory to make patches in, from which they get to the device the fastest; any thread may ask for it."""

    def begin(self, patches: Patches, compute: Compute) -> Begun:
        """Begin to compute. torch.OutOfMemoryError: the device is full. EnvironmentFault: it failed."""


@dataclass(frozen=True)
class Done:
    """Answers that are there."""

    found: list[npt.NDArray[Any]]

    def answers(self) -> list[npt.NDArray[Any]]:
        return self.found


class CpuLane:
    """Computes at once."""

    ahead = 0

    def __init__(self) -> None:
        self.busy_s = 0.0

    def room(self, shape: tuple[int, ...]) -> Patches:
        return np.empty(shape, np.float32)

    def begin(self, patches: Patches, compute: Compute) -> Done:
        began = time.perf_counter()
        found = [answer.numpy() for answer in compute(torch.from_numpy(patches))]
        self.busy_s += time.perf_counter() - began
        return Done(found)


class GpuLane:
    """Queues up what is begun and returns; one batch computes while the next is on its way."""

    ahead = 1

    def __init__(self, device: str) -> None:
        self.busy_s = 0.0
        self._device = torch.device(device)
        self._copies = torch.cuda.Stream(self._device)

    def room(self, shape: tuple[int, ...]) -> Patches:
        """Pinned. EnvironmentFault where the system pins no more."""
        try:
            pinned = torch.empty(shape, dtype=torch.float32, pin_memory=True)
        except RuntimeError as error:
            raise EnvironmentFault(
                f"the system pins no {4 * int(np.prod(shape)) / 1e6:.0f} MB of memory for patches ({_line(error)}); "
                "set a smaller model.batch or tiling.patch_px, then give the same command again"
            ) from error
        return pinned.numpy()  # keeps the tensor, and so the memory

    def begin(self, patches: Patches, compute: Compute) -> GpuBegun:
        with device_faults():
            stream = torch.cuda.current_stream(self._device)
            with torch.cuda.stream(self._copies):
                image = torch.from_numpy(patches).to(self._device, non_blocking=True)
            stream.wait_stream(self._copies)
            image.record_stream(stream)  # else its memory could be given to the next patches while it is read
            begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begun.record(stream)
            found = compute(image)
            ended.record(stream)
            there = [torch.empty(a.shape, dtype=a.dtype, pin_memory=True).copy_(a, non_blocking=True) for a in found]
            # Waiting for this one leaves the core to the threads that read.
            arrived = torch.cuda.Event(blocking=True)
            arrived.record(stream)
        return GpuBegun(self, patches, there, (begun, ended, arrived))


class GpuBegun:
    """Answers on their way."""

    def __init__(self, lane: GpuLane, patches: Patches, there: list[Tensor], events: tuple[Any, Any, Any]) -> None:
        self._lane, self._there, self._events = lane, there, events
        self._patches: Patches | None = patches  # the GPU reads them until it is done

    def answers(self) -> list[npt.NDArray[Any]]:
        begun, ended, arrived = self._events
        with device_faults():
            arrived.synchronize()
            self._lane.busy_s += begun.elapsed_time(ended) / 1000
        self._patches = None
        return [answer.numpy() for answer in self._there]


def lane_to(device: str) -> Lane:
    """The way to a device: "cpu", "cuda" or "cuda:1"."""
    return CpuLane() if device == "cpu" else GpuLane(device)


@contextmanager
def device_faults() -> Iterator[None]:
    """Make of the many words for a full GPU one, torch.OutOfMemoryError, and of a GPU that failed EnvironmentFault."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if FULL.search(str(error)):
            raise torch.OutOfMemoryError(_line(error)) from error
        if isinstance(error, getattr(torch, "AcceleratorError", ())) or BROKEN.search(str(error)):
            raise EnvironmentFault(
                f"the GPU failed ({_line(error)}); look at it with nvidia-smi, then give the same command again"
            ) from error
        raise


@contextmanager
def room_for_weights(name: str) -> Iterator[None]:
    """A GPU that has no room for a network is an EnvironmentFault; so is one that failed."""
    try:
        with device_faults():
            yield
    except torch.OutOfMemoryError as error:
        raise EnvironmentFault(
            f"the GPU's memory has no room for the weights of {name} ({_line(error)}); end what else runs on it "
            "(nvidia-smi shows it), then give the same command again"
        ) from error


def give_back() -> None:
    """Give memory that this process has freed back to the GPU, for other processes."""
    torch.cuda.empty_cache()


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]

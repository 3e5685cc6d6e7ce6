"""Ways of running the shipped network on a device, and their seconds. A part of gpu.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from slidebatch.models import SHIPPED, networks
from slidebatch.models.blocks import ready
from slidebatch.models.engines import Choice, forward
from slidebatch.models.weights_file import load_weights

TURNS = 5


@dataclass(frozen=True)
class Way:
    """A way of running the network: patches (N, 3, Y, X) float32 on the device to class maps (N, 2, Y, X) uint8."""

    name: str
    run: Callable[[Tensor], Tensor]


def ways(device: str, compiled: bool) -> Iterator[Way]:
    """Every way, the yardstick first."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    plain = trained().to(device)
    yield Way("PyTorch, float32, as trained", lambda image: grey(plain(image)))
    lying = trained().to(device).to(memory_format=torch.channels_last)
    yield Way("the same, channels last", lambda image: grey(lying(last(image))))
    for precision in ("bfloat16", "float16") if device != "cpu" else ("bfloat16",):
        yield Way(f"the same, autocast {precision}", lambda image, p=precision: autocast(lying, image, p))
    for precision in ("float32", "bfloat16", "float16") if device != "cpu" else ("float32",):
        run = forward(trained(), Choice("eager", precision), device, 1)  # type: ignore[arg-type]
        yield Way(f"engine, {precision}", lambda image, run=run: grey(run(image)))
    if compiled:
        torch._dynamo.config.recompile_limit = 256  # a shape each; beyond the limit it would run uncompiled
        for precision in (torch.float32, torch.bfloat16):
            fast: Any = torch.compile(ready(trained()).to(device, precision).to(memory_format=torch.channels_last))
            name = f"torch.compile, {str(precision).removeprefix('torch.')}"
            yield Way(name, lambda image, f=fast, p=precision: grey(f(last(image.to(p))).float()))


def trained() -> nn.Module:
    """The shipped network as PyTorch has it."""
    made = networks.build("small_unet", {})
    load_weights(made, SHIPPED / "small_unet.safetensors", "small_unet")
    return made.eval().requires_grad_(False)


def last(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)


def grey(logits: Tensor) -> Tensor:
    """Class maps of logits."""
    return logits.softmax(1)[:, 1:].mul(255).round_().to(torch.uint8)


def autocast(network: nn.Module, image: Tensor, precision: str) -> Tensor:
    with torch.autocast(image.device.type, getattr(torch, precision)):
        logits = network(last(image))
    return grey(logits.float())


@torch.inference_mode()
def on_device_s(way: Way, shape: tuple[int, ...], device: str, seconds: float) -> list[float]:
    """Seconds of a pass in each of several turns of `seconds` or a pass, patches and answers on the device."""
    image = torch.rand(shape, device=device)
    for _ in range(3):
        way.run(image)  # chooses routines, compiles
    passes = max(1, round(seconds / max(_turn_s(way, image, 1), 1e-4)))
    return [_turn_s(way, image, passes) for _ in range(TURNS)]


def _turn_s(way: Way, image: Tensor, passes: int) -> float:
    """Seconds of a pass, mean of some: by CUDA events on a GPU."""
    if image.device.type == "cpu":
        began = time.perf_counter()
        for _ in range(passes):
            way.run(image)
        return (time.perf_counter() - began) / passes
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begun.record()
    for _ in range(passes):
        way.run(image)
    ended.record()
    ended.synchronize()
    return begun.elapsed_time(ended) / 1000 / passes


def streamed_s(network: Any, shape: tuple[int, ...], seconds: float) -> list[tuple[float, float]]:
    """Seconds of a batch by the wall, and of them those in which the device computed, in each of several turns."""
    rooms = [_filled(network.room(shape), i) for i in range(3)]
    list(network.stream([(room, ()) for room in rooms]))  # chooses routines, fills caches of memory
    once = _stream_s(network, rooms, 2)[0]
    count = max(4, round(2 * seconds / max(once, 1e-4)))
    return [_stream_s(network, rooms, count) for _ in range(TURNS)]


def _filled(room: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    room[...] = np.random.default_rng(seed).random(room.shape, np.float32)
    return room


def _stream_s(network: Any, rooms: list[npt.NDArray[np.float32]], count: int) -> tuple[float, float]:
    before, began = network.busy_s, time.perf_counter()
    for _ in network.stream((rooms[i % len(rooms)], ()) for i in range(count)):
        pass
    return (time.perf_counter() - began) / count, (network.busy_s - before) / count

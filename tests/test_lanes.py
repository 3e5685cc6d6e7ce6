"""The way to a GPU and back, tried with a stand-in: what is in flight is bounded, in order, and faults have names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from slidebatch import models
from slidebatch.errors import EnvironmentFault
from slidebatch.models.dense import DenseNetwork, Running
from slidebatch.models.halving import Halving
from slidebatch.models.lanes import Compute, CpuLane, Done, Patches, device_faults, room_for_weights
from slidebatch.models.protocol import Card, Place, streaming
from slidebatch.models.spec import ModelSpec

CARD = Card("standin", "dense", 3, ("nucleus",), margin_px=20, stride_px=8, mpp=None, digest="")


class LateLane(CpuLane):
    """Computes only when answers are asked for, as a GPU may; knows what is in flight."""

    ahead = 1

    def __init__(self) -> None:
        super().__init__()
        self.flying, self.most = 0, 0

    def begin(self, patches: Patches, compute: Compute) -> Any:
        self.flying += 1
        self.most = max(self.most, self.flying)
        return Late(self, patches, compute)


class Late:
    def __init__(self, lane: LateLane, patches: Patches, compute: Compute) -> None:
        self._of = lane, patches, compute

    def answers(self) -> list[npt.NDArray[Any]]:
        lane, patches, compute = self._of
        lane.flying -= 1
        with torch.inference_mode():
            done: Done = CpuLane.begin(lane, patches, compute)
        return done.answers()


def two_classes(image: torch.Tensor) -> torch.Tensor:
    """Logits (N, 2, Y, X) of the mean over channels."""
    grey = image.mean(dim=1, keepdim=True)
    return torch.cat([torch.zeros_like(grey), grey], dim=1)


def network(lane: CpuLane | None = None, **running: Any) -> DenseNetwork:
    made = DenseNetwork(two_classes, CARD, Running(**running), lane)
    made._batches = Halving(running.get("batch", 1), CARD)  # as on a GPU
    return made


def some_patches(count: int, channels: int = 3) -> Patches:
    return np.random.default_rng(count).random((count, channels, 16, 24), np.float32)


def test_one_batch_is_in_flight_while_the_next_is_made() -> None:
    """A batch is asked for before the answer to the last is waited for, never two; answers come in order."""
    lane = LateLane()
    made, answered = list[int](), 0
    patches = some_patches(4)

    def batches() -> Iterator[tuple[Patches, Sequence[Place]]]:
        for number in range(6):
            made.append(number)
            yield patches[: 1 + number % 4], ()

    for number, maps in enumerate(network(lane, batch=4).stream(batches())):
        assert len(made) == min(number + 2, 6)
        np.testing.assert_array_equal(maps, network(batch=4).maps(patches[: 1 + number % 4]))
        answered += 1
    assert (answered, lane.most, lane.flying) == (6, 2, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_answers_do_not_depend_on_the_lane(count: int, channels: int) -> None:
    """By either lane, in batches that are filled up, the maps are those of one patch at a time."""
    patches = some_patches(count, channels)
    alone = [network().maps(patch[None]) for patch in patches]
    expected = np.concatenate([np.zeros((0, 1, 16, 24), np.uint8), *alone])
    for lane in (LateLane(), CpuLane()):
        np.testing.assert_array_equal(network(lane, batch=3).maps(patches), expected)


def test_seconds_are_counted_when_answers_are_taken() -> None:
    """The network's seconds grow with every answer, by its own lane or around a model that has none."""
    for model in (network(LateLane(), batch=2), streaming(Plain())):
        before = model.busy_s
        for _ in model.stream([(some_patches(2), ()), (some_patches(2), ())]):
            assert model.busy_s > before
            before = model.busy_s
        assert model.room((2, 3)).shape == (2, 3)


class Plain:
    """A model of a user's own, which knows nothing of streams."""

    card = CARD

    def maps(self, patches: Patches, places: Sequence[Place]) -> npt.NDArray[np.uint8]:
        return patches[:, :1].astype(np.uint8)


@pytest.mark.parametrize("worst", [np.inf, np.nan])
def test_numbers_that_leave_float16_are_refused(worst: float) -> None:
    """A network whose numbers overflow float16 stops the run with a sentence; in other precisions nobody looks."""
    patches = some_patches(3)
    patches[1, 0, 5, 5] = worst
    assert network(batch=2, narrow=True).maps(some_patches(3)).any()
    with pytest.raises(EnvironmentFault, match=r"leave the range of float16.*set model\.precision to float32"):
        network(LateLane(), batch=2, narrow=True).maps(patches)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_a_full_gpu_has_one_name(words: str) -> None:
    """Whatever library runs out of the GPU's memory, it is the exception that halves batches."""
    with pytest.raises(torch.OutOfMemoryError, match=words.split("\n")[0].split("(")[0]), device_faults():
        raise RuntimeError(words)
    with pytest.raises(EnvironmentFault, match="no room for the weights of small_unet"), room_for_weights("small_unet"):
        raise RuntimeError(words)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be",
        "CUDA error: unspecified launch failure",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
        "CUDA driver initialization failed, you might not have a CUDA gpu.",
    ],
)
def test_a_gpu_that_fails_stops_the_run(words: str) -> None:
    """A lost or broken GPU is a fault of the environment: no slide is blamed for it."""
    with (
        pytest.raises(EnvironmentFault, match=r"the GPU failed .*; look at it with nvidia-smi") as told,
        device_faults(),
    ):
        raise RuntimeError(words)
    assert "\n" not in str(told.value)


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this torch has no AcceleratorError")
def test_torch_s_own_exception_of_a_failed_gpu_is_known() -> None:
    """Whatever its words, torch's exception for a GPU that failed is one."""
    with pytest.raises(EnvironmentFault, match="the GPU failed"), device_faults():
        raise torch.AcceleratorError("any words")


def test_other_errors_are_not_the_gpu_s() -> None:
    """An error of a network's own code comes as it is."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), device_faults():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)")


def test_a_batch_is_halved_in_flight() -> None:
    """Where the second batch in flight runs out of memory, the first is answered as it is, the second by halves."""

    class Tight(LateLane):
        def begin(self, patches: Patches, compute: Compute) -> Any:
            if len(patches) > (4 if self.flying == 0 else 2):
                raise torch.OutOfMemoryError("CUDA out of memory. (a stand-in)")
            return super().begin(patches, compute)

    patches = some_patches(8)
    tight = network(Tight(), batch=4)
    found = np.concatenate(list(tight.stream([(patches[:4], ()), (patches[4:], ())])))
    np.testing.assert_array_equal(found, network(batch=4).maps(patches))
    assert tight.halvings == 1


def test_memory_is_given_back_without_a_gpu() -> None:
    """Giving back memory where there is no GPU does nothing, on either device's word."""
    models.give_back("cpu")
    models.give_back("cuda")
    assert not torch.cuda.is_initialized() or torch.cuda.is_available()


def test_the_cpu_s_network_counts_its_seconds() -> None:
    """A network of the engine's on a CPU tells seconds and no halvings."""
    made = models.load(ModelSpec(engine="eager", precision="float32"))
    made.maps(np.zeros((2, 3, 64, 64), np.float32))  # type: ignore[union-attr]
    assert made.busy_s > 0  # type: ignore[union-attr]
    assert made.halvings == 0  # type: ignore[union-attr]

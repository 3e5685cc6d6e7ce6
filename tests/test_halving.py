"""A GPU whose memory runs out costs smaller batches, then a sentence, never an answer. Tried with torch's exception."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import numpy.typing as npt
import pytest
import torch

from slidebatch import ahead as reading
from slidebatch.ahead import Behind
from slidebatch.errors import EnvironmentFault
from slidebatch.models.dense import DenseNetwork, Running
from slidebatch.models.halving import Halving
from slidebatch.models.protocol import Card
from slidebatch.tiling import CELL_STEP_PX, patch_grid

CARD = Card("standin", "dense", 1, ("nucleus",), margin_px=20, stride_px=8, mpp=None, digest="")


class Memory:
    """A stand-in for a GPU's memory: batches of more pixels than it has raise torch's own exception."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self.sizes = pixels, list[int]()

    def together(self, patches: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.uint8]:
        if size * patches.shape[2] * patches.shape[3] > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. (a stand-in)")
        self.sizes.append(size)
        return patches.astype(np.uint8)


def numbered(count: int, side: int = 128) -> npt.NDArray[np.float32]:
    """Patches of one channel whose pixels are their number."""
    return np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, 1, side, side))


@pytest.mark.parametrize(("fits", "size", "halvings"), [(8, 8, 0), (7, 4, 1), (4, 4, 1), (3, 2, 2), (1, 1, 3)])
def test_the_batch_is_halved_until_it_fits(
    fits: int, size: int, halvings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Every patch is answered once, in order, by the largest of 8, 4, 2, 1 that fits; each halving is logged, once."""
    memory, batches = Memory(fits * 128 * 128), Halving(8, CARD)
    with caplog.at_level(logging.WARNING, "slidebatch"):
        for _ in range(2):
            found = np.concatenate(batches.run(numbered(11), memory.together))
            np.testing.assert_array_equal(found[:, 0, 0, 0], np.arange(11))
    assert (batches.size, batches.halvings) == (size, halvings)
    assert set(memory.sizes) == {size}
    assert len(caplog.messages) == halvings
    assert all("memory ran out" in told for told in caplog.messages)


@pytest.mark.parametrize("fits_px", [127, 128, 512, 1000, 1023])
def test_a_patch_that_does_not_fit_names_the_largest_that_does(fits_px: int) -> None:
    """One patch beyond the memory stops the run; the `patch_px` it names runs, and one step more does not."""
    memory = Memory(fits_px * fits_px)
    with pytest.raises(EnvironmentFault) as told:
        Halving(8, CARD).run(numbered(3, 1024), memory.together)
    sentence = str(told.value)
    assert "one patch of 1024 x 1024 px does not fit" in sentence
    named = int(sentence.split("set tiling.patch_px to ")[1].split()[0])
    margin = patch_grid((CELL_STEP_PX,) * 2, CARD.margin_px, CARD.stride_px).margin_px
    assert (named - 2 * margin) % CELL_STEP_PX == 0, "the config would take another patch"
    memory.together(np.zeros((1, 1, named, named), np.float32), 1)
    more = named + CELL_STEP_PX
    with pytest.raises(torch.OutOfMemoryError):
        memory.together(np.zeros((1, 1, more, more), np.float32), 1)


def test_where_nothing_fits_another_device_is_named() -> None:
    """Memory for no patch at all: the sentence names the network and does not name a patch_px."""
    with pytest.raises(EnvironmentFault, match="nor does the smallest; run standin on a GPU with more memory"):
        Halving(2, CARD).run(numbered(1, 256), Memory(10).together)


def test_other_errors_pass() -> None:
    """An error that is not about memory is not tried again."""
    calls: list[int] = []

    def broken(patches: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.uint8]:
        calls.append(size)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Halving(8, CARD).run(numbered(3), broken)
    assert calls == [8]


def test_a_network_answers_the_same_from_halved_batches() -> None:
    """A dense network whose forward pass runs out of memory above two patches gives the maps that it else gives."""

    def forward(image: torch.Tensor) -> torch.Tensor:
        if len(image) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. (a stand-in)")
        return torch.cat([torch.zeros_like(image), image], dim=1)

    rng = np.random.default_rng(3)
    patches = rng.random((7, 1, 64, 64), np.float32)
    answers = []
    for most in (8, 2):
        network = DenseNetwork(forward, CARD, Running(batch=8))
        network._batches = Halving(8, CARD)  # as on a GPU
        answers.append(network.maps(patches))
        assert network.halvings == (0 if most == 8 else 2)
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_reading_ahead_keeps_the_order(depth: int) -> None:
    """Whatever the depth, answers come in order, never more than `depth` and one beyond what was taken is made."""
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * 10

    taken = 0
    for answer in reading.ahead(make, range(9), depth):
        assert answer == taken * 10
        taken += 1
        assert len(made) <= taken + depth
    assert (taken, made) == (9, list(range(9)))


def test_an_error_of_reading_comes_in_its_turn() -> None:
    """An exception is raised in place of its answer; after it nothing is made."""
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        if number == 2:
            raise OSError("unreadable")
        return number

    answers = reading.ahead(make, range(100), 2)
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(OSError, match="unreadable"):
        next(answers)
    assert len(made) <= 6


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_writing_behind_keeps_the_order_and_its_bounds(depth: int) -> None:
    """Things are done once, in order; at most `depth` wait and one is done; the block's end waits for all."""
    begun, ended, done = 0, 0, list[int]()

    def thing(number: int) -> None:
        nonlocal ended
        time.sleep(0.002)
        done.append(number)
        ended += 1

    with Behind(depth) as behind:
        for number in range(9):
            behind.do(lambda number=number: thing(number))
            begun += 1
            assert begun - ended <= depth + 1
    assert done == list(range(9))
    assert behind.waited_s > 0


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_error_of_writing_is_heard(depth: int) -> None:
    """What a thing raises comes at a later call or at the end, and nothing that was given after it is done."""
    done: list[int] = []

    def thing(number: int) -> None:
        if number == 2:
            raise OSError("no space left")
        done.append(number)

    with pytest.raises(OSError, match="no space left"), Behind(depth) as behind:  # noqa: PT012
        for number in range(100):
            behind.do(lambda number=number: thing(number))
    assert done == [0, 1]


def test_an_error_beside_writing_is_not_hidden() -> None:
    """A block left by an exception begins nothing more, waits for what is being done, and raises that exception."""
    gate, done = threading.Event(), list[int]()

    def thing(number: int) -> None:
        gate.wait(300)
        done.append(number)

    with pytest.raises(KeyError, match="mine"), Behind(3) as behind:  # noqa: PT012
        for number in range(4):
            behind.do(lambda number=number: thing(number))
        gate.set()
        raise KeyError("mine")
    assert done == list(range(len(done)))

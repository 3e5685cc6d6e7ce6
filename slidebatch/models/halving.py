"""Batches that fit a GPU's memory: halved where it runs out, refused in one sentence where one patch is too much."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from slidebatch.errors import EnvironmentFault
from slidebatch.models.lanes import Patches, give_back
from slidebatch.models.protocol import Card
from slidebatch.tiling import CELL_STEP_PX, patch_grid

R = TypeVar("R")
Together = Callable[[Patches, int], R]
"""(up to n patches, n) -> their answers, computed n at a time, or what will become them."""

LOG = logging.getLogger(__name__)


class Halving:
    """Runs patches in batches of `size`, which is halved for good whenever memory runs out.

    A smaller batch may change an answer by rounding, as another batch size in the config would.
    """

    def __init__(self, size: int, card: Card) -> None:
        self.size, self.card = size, card
        self.halvings = 0

    def run(self, patches: Patches, together: Together[R]) -> list[R]:
        """The answers to (N, C, Y, X) patches, batch by batch, in order.

        EnvironmentFault where not even one patch fits: it names the largest `tiling.patch_px` that does.
        """
        found: list[R] = []
        done = 0
        while done < len(patches):
            some = patches[done : done + self.size]
            answer = _unless_full(together, some, self.size)
            if answer is not None:
                found.append(answer)
                done += len(some)
            elif self.size > 1:
                self._halve()
            else:
                raise EnvironmentFault(self._too_large(patches, together))
        return found

    def _halve(self) -> None:
        self.size, self.halvings = self.size // 2, self.halvings + 1
        LOG.warning("%s: the GPU's memory ran out; the batch is now %d patches", self.card.name, self.size)

    def _too_large(self, patches: Patches, together: Together[R]) -> str:
        channels, height, width = patches.shape[1:]
        found = f"one patch of {height} x {width} px does not fit the GPU's memory"
        fits_px = self._largest_px(max(height, width), channels, together)
        if fits_px is None:
            return f"{found}, nor does the smallest; run {self.card.name} on a GPU with more memory or on the CPU"
        return f"{found}; the largest that does is {fits_px}: set tiling.patch_px to {fits_px} or less and start again"

    def _largest_px(self, below_px: int, channels: int, together: Together[R]) -> int | None:
        """The largest `patch_px` whose blank patch runs, below a side that did not; None: no patch does."""
        fits, fails = 0, below_px // CELL_STEP_PX + 1  # cells, in steps
        while fails - fits > 1:
            middle = (fits + fails) // 2
            side = self._patch_px(middle)
            blank = np.zeros((1, channels, side, side), np.float32)
            if side < below_px and _unless_full(together, blank, 1) is not None:
                fits = middle
            else:
                fails = middle
        return self._patch_px(fits) if fits else None

    def _patch_px(self, steps: int) -> int:
        """Side of the patch around a cell of so many steps: the `patch_px` that asks for that cell."""
        cell = steps * CELL_STEP_PX
        return patch_grid((cell, cell), self.card.margin_px, self.card.stride_px).patch[0]


def _unless_full(together: Together[R], patches: Patches, size: int) -> R | None:
    """The answers, or None where memory ran out; then what the attempt held is given back."""
    try:
        return together(patches, size)
    except torch.OutOfMemoryError:
        pass
    give_back()  # only here has the exception, and with it the frames that held tensors, gone
    return None

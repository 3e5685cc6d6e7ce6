"""Test-time augmentation: an image seen turned and mirrored, and the answers turned back.

A patch's sides are multiples of the network's stride, so a turned patch lies on the same grid of poolings, and the
mean over views depends on a pixel's surroundings as each view's answer does: nothing on the patch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """A mirroring left to right, or none, and then quarter turns."""

    mirror: bool
    turns: int

    def of(self, image: Tensor) -> Tensor:
        """(..., Y, X) as seen; quarter turns swap the sides."""
        return torch.rot90(image.flip(-1) if self.mirror else image, self.turns, (-2, -1))

    def back(self, answer: Tensor) -> Tensor:
        """What `of` made of an image, as the image was."""
        turned = torch.rot90(answer, -self.turns, (-2, -1))
        return turned.flip(-1) if self.mirror else turned


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(False, 0),),
    "flips": tuple(View(m, t) for m in (False, True) for t in (0, 2)),
    "d4": tuple(View(m, t) for m in (False, True) for t in range(4)),
}
"""The views of each augmentation, in the order in which answers are added."""

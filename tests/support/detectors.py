"""Small Mask R-CNNs for tests, and truth for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slidebatch.models import networks
from slidebatch.models.mask_rcnn import MaskRCNN
from slidebatch.models.rois import Truth
from slidebatch.models.weights_file import CardFile, write_weights
from slidebatch.training.truths import truth

TINY: dict[str, Any] = {
    **{"backbone": "resnet18", "stages": 2, "finest_px": 2, "anchors_px": ((8,), (16,), (32,), (64,))},
    **{"pyramid_width": 16, "box_width": 32, "mask_width": 16, "mask_layers": 1, "overlap_px": 16},
}
"""A detector of 0.7 M parameters with a stride of 16 px."""


def tiny(**more: Any) -> MaskRCNN:
    """A tiny network with random weights, always the same ones."""
    torch.manual_seed(0)
    made = networks.build("mask_rcnn", TINY | more)
    assert isinstance(made, MaskRCNN)
    return made


def write(folder: Path, network: torch.nn.Module | None = None, card: dict[str, Any] | None = None, **more: Any) -> str:
    """The weights of a tiny network in a file with a card that fits, changed by `card`; its path."""
    settings = TINY | more
    made = networks.architecture("mask_rcnn", settings)
    fits = CardFile(
        network="mask_rcnn", architecture=settings, maps=(), margin_px=made.margin_px, stride_px=made.stride_px
    )
    path = folder / "own.safetensors"
    write_weights(path, (network or tiny(**more)).state_dict(), fits.model_copy(update=card or {}))
    return str(path)


def shown(labels: npt.NDArray[np.int32], channels: int = 3) -> torch.Tensor:
    """An image (1, C, Y, X) float32 whose bright pixels are the labelled ones."""
    noise = np.random.default_rng(0).normal(0, 0.02, labels.shape)
    shade = torch.from_numpy((0.1 + 0.6 * (labels > 0) + noise).astype(np.float32))
    return shade.expand(1, channels, *labels.shape).contiguous()


def truth_of(labels: npt.NDArray[np.int32]) -> Truth:
    """The nuclei of a label image, all of them."""
    return truth(labels, least_px=1)


def empty(shape: tuple[int, int]) -> Truth:
    """A crop without nuclei."""
    return truth_of(np.zeros(shape, np.int32))

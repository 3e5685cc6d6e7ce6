"""What the network must answer: classes and pixel weights from a label image.

The decoder grows every seed (a connected piece of class nucleus) over foreground (nucleus and contour). So
the two classes together must be the nuclei exactly, and the contour must keep the interiors of touching
nuclei apart: one pixel of rim everywhere, two where another nucleus is within two pixels. Gaps between
nuclei stay background, but count more in the loss: they are few and decide whether two nuclei merge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

BACKGROUND, NUCLEUS, CONTOUR = 0, 1, 2
CROSS = ndimage.generate_binary_structure(2, 1)
FAR = np.iinfo(np.int32).max


def class_image(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Labels (Y, X), 0 = background -> classes (Y, X) uint8: 0 background, 1 nucleus, 2 contour.

    A nucleus too thin to have an interior is all nucleus, but for the pixels near another one.
    Image edges are no contour: what is cut there goes on outside.
    """
    labels = labels.astype(np.int32)
    inside = labels > 0
    near = _other_within(labels, 2)
    rim = inside & (ndimage.grey_erosion(labels, footprint=CROSS, mode="nearest") != labels)
    rim |= inside & (ndimage.grey_dilation(labels, footprint=CROSS, mode="nearest") != labels)
    interior = inside & ~rim & ~near
    whole = np.ones(int(labels.max(initial=0)) + 1, bool)
    whole[labels[interior]] = False  # True: no interior left
    interior |= inside & whole[labels] & ~_other_within(labels, 1)
    return np.where(interior, NUCLEUS, np.where(inside, CONTOUR, BACKGROUND)).astype(np.uint8)


def weight_image(labels: npt.NDArray[np.integer], touching_weight: float) -> npt.NDArray[np.float32]:
    """Loss weights (Y, X) float32: 1, and 1 + touching_weight on pixels within 2 px of two nuclei."""
    near = _other_within(labels.astype(np.int32), 2)
    return 1.0 + np.float32(touching_weight) * near.astype(np.float32)


def _other_within(labels: npt.NDArray[np.integer], reach_px: int) -> npt.NDArray[np.bool_]:
    """Pixels whose square neighbourhood holds two different nuclei (one of them may be their own)."""
    size = 2 * reach_px + 1
    largest = ndimage.maximum_filter(labels, size, mode="nearest")
    smallest = ndimage.minimum_filter(np.where(labels > 0, labels, FAR), size, mode="nearest")
    return (largest > 0) & (largest != smallest)

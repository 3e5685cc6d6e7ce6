"""What the network must answer: classes and pixel weights from a label image.

The decoder grows every seed (a connected piece of class nucleus) over foreground (nucleus and contour). So
the two classes together must be the nuclei exactly, and the contour must keep the interiors of touching
nuclei apart: a thin rim everywhere, a thicker one where another nucleus is near. Gaps between nuclei stay
background, but count more in the loss: they are few and decide whether two nuclei merge.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from slidebatch.training.spec import TargetSpec

BACKGROUND, NUCLEUS, CONTOUR = 0, 1, 2
PLAIN = TargetSpec.model_validate({})


def class_image(labels: npt.NDArray[np.integer], spec: TargetSpec = PLAIN) -> npt.NDArray[np.uint8]:
    """Labels (Y, X), 0 = background -> classes (Y, X) uint8: 0 background, 1 nucleus, 2 contour.

    Contour is what of a nucleus lies within `contour_px` of anything else (by the straight line), or within
    `touching_px` of another nucleus (by rows and columns). A nucleus too thin to have an interior is all nucleus,
    but for the pixels next to another one. Image edges are no contour: what is cut there goes on outside. Negative
    labels do not count; they are background here and weigh nothing.
    """
    return targets(labels, spec)[0]


def weight_image(labels: npt.NDArray[np.integer], spec: TargetSpec = PLAIN) -> npt.NDArray[np.float32]:
    """Loss weights (Y, X) float32: 1, more within `touching_px` of two nuclei, and 0 where labels are negative."""
    return targets(labels, spec)[1]


def targets(labels: npt.NDArray[np.integer], spec: TargetSpec) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Classes (Y, X) uint8 and weights (Y, X) float32 of a label image (Y, X)."""
    plain = np.ascontiguousarray(labels, np.int32)
    classes, near = _classes(plain, spec.contour_px, spec.touching_px)
    _fill(plain, classes)
    weights = np.where(near, np.float32(1 + spec.touching_weight), np.float32(1))
    weights[plain < 0] = 0
    return classes, weights


@numba.njit(cache=True, nogil=True)
def _classes(labels, rim, reach):
    """Classes (Y, X) before thin nuclei are seen to, and where two nuclei are within `reach`."""
    height, width = labels.shape
    classes = np.zeros((height, width), np.uint8)
    near = np.zeros((height, width), np.bool_)
    mixed = _mixed(labels, max(rim, reach))
    for y in range(height):
        for x in range(width):
            if not mixed[y, x]:
                classes[y, x] = NUCLEUS if labels[y, x] > 0 else BACKGROUND
                continue
            at_rim, other = _around(labels, (y, x), rim, reach)
            near[y, x] = other
            if labels[y, x] > 0:
                classes[y, x] = CONTOUR if at_rim or other else NUCLEUS
    return classes, near


@numba.njit(cache=True, nogil=True)
def _mixed(labels, far):
    """Pixels (Y, X) that may have another value within `far` by rows and columns; most images are mostly plain."""
    height, width = labels.shape
    mixed = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            if (x + 1 < width and labels[y, x + 1] != own) or (y + 1 < height and labels[y + 1, x] != own):
                mixed[max(0, y - far) : y + far + 1, max(0, x - far) : x + far + 1] = True
    return mixed


@numba.njit(cache=True, nogil=True)
def _around(labels, at, rim, reach):
    """Whether anything else is within `rim` of a pixel, and whether two nuclei are within `reach`."""
    far = max(rim, reach)
    own = labels[at]
    first = max(own, 0)
    at_rim, other = False, False
    for v in range(max(0, at[0] - far), min(labels.shape[0], at[0] + far + 1)):
        for u in range(max(0, at[1] - far), min(labels.shape[1], at[1] + far + 1)):
            seen = labels[v, u]
            if seen == own:
                continue
            dy, dx = abs(v - at[0]), abs(u - at[1])
            at_rim |= dy * dy + dx * dx <= rim * rim
            if seen > 0 and max(dy, dx) <= reach:
                other |= first != 0 and first != seen
                first = seen if first == 0 else first
    return at_rim, other


@numba.njit(cache=True, nogil=True)
def _fill(labels, classes):
    """Make nuclei without an interior all nucleus but next to others; changes `classes`."""
    height, width = labels.shape
    interior = np.zeros(max(labels.max(), 0) + 1, np.bool_)
    for y in range(height):
        for x in range(width):
            if classes[y, x] == 1:
                interior[labels[y, x]] = True
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            if own <= 0 or interior[own]:
                continue
            touches = False
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    seen = labels[v, u]
                    touches |= seen != own and seen > 0
            if not touches:
                classes[y, x] = 1

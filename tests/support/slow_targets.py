"""Targets of the training pixel by pixel, as their documentation says them and without any haste."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from slidebatch.training.spec import TargetSpec


def slow_targets(labels: npt.NDArray[np.int32], spec: TargetSpec) -> tuple[np.ndarray, np.ndarray]:
    """Classes (Y, X) uint8 and weights (Y, X) float32 of a label image (Y, X)."""
    places = [(int(y), int(x)) for y, x in np.ndindex(labels.shape)]

    def contour(y: int, x: int) -> bool:
        return any(
            (labels[v, u] != labels[y, x] and (v - y) ** 2 + (u - x) ** 2 <= spec.contour_px**2)
            or (labels[v, u] > 0 and labels[v, u] != labels[y, x] and max(abs(v - y), abs(u - x)) <= spec.touching_px)
            for v, u in places
        )

    def others(y: int, x: int, reach: int) -> set[int]:
        """Nuclei within `reach` by rows and columns."""
        near = {int(labels[v, u]) for v, u in places if max(abs(v - y), abs(u - x)) <= reach}
        return {label for label in near if label > 0}

    classes, weights = np.zeros(labels.shape, np.uint8), np.ones(labels.shape, np.float32)
    for y, x in places:
        if len(others(y, x, spec.touching_px)) > 1:
            weights[y, x] = 1 + spec.touching_weight
        if labels[y, x] > 0:
            classes[y, x] = 2 if contour(y, x) else 1
    thin = {int(label) for label in np.unique(labels) if label > 0 and not (classes[labels == label] == 1).any()}
    for y, x in places:
        if labels[y, x] in thin and len(others(y, x, 1)) == 1:
            classes[y, x] = 1
    weights[labels < 0] = 0
    return classes, weights

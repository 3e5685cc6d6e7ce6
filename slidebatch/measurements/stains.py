"""Optical densities of stains, from red, green and blue.

Light that passes a stain loses a fixed share per amount of stain, so densities (negative logarithms) add up, and those
in red, green and blue can be told apart into stains. Source: Ruifrok and Johnston, Anal Quant Cytol Histol 23 (2001)
291-299.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

HAEMATOXYLIN_EOSIN = {"hematoxylin": (0.65, 0.704, 0.286), "eosin": (0.072, 0.99, 0.105)}
"""Densities of the two commonest stains in red, green and blue, as the source gives them."""

Vector = tuple[float, float, float]
Floats = npt.NDArray[np.float64]


def unmixing(vectors: Sequence[Vector]) -> Floats:
    """The matrix (3, S) that densities in red, green and blue are multiplied by to give those of S = 2 or 3 stains.

    Vectors are brought to length 1; where there are two, what neither explains goes to a third at right angles to
    both, which is not shown. ValueError where one vector follows from the others.
    """
    rows = [np.array(v, np.float64) / max(float(np.linalg.norm(v)), 1e-12) for v in vectors]
    if len(rows) == 2:
        third = np.cross(rows[0], rows[1])
        rows.append(third / max(float(np.linalg.norm(third)), 1e-12))
    matrix = np.stack(rows)
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError("one stain's densities follow from the others'; give stains of different colours")
    return np.asarray(np.linalg.inv(matrix)[:, : len(vectors)], np.float64)


def optical_density(values: npt.NDArray[Any], white: float, least: float) -> Floats:
    """-log10(value / white), float64; values below `least` count as that, so that black has a density."""
    return -np.log10(np.maximum(values.astype(np.float64), least) / white)


def density_table(dtype: np.dtype[Any], white: float | None) -> Floats:
    """The optical density of every value of an unsigned type, 0 counted as 1; `white` None: the largest value."""
    most = np.iinfo(dtype).max
    return optical_density(np.arange(most + 1), white or float(most), 1.0)

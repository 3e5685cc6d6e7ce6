"""Class maps of several members as one: their weighted mean, rounded exactly; the maximum for comparison.

Maps are uint8, 0..255 for 0..1. The means of a pixel's classes are rounded each by itself, so that their sum may
exceed that of the exact means by half a step a class. Every pixel stands alone: tiles may be averaged in any cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.groups import as_integers

Bytes = npt.NDArray[np.uint8]

LARGEST_WEIGHT_SUM = (2**32 - 1) // 511
"""Weights, without a common divisor, sum to no more: then twice their sums of bytes, and half a step, fit 32 bits."""


def mean_maps(maps: Sequence[npt.ArrayLike], weight: npt.ArrayLike | None = None) -> Bytes:
    """The weighted mean of the members' maps, rounded half up: uint8, of the shape of each.

    maps: M >= 1 arrays uint8 of one shape, such as (K, Y, X); weight (M,) integers >= 0, not all 0, by default
    equal; only their ratios matter. Sums are integers, so the order of the members never matters, and a member of
    weight 0 says nothing. Empty maps give an empty mean. Memory: nine bytes a pixel beside the maps. ValueError
    for no maps, unlike shapes, another type than uint8, or weights that do not fit.
    """
    given = _alike(maps)
    share = _ratios(np.ones(len(given), np.int64) if weight is None else weight, len(given))
    total = sum(share)
    summed = np.full(given[0].shape, total, np.uint32)  # half a step of the doubled sum: rounds half up
    for one, each in zip(given, share, strict=True):
        if each:
            summed += np.multiply(one, 2 * each, dtype=np.uint32)
    summed //= np.uint32(2 * total)
    return summed.astype(np.uint8)


def max_maps(maps: Sequence[npt.ArrayLike]) -> Bytes:
    """The largest of the members' values in every class and pixel: uint8. Arguments and errors as `mean_maps`.

    The classes of a pixel may then sum to far more than 1: it is here to be compared with.
    """
    given = _alike(maps)
    most = given[0].copy()
    for one in given[1:]:
        np.maximum(most, one, out=most)
    return most


def _alike(maps: Sequence[npt.ArrayLike]) -> list[npt.NDArray[Any]]:
    given = [np.asarray(one) for one in maps]
    if not given:
        raise ValueError("there are no maps to join, expected those of one member or more")
    kinds = {(one.dtype.name, one.shape) for one in given}
    if len(kinds) > 1 or given[0].dtype != np.uint8:
        raise ValueError(f"maps are {sorted(kinds)}, expected uint8 arrays of one shape")
    return given


def _ratios(weight: npt.ArrayLike, members: int) -> list[int]:
    """Weights in their lowest terms."""
    share = as_integers(weight, members, "weights of the maps").tolist()
    least = math.gcd(*share)
    if least == 0 or min(share) < 0 or sum(share) // least > LARGEST_WEIGHT_SUM:
        raise ValueError(
            f"weights of the maps are {share}: expected none negative, not all 0, and in their lowest terms a sum "
            f"of at most {LARGEST_WEIGHT_SUM}"
        )
    return [one // least for one in share]

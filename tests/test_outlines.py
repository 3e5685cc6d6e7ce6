"""Outlines hold exactly the pixels of their nuclei."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapely.geometry import Polygon

from slidebatch.outlines import Rings, trace
from tests.support.fields import touching_field
from tests.support.measuring import blobs, nuclei_of

Ints = npt.NDArray[Any]


def rings_of(rings: Rings, row: int) -> list[Ints]:
    """The rings of one nucleus, points (K, 2)."""
    return [rings.point[rings.start[r] : rings.start[r + 1]] for r in np.flatnonzero(rings.owner == row)]


def signed_area(ring: Ints) -> float:
    """Positive for rings around pixels, negative for rings around holes."""
    y, x = ring.T.astype(float)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def filled(parts: list[Ints], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Pixels whose centre lies inside an odd number of rings: crossings of upright edges left of the centre."""
    crossed = np.zeros((shape[0], shape[1] + 1), np.int64)
    for ring in parts:
        for (y0, x0), (y1, x1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if x0 == x1:
                crossed[min(y0, y1) : max(y0, y1), x0] += 1
    return np.cumsum(crossed, axis=1)[:, : shape[1]] % 2 == 1


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_outlines_hold_exactly_their_pixels(seed: int, shape: tuple[int, int]) -> None:
    """Filling the rings of each nucleus gives its pixels; each piece has a ring, each hole one that is turned round."""
    labels = blobs(shape, np.random.default_rng(seed), 5)
    nuclei = nuclei_of(labels)
    rings = trace(labels, nuclei.label, nuclei.box)
    assert list(rings.owner) == sorted(rings.owner)
    for row, label in enumerate(nuclei.label):
        mine, parts = labels == label, rings_of(rings, row)
        np.testing.assert_array_equal(filled(parts, shape), mine)
        areas = [signed_area(ring) for ring in parts]
        assert sum(areas) == mine.sum()
        assert sum(a > 0 for a in areas) == ndimage.label(mine)[1]
        around = ndimage.label(np.pad(~mine, 1, constant_values=True), np.ones((3, 3)))[1]
        assert sum(a < 0 for a in areas) == around - 1


def test_rings_are_simple_and_have_corners_only() -> None:
    """No ring crosses or touches itself along an edge, and every point is a turn of a right angle."""
    labels = touching_field((120, 130), 18, np.random.default_rng(2)).astype(np.uint32)
    nuclei = nuclei_of(labels)
    rings = trace(labels, nuclei.label, nuclei.box)
    assert len(rings) >= len(nuclei.label)
    for ring in np.split(rings.point, rings.start[1:-1]):
        assert Polygon(ring).is_valid
        step = np.roll(ring, -1, axis=0) - ring
        assert (np.count_nonzero(step, axis=1) == 1).all()
        assert ((step * np.roll(step, 1, axis=0)).sum(axis=1) == 0).all()


def test_boxes_may_be_larger_and_hold_others() -> None:
    """Boxes larger than the nuclei give the same rings; a label that is not there has none."""
    labels = touching_field((60, 70), 15, np.random.default_rng(3)).astype(np.uint32)
    nuclei = nuclei_of(labels)
    tight = trace(labels, nuclei.label, nuclei.box)
    wide = trace(labels, nuclei.label, np.tile([0, 0, 60, 70], (len(nuclei.label), 1)))
    np.testing.assert_array_equal(tight.point, wide.point)
    np.testing.assert_array_equal(tight.start, wide.start)
    absent = trace(labels, np.array([labels.max() + 1]), np.array([[0, 0, 60, 70]]))
    assert len(absent) == 0


def test_no_nuclei_no_rings() -> None:
    """Nothing gives nothing."""
    rings = trace(np.zeros((5, 5), np.uint32), np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
    assert (len(rings), rings.start.tolist(), rings.point.shape) == (0, [0], (0, 2))


def test_a_hole_and_an_island() -> None:
    """A nucleus with a hole has two rings, and one that lies in the hole its own."""
    labels = np.zeros((9, 9), np.uint32)
    labels[1:8, 1:8], labels[3:6, 3:6], labels[4, 4] = 1, 0, 2
    rings = trace(labels, np.array([1, 2]), np.tile([0, 0, 9, 9], (2, 1)))
    assert rings.owner.tolist() == [0, 0, 1]
    assert [signed_area(r) for r in np.split(rings.point, rings.start[1:-1])] == [49, -9, 1]

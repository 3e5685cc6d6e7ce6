"""Boxes on a pixel grid."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slidebatch.geometry import Box, whole

GRID = Box(-8, -8, 24, 24)
side = st.integers(0, 9)
corner = st.integers(-6, 12)
some_box = st.builds(lambda y, x, h, w: Box(y, x, y + h, x + w), corner, corner, side, side)


def painted(box: Box) -> np.ndarray:
    """The box's pixels on GRID."""
    image = np.zeros(GRID.shape, bool)
    image[box.slices(GRID)] = True
    return image


@given(some_box, some_box)
def test_clip_is_intersection(a: Box, b: Box) -> None:
    """The clipped box holds the pixels in both boxes and no others, in either order, and lies in both."""
    assert (painted(a.clip(b)) == (painted(a) & painted(b))).all()
    assert (painted(b.clip(a)) == painted(a.clip(b))).all()
    assert a.intersects(b) == bool((painted(a) & painted(b)).any())
    assert a.clip(b).empty or (a.contains(a.clip(b)) and b.contains(a.clip(b)))


@given(some_box, some_box)
def test_union_is_the_smallest_box_around_both(a: Box, b: Box) -> None:
    """The union contains both, commutes, and touches a side of one of them at every side."""
    both = a.union(b)
    assert both.contains(a)
    assert both.contains(b)
    assert both == b.union(a)
    assert both.tuple() == (min(a.y0, b.y0), min(a.x0, b.x0), max(a.y1, b.y1), max(a.x1, b.x1))


@given(some_box)
def test_area_counts_pixels(box: Box) -> None:
    """Area, shape and emptiness are those of the pixels."""
    assert box.area == painted(box).sum() == box.height * box.width
    assert box.shape == (box.y1 - box.y0, box.x1 - box.x0)
    assert box.empty == (box.area == 0)
    assert box.clip(box) == box


@given(some_box, st.integers(0, 5), st.integers(-9, 9), st.integers(-9, 9))
def test_grow_and_shift_are_undone_by_their_opposites(box: Box, px: int, dy: int, dx: int) -> None:
    """Growing and shrinking, or moving there and back, gives the same box; moving keeps the shape."""
    assert box.grow(px).grow(-px) == box
    assert box.shift(dy, dx).shift(-dy, -dx) == box
    assert box.shift(dy, dx).shape == box.shape


@given(some_box, some_box)
def test_contains_is_containment_of_pixels(a: Box, b: Box) -> None:
    """A box that contains another has all of its pixels; one that has them contains it unless it is empty."""
    holds = not (painted(b) & ~painted(a)).any()
    assert holds or not a.contains(b)
    assert b.empty or a.contains(b) == holds


def test_an_upside_down_box_is_empty() -> None:
    """Shrinking a box beyond nothing leaves no pixel and no negative side."""
    box = Box(0, 0, 3, 8).grow(-2)
    assert (box.height, box.width, box.area, box.empty) == (0, 4, 0, True)


def test_whole_is_the_image() -> None:
    """The box of an image selects all of it."""
    image = np.arange(12).reshape(3, 4)
    assert (image[whole((3, 4)).slices()] == image).all()
    assert Box(1, 2, 3, 4).slices(Box(1, 1, 9, 9)) == (slice(0, 2), slice(1, 3))

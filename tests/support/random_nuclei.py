"""Hypothesis strategies: small crowded tables of nuclei, with many ties and many overlaps."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from slidebatch.geometry import Box
from slidebatch.instances import Instances, from_masks


@st.composite
def boxes(draw: st.DrawFn, most: int = 12, field_px: int = 16, side_px: int = 6) -> np.ndarray:
    """(N, 4) int32, sides 1..side_px, corners in 0..field_px."""
    corner, side = st.integers(0, field_px), st.integers(1, side_px)
    rows = draw(st.lists(st.tuples(corner, corner, side, side), max_size=most))
    return np.array([(y, x, y + h, x + w) for y, x, h, w in rows], np.int32).reshape(-1, 4)


@st.composite
def nuclei(draw: st.DrawFn, most: int = 10, field_px: int = 16) -> Instances:
    """A table of nuclei: whole rectangles or random masks (some without a pixel), few scores and members."""
    box = draw(boxes(most, field_px))
    full = draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    masks = [full | (random.random((y1 - y0, x1 - x0)) < 0.6) for y0, x0, y1, x1 in box.tolist()]
    n = len(box)
    scores = draw(st.lists(st.sampled_from([0, 1, 30000, 65535]), min_size=n, max_size=n))
    members = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    return from_masks([Box(*row) for row in box.tolist()], masks, scores, members)


@st.composite
def crowds(draw: st.DrawFn) -> Instances:
    """Nuclei with copies: rows are repeated as they are, so that ties go all the way down."""
    table = draw(nuclei())
    if len(table) == 0:
        return table
    return table.take(np.array(draw(st.lists(st.integers(0, len(table) - 1), max_size=14)), np.int64))

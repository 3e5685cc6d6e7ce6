"""Who keeps a pixel that several nuclei claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.fuse import resolve_overlaps
from slidebatch.geometry import Box
from slidebatch.instances import Instances, from_masks, none
from tests.support import slow_nms
from tests.support.random_nuclei import crowds, nuclei


@settings(deadline=None, max_examples=120)
@given(st.one_of(nuclei(), crowds()), st.randoms(use_true_random=False))
def test_what_is_kept_is_what_painting_from_worst_to_best_leaves(table: Instances, random: object) -> None:
    """Area, first pixel in raster order and tight box are those of a picture painted from worst to best."""
    order = random.sample(range(len(table)), len(table))  # type: ignore[attr-defined]
    left = slow_nms.owners(order, slow_nms.pixels(table))
    kept = resolve_overlaps(order, table.box, table.offset, table.bits)
    assert kept.area.tolist() == [len(s) for s in left]
    assert kept.first_pixel.tolist() == [list(min(s, default=(-1, -1))) for s in left]
    for i, own in enumerate(left):
        corner = table.box[i, :2].tolist()
        ys, xs = [y for y, _ in own], [x for _, x in own]
        expected = [min(ys), min(xs), max(ys) + 1, max(xs) + 1] if own else corner * 2
        assert kept.box[i].tolist() == expected


@settings(deadline=None, max_examples=40)
@given(crowds(), st.randoms(use_true_random=False))
def test_every_covered_pixel_has_one_owner(table: Instances, random: object) -> None:
    """The areas that are kept add up to the pixels that are covered: none is lost, none is given twice."""
    order = random.sample(range(len(table)), len(table))  # type: ignore[attr-defined]
    covered = frozenset().union(*slow_nms.pixels(table))
    assert resolve_overlaps(order, table.box, table.offset, table.bits).area.sum() == len(covered)


def test_wide_masks_at_every_bit_shift() -> None:
    """Rows of many bytes at any shift between two crops are cleared to the bit."""
    for shift in range(1, 20):
        boxes = [Box(0, 0, 3, 41), Box(1, shift, 4, shift + 33)]
        table = from_masks(boxes, [np.ones(b.shape, bool) for b in boxes])
        left = slow_nms.owners([1, 0], slow_nms.pixels(table))
        kept = resolve_overlaps([1, 0], table.box, table.offset, table.bits)
        assert kept.area.tolist() == [len(s) for s in left]
        assert kept.area[1] == 99


def test_a_nucleus_may_lose_everything() -> None:
    """Of identical masks the first in the order keeps all, and the others are reported with area 0."""
    table = from_masks([Box(5, 7, 8, 10)] * 3, [np.ones((3, 3), bool)] * 3)
    kept = resolve_overlaps([2, 0, 1], table.box, table.offset, table.bits)
    assert kept.area.tolist() == [0, 0, 9]
    assert kept.first_pixel.tolist() == [[-1, -1], [-1, -1], [5, 7]]
    assert kept.box.tolist() == [[5, 7, 5, 7], [5, 7, 5, 7], [5, 7, 8, 10]]


def test_nothing_and_wrong_orders() -> None:
    """No nuclei keep nothing; an order of other rows is refused."""
    empty = none()
    assert [len(a) for a in resolve_overlaps([], empty.box, empty.offset, empty.bits)] == [0, 0, 0]
    with pytest.raises(ValueError, match="an order of 1 rows for 0 masks"):
        resolve_overlaps([0], empty.box, empty.offset, empty.bits)

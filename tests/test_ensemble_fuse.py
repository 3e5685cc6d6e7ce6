"""Who keeps a pixel that several nuclei claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble import nms
from ensemble.fuse import Kept, resolve_overlaps
from slidebatch.geometry import Box
from slidebatch.instances import Instances, from_masks, none
from tests.support import slow_groups, slow_nms
from tests.support.random_nuclei import crowds, nuclei

SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0])


def masks_of(kept: Kept) -> list[slow_nms.Pixels]:
    """The pixels of the masks that are left."""
    n = len(kept.area)
    columns = [np.zeros(n, np.uint16), np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.uint8)]
    return slow_nms.pixels(Instances(kept.box.astype(np.int32), *columns, kept.offset, kept.bits))


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
    assert masks_of(kept) == left


@settings(deadline=None, max_examples=120)
@given(st.one_of(nuclei(), crowds()), SHARES, st.randoms(use_true_random=False))
def test_slivers_are_dropped_from_best_to_worst(table: Instances, share: float, random: object) -> None:
    """A nucleus that keeps less than the share is gone when its turn comes, and takes nothing from those after it."""
    order = random.sample(range(len(table)), len(table))  # type: ignore[attr-defined]
    left = slow_groups.owners_without_slivers(order, slow_nms.pixels(table), share)
    kept = resolve_overlaps(order, table.box, table.offset, table.bits, share)
    assert masks_of(kept) == left
    assert kept.area.tolist() == [len(s) for s in left]


@settings(deadline=None, max_examples=60)
@given(crowds(), SHARES, st.randoms(use_true_random=False))
def test_slivers_fall_into_components_of_overlap(table: Instances, share: float, random: object) -> None:
    """What a component of overlapping masks keeps by itself is what it keeps among all, in any input order."""
    order = np.array(random.sample(range(len(table)), len(table)), np.int64)  # type: ignore[attr-defined]
    whole = masks_of(resolve_overlaps(order, table.box, table.offset, table.bits, share))
    group = nms.components(len(table), nms.mask_conflicts(table.box, table.offset, table.bits, 0.0))
    for name in range(int(group.max(initial=-1)) + 1):
        rows = order[group[order] == name]  # given from best to worst, so the order among them is 0, 1, ...
        alone = table.take(rows)
        found = resolve_overlaps(np.arange(len(rows)), alone.box, alone.offset, alone.bits, share)
        assert masks_of(found) == [whole[i] for i in rows]


def test_a_share_that_is_just_reached_is_no_sliver() -> None:
    """A nucleus that keeps 3 of 10 pixels stays at a share of 0.3 and is dropped at 0.300001, which frees its own."""
    boxes = [Box(0, 0, 1, 7), Box(0, 0, 1, 10), Box(0, 8, 1, 12)]
    table = from_masks(boxes, [np.ones(b.shape, bool) for b in boxes])
    packed = (table.box, table.offset, table.bits)
    assert resolve_overlaps([0, 1, 2], *packed, 0.3).area.tolist() == [7, 3, 2]
    assert resolve_overlaps([0, 1, 2], *packed, 0.300001).area.tolist() == [7, 0, 4]
    with pytest.raises(ValueError, match="the least share that a nucleus keeps is 30, expected 0 to 1"):
        resolve_overlaps([0, 1, 2], *packed, 30)


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
    assert [len(a) for a in resolve_overlaps([], empty.box, empty.offset, empty.bits)] == [0, 0, 0, 1, 0]
    with pytest.raises(ValueError, match="an order of 1 rows for 0 masks"):
        resolve_overlaps([0], empty.box, empty.offset, empty.bits)

"""Pairs of overlapping boxes, and how much boxes and packed masks share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble import iou
from slidebatch.geometry import Box
from slidebatch.instances import Instances, from_masks
from tests.support import slow_nms
from tests.support.random_nuclei import boxes, crowds, nuclei

quick = settings(deadline=None, max_examples=80)


@quick
@given(boxes(most=20))
def test_pairs_are_those_of_a_double_loop(box: np.ndarray) -> None:
    """All overlapping pairs are found, once, in lexicographic order, for integers and floats alike."""
    expected = slow_nms.overlapping(box)
    assert iou.box_pairs(box).tolist() == expected
    assert iou.box_pairs(box.astype(np.float32) * 0.25 - 1.5).tolist() == expected


@quick
@given(boxes(), boxes())
def test_pairs_between_two_sets_are_those_of_a_double_loop(a: np.ndarray, b: np.ndarray) -> None:
    """Pairs between two sets hold one of each, also where a set is empty."""
    expected = [[i, j] for i in range(len(a)) for j in range(len(b)) if slow_nms.boxes_meet(a[i], b[j])]
    assert iou.box_pairs_between(a, b).tolist() == expected


@pytest.mark.parametrize("large_px", [50, 3000, 10**7])
def test_pairs_do_not_mind_very_different_sizes(large_px: int) -> None:
    """A few boxes far larger or farther away than the others change no pair; a gap costs no memory."""
    random = np.random.default_rng(3)
    corner = random.integers(0, 3000, (300, 2))
    small = np.concatenate([corner, corner + random.integers(1, 90, (300, 2))], axis=1)
    box = np.concatenate([small, [[0, 0, large_px, large_px], [large_px, 5, large_px + 7, 9]]])
    assert iou.box_pairs(box).tolist() == slow_nms.overlapping(box)


def test_touching_and_flat_boxes_do_not_overlap() -> None:
    """Boxes that share an edge or a corner, and boxes without area, are in no pair."""
    box = np.array([[0, 0, 4, 4], [0, 4, 4, 8], [4, 4, 8, 8], [2, 2, 2, 6], [1, 3, 3, 3]])
    assert iou.box_pairs(box).shape == (0, 2)
    assert iou.box_pairs(np.zeros((0, 4), np.int32)).shape == (0, 2)


@quick
@given(boxes())
def test_box_overlap_counts_pixels(box: np.ndarray) -> None:
    """Areas, shared areas and IoU of integer boxes are those of their sets of pixels, exactly."""
    pairs, sets = iou.box_pairs(box), slow_nms.box_pixels(box)
    assert iou.box_area(box).tolist() == [len(s) for s in sets]
    assert iou.box_overlap(box, box, pairs).tolist() == [len(sets[i] & sets[j]) for i, j in pairs.tolist()]
    ratios = [len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs.tolist()]
    assert iou.box_iou(box, box, pairs).tolist() == ratios


@quick
@given(st.one_of(nuclei(), crowds()))
def test_mask_overlap_counts_pixels(table: Instances) -> None:
    """Areas and shared pixels of packed masks are those of their sets of pixels, for every pair of rows."""
    sets = slow_nms.pixels(table)
    pairs = np.array([(i, j) for i in range(len(sets)) for j in range(len(sets))], np.int64).reshape(-1, 2)
    packed = (table.box, table.offset, table.bits)
    assert iou.mask_area(*packed).tolist() == [len(s) for s in sets]
    assert iou.mask_overlap(*packed, pairs).tolist() == [len(sets[i] & sets[j]) for i, j in pairs.tolist()]


def test_wide_masks_are_counted_at_every_bit_shift() -> None:
    """Rows of more than two 64-bit words share what their sets of pixels share, wherever their bits begin."""
    random = np.random.default_rng(6)
    for shift in range(0, 140, 3):
        boxes = [Box(0, 0, 3, 150), Box(1, shift, 4, shift + 133)]
        table = from_masks(boxes, [random.random(b.shape) < 0.7 for b in boxes])
        one, other = slow_nms.pixels(table)
        packed = (table.box, table.offset, table.bits)
        assert iou.mask_area(*packed).tolist() == [len(one), len(other)]
        assert iou.mask_overlap(*packed, np.array([[0, 1]])).tolist() == [len(one & other)]


def test_padding_bits_are_no_pixels() -> None:
    """Bits after a mask's last pixel count for nothing, even where they are set."""
    box, bits = np.array([[0, 0, 1, 3], [0, 0, 1, 3]]), np.array([0xFF, 0xFF], np.uint8)
    assert iou.mask_area(box, np.array([0, 1, 2]), bits).tolist() == [3, 3]
    assert iou.mask_overlap(box, np.array([0, 1, 2]), bits, np.array([[0, 1]])).tolist() == [3]


def test_ratios_of_nothing_are_zero() -> None:
    """Where nothing is, no ratio is more than 0, and no threshold is exceeded."""
    assert iou.iou([0, 2], [0, 4], [0, 2]).tolist() == [0.0, 0.5]
    assert iou.over_smaller([0, 2], [0, 4], [5, 2]).tolist() == [0.0, 1.0]
    assert iou.exceeds([0], [0], 0.0).tolist() == [False]


def test_a_ratio_equal_to_the_threshold_does_not_exceed_it() -> None:
    """The comparison is strict and exact, although most decimal fractions are no binary ones."""
    whole = 10**6 * 1009
    for millionths in (249, 251, *range(1000, 10**6, 1000)):  # 249e-6 * 1e6 is not 249 in binary
        part = millionths * 1009
        assert iou.exceeds([part, part + 1], [whole, whole], millionths / 10**6).tolist() == [False, True]


def test_wrong_arrays_are_refused() -> None:
    """Arrays that do not fit together are refused before a compiled loop reads them."""
    box, offset, bits = np.array([[0, 0, 2, 5]]), np.array([0, 2]), np.zeros(2, np.uint8)
    pair = np.array([[0, 1]])
    with pytest.raises(ValueError, match=r"outside 0\.\.0"):
        iou.mask_overlap(box, offset, bits, pair)
    with pytest.raises(ValueError, match="do not fit its box"):
        iou.mask_area(box, np.array([0, 1]), bits[:1])
    with pytest.raises(ValueError, match="expected integers"):
        iou.mask_area(box.astype(float), offset, bits)
    with pytest.raises(ValueError, match="NaN"):
        iou.box_pairs(np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match="expected 0 to 1"):
        iou.exceeds([1], [2], 30)

"""Laws of the metrics, against slow definitions."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slidebatch import metrics
from slidebatch.metrics import overlaps

small = arrays(np.int32, (7, 8), elements=st.integers(0, 4))


def slow_counts(pred, truth, iou):
    """TP, FP, FN from every pair's boolean masks."""
    p_names, t_names = np.unique(pred[pred > 0]), np.unique(truth[truth > 0])
    tp = 0
    for p in p_names:
        for t in t_names:
            shared = ((pred == p) & (truth == t)).sum()
            union = ((pred == p) | (truth == t)).sum()
            # At exactly one half a nucleus may have two partners; the test leaves that threshold out.
            tp += bool(shared * 1000 >= round(iou * 1000) * union)
    return metrics.Counts(tp, len(p_names) - tp, len(t_names) - tp)


@settings(max_examples=60, deadline=None)
@given(small, small, st.sampled_from([0.55, 0.6, 0.75, 0.9]))
def test_counts_equal_all_pairs(pred, truth, iou):
    """Sparse counts equal the counts from every pair of masks, at the threshold too."""
    assert metrics.counts(pred, truth, iou) == slow_counts(pred, truth, iou)


@settings(max_examples=40, deadline=None)
@given(small, small)
def test_renaming_changes_no_score(pred, truth):
    """Scores depend on shapes, never on ids."""
    names = np.array([0, 70000, 3, 250, 9])
    assert metrics.dsb_score(names[pred], truth) == metrics.dsb_score(pred, truth)
    assert metrics.seg(names[pred], truth) == metrics.seg(pred, truth)


@settings(max_examples=40, deadline=None)
@given(small, small, st.sampled_from([0.2, 0.5, 0.7]))
def test_matches_are_one_to_one(pred, truth, iou):
    """No nucleus is in two matches, at any threshold."""
    pairs = metrics.matches(pred, truth, iou)
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)


def test_threshold_counts_as_reached():
    """A pair whose IoU is exactly 0.55 is found at 0.55, whatever 11 / 20 rounds to."""
    truth, pred = np.zeros((1, 40), int), np.zeros((1, 40), int)
    truth[0, :20], pred[0, :11] = 1, 1
    assert metrics.counts(pred, truth, 0.55) == metrics.Counts(1, 0, 0)
    assert metrics.counts(pred, truth, 0.6) == metrics.Counts(0, 1, 1)


def test_dsb_score_by_hand():
    """One nucleus with IoU 0.7 is right at five of ten thresholds; one missed halves each."""
    truth, pred = np.zeros((2, 30), int), np.zeros((2, 30), int)
    truth[0, :20], pred[0, :14] = 1, 5
    assert metrics.dsb_score(pred, truth) == pytest.approx(0.5)
    truth[1, :4] = 2
    assert metrics.dsb_score(pred, truth) == pytest.approx(0.25)


def test_seg_by_hand():
    """SEG averages over true nuclei the IoU with what covers more than half of them."""
    truth, pred = np.zeros((2, 20), int), np.zeros((2, 20), int)
    truth[0, :10], pred[0, :8] = 1, 1
    truth[1, :10], pred[1, :5] = 2, 2  # exactly half is not enough
    assert metrics.seg(pred, truth) == pytest.approx(0.4)


def test_empty_images():
    """Nothing to find and nothing found is perfect; anything found in nothing is all wrong."""
    blank, one = np.zeros((3, 3), int), np.ones((3, 3), int)
    assert metrics.dsb_score(blank, blank) == metrics.seg(blank, blank) == metrics.f1(blank, blank) == 1.0
    assert metrics.dsb_score(one, blank) == metrics.dsb_score(blank, one) == metrics.seg(blank, one) == 0.0


@settings(max_examples=40, deadline=None)
@given(small, st.permutations([1, 2, 3, 4]))
def test_renamed_images_are_equal(labels, order):
    """Images are equal up to renaming after any renaming, and not after a change of one pixel."""
    renamed = np.array([0, *order])[labels] * 10
    assert metrics.equal_up_to_renaming(labels, renamed)
    changed = renamed.copy()
    changed[0, 0] = 0 if changed[0, 0] else 99
    assert not metrics.equal_up_to_renaming(labels, changed)


def test_merged_and_split_are_not_equal():
    """A merge or a split is no renaming, in either direction."""
    two, one = np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 1]])
    assert not metrics.equal_up_to_renaming(two, one)
    assert not metrics.equal_up_to_renaming(one, two)


def test_shapes_must_agree():
    """Images of two shapes are no comparison but an error."""
    with pytest.raises(ValueError, match="cannot be compared"):
        metrics.overlap(np.zeros((2, 2), int), np.zeros((2, 3), int))


def slow_aji(pred, truth):
    """Kumar's aggregated Jaccard index, mask by mask, as the paper's algorithm 1 goes."""
    masks = {int(p): pred == p for p in np.unique(pred[pred > 0])}
    shared_px, united_px, used = 0, 0, set()
    for t in np.unique(truth[truth > 0]):
        mine = truth == t
        ranked = sorted(
            masks, key=lambda p: (-(masks[p] & mine).sum() / (masks[p] | mine).sum(), -(masks[p] & mine).sum(), p)
        )
        if ranked and (masks[ranked[0]] & mine).any():
            shared_px += (masks[ranked[0]] & mine).sum()
            united_px += (masks[ranked[0]] | mine).sum()
            used.add(ranked[0])
        else:
            united_px += mine.sum()
    united_px += sum(masks[p].sum() for p in masks if p not in used)
    return shared_px / united_px if united_px else 1.0


def slow_panoptic(pred, truth):
    """PQ, SQ and RQ from every pair of masks."""
    p_names, t_names = np.unique(pred[pred > 0]), np.unique(truth[truth > 0])
    if len(p_names) + len(t_names) == 0:
        return 1.0, 1.0, 1.0
    pairs = [((pred == p) & (truth == t), (pred == p) | (truth == t)) for p in p_names for t in t_names]
    iou = [a.sum() / b.sum() for a, b in pairs if 2 * a.sum() > b.sum()]
    rq = len(iou) / ((len(p_names) + len(t_names)) / 2)
    sq = float(np.mean(iou)) if iou else 0.0
    return sq * rq, sq, rq


@settings(max_examples=60, deadline=None)
@given(small, small)
def test_aji_equals_the_papers_algorithm(pred, truth):
    """AJI equals the published algorithm run on whole masks."""
    assert metrics.aji(pred, truth) == pytest.approx(slow_aji(pred, truth))


@settings(max_examples=60, deadline=None)
@given(small, small)
def test_panoptic_equals_all_pairs(pred, truth):
    """PQ, SQ and RQ equal those of every pair of masks, and PQ is their product."""
    found = metrics.panoptic(pred, truth)
    assert (found.pq, found.sq, found.rq) == pytest.approx(slow_panoptic(pred, truth))
    assert found.pq == pytest.approx(found.sq * found.rq)


@settings(max_examples=30, deadline=None)
@given(small, small)
def test_bands_change_nothing(pred, truth):
    """An overlap read band by band is the overlap of the whole."""
    whole = metrics.overlap(pred, truth)
    with bands_of(16):  # two rows at a time
        banded = metrics.overlap(pred, truth)
    for name in metrics.Overlap.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(whole, name), getattr(banded, name))


@contextmanager
def bands_of(band_px):
    """Bands of so many pixels, for as long as the context lasts."""
    before, overlaps.BAND_PX = overlaps.BAND_PX, band_px
    try:
        yield
    finally:
        overlaps.BAND_PX = before


def test_merges_and_splits_by_hand():
    """One prediction over two nuclei is a merge, two inside one a split; a bare touch is neither."""
    truth = np.array([[1, 1, 2, 2, 0, 3, 3, 3, 3, 0, 4, 4]])
    pred = np.array([[1, 1, 1, 1, 0, 2, 2, 3, 3, 0, 4, 4]])
    found = metrics.scores(pred, truth)
    assert (found.merged, found.split) == (1, 1)
    swapped = metrics.scores(truth, pred)
    assert (swapped.merged, swapped.split) == (1, 1)
    assert metrics.scores(np.array([[1, 1, 1, 0]]), np.array([[1, 1, 2, 2]])).merged == 0


@settings(max_examples=30, deadline=None)
@given(small, small)
def test_scores_are_the_single_measures(pred, truth):
    """What `scores` gives from one pass is what every measure gives by itself."""
    found = metrics.scores(pred, truth)
    assert found.by_threshold == {t: metrics.counts(pred, truth, t) for t in metrics.DSB_THRESHOLDS}
    assert (found.dsb, found.seg) == (metrics.dsb_score(pred, truth), metrics.seg(pred, truth))
    assert (found.aji, found.panoptic) == (metrics.aji(pred, truth), metrics.panoptic(pred, truth))


def test_labels_of_any_size_are_told_apart():
    """Labels near the end of uint32 on both sides neither run over nor into each other."""
    top = 2**32 - 1
    pred, truth = np.array([[top, top - 1, 0]], np.uint32), np.array([[top - 1, top, top]], np.uint32)
    assert metrics.overlap(pred, truth).pred.tolist() == [top - 1, top]
    assert metrics.overlap(pred, truth).truth.tolist() == [top, top - 1]


def test_negative_labels_are_refused():
    """A negative label is no nucleus and no background: it is refused."""
    with pytest.raises(ValueError, match="numbers below 0"):
        metrics.overlap(np.array([[-1, 1]]), np.array([[0, 1]]))


def test_many_nuclei_need_no_square_table():
    """A hundred thousand nuclei a side are scored in memory that grows with them, not with their square."""
    side = 317
    y, x = np.indices((side * 4, side * 4), np.int32)
    truth = np.where((y % 4 < 3) & (x % 4 < 3), (y // 4) * side + x // 4 + 1, 0)
    pred = truth.copy()
    pred[::4] = 0  # one row of three is lost: IoU 2 / 3 everywhere
    found = metrics.scores(pred, truth)
    assert found.half == metrics.Counts(side * side, 0, 0)
    assert (found.dsb, found.aji) == (0.4, pytest.approx(2 / 3))


def test_map_is_about_the_order_of_scores():
    """Right ones first give recall, wrong ones first cost precision; only the order of scores counts."""
    truth = np.kron(np.arange(1, 5), np.ones((4, 4), int))
    pred = np.where(truth == 4, 0, truth)
    pred[:, 12:14] = 9  # half of the fourth: wrong above 0.5
    found = metrics.overlap(pred, truth)
    surest = metrics.ranked(found, [0.9, 0.8, 0.7, 0.1])
    assert metrics.coco_ap([surest], 0.75) == pytest.approx(76 / 101)  # recall 0.75 is reached at precision 1
    assert metrics.coco_ap([metrics.ranked(found, [9, 8, 7, 1])], 0.75) == metrics.coco_ap([surest], 0.75)
    last = metrics.ranked(found, [0.9, 0.8, 0.7, 1.0])
    assert metrics.coco_ap([last], 0.75) == pytest.approx(0.75 * 76 / 101)
    assert metrics.coco_ap([surest, metrics.unpredicted(4)], 0.75) == pytest.approx(38 / 101)
    assert metrics.coco_ap([metrics.unpredicted(3)], 0.5) == 0
    assert np.isnan(metrics.coco_map([metrics.unpredicted(0)]))
    with pytest.raises(ValueError, match="4 predicted nuclei need as many scores"):
        metrics.ranked(found, [1.0])

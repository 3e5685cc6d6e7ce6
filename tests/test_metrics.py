"""Laws of the metrics, against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slidebatch import metrics

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

"""Law 6: suppression equals a slow reference, at the threshold too; permuting the input changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble import iou, nms
from slidebatch.geometry import Box
from slidebatch.instances import Instances, from_masks
from tests.support import slow_nms
from tests.support.random_nuclei import boxes, crowds, nuclei

quick = settings(deadline=None, max_examples=80)
THRESHOLDS = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.8, 1.0])


def order_of(table: Instances) -> np.ndarray:
    area = iou.mask_area(table.box, table.offset, table.bits)
    return nms.total_order(table.score, table.box, area, table.offset, table.bits, table.member)


def kept(table: Instances, threshold: float) -> np.ndarray:
    return nms.mask_nms(table.score, table.box, table.offset, table.bits, table.member, threshold)


def identity(table: Instances) -> list[tuple[object, ...]]:
    """All that a row is, for every row."""
    columns = zip(table.score.tolist(), table.box.tolist(), table.member.tolist(), strict=True)
    return [(*row, table.mask(i).tolist()) for i, row in enumerate(columns)]


@quick
@given(crowds())
def test_total_order_is_that_of_a_plain_sort(table: Instances) -> None:
    """Rows come by score down, box, area, mask bytes and member; wholly equal ones stay in input order."""
    assert order_of(table).tolist() == slow_nms.order(table)


@quick
@given(crowds(), st.randoms(use_true_random=False))
def test_input_order_never_decides_the_order(table: Instances, random: object) -> None:
    """Permuting the rows permutes the order with them, up to rows that are equal in everything."""
    shuffled = table.take(np.array(random.sample(range(len(table)), len(table)), np.int64))  # type: ignore[attr-defined]
    before, after = table.take(order_of(table)), shuffled.take(order_of(shuffled))
    assert identity(before) == identity(after)


@quick
@given(crowds(), st.sampled_from([0, 2**40]))
def test_numbers_of_any_kind_and_size_are_ordered_alike(table: Instances, far: int) -> None:
    """Scores as floats, and boxes and scores spread too far for one sorting key, give the same order."""
    area = iou.mask_area(table.box, table.offset, table.bits)
    keys = (area, table.offset, table.bits, table.member)
    expected = order_of(table).tolist()
    assert nms.total_order(table.score / 7.0, table.box, *keys).tolist() == expected
    score, box = table.score.astype(np.int64) * (far + 1), table.box.astype(np.int64)
    box[::2] += far * (table.score[::2, None] == 0)  # whole boxes move, and only within the lowest score
    moved = nms.total_order(score, box, *keys).tolist()
    assert [i for i in moved if table.score[i]] == [i for i in expected if table.score[i]]
    assert moved == sorted(moved, key=lambda i: (-int(score[i]), box[i].tolist(), moved.index(i)))


def test_order_of_many_equal_rows_takes_every_key() -> None:
    """A thousand nuclei of one score and one corner are sorted by side, area, mask and member."""
    random = np.random.default_rng(5)
    height, width = random.integers(1, 3, (2, 1000))
    masks = [random.random((h, w)) < 0.5 for h, w in zip(height, width, strict=True)]
    table = from_masks(
        [Box(3, 3, 3 + h, 3 + w) for h, w in zip(height, width, strict=True)],
        masks,
        np.full(1000, 7),
        random.integers(0, 2, 1000),
    )
    assert order_of(table).tolist() == slow_nms.order(table)


@quick
@given(st.one_of(nuclei(), crowds()), THRESHOLDS)
def test_mask_nms_is_the_slow_reference(table: Instances, threshold: float) -> None:
    """Sparse suppression keeps what the double loop over sets of pixels keeps, at the threshold too."""
    expected = slow_nms.keep(slow_nms.order(table), slow_nms.pixels(table), threshold)
    assert kept(table, threshold).tolist() == expected


@quick
@given(boxes(), st.data(), THRESHOLDS)
def test_box_nms_is_the_slow_reference(box: np.ndarray, data: st.DataObject, threshold: float) -> None:
    """The same for boxes: ties of score go to the lexicographically smaller box; whole floats agree."""
    n = len(box)
    score = data.draw(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=n, max_size=n))
    order = sorted(range(n), key=lambda i: (-score[i], box[i].tolist()))
    expected = slow_nms.keep(order, slow_nms.box_pixels(box), threshold)
    assert nms.box_nms(box, score, threshold).tolist() == expected
    assert nms.box_nms(box.astype(np.float32), np.array(score, np.float32), threshold).tolist() == expected


@quick
@given(crowds(), THRESHOLDS, st.randoms(use_true_random=False))
def test_input_order_never_decides_who_is_kept(table: Instances, threshold: float, random: object) -> None:
    """Permuting the rows changes nothing about which nuclei are kept."""
    shuffled = table.take(np.array(random.sample(range(len(table)), len(table)), np.int64))  # type: ignore[attr-defined]
    before, after = table.take(kept(table, threshold)), shuffled.take(kept(shuffled, threshold))
    assert sorted(identity(before), key=str) == sorted(identity(after), key=str)


@quick
@given(nuclei(most=14, field_px=24), st.integers(5, 20), THRESHOLDS)
def test_settling_in_tiles_and_then_the_rest_is_one_global_nms(
    table: Instances, core_px: int, threshold: float
) -> None:
    """Components wholly inside a core settled there, all others once at the end: the global result."""
    keep, open_rows = np.zeros(len(table), bool), np.ones(len(table), bool)
    for y in range(0, 32, core_px):
        for x in range(0, 32, core_px):
            core = Box(y, x, y + core_px, x + core_px)
            seen = np.flatnonzero([table.at(i).intersects(core) for i in range(len(table))])
            view = table.take(seen)
            pairs = nms.mask_conflicts(view.box, view.offset, view.bits, threshold)
            done = nms.settled(nms.components(len(view), pairs), view.box, core.tuple())
            keep[seen[done]] = kept(view, threshold)[done]
            open_rows[seen[done]] = False
    rest = np.flatnonzero(open_rows)
    keep[rest] = kept(table.take(rest), threshold)
    assert keep.tolist() == kept(table, threshold).tolist()


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
def test_box_nms_agrees_with_torchvision(threshold: float) -> None:
    """On random boxes without ties the kept set is torchvision's."""
    random = np.random.default_rng(11)
    corner = random.uniform(0, 300, (3000, 2))
    box = np.concatenate([corner, corner + random.uniform(5, 40, (3000, 2))], axis=1).astype(np.float32)
    score = random.permutation(3000).astype(np.float32) / 3000
    xyxy = torch.from_numpy(box[:, [1, 0, 3, 2]])
    expected = torchvision.ops.nms(xyxy, torch.from_numpy(score), threshold).numpy()
    assert np.flatnonzero(nms.box_nms(box, score, threshold)).tolist() == np.sort(expected).tolist()


def test_an_overlap_equal_to_the_threshold_is_no_conflict() -> None:
    """An IoU of exactly 3/10 conflicts at 0.299999 and not at 0.3."""
    table = from_masks([Box(0, 0, 1, 13), Box(0, 7, 1, 20)], [np.ones((1, 13), bool)] * 2)
    assert iou.mask_overlap(table.box, table.offset, table.bits, np.array([[0, 1]])).tolist() == [6]
    assert kept(table, 0.3).tolist() == [True, True]
    assert kept(table, 0.299999).tolist() == [True, False]


def test_none_one_and_identical_rows() -> None:
    """Nothing in, nothing out; one row is kept; of identical rows one is."""
    one = from_masks([Box(2, 2, 5, 5)], [np.ones((3, 3), bool)])
    assert kept(from_masks([], []), 0.5).shape == (0,)
    assert nms.box_nms(np.zeros((0, 4)), [], 0.5).shape == (0,)
    assert kept(one, 0.5).tolist() == [True]
    assert kept(one.take([0] * 50), 0.5).sum() == 1


def test_a_suppressed_nucleus_suppresses_nobody() -> None:
    """In a chain of conflicts the first and the third are kept: only kept ones suppress."""
    pairs = np.array([[0, 1], [1, 2]])
    assert nms.greedy_nms(np.array([0, 1, 2]), pairs, [True, True]).tolist() == [True, False, True]
    assert nms.greedy_nms(np.array([0, 1, 2]), pairs, [False, True]).tolist() == [True, True, False]
    assert nms.greedy_nms(np.array([1, 0, 2]), pairs, [True, True]).tolist() == [False, True, False]


def test_overlap_over_the_smaller_finds_what_lies_inside() -> None:
    """A small mask wholly inside a large one conflicts over the smaller, not over the union."""
    masks = [np.ones((10, 10), bool), np.ones((3, 3), bool)]
    table = from_masks([Box(0, 0, 10, 10), Box(4, 4, 7, 7)], masks)
    packed = (table.box, table.offset, table.bits)
    assert nms.mask_conflicts(*packed, 0.5).tolist() == []
    assert nms.mask_conflicts(*packed, 0.99, "over_smaller").tolist() == [[0, 1]]


@quick
@given(st.integers(0, 12), st.data())
def test_components_join_what_pairs_reach(n: int, data: st.DataObject) -> None:
    """Labels are 0, 1, ... by first row, and two rows share one just when pairs join them."""
    row = st.integers(0, n - 1) if n else st.nothing()
    pairs = data.draw(st.lists(st.tuples(row, row), max_size=10)) if n else []
    expected = list(range(n))
    for _ in range(n):
        for i, j in pairs:
            expected[i] = expected[j] = min(expected[i], expected[j])
    names = {first: k for k, first in enumerate(dict.fromkeys(expected))}
    found = nms.components(n, np.array(pairs, np.int64).reshape(-1, 2))
    assert found.tolist() == [names[first] for first in expected]


def test_a_component_with_one_box_outside_is_open() -> None:
    """A component is settled only if all its boxes lie inside the core; touching its edge is inside."""
    box = np.array([[0, 0, 4, 4], [3, 3, 10, 10], [8, 8, 11, 9], [5, 5, 6, 6]])
    assert nms.settled([0, 0, 1, 2], box, (0, 0, 10, 10)).tolist() == [True, True, False, True]
    assert nms.settled([0, 0, 0, 1], box, (0, 0, 10, 10)).tolist() == [False, False, False, True]
    assert nms.settled([], np.zeros((0, 4), int), (0, 0, 10, 10)).shape == (0,)


def test_wrong_orders_and_scores_are_refused() -> None:
    """An order that is no permutation, a pair of a row with itself and a NaN score are refused."""
    with pytest.raises(ValueError, match="twice"):
        nms.greedy_nms(np.array([0, 0]), np.zeros((0, 2), int), [])
    with pytest.raises(ValueError, match="not there"):
        nms.greedy_nms(np.array([0, 2]), np.zeros((0, 2), int), [])
    with pytest.raises(ValueError, match="two different rows"):
        nms.greedy_nms(np.array([0, 1]), np.array([[1, 1]]), [True])
    with pytest.raises(ValueError, match="NaN"):
        nms.box_nms(np.array([[0, 0, 2, 2]]), [float("nan")], 0.5)

"""The masks of a group as one: a weighted vote on every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble import nms
from ensemble.blend import Fused, fuse_masks
from slidebatch.geometry import Box
from slidebatch.instances import Instances, from_masks, none
from tests.support import slow_groups, slow_nms
from tests.support.random_nuclei import crowds, nuclei

quick = settings(deadline=None, max_examples=80)
TABLES = st.one_of(nuclei(), crowds())
SHARES = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.6, 0.75, 1.0])


def led(table: Instances, threshold: float = 0.1) -> np.ndarray:
    order = np.array(slow_nms.order(table), np.int64)
    pairs = nms.mask_conflicts(table.box, table.offset, table.bits, threshold)
    return nms.leaders(order, pairs, np.ones(len(pairs), bool))


def masks(table: Instances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return table.box, table.offset, table.bits


def pixels(found: Fused) -> list[slow_nms.Pixels]:
    n = len(found.row)
    columns = [np.zeros(n, np.uint16), np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.uint8)]
    return slow_nms.pixels(Instances(found.box.astype(np.int32), *columns, found.offset, found.bits))


def rows(masks: list[str], weight: list[int], share: float = 0.5, absent: int = 0) -> str:
    """Fuse masks of one row of pixels, the first being the leader; the answer as it lies in the field."""
    width = len(masks[0])
    table = from_masks([Box(0, 0, 1, width)] * len(masks), [np.array([[c == "#" for c in m]]) for m in masks])
    against = [absent] * len(masks)
    found = fuse_masks([0] * len(masks), weight, (table.box, table.offset, table.bits), share, against)
    line = ["."] * width
    for _, x in pixels(found)[0]:
        line[x] = "#"
    return "".join(line)


@quick
@given(TABLES, st.sampled_from([0.0, 0.1, 0.3]), SHARES, st.data())
def test_fused_masks_are_those_of_the_slow_vote(
    table: Instances, threshold: float, share: float, data: st.DataObject
) -> None:
    """Mask, area and tight box of every group are those that sets of pixels and fractions give, ties included."""
    n, leader, areas = len(table), led(table, threshold), slow_nms.pixels(table)
    weight = data.draw(st.lists(st.sampled_from([0, 1, 1, 2, 65535]), min_size=n, max_size=n))
    absent = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    found = fuse_masks(leader, weight, masks(table), share, absent)
    members = slow_groups.groups(leader.tolist())
    assert found.row.tolist() == list(members)
    expected = [
        slow_groups.elected(group, head, weight, areas, (share, absent[head])) for head, group in members.items()
    ]
    assert pixels(found) == expected
    assert found.area.tolist() == [len(s) for s in expected]
    for box, own, head in zip(found.box.tolist(), expected, found.row, strict=True):
        ys, xs = [y for y, _ in own], [x for _, x in own]
        assert box == ([min(ys), min(xs), max(ys) + 1, max(xs) + 1] if own else table.box[head, :2].tolist() * 2)


@quick
@given(TABLES, SHARES, st.randoms(use_true_random=False))
def test_input_order_never_decides_a_mask(table: Instances, share: float, random: object) -> None:
    """Permuting the rows of all groups permutes the fused masks and changes no pixel."""
    to = np.array(random.sample(range(len(table)), len(table)), np.int64)  # type: ignore[attr-defined]
    found = [
        pixels(fuse_masks(led(view), view.score.astype(np.int64), masks(view), share))
        for view in (table, table.take(to))
    ]
    assert sorted(map(sorted, found[0])) == sorted(map(sorted, found[1]))


@quick
@given(nuclei(), SHARES, st.integers(1, 5))
def test_copies_of_one_mask_give_its_largest_piece(table: Instances, share: float, copies: int) -> None:
    """Masks that agree wholly are what they were but for their small pieces, at any share and weight."""
    n = len(table)
    many = table.take(np.repeat(np.arange(n), copies))
    found = fuse_masks(np.repeat(np.arange(n) * copies, copies), np.ones(n * copies, int), masks(many), share)
    assert pixels(found) == [slow_groups.largest_piece(s) for s in slow_nms.pixels(table)]


@quick
@given(TABLES, SHARES)
def test_a_group_is_fused_alone_as_among_all(table: Instances, share: float) -> None:
    """The mask of a group does not depend on the rows outside it."""
    leader, weight = led(table), table.score.astype(np.int64)
    among = pixels(fuse_masks(leader, weight, masks(table), share))
    for head, mask in zip(np.unique(leader), among, strict=True):
        own = np.flatnonzero(leader == head)
        alone = np.full(len(own), np.flatnonzero(own == head)[0])
        assert pixels(fuse_masks(alone, weight[own], masks(table.take(own)), share)) == [mask]


def test_a_tie_is_for_the_leader_to_decide() -> None:
    """Of two masks of one weight the leader's stays; three are outvoted by two; more weight outvotes more masks."""
    assert rows(["###.", ".###"], [1, 1]) == "###."
    assert rows(["###..", ".###.", ".####"], [1, 1, 1]) == ".###."
    assert rows(["###..", ".###.", ".####"], [9, 4, 4]) == "###.."
    assert rows(["###..", ".###.", ".####"], [0, 0, 0]) == "###.."


def test_the_share_leads_from_union_to_intersection() -> None:
    """At a share of 0 every pixel of any mask stays, at 1 those of all masks."""
    assert rows(["###..", ".###.", ".####"], [3, 1, 2], 0.0) == "#####"
    assert rows(["###..", ".###.", ".####"], [3, 1, 2], 1.0) == ".##.."


def test_members_that_are_silent_may_speak_against() -> None:
    """Two of four members are half of all: what both have stays by the leader's word, no other pixel does."""
    assert rows(["###.", ".###"], [1, 1], 0.5, absent=2) == ".##."
    assert rows(["###.", ".###"], [1, 1], 0.5, absent=3) == "...."


def test_of_two_pieces_the_larger_stays() -> None:
    """Pieces that touch at no side are told apart; the larger stays, of equal ones the first in raster order."""
    assert rows(["##.###"], [1]) == "...###"
    assert rows(["##.##."], [1]) == "##...."
    diagonal = from_masks([Box(2, 3, 4, 5)], [np.eye(2, dtype=bool)])
    assert pixels(fuse_masks([0], [1], masks(diagonal))) == [frozenset({(2, 3)})]


def test_nothing_and_wrong_arrays() -> None:
    """No rows, no masks; leaders, weights and shares that cannot be are refused."""
    empty, one = none(), from_masks([Box(0, 0, 2, 2)], [np.ones((2, 2), bool)])
    assert [len(a) for a in fuse_masks([], [], masks(empty))] == [0, 0, 0, 1, 0]
    with pytest.raises(ValueError, match="2 leaders for 1 masks"):
        fuse_masks([0, 0], [1], masks(one))
    with pytest.raises(ValueError, match="none negative"):
        fuse_masks([0], [-1], masks(one))
    with pytest.raises(ValueError, match=r"sum below 2\*\*43"):
        fuse_masks([0], [2**42], masks(one), absent=[2**42])
    with pytest.raises(ValueError, match="the share of the weight is 50, expected 0 to 1"):
        fuse_masks([0], [1], masks(one), share=50)

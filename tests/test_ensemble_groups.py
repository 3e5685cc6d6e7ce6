"""Groups of suppressed rows: who belongs to whom, how many members agree, and what that makes of the score."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble import groups, nms
from slidebatch.geometry import Box
from slidebatch.instances import SCORE_MAX, Instances, from_masks
from tests.support import slow_groups, slow_nms
from tests.support.random_nuclei import crowds, nuclei

quick = settings(deadline=None, max_examples=80)
THRESHOLDS = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.8, 1.0])
TABLES = st.one_of(nuclei(), crowds())


def conflicts(table: Instances, threshold: float, measure: nms.Measure = "iou") -> np.ndarray:
    return nms.mask_conflicts(table.box, table.offset, table.bits, threshold, measure)


def led(table: Instances, threshold: float) -> tuple[np.ndarray, list[int]]:
    """Leaders by IoU, and the order they follow from."""
    order = slow_nms.order(table)
    pairs = conflicts(table, threshold)
    return nms.leaders(np.array(order, np.int64), pairs, np.ones(len(pairs), bool)), order


def shuffled(table: Instances, random: object) -> tuple[Instances, np.ndarray]:
    to = np.array(random.sample(range(len(table)), len(table)), np.int64)  # type: ignore[attr-defined]
    return table.take(to), to


def described(table: Instances, leader: np.ndarray, *columns: np.ndarray) -> list[str]:
    """Each row and its leader by what they are, with what was said of the row; sorted."""

    def name(i: int) -> object:
        return (int(table.score[i]), table.box[i].tolist(), int(table.member[i]), table.mask(i).tolist())

    said = [(name(i), name(int(leader[i])), [c[i].item() for c in columns]) for i in range(len(table))]
    return sorted(str(row) for row in said)


def test_scores_end_where_the_engine_says() -> None:
    """The scale's top is that of the engine's scores."""
    assert groups.SCORE_TOP == SCORE_MAX


@quick
@given(TABLES, THRESHOLDS)
def test_each_row_belongs_to_the_first_kept_row_that_conflicts(table: Instances, threshold: float) -> None:
    """Leaders are those of the double loop, at the threshold too, and the kept ones are those of plain suppression."""
    leader, order = led(table, threshold)
    areas = slow_nms.pixels(table)
    pairs = {
        frozenset((i, j))
        for i in range(len(areas))
        for j in range(i)
        if slow_nms.conflict(areas[i], areas[j], threshold)
    }
    assert leader.tolist() == slow_groups.leaders(order, pairs)
    assert (leader == np.arange(len(table))).tolist() == slow_nms.keep(order, areas, threshold)


@quick
@given(TABLES, THRESHOLDS)
def test_votes_count_distinct_members(table: Instances, threshold: float) -> None:
    """A group has a voice for every member in it, its best row; votes are the distinct members."""
    leader, order = led(table, threshold)
    voice = groups.voices(leader, order, table.member)
    vote = groups.votes(leader, voice)
    for head, rows in slow_groups.groups(leader.tolist()).items():
        assert [i for i in rows if voice[i]] == slow_groups.voices(order, rows, table.member.tolist())
        assert voice[head]
        assert {int(v) for v in vote[rows]} == {len(set(table.member[rows].tolist()))}


@quick
@given(TABLES, THRESHOLDS, st.integers(0, 4))
def test_a_lone_opinion_is_dropped(table: Instances, threshold: float, min_votes: int) -> None:
    """Only leaders of groups with enough members are agreed on; with one vote asked for, all leaders are."""
    leader, order = led(table, threshold)
    vote = groups.votes(leader, groups.voices(leader, order, table.member))
    expected = [
        head == i and len({int(table.member[k]) for k in range(len(table)) if leader[k] == head}) >= min_votes
        for i, head in enumerate(leader.tolist())
    ]
    assert groups.agreed(leader, vote, min_votes).tolist() == expected


@quick
@given(TABLES, THRESHOLDS)
def test_agreement_raises_a_score_by_the_noisy_or(table: Instances, threshold: float) -> None:
    """A group's score is the noisy or of its voices, up to a step a vote, from the best score to the top."""
    leader, order = led(table, threshold)
    voice = groups.voices(leader, order, table.member)
    raised = groups.noisy_or(leader, voice, table.score)
    for rows in slow_groups.groups(leader.tolist()).values():
        spoken = [int(table.score[i]) for i in rows if voice[i]]
        exact = slow_groups.noisy_or(spoken, SCORE_MAX)
        assert {int(r) for r in raised[rows]} == {int(raised[rows[0]])}
        assert exact <= int(raised[rows[0]]) < exact + len(spoken)
        assert max(spoken) <= raised[rows[0]] <= SCORE_MAX


@quick
@given(TABLES, THRESHOLDS, st.lists(st.integers(0, 5), min_size=3, max_size=5).filter(any))
def test_the_mean_over_members_counts_silence_as_nothing(table: Instances, threshold: float, weight: list[int]) -> None:
    """A group's mean is that of all members' best scores, 0 where a member has no row, rounded half up."""
    leader, order = led(table, threshold)
    voice = groups.voices(leader, order, table.member)
    mean = groups.member_mean(leader, voice, table.score, table.member, weight)
    for rows in slow_groups.groups(leader.tolist()).values():
        spoken = [(weight[table.member[i]], int(table.score[i])) for i in rows if voice[i]]
        exact = Fraction(sum(w * s for w, s in spoken), sum(weight))
        assert {int(m) for m in mean[rows]} == {slow_groups.half_up(exact)}
        assert mean[rows].max() <= max(s for _, s in spoken)


@quick
@given(st.lists(st.integers(0, SCORE_MAX), min_size=1, max_size=12), st.integers(0, SCORE_MAX), st.integers(1, 9))
def test_another_vote_never_lowers_a_score(scores: list[int], more: int, weight: int) -> None:
    """With one more member that agrees, noisy or and mean over members are at least what they were."""
    n = len(scores)
    few, many = np.zeros(n, np.int64), np.zeros(n + 1, np.int64)
    voice, every = np.ones(n, bool), np.ones(n + 1, bool)
    members, weights = np.arange(n + 1), [3] * n + [weight]
    before = groups.noisy_or(few, voice, scores)[0]
    assert before <= groups.noisy_or(many, every, [*scores, more])[0] <= SCORE_MAX
    mean = groups.member_mean(few, voice, scores, members[:n], weights)[0]
    assert mean <= groups.member_mean(many, every, [*scores, more], members, weights)[0]


def test_scores_at_the_ends_of_the_scale() -> None:
    """One certain voice makes a group certain; voices without weight say nothing; two halves make three quarters."""
    leader, voice = np.array([0, 0, 2, 2]), np.ones(4, bool)
    assert groups.noisy_or(leader, voice, [65535, 0, 0, 0]).tolist() == [65535, 65535, 0, 0]
    assert groups.noisy_or(leader, voice, [50, 50, 50, 0], top=100).tolist() == [75, 75, 50, 50]
    assert groups.member_mean(leader, voice, [50, 51, 50, 0], [0, 1, 0, 1], [1, 1]).tolist() == [51, 51, 25, 25]


@quick
@given(TABLES, THRESHOLDS, st.randoms(use_true_random=False))
def test_input_order_never_decides_what_a_group_says(table: Instances, threshold: float, random: object) -> None:
    """Permuting the rows permutes leaders, votes and scores with them."""
    told = []
    for view in (table, shuffled(table, random)[0]):
        leader, order = led(view, threshold)
        voice = groups.voices(leader, order, view.member)
        said = groups.votes(leader, voice), groups.noisy_or(leader, voice, view.score)
        told.append(
            described(view, leader, *said, groups.member_mean(leader, voice, view.score, view.member, [1, 2, 3]))
        )
    assert told[0] == told[1]


@quick
@given(TABLES, THRESHOLDS)
def test_a_component_says_alone_what_it_says_among_all(table: Instances, threshold: float) -> None:
    """Leaders, votes and scores of a conflict component do not depend on the rows outside it."""
    leader, order = led(table, threshold)
    voice = groups.voices(leader, order, table.member)
    vote, raised = groups.votes(leader, voice), groups.noisy_or(leader, voice, table.score)
    component = nms.components(len(table), conflicts(table, threshold))
    for name in range(int(component.max(initial=-1)) + 1):
        rows = np.flatnonzero(component == name)
        alone = table.take(rows)
        head, ranks = led(alone, threshold)
        speaks = groups.voices(head, ranks, alone.member)
        assert rows[head].tolist() == leader[rows].tolist()
        assert groups.votes(head, speaks).tolist() == vote[rows].tolist()
        assert groups.noisy_or(head, speaks, alone.score).tolist() == raised[rows].tolist()


def filled(table: Instances, threshold: float, rank: list[int]) -> np.ndarray:
    """Leaders of filling by overlap over the smaller."""
    return groups.fill(
        [rank[m] for m in table.member], slow_nms.order(table), conflicts(table, threshold, "over_smaller")
    )


def over_smaller(a: slow_nms.Pixels, b: slow_nms.Pixels, threshold: float) -> bool:
    least = min(len(a), len(b))
    return least > 0 and Fraction(len(a & b), least) > Fraction(round(threshold * 10**6), 10**6)


@quick
@given(TABLES, THRESHOLDS, st.permutations([0, 1, 2]))
def test_a_member_adds_only_what_those_before_it_missed(table: Instances, threshold: float, rank: list[int]) -> None:
    """Member after member, best first, a row stays unless a row kept of an earlier member conflicts with it."""
    areas, order = slow_nms.pixels(table), slow_nms.order(table)
    expected = list(range(len(table)))
    kept: list[int] = []
    for place in range(3):
        new = [i for i in order if rank[table.member[i]] == place]
        for i in new:
            before = [j for j in kept if over_smaller(areas[i], areas[j], threshold)]
            expected[i] = before[0] if before else i
        kept += [i for i in new if expected[i] == i]
    assert filled(table, threshold, rank).tolist() == expected


@quick
@given(TABLES, THRESHOLDS, st.randoms(use_true_random=False))
def test_filling_falls_into_components(table: Instances, threshold: float, random: object) -> None:
    """A component of conflicts fills alone as among all, whatever the order of its rows."""
    leader = filled(table, threshold, [1, 0, 2])
    component = nms.components(len(table), conflicts(table, threshold, "over_smaller"))
    for name in range(int(component.max(initial=-1)) + 1):
        view, to = shuffled(table.take(component == name), random)
        rows = np.flatnonzero(component == name)
        told = described(view, filled(view, threshold, [1, 0, 2]))
        assert len(to) == len(rows)
        assert told == sorted(described_rows(table, leader, rows))


def described_rows(table: Instances, leader: np.ndarray, rows: np.ndarray) -> list[str]:
    """`described` for some rows whose leaders are among them."""
    place = {int(row): k for k, row in enumerate(rows)}
    return described(table.take(rows), np.array([place[int(leader[row])] for row in rows], np.int64))


def test_filling_keeps_what_only_the_second_found() -> None:
    """A worse row of the first member keeps out a better one of the second; what lies apart is added."""
    boxes = [Box(0, 0, 4, 4), Box(0, 1, 4, 5), Box(9, 9, 12, 12), Box(10, 10, 11, 11)]
    table = from_masks(boxes, [np.ones(b.shape, bool) for b in boxes], [5, 900, 7, 800], [0, 1, 1, 0])
    assert filled(table, 0.5, [0, 1]).tolist() == [0, 0, 3, 3]
    assert filled(table, 0.75, [0, 1]).tolist() == [0, 1, 3, 3]
    assert filled(table, 0.5, [1, 0]).tolist() == [1, 1, 2, 2]


def test_nothing_in_nothing_out() -> None:
    """No rows make no groups, no votes and no scores."""
    none = np.zeros(0, np.int64)
    assert nms.leaders(none, none.reshape(0, 2), []).shape == (0,)
    assert groups.voices([], [], []).shape == (0,)
    assert groups.votes([], []).shape == (0,)
    assert groups.agreed([], [], 2).shape == (0,)
    assert groups.noisy_or([], [], []).shape == (0,)
    assert groups.member_mean([], [], [], [], [1]).shape == (0,)
    assert groups.fill([], [], none.reshape(0, 2)).shape == (0,)


def test_what_does_not_fit_is_refused() -> None:
    """Leaders that lead nobody, scores off the scale, floats, weights of other members: a sentence for each."""
    with pytest.raises(ValueError, match="lead no group"):
        groups.votes([1, 0], [True, True])
    with pytest.raises(ValueError, match="an order of 1 rows for 2 leaders"):
        groups.voices([0, 0], [0], [0, 1])
    with pytest.raises(ValueError, match="scores from 0 to 70000, expected integers from 0 to 65535"):
        groups.noisy_or([0, 0], [True, True], [0, 70000])
    with pytest.raises(ValueError, match="scores are float64"):
        groups.noisy_or([0], [True], [0.5])
    with pytest.raises(ValueError, match="voices are int64"):
        groups.votes([0], [1])
    with pytest.raises(ValueError, match="expected one a member"):
        groups.member_mean([0], [True], [1], [1], [1])
    with pytest.raises(ValueError, match="not all 0"):
        groups.member_mean([0], [True], [1], [0], [0])
    with pytest.raises(ValueError, match=r"none negative, a sum below 2\*\*43"):
        groups.member_mean([0], [True], [1], [0], [-1])

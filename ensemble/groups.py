"""What the rows of a group say together: who speaks in it, how many agree, and what score that is worth.

A group is a kept row, its leader, and the rows that it suppressed (`ensemble.nms.leaders`). A member of the
ensemble has one voice in a group, its best row, however often it found the nucleus. Nothing here reaches beyond
a group, so what can be settled per conflict component stays so. Scores are integers from 0 to the scale's top,
and every rule is exact or rounds by a stated rule: the order of the input never matters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from ensemble.iou import Pairs, as_pairs
from ensemble.nms import Flags, Indices, leaders, rank_of

SCORE_TOP = 65535
"""A score of 1.0."""

LARGEST_SUM = 2**43
"""Sums of weights stay below this, so that they can be multiplied by `ensemble.iou.STEPS` in 64 bits."""


def voices(leader: npt.ArrayLike, order: npt.ArrayLike, member: npt.ArrayLike) -> Flags:
    """The best row of each member in each group: (N,) bool; a leader is always one.

    leader (N,) int64 as `ensemble.nms.leaders` gives it, for the same order (N,); member (N,) integers.
    N = 0 gives (0,). ValueError where the arrays do not fit one another or `leader` names no groups.
    """
    head, rank = as_leaders(leader), rank_of(order)
    who = as_integers(member, len(head), "members")
    if len(rank) != len(head):
        raise ValueError(f"an order of {len(rank)} rows for {len(head)} leaders: pass the order of these rows")
    by_voice = np.lexsort((rank, who, head))
    first = np.ones(len(head), bool)
    before, after = by_voice[:-1], by_voice[1:]
    first[1:] = (head[before] != head[after]) | (who[before] != who[after])
    chosen = np.zeros(len(head), bool)
    chosen[by_voice[first]] = True
    return chosen


def votes(leader: npt.ArrayLike, voice: npt.ArrayLike) -> Indices:
    """How many members agree: for each row the number of voices in its group, (N,) int64, at least 1.

    leader (N,) int64; voice (N,) bool as `voices` gives it. N = 0 gives (0,). ValueError as `voices`.
    """
    head = as_leaders(leader)
    speaks = _flags(voice, len(head))
    return np.bincount(head[speaks], minlength=len(head)).astype(np.int64)[head]


def agreed(leader: npt.ArrayLike, vote: npt.ArrayLike, min_votes: int) -> Flags:
    """Leaders of groups in which at least `min_votes` members agree: (N,) bool; from 1 down all leaders.

    leader (N,) int64; vote (N,) int64 as `votes` gives it. ValueError where they do not fit one another.
    """
    head = as_leaders(leader)
    count = as_integers(vote, len(head), "votes")
    return np.asarray((head == np.arange(len(head))) & (count >= min_votes))


def noisy_or(leader: npt.ArrayLike, voice: npt.ArrayLike, score: npt.ArrayLike, top: int = SCORE_TOP) -> Indices:
    """The chance that not all voices of a group err, if each errs by itself: for each row its group's, (N,) int64.

    score (N,) integers 0..top. Of scores s: top * (1 - product of (1 - s / top)). The product is taken from the
    best voice to the worst in whole steps of 1 / top, rounded down each time: another voice never lowers the
    result, which is at least the best voice's score, at most `top`, and above the exact value by less than one
    step a vote. N = 0 gives (0,). ValueError where the arrays do not fit or a score is not in 0..top.
    Source: the noisy OR of Pearl 1988, Probabilistic Reasoning in Intelligent Systems, section 4.3.
    """
    head = as_leaders(leader)
    speaks, given = _flags(voice, len(head)), _scores(score, len(head), top)
    rows = np.flatnonzero(speaks)
    rows = rows[np.argsort(-given[rows], kind="stable")]
    return np.asarray(_noisy_or(head, rows, given, top))[head]


def member_mean(
    leader: npt.ArrayLike, voice: npt.ArrayLike, score: npt.ArrayLike, member: npt.ArrayLike, weight: npt.ArrayLike
) -> Indices:
    """The weighted mean of a group's scores over all members, a silent one counting as 0: for each row, (N,) int64.

    score (N,) integers >= 0; member (N,) places in weight (M,), integers >= 0 that are not all 0. Rounded half
    up. Another voice never lowers it, and it never exceeds the best score. It is the mean score of those that
    spoke times their share of all members. N = 0 gives (0,). ValueError where the arrays do not fit.
    Source: Solovyev, Wang and Gabruseva 2021, Image and Vision Computing 107:104117 (confidence of fused boxes).
    """
    head = as_leaders(leader)
    speaks, given = _flags(voice, len(head)), _scores(score, len(head), SCORE_TOP)
    who, share = as_integers(member, len(head), "members"), as_weights(weight)
    total = int(share.sum())
    if total == 0 or (len(who) and (who.min() < 0 or who.max() >= len(share))):
        raise ValueError(f"weights {share.tolist()}: expected one a member, none negative, not all 0")
    summed = np.zeros(len(head), np.int64)
    np.add.at(summed, head[speaks], (share[who] * given)[speaks])
    return ((2 * summed + total) // (2 * total))[head]


def fill(rank: npt.ArrayLike, order: npt.ArrayLike, pairs: Pairs) -> Indices:
    """Let each member add only what those before it missed: the leader of each row, (N,) int64, itself where kept.

    rank (N,) integers, the place of each row's member, lowest first; order (N,) permutation, best first; pairs
    (P, 2) of rows that conflict, as `ensemble.nms.mask_conflicts` gives them (over the smaller, for a piece inside
    a larger nucleus conflicts too). Rows of one rank never compete here: suppress them before. This is greedy
    suppression in the order (rank, order) on the pairs of unlike ranks, so it falls into their components, and a
    component may be settled anywhere that sees all of it. A row that was kept out keeps nobody out. N = 0 gives
    (0,). ValueError as `ensemble.nms.greedy_nms`.
    """
    rows = np.argsort(rank_of(order), kind="stable")
    place = as_integers(rank, len(rows), "ranks")
    known = as_pairs(pairs, len(rows), len(rows))
    return leaders(rows[np.argsort(place[rows], kind="stable")], known, place[known[:, 0]] != place[known[:, 1]])


def as_leaders(leader: npt.ArrayLike) -> Indices:
    """Leaders, checked, (N,) int64. ValueError unless each is a row that is there and leads itself."""
    head = as_integers(leader, None, "leaders")
    if head.size and (head.min() < 0 or head.max() >= len(head) or (head[head] != head).any()):
        raise ValueError("leaders name rows that lead no group: pass what ensemble.nms.leaders gives for these rows")
    return head


def as_integers(values: npt.ArrayLike, n: int | None, name: str) -> Indices:
    """A column of integers as (N,) int64. ValueError for another kind or length."""
    column = np.asarray(values)
    if column.ndim != 1 or (n is not None and len(column) != n) or not (column.dtype.kind in "iu" or not column.size):
        wanted = "(N,)" if n is None else f"({n},)"
        raise ValueError(f"{name} are {column.dtype} {column.shape}, expected integers {wanted}")
    return np.ascontiguousarray(column, np.int64)


def as_weights(weight: npt.ArrayLike) -> Indices:
    """Weights as (M,) int64. ValueError unless they are integers, none negative, with a sum below `LARGEST_SUM`."""
    share = as_integers(weight, None, "weights")
    if share.size and (share.min() < 0 or int(share.max()) * len(share) >= LARGEST_SUM):
        raise ValueError(f"weights from {share.min()} to {share.max()}: expected none negative, a sum below 2**43")
    return share


def _flags(voice: npt.ArrayLike, n: int) -> Flags:
    speaks: npt.NDArray[Any] = np.asarray(voice)
    if speaks.shape != (n,) or (speaks.dtype != bool and n):
        raise ValueError(f"voices are {speaks.dtype} {speaks.shape}, expected bool ({n},)")
    return speaks.astype(bool)


def _scores(score: npt.ArrayLike, n: int, top: int) -> Indices:
    given = as_integers(score, n, "scores")
    if n and (given.min() < 0 or given.max() > top):
        raise ValueError(f"scores from {given.min()} to {given.max()}, expected integers from 0 to {top}")
    return given


@njit(cache=True, nogil=True)
def _noisy_or(leader, rows, score, top):  # type: ignore[no-untyped-def]
    """By leader; `rows` from the best score to the worst, so that rounding does not follow the input."""
    doubt = np.full(leader.size, top, np.int64)
    for i in rows:
        doubt[leader[i]] = doubt[leader[i]] * (top - score[i]) // top
    return top - doubt

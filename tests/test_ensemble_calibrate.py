"""Raw scores as intersections over unions to expect: never falling, exact, cross-fitted by group."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.calibrate import Calibration, cross_fitted, fit
from ensemble.groups import SCORE_TOP
from tests.support.slow_groups import half_up

quick = settings(deadline=None, max_examples=80)
SCORES = st.sampled_from([0, 1, 2, 100, 30000, 30001, 65534, 65535])
IOUS = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.9, 1.0])
ROWS = st.lists(st.tuples(SCORES, IOUS, st.integers(0, 3)), min_size=1, max_size=40)


def columns(rows: list[tuple[int, float, int]]) -> tuple[list[int], list[float], list[int]]:
    return [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]


def stepwise(score: list[int], iou: list[float]) -> dict[int, Fraction]:
    """Isotonic regression by its definition: at each score the max over starts of the min over ends of means."""
    raw = sorted(set(score))
    worth = [[Fraction(round(v * 10**6), 10**6) for s, v in zip(score, iou, strict=True) if s == r] for r in raw]

    def mean(first: int, last: int) -> Fraction:
        values = [v for rows in worth[first : last + 1] for v in rows]
        return sum(values, Fraction(0)) / len(values)

    n = len(raw)
    return {raw[k]: max(min(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)}


@quick
@given(ROWS)
def test_knots_lie_on_the_isotonic_regression(rows: list[tuple[int, float, int]]) -> None:
    """At its knots a fit has the steps of the slow definition, and the map through them never falls."""
    score, iou, _ = columns(rows)
    found, steps = fit(score, iou), stepwise(score, iou)
    of_step: dict[Fraction, list[int]] = {}
    for raw in score:
        of_step.setdefault(steps[raw], []).append(raw)
    expected = {half_up(Fraction(sum(s), len(s))): v for v, s in of_step.items()}
    expected |= {min(score): steps[min(score)], max(score): steps[max(score)]}
    assert list(found.raw) == sorted(expected)
    for k, v in zip(found.raw, found.calibrated, strict=True):
        assert abs(v - expected[k] * SCORE_TOP) <= 1
    assert (np.diff(found.apply(np.arange(SCORE_TOP + 1))) >= 0).all()
    assert found.rows == len(rows)


@quick
@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_order_of_rows_never_matters(rows: list[tuple[int, float, int]], random: object, knots: int) -> None:
    """Permuted rows give the same fit to the last digit, and the same cross-fitted scores row by row."""
    to = random.sample(range(len(rows)), len(rows))  # type: ignore[attr-defined]
    again = [rows[i] for i in to]
    score, iou, group = columns(rows)
    score_2, iou_2, group_2 = columns(again)
    assert fit(score_2, iou_2, knots) == fit(score, iou, knots)
    if len(set(group)) > 1:
        expected = cross_fitted(score, iou, group)[to]
        np.testing.assert_array_equal(cross_fitted(score_2, iou_2, group_2), expected)


@quick
@given(ROWS, st.lists(st.integers(0, SCORE_TOP), max_size=20))
def test_between_knots_the_map_is_straight(rows: list[tuple[int, float, int]], raw: list[int]) -> None:
    """A calibrated score is the exact value on the line between the knots around it, rounded half up."""
    found = fit(*columns(rows)[:2])
    expected = []
    for s in raw:
        at = min(max(s, found.raw[0]), found.raw[-1])
        low = max(k for k in range(len(found.raw)) if found.raw[k] <= at)
        high = min(low + 1, len(found.raw) - 1)
        run = max(found.raw[high] - found.raw[low], 1)
        rise = found.calibrated[high] - found.calibrated[low]
        expected.append(half_up(found.calibrated[low] + Fraction((at - found.raw[low]) * rise, run)))
    assert found.apply(raw).tolist() == expected


@quick
@given(ROWS)
def test_a_fit_comes_back_from_its_plain_values(rows: list[tuple[int, float, int]]) -> None:
    """What is stored as JSON is read back as the same map."""
    found = fit(*columns(rows)[:2])
    assert Calibration.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_few_knots_follow_many_scores() -> None:
    """A fit of a hundred thousand rows has few knots, and is nowhere far from what it was drawn from."""
    random = np.random.default_rng(2)
    score = random.integers(0, SCORE_TOP + 1, 100_000)
    expected = (score / SCORE_TOP) ** 2
    iou = np.where(random.random(len(score)) < expected, 1.0, 0.0)
    found = fit(score, iou)
    assert len(found.raw) <= 34
    error = found.apply(score) / SCORE_TOP - expected
    assert np.abs(error).max() < 0.05
    assert abs(error.mean()) < 0.005


def test_rows_without_a_match_count_as_nothing() -> None:
    """Half of the rows of a score matched with 0.8 and half with nothing: 0.4 is to be expected."""
    found = fit([500] * 4, [0.8, 0.0, 0.8, 0.0])
    assert (found.raw, found.calibrated) == ((500,), (26214,))
    assert found.apply([0, 500, 65535]).tolist() == [26214] * 3


def test_scores_that_mean_nothing_all_say_the_same() -> None:
    """Where higher scores are worth no more, every score becomes the mean."""
    found = fit([1, 2, 3, 4], [0.9, 0.7, 0.3, 0.1])
    assert set(found.apply([0, 1, 2, 3, 4, 9]).tolist()) == {half_up(Fraction(SCORE_TOP, 2))}


@quick
@given(ROWS, st.integers(2, 6))
def test_no_row_is_judged_by_its_own_group(rows: list[tuple[int, float, int]], folds: int) -> None:
    """Changing the truth of a group changes no cross-fitted score of that group."""
    score, iou, group = columns(rows)
    if len(set(group)) < 2:
        return
    before = cross_fitted(score, iou, group, folds)
    for name in set(group):
        changed = [1.0 - v if g == name else v for v, g in zip(iou, group, strict=True)]
        after = cross_fitted(score, changed, group, folds)
        own = np.array(group) == name
        np.testing.assert_array_equal(after[own], before[own])


def test_with_as_many_folds_as_groups_each_is_left_out_alone() -> None:
    """The scores of a group are those of a fit on all the other groups."""
    random = np.random.default_rng(4)
    score, iou = random.integers(0, 60000, 200), random.random(200)
    group = np.array(["a", "b", "c"])[random.integers(0, 3, 200)]
    found = cross_fitted(score, iou, group, folds=9)
    for name in "abc":
        expected = fit(score[group != name], iou[group != name]).apply(score[group == name])
        np.testing.assert_array_equal(found[group == name], expected)


def test_nothing_and_too_little() -> None:
    """No scores stay none; no rows, or one group, are too little to fit and to judge on."""
    assert fit([7], [0.5]).apply([]).shape == (0,)
    assert cross_fitted([], [], []).shape == (0,)
    with pytest.raises(ValueError, match="a calibration of 0 rows"):
        fit([], [])
    with pytest.raises(ValueError, match="2 names of 1 groups"):
        cross_fitted([1, 2], [0.1, 0.2], ["a", "a"])


def test_what_does_not_fit_is_refused() -> None:
    """Values off their scales, floats for scores, and stored maps that fall or belong to another scale."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        fit([1], [1.5])
    with pytest.raises(ValueError, match="from 0 to 1"):
        fit([1], [float("nan")])
    with pytest.raises(ValueError, match="scores are float64"):
        fit([0.5], [0.5])
    with pytest.raises(ValueError, match="expected integers from 0 to 65535"):
        fit([65536], [0.5])
    stored = fit([1, 9], [0.1, 0.9]).as_dict()
    with pytest.raises(ValueError, match="fit it again"):
        Calibration.from_dict({**stored, "top": 255})
    with pytest.raises(ValueError, match="knots that rise and values that never fall"):
        Calibration.from_dict({**stored, "calibrated": [9, 1]})
    with pytest.raises(ValueError, match="from 1 to 70000, expected 0 to 65535"):
        Calibration.from_dict({**stored, "calibrated": [1, 70000]})

"""Class maps of several members as one."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.maps import LARGEST_WEIGHT_SUM, max_maps, mean_maps
from tests.support.slow_groups import half_up

quick = settings(deadline=None, max_examples=80)
VALUES = st.sampled_from([0, 1, 2, 127, 128, 254, 255])


@st.composite
def members(draw: st.DrawFn) -> tuple[list[np.ndarray], list[int]]:
    """Maps (K, Y, X) of a few members, and their weights."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(0, 3), st.integers(1, 3)))
    size = int(np.prod(shape))
    values = draw(st.lists(st.lists(VALUES, min_size=size, max_size=size), min_size=1, max_size=4))
    weight = draw(st.lists(st.integers(0, 7), min_size=len(values), max_size=len(values)).filter(any))
    return [np.array(v, np.uint8).reshape(shape) for v in values], weight


@quick
@given(members(), st.integers(1, 1000))
def test_the_mean_is_exact_and_rounded_half_up(given_maps: tuple[list[np.ndarray], list[int]], scale: int) -> None:
    """Every pixel is the fraction's nearest integer, the larger of two; only the ratios of weights matter."""
    maps, weight = given_maps
    found = mean_maps(maps, [w * scale for w in weight])
    assert found.dtype == np.uint8
    assert found.shape == maps[0].shape
    for place in np.ndindex(maps[0].shape):
        exact = Fraction(sum(w * int(m[place]) for w, m in zip(weight, maps, strict=True)), sum(weight))
        assert found[place] == half_up(exact)


@quick
@given(members(), st.randoms(use_true_random=False))
def test_the_order_of_members_never_matters(given_maps: tuple[list[np.ndarray], list[int]], random: object) -> None:
    """Permuted members with their weights give the same mean and the same maximum."""
    maps, weight = given_maps
    to = random.sample(range(len(maps)), len(maps))  # type: ignore[attr-defined]
    again = [maps[i] for i in to]
    np.testing.assert_array_equal(mean_maps(again, [weight[i] for i in to]), mean_maps(maps, weight))
    np.testing.assert_array_equal(max_maps(again), max_maps(maps))


@quick
@given(members())
def test_equal_weights_are_no_weights(given_maps: tuple[list[np.ndarray], list[int]]) -> None:
    """Without weights all members count alike; the maximum is no less than the mean, and is one of the values."""
    maps, _ = given_maps
    mean, most = mean_maps(maps), max_maps(maps)
    np.testing.assert_array_equal(mean, mean_maps(maps, [3] * len(maps)))
    assert (most >= mean).all()
    np.testing.assert_array_equal(most, np.max(maps, axis=0))


def test_one_member_stays_as_it_is() -> None:
    """The mean and the maximum of one member, or of one that alone has weight, are its maps."""
    every = np.arange(256, dtype=np.uint8).reshape(2, 8, 16)
    np.testing.assert_array_equal(mean_maps([every]), every)
    np.testing.assert_array_equal(mean_maps([every, 255 - every], [5, 0]), every)
    np.testing.assert_array_equal(max_maps([every]), every)


def test_the_largest_weights_do_not_overflow() -> None:
    """At the largest weights that are taken, white stays white and black stays black; beyond, they are refused."""
    white, black = np.full((1, 2, 2), 255, np.uint8), np.zeros((1, 2, 2), np.uint8)
    for one, other in pairwise([white, white, black, black]):
        found = mean_maps([one, other], [LARGEST_WEIGHT_SUM - 1, 1])
        np.testing.assert_array_equal(found, one)
    with pytest.raises(ValueError, match="in their lowest terms"):
        mean_maps([white, black], [LARGEST_WEIGHT_SUM, 1])


def test_maps_that_do_not_fit_are_refused() -> None:
    """No maps, unlike shapes, floats and impossible weights are refused in one sentence."""
    one = np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="no maps to join"):
        mean_maps([])
    with pytest.raises(ValueError, match="expected uint8 arrays of one shape"):
        mean_maps([one, one[:, :1]])
    with pytest.raises(ValueError, match="expected uint8 arrays of one shape"):
        max_maps([one.astype(np.float32)])
    for weight in ([0, 0], [1, -1]):
        with pytest.raises(ValueError, match="none negative, not all 0"):
            mean_maps([one, one], weight)
    with pytest.raises(ValueError, match=r"weights of the maps are int64 \(1,\)"):
        mean_maps([one, one], [1])

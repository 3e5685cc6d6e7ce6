"""Laws of sketches and windows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from slidebatch.normalise import QUANTILES, NormaliseSpec, Sketch, Window, _pooled, _pooled_rows, sketch, window


def field(seed: int, level: float = 100.0, spread: float = 30.0, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(level, spread, (2, side, side)).clip(0, 4095).astype(np.uint16)


def test_one_image_window_is_its_percentiles() -> None:
    """The window of one image lies at its own percentiles."""
    image: np.ndarray = np.arange(2 * 10_000).reshape(2, 100, 100).astype(np.uint16)
    found = window([sketch(image)], NormaliseSpec(low_percent=5, high_percent=95), rgb=False)
    exact = np.percentile(image.reshape(2, -1), [5, 95], axis=1)
    assert np.abs(found.low - exact[0]).max() < 1
    assert np.abs(found.high - exact[1]).max() < 1


def test_pooled_window_is_that_of_all_pixels_together() -> None:
    """Pooling sketches of images of different sizes gives about the percentiles of all their pixels."""
    images = [field(0, 200, 40, 96), field(1, 900, 200, 48), field(2, 500, 10, 64)]
    found = window([sketch(i) for i in images], NormaliseSpec(), rgb=False)
    pixels = np.concatenate([i.reshape(2, -1) for i in images], axis=1)
    exact = np.percentile(pixels, [1, 99.8], axis=1)
    assert np.abs(found.low - exact[0]).max() < 4
    assert np.abs(found.high - exact[1]).max() < 25


KINDS = [np.uint8, np.uint16, np.float32, np.float64]


def made_up(rng: np.random.Generator) -> np.ndarray:
    """A channel (1, n) of any type, of few or many values."""
    size, step = int(rng.integers(1, 3000)), rng.choice([1e-3, 1.0, 40.0])
    drawn = rng.normal(rng.uniform(0, 200), rng.choice([0.0, 3.0, 50.0]), (1, 1, size)) // step * step
    return drawn.clip(0, 255).astype(rng.choice(KINDS))


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_sketch_holds_the_quantiles(seed: int) -> None:
    """The values of a sketch are numpy's quantiles, to the bit."""
    image = made_up(np.random.default_rng(seed))
    exact = np.quantile(image.astype(np.float64), np.linspace(0, 1, QUANTILES)).astype(np.float32)
    assert sketch(image).quantiles[0].tobytes() == exact.tobytes()


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.floats(0, 100))
def test_pooling_equals_sorting_everything(seed: int, count: int, percent: float) -> None:
    """Pooled quantiles are those of all sketches' values sorted together by weight, to the bit."""
    rng = np.random.default_rng(seed)
    rows = np.stack([sketch(made_up(rng)).quantiles[0] for _ in range(count)])
    pixels = rng.integers(1, 4, count) * 64
    steps: np.ndarray = np.full(QUANTILES, 2)
    steps[[0, -1]] = 1
    at = np.array([0.0, percent / 100, 0.5, 1.0])
    exact = _pooled(rows.ravel().astype(np.float64), np.concatenate([steps * p for p in pixels]), at)
    assert np.array(_pooled_rows(rows, pixels, at)).tobytes() == exact.tobytes()


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)), st.booleans())
def test_order_of_sketches_plays_no_part(order: list[int], rgb: bool) -> None:
    """Any order of the same sketches gives the same window, to the bit."""
    sketches = [sketch(field(seed, 100 * (seed + 1), 20, 16 + 8 * seed)) for seed in range(4)]
    first = window(sketches, NormaliseSpec(), rgb)
    again = window([sketches[i] for i in order], NormaliseSpec(), rgb)
    assert first.to_json() == again.to_json()


@pytest.mark.parametrize(
    ("dtype", "floor"), [(np.uint8, 8.0), (np.uint16, 64.0), (np.float32, 0.02)], ids=["8", "16", "float"]
)
def test_an_empty_image_stays_empty(dtype: type, floor: float) -> None:
    """Noise on an empty image never fills the range: the contrast floor and the noise set the width."""
    rng = np.random.default_rng(3)
    scale = floor / 30
    image: np.ndarray = (rng.normal(10 * scale, scale, (1, 128, 128))).clip(0).astype(dtype)
    found = window([sketch(image)], NormaliseSpec(), rgb=False)
    assert found.high[0] - found.low[0] >= floor * 0.999
    assert np.median(found.apply(image)) < 0.4


def test_noise_widens_the_window() -> None:
    """A window is at least six standard deviations of the noise wide."""
    image = np.random.default_rng(4).normal(1000, 50, (1, 200, 200)).astype(np.uint16)
    noise = float(sketch(image).noise[0])
    found = window([sketch(image)], NormaliseSpec(low_percent=40, high_percent=60), rgb=False)
    assert abs(noise - 50) < 2
    assert found.high[0] - found.low[0] == pytest.approx(6 * noise, rel=1e-5)


def test_an_empty_well_stays_dark_in_its_plates_window() -> None:
    """Under the window of a plate the empty well is near 0 although the others fill the range."""
    empty, full = field(5, 100, 4), field(6, 100, 4)
    full[:, 10:40, 10:40] += 3000
    found = window([sketch(empty), sketch(full)], NormaliseSpec(), rgb=False)
    assert found.apply(empty).max() < 0.05
    assert found.apply(full).max() == 1


def test_rgb_shares_one_window() -> None:
    """The channels of an RGB image keep their ratios: one window for all three."""
    image = np.random.default_rng(7).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    image[0] //= 2
    found = window([sketch(image)], NormaliseSpec(), rgb=True)
    assert len(set(found.low.tolist())) == len(set(found.high.tolist())) == 1


def test_blank_glass_stays_bright_and_dark_ground_stays_dark() -> None:
    """An RGB image without contrast is near 1 on bright glass and near 0 on a dark ground."""
    noise = np.random.default_rng(8).integers(-2, 3, (3, 64, 64))
    for level, low, high in ((240, 0.75, 1.0), (6, 0.0, 0.25)):
        image = (level + noise).astype(np.uint8)
        applied = window([sketch(image)], NormaliseSpec(), rgb=True).apply(image)
        assert low <= applied.mean() <= high


def test_json_keeps_every_bit() -> None:
    """A sketch and a window come back from JSON text exactly."""
    one = sketch(field(9))
    back = Sketch.from_json(json.loads(json.dumps(one.to_json())))
    assert back.quantiles.tobytes() == one.quantiles.tobytes()
    assert (back.noise.tobytes(), back.pixels, back.bits) == (one.noise.tobytes(), one.pixels, one.bits)
    found = window([one], NormaliseSpec(), rgb=False)
    again = Window.from_json(json.loads(json.dumps(found.to_json())))
    assert again.low.tobytes() == found.low.tobytes()
    assert again.high.tobytes() == found.high.tobytes()


def test_apply_does_not_depend_on_the_part_that_is_read() -> None:
    """A window applied to a part gives the part of the whole, in 0..1, and leaves its input alone."""
    image = field(10)
    before = image.copy()
    found = window([sketch(image)], NormaliseSpec(), rgb=False)
    whole = found.apply(image)
    assert whole.dtype == np.float32
    assert whole.min() == 0
    assert whole.max() == 1
    assert np.array_equal(found.apply(image[:, 7:31, 3:50]), whole[:, 7:31, 3:50])
    assert np.array_equal(found.take([1]).apply(image[1:]), whole[1:])
    assert np.array_equal(image, before)


def test_pixels_that_are_not_finite_do_not_count() -> None:
    """NaN and infinity change no window, and a NaN pixel becomes 0."""
    image = np.random.default_rng(11).random((1, 64, 64)).astype(np.float32)
    broken = image.copy()
    broken[0, 0, :2] = np.nan, np.inf
    one, other = (window([sketch(i)], NormaliseSpec(), rgb=False) for i in (image, broken))
    assert abs(one.high[0] - other.high[0]) < 0.01
    assert other.apply(broken)[0, 0, 0] == 0
    assert window([sketch(np.full((1, 8, 8), np.nan, np.float32))], NormaliseSpec(), rgb=False).low[0] == 0


def test_wrong_use_is_refused() -> None:
    """No sketches, sketches of different channels, and percentiles in the wrong order are refused."""
    with pytest.raises(ValueError, match="at least one sketch"):
        window([], NormaliseSpec(), rgb=False)
    with pytest.raises(ValueError, match="same channels"):
        window([sketch(field(0)), sketch(field(0)[:1])], NormaliseSpec(), rgb=False)
    with pytest.raises(ValueError, match="channels"):
        window([sketch(field(0))], NormaliseSpec(), rgb=False).apply(field(0)[:1])
    with pytest.raises(ValidationError, match="not below"):
        NormaliseSpec(low_percent=60, high_percent=40)

"""Pyramids: every level is the halved level above it, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.paint import halve
from tests.support.fields import touching_field
from tests.support.runs import config, run, write_slides


def level_of(group: Path, level: int) -> np.ndarray:
    return np.asarray(zarr.open_array(str(group / str(level)), mode="r")[:])


@pytest.mark.parametrize("shape", [(1203, 1401), (640, 640)])
def test_every_level_is_the_level_above_halved(tmp_path, shape):
    """Levels that regions own and levels of the pyramid stages alike equal halving the whole level above."""
    write_slides(tmp_path, {"a": touching_field(shape, 30, np.random.default_rng(2))})
    run(config(tmp_path, "out", output={"image": "copy"}))
    image = tmp_path / "out" / "labels.zarr" / "a"
    for group in (image, image / "labels" / "nuclei"):
        levels = sorted(int(p.name) for p in group.iterdir() if p.name.isdigit())
        assert levels == list(range(len(levels)))
        assert max(level_of(group, levels[-1]).shape[-2:]) <= 512
        for level in levels[1:]:
            np.testing.assert_array_equal(level_of(group, level), halve(level_of(group, level - 1)))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_means_of_four_round_half_up(height, width, dtype):
    """Halving an image gives the rounded mean of each 2 x 2 block, edge pixels repeated."""
    rng = np.random.default_rng(height * 10 + width)
    image = rng.integers(0, 256, (2, height, width)).astype(dtype)
    halved = halve(image)
    assert halved.shape == (2, -(-height // 2), -(-width // 2))
    for y, x in np.ndindex(*halved.shape[1:]):
        rows, columns = np.minimum([2 * y, 2 * y + 1], height - 1), np.minimum([2 * x, 2 * x + 1], width - 1)
        mean = image[:, rows][:, :, columns].astype(float).mean(axis=(1, 2))
        expected = mean if dtype is np.float32 else np.floor(mean + 0.5)
        np.testing.assert_allclose(halved[:, y, x], expected)

"""Laws 2, 3 and 4 on the pure functions of decoding: tiled equals whole, ids included, whatever the tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch import instances
from slidebatch.decode import DecodeSpec, claimed, decode_dense, extract
from slidebatch.geometry import whole
from slidebatch.paint import paint_rows
from slidebatch.seams import Seamed, gather, join, number_nuclei
from slidebatch.tiling import TileGrid, tile_grid
from tests.support.fields import maps_of, random_maps, touching_field


def stitched(maps: np.ndarray, grid: TileGrid, spec: DecodeSpec) -> tuple[np.ndarray, Seamed]:
    """The label image that tiles of this grid give."""
    shape = maps.shape[1:]
    tiles = grid.tiles(shape)
    shards = []
    for tile in tiles:
        window = decode_dense(maps[:, *tile.read.slices()], tile.read, spec)
        shards.append(claimed(extract(window, tile.valid, spec), tile, grid, shape))
    found = gather(shards, tiles, grid, shape)
    replaced, joined = join(found, lambda box: maps[:, *box.slices()], spec, shape)
    seamed = number_nuclei(found, replaced, joined, np.ones(len(found.rows) + len(joined), bool))
    canvas = np.zeros(shape, np.uint32)
    table = instances.concatenate([*shards, joined])
    label = np.concatenate([seamed.label, seamed.joined_label])
    rows = np.flatnonzero(label).astype(np.int64)
    paint_rows(canvas, np.zeros(2, np.int64), rows, label, table.box, table.offset, table.bits)
    return canvas, seamed


def one_tile(maps: np.ndarray, spec: DecodeSpec) -> np.ndarray:
    """The label image that a single tile covering everything gives."""
    return stitched(maps, TileGrid(max(maps.shape), 0, 0), spec)[0]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    core_px=st.integers(5, 64),
    largest_px=st.integers(1, 40),
    sigma_px=st.floats(0.5, 8),
    grow_px=st.integers(0, 6),
    min_seed_px=st.integers(1, 9),
)
def test_tiled_equals_whole(seed, shape, core_px, largest_px, sigma_px, grow_px, min_seed_px):
    """Any maps, cut into any tiles, give the labels and ids of one tile covering the slide."""
    maps = random_maps(shape, np.random.default_rng(seed), sigma_px)
    spec = DecodeSpec(grow_px=grow_px, min_seed_px=min_seed_px, min_area_px=5, seed_threshold=0.6)
    canvas, _ = stitched(maps, tile_grid(core_px, largest_px, spec.reach_px), spec)
    np.testing.assert_array_equal(canvas, one_tile(maps, spec))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), core_px=st.integers(16, 100), spacing_px=st.floats(9, 60))
def test_perfect_tiles_give_the_truth(seed, core_px, spacing_px):
    """Perfect maps of a dense touching field, cut into tiles, give the truth up to renaming."""
    truth = touching_field((150, 170), spacing_px, np.random.default_rng(seed))
    spec = DecodeSpec(min_seed_px=1, min_area_px=1, fill_holes=False)
    seeds_survive = maps_of(truth)
    canvas, _ = stitched(seeds_survive, tile_grid(core_px, 20, spec.reach_px), spec)
    expected = one_tile(seeds_survive, spec)
    np.testing.assert_array_equal(canvas, expected)
    whole_cells = [n for n in np.unique(truth)[1:] if _has_seed(truth, seeds_survive, n)]
    for n in whole_cells:
        inside = expected[(truth == n) & (seeds_survive[0] > 0)]
        assert len(np.unique(inside)) == 1, "a nucleus was split"


def _has_seed(truth: np.ndarray, maps: np.ndarray, n: int) -> bool:
    from scipy import ndimage

    return int(ndimage.label((truth == n) & (maps[0] > 0))[1]) == 1


@pytest.mark.parametrize("core_px", [16, 40, 64, 100])
def test_objects_larger_than_a_tile(core_px):
    """Nuclei larger than halo and tile, slivers, and four-corner nuclei come out whole."""
    truth = np.zeros((200, 210), np.int32)
    truth[10:150, 12:160] = 1  # larger than any tile here
    truth[60:90, 40:80] = 0  # with a hole
    truth[70:80, 50:60] = 2  # and a nucleus in the hole
    truth[155:157, 5:205] = 3  # a sliver across all tiles
    truth[160:198, 165:208] = 4
    truth[96:104, 162:170] = 5  # on a corner of four tiles
    maps = np.stack([np.where(truth > 0, 255, 0), np.zeros_like(truth)]).astype(np.uint8)
    spec = DecodeSpec(min_seed_px=1, min_area_px=1, fill_holes=True, grow_px=2)
    canvas, seamed = stitched(maps, tile_grid(core_px, 10, spec.reach_px), spec)
    assert seamed.label.max() or seamed.joined_label.max()
    np.testing.assert_array_equal(canvas, one_tile(maps, spec))
    filled = truth.copy()
    filled[60:90, 40:80] = np.where(truth[60:90, 40:80] == 2, 2, 1)  # the hole is closed around the inner nucleus
    renamed = {int(canvas[filled == n][0]) for n in range(1, 6)}
    assert len(renamed) == 5
    for n in range(1, 6):
        assert len(np.unique(canvas[filled == n])) == 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (64, 64)])
def test_nothing_gives_nothing(shape):
    """Blank maps give no nuclei."""
    spec = DecodeSpec()
    canvas, seamed = stitched(np.zeros((2, *shape), np.uint8), tile_grid(32, 16, spec.reach_px), spec)
    assert not canvas.any()
    assert len(seamed.box) == 0


def test_ids_follow_the_first_pixel_in_raster_order():
    """Ids are dense from 1 and ordered by each nucleus's first pixel."""
    rng = np.random.default_rng(3)
    maps = random_maps((120, 130), rng)
    canvas, seamed = stitched(maps, tile_grid(40, 20, 8), DecodeSpec(min_area_px=4))
    labels, first = np.unique(canvas, return_index=True)
    order = first[labels > 0]
    assert (np.diff(order) > 0).all()
    assert labels[labels > 0].tolist() == list(range(1, len(seamed.box) + 1))


def test_every_pixel_is_in_exactly_one_core():
    """The cores of a grid part the slide; every read box lies inside it."""
    shape = (101, 67)
    count = np.zeros(shape, int)
    grid = tile_grid(24, 30, 5)
    for number, tile in enumerate(grid.tiles(shape)):
        assert grid.core_at(number, shape) == tile.core
        count[tile.core.slices()] += 1
        assert whole(shape).contains(tile.read)
        assert tile.read.contains(tile.valid)
        assert tile.valid.contains(tile.core)
    assert (count == 1).all()

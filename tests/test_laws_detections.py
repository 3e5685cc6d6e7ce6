"""Laws 2, 3, 4 and 6 for detectors: whole runs with an oracle that finds boxes and masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble import iou
from slidebatch.geometry import Box
from slidebatch.metrics import equal_up_to_renaming, overlap
from slidebatch.models.oracle import Chances
from slidebatch.seams import first_pixels
from slidebatch.settle import settle, split_settled
from slidebatch.validate import validate
from tests.support.random_nuclei import crowds
from tests.support.runs import config, contents, labels_of, run, write_slides

Labels = npt.NDArray[np.int32]
LARGEST_PX = 30


def rectangles(shape: tuple[int, int], seed: int, count: int = 160) -> Labels:
    """Disjoint rectangles with sides of 1..LARGEST_PX, many side by side, slivers one pixel wide among them."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for name in range(1, count + 1):
        sides = rng.integers(1, LARGEST_PX + 1, 2)
        if name % 5 == 0:
            sides[rng.integers(2)] = 1
        y, x = rng.integers(0, np.array(shape) - sides + 1)
        here = np.s_[y : y + sides[0], x : x + sides[1]]
        if not labels[here].any():
            labels[here] = name
    return labels


def touching(shape: tuple[int, int], seed: int) -> Labels:
    """A wall of touching rectangles; the corners of four cores and cells lie inside some of them."""
    rng = np.random.default_rng(seed)
    labels, name, y = np.zeros(shape, np.int32), 0, -9
    while y < shape[0]:
        height, x = int(rng.integers(1, LARGEST_PX)), -int(rng.integers(1, 20))
        while x < shape[1]:
            width, name = int(rng.integers(1, LARGEST_PX)), name + 1
            labels[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = name
            x += width
        y += height
    return labels


def spaced(shape: tuple[int, int], seed: int) -> Labels:
    """Rectangles of 12..20 px with gaps of 8: however they jitter and double, no two are taken for one."""
    rng = np.random.default_rng(seed)
    labels, name = np.zeros(shape, np.int32), 0
    for y in range(3, shape[0] - 20, 28):
        for x in range(3, shape[1] - 20, 28):
            name += 1
            height, width = rng.integers(12, 21, 2)
            labels[y : y + height, x : x + width] = name
    return labels


def detect(folder: Path, output: str, patch_px: int, core_px: int, **errors: Any) -> Labels:
    """Run the detection oracle over the slide "a" and return its labels, once the results are found valid."""
    model = {"name": "oracle_detections", "settings": {"truth": str(folder / "truth"), **errors}}
    tiling = {"patch_px": patch_px, "core_px": core_px, "largest_px": LARGEST_PX + 2}
    assert run(config(folder, output, model=model, tiling=tiling)).exit_status == 0
    assert validate(folder / output) == []
    return labels_of(folder / output, "a").astype(np.int32)


@pytest.mark.parametrize("make", [rectangles, touching])
def test_perfect_detections_give_the_truth(tmp_path: Path, make: Callable[[tuple[int, int], int], Labels]) -> None:
    """Touching rectangles, slivers one pixel wide and four-corner ones come back exactly, whatever the grids."""
    truth = make((210, 250), 7)
    write_slides(tmp_path, {"a": truth})
    for number, (patch_px, core_px) in enumerate([(128, 64), (200, 50), (512, 97)]):
        found = detect(tmp_path, f"out{number}", patch_px, core_px)
        assert equal_up_to_renaming(found, truth), (patch_px, core_px)


def test_tiled_equals_one_tile_when_views_differ(tmp_path: Path) -> None:
    """Jittered and doubled detections: any core size gives the one-tile result to the byte, ids included."""
    write_slides(tmp_path, {"a": touching((230, 260), 3)})
    one = detect(tmp_path, "whole", 128, 512, jitter=0.3, double=0.2)
    assert one.max() > 100
    for core_px in (48, 64, 131):
        found = detect(tmp_path, f"core{core_px}", 128, core_px, jitter=0.3, double=0.2)
        np.testing.assert_array_equal(found, one)
        assert contents(tmp_path / f"core{core_px}") == contents(tmp_path / "whole")


@pytest.mark.parametrize("core_px", [64, 100])
def test_each_nucleus_is_found_once(tmp_path: Path, core_px: int) -> None:
    """Of jittered views and doubles one detection stays for each true nucleus: nothing lost, nothing doubled."""
    truth = spaced((300, 330), 1)
    write_slides(tmp_path, {"a": truth})
    found = detect(tmp_path, "out", 128, core_px, jitter=0.3, double=0.2)
    pairs = overlap(found, truth)
    assert sorted(pairs.truth) == list(range(1, truth.max() + 1))
    assert sorted(pairs.pred) == list(range(1, found.max() + 1))
    seen = pq.read_table(tmp_path / "out" / "summary.parquet")["seam_pieces"].to_pylist()
    assert seen[0] > 0, "no seam was put to the test"


def test_no_nucleus_falls_between_two_cells(tmp_path: Path) -> None:
    """Nuclei centred on the lines between cells, which two views place on different sides: each is found once."""
    truth, name = np.zeros((200, 460), np.int32), 0
    for y in range(4, 180, 24):
        for x in range(64, 440, 64):  # the cells' lines: patches of 128 px without margins of 32
            name += 1
            truth[y : y + 12, x - 6 : x + 6] = name
    write_slides(tmp_path, {"a": truth})
    found = detect(tmp_path, "out", 128, 100, jitter=0.6)
    assert found.max() == name
    assert sorted(overlap(found, truth).truth) == list(range(1, name + 1))


def test_dropped_and_split_nuclei_are_counted(tmp_path: Path) -> None:
    """At stated rates exactly the nuclei that the oracle drops are missing, and those it splits count twice."""
    truth = spaced((400, 420), 2)
    write_slides(tmp_path, {"a": truth})
    found = detect(tmp_path, "out", 128, 90, drop=0.2, split=0.3, seed=4)
    names = np.arange(1, truth.max() + 1)
    chance = Chances(4, "a", names)
    dropped, split = chance.of("drop") < 0.2, chance.of("split") < 0.3
    assert abs(dropped.mean() - 0.2) < 0.1
    assert abs(split.mean() - 0.3) < 0.1
    pieces = np.bincount(overlap(found, truth).truth, minlength=len(names) + 1)[1:]
    np.testing.assert_array_equal(pieces, np.where(dropped, 0, np.where(split, 2, 1)))


def test_a_field_without_nuclei_has_none(tmp_path: Path) -> None:
    """No detections in any patch: an ordinary, valid result without nuclei."""
    write_slides(tmp_path, {"a": np.zeros((150, 140), np.int32)})
    assert not detect(tmp_path, "out", 128, 64).any()


@settings(max_examples=150, deadline=None)
@given(found=crowds(), seed=st.integers(0, 2**16), threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_order_of_detections_plays_no_part(found, seed, threshold):
    """Permuting detections changes nothing of what stays, in values and in order."""
    turned = settle(found.take(np.random.default_rng(seed).permutation(len(found))), threshold)
    for name, column in settle(found, threshold).arrays().items():
        np.testing.assert_array_equal(column, turned.arrays()[name], name)


@settings(max_examples=150, deadline=None)
@given(found=crowds(), threshold=st.sampled_from([0.0, 0.3, 0.5]))
def test_what_stays_is_disjoint(found, threshold):
    """Settled masks share no pixel, none is empty, and each pixel was some detection's."""
    kept = settle(found, threshold)
    assert (iou.mask_area(kept.box, kept.offset, kept.bits) > 0).all()
    pairs = iou.box_pairs(kept.box)
    assert not iou.mask_overlap(kept.box, kept.offset, kept.bits, pairs).any()
    before, after = ({tuple(p) for p in pixels(t)} for t in (found, kept))
    assert after <= before


def pixels(table: Any) -> npt.NDArray[np.int64]:
    """All pixels (y, x) of all masks of a table."""
    places = [np.argwhere(table.mask(i)) + table.box[i, :2] for i in range(len(table))]
    return np.concatenate([np.zeros((0, 2), np.int64), *places])


@settings(max_examples=150, deadline=None)
@given(found=crowds(), line=st.integers(2, 18), threshold=st.sampled_from([0.0, 0.3, 0.5]))
def test_settling_in_a_part_changes_nothing(found, line, threshold):
    """Groups wholly above a line settled alone, then the rest: the same nuclei as all at once."""
    alone = split_settled(found, Box(-99, -99, line, 99))
    first, second = settle(found.take(alone), threshold), settle(found.take(~alone), threshold)
    assert sorted([*rows(first), *rows(second)]) == sorted(rows(settle(found, threshold)))


def rows(table: Any) -> list[tuple[Any, ...]]:
    """A table's rows as plain values: first pixel, box, score, member, mask."""
    first = first_pixels(table.box, table.offset, table.bits)
    return [
        (*first[i], *table.box[i], table.score[i], table.member[i], table.mask(i).tobytes()) for i in range(len(table))
    ]

"""Soft masks of detections become pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.errors import ModelError
from slidebatch.geometry import Box
from slidebatch.instances import Instances
from slidebatch.models.protocol import Detections
from slidebatch.paste import paste

FIELD = Box(-1000, -1000, 1000, 1000)
quick = settings(deadline=None, max_examples=60)
places = st.tuples(st.integers(-60, 60), st.integers(-60, 60), st.integers(1, 40), st.integers(1, 40))


def detection(box: tuple[float, ...], mask: np.ndarray, score: float = 1.0) -> Detections:
    return Detections(np.array([box], np.float32), np.array([score], np.float32), mask[None])


def soft(seed: int, size: int = 28, n: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)


def canvas(table: Instances, field: Box) -> np.ndarray:
    """A picture of all masks over a field, bool (Y, X)."""
    image = np.zeros(field.shape, bool)
    for i in range(len(table)):
        image[table.at(i).slices(field)] |= table.mask(i)
    return image


@quick
@given(places, st.sampled_from([1, 7, 28]), st.sampled_from([1, 128, 255]))
def test_a_full_mask_of_a_whole_box_is_the_whole_rectangle(
    place: tuple[int, int, int, int], size: int, threshold: int
) -> None:
    """A mask of 255 over an integer box pastes to exactly that rectangle, whatever sizes and threshold."""
    y, x, h, w = place
    full = np.full((size, size), 255, np.uint8)
    table = paste(detection((y, x, y + h, x + w), full), FIELD, threshold)
    assert table.box.tolist() == [[y, x, y + h, x + w]]
    assert table.mask(0).all()


@quick
@given(places, st.integers(0, 999), st.sampled_from([5, 28]))
def test_masks_are_torchs_bilinear_resampling(place: tuple[int, int, int, int], seed: int, size: int) -> None:
    """Pixels are those of torch's bilinear interpolation at pixel centres, but where that one is at a tie."""
    y, x, h, w = place
    mask = soft(seed, size)[0]
    image = torch.from_numpy(mask.astype(np.float64))[None, None]
    value = torch.nn.functional.interpolate(image, (h, w), mode="bilinear", align_corners=False)[0, 0].numpy()
    box = Box(y, x, y + h, x + w)
    found = canvas(paste(detection(box.tuple(), mask), FIELD), box)
    sure = np.abs(value - 128) > 1e-6
    assert (found == (value >= 128))[sure].all()


def test_a_sample_equal_to_the_threshold_is_in() -> None:
    """Two samples a pixel, (0 + 255) / 2 = 127.5 and (1 + 255) / 2 = 128: only the second reaches 128."""
    for low, inside in ((0, 0), (1, 1)):
        mask = np.array([[low, 255], [low, 255]], np.uint8)
        assert len(paste(detection((3, 3, 4, 4), mask), FIELD)) == inside


@quick
@given(places, st.integers(0, 999), st.integers(-50, 40), st.integers(-50, 40))
def test_clipping_is_cropping(place: tuple[int, int, int, int], seed: int, y0: int, x0: int) -> None:
    """Pasting onto a smaller slide gives the crop of pasting onto a larger one, with a tight box."""
    y, x, h, w = place
    slide, one = Box(y0, x0, y0 + 37, x0 + 23), detection((y, x, y + h, x + w), soft(seed)[0])
    clipped, whole = paste(one, slide), paste(one, FIELD)
    assert (canvas(clipped, slide) == canvas(whole, FIELD)[slide.slices(FIELD)]).all()
    assert all(slide.contains(clipped.at(i)) for i in range(len(clipped)))
    for i in range(len(clipped)):
        mask = clipped.mask(i)
        assert mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()  # noqa: PT018


@quick
@given(st.integers(0, 999), st.integers(-3000, 3000), st.integers(-3000, 3000))
def test_place_does_not_matter(seed: int, dy: int, dx: int) -> None:
    """Moving a box by whole pixels moves its pixels and changes nothing else."""
    box, far = np.array([3.25, 4.5, 20.75, 31.0]), Box(-9999, -9999, 9999, 9999)
    here = paste(detection(tuple(box), soft(seed)[0]), far)
    there = paste(detection(tuple(box + np.array([dy, dx, dy, dx])), soft(seed)[0]), far)
    assert (there.box - here.box == [dy, dx, dy, dx]).all()
    assert there.bits.tolist() == here.bits.tolist()


def test_corners_round_half_up_and_a_side_has_a_pixel() -> None:
    """A corner at .5 goes up, also below zero; a box thinner than a pixel gets one."""
    full = np.full((4, 4), 255, np.uint8)
    assert paste(detection((0.5, 1.49, 4.5, 5.51), full), FIELD).box.tolist() == [[1, 1, 5, 6]]
    assert paste(detection((-2.5, -2.51, 0.0, 0.0), full), FIELD).box.tolist() == [[-2, -3, 0, 0]]
    assert paste(detection((7.1, 7.1, 7.2, 7.2), full), FIELD).box.tolist() == [[7, 7, 8, 8]]


def test_rows_stay_in_order_and_empty_ones_go() -> None:
    """Rows without a pixel are dropped with their bytes; the others keep order, score and mask."""
    box = np.array([[0, 0, 9, 9], [10, 10, 15, 19], [2000, 0, 2010, 9], [30, 30, 33, 35]], np.float32)
    mask = np.full((4, 28, 28), 255, np.uint8)
    mask[0] = 127
    table = paste(Detections(box, np.array([0.1, 0.5, 0.7, 1.0], np.float32), mask), FIELD)
    assert table.box.tolist() == [[10, 10, 15, 19], [30, 30, 33, 35]]
    assert table.score.tolist() == [32768, 65535]
    assert table.offset.tolist() == [0, 6, 8]
    assert len(table.bits) == 8
    assert table.mask(0).all()
    assert table.mask(1).all()


def test_nothing_in_nothing_out() -> None:
    """No detections give a table without rows, of the right types."""
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 28, 28), np.uint8))
    table = paste(nothing, FIELD)
    assert len(table) == 0
    assert {n: a.dtype for n, a in table.arrays().items()} == {
        n: a.dtype for n, a in paste(detection((0, 0, 9, 9), soft(1)[0]), FIELD).arrays().items()
    }


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ((0, 0, np.nan, 5), 0.5),
        ((0, 0, np.inf, 5), 0.5),
        ((5, 0, 2, 5), 0.5),
        ((0, 0, 5, 5), 1.5),
        ((0, 0, 5, 5), np.nan),
    ],
)
def test_broken_answers_are_named(box: tuple[float, ...], score: float) -> None:
    """A box that is not finite or upside down, or a score outside 0..1, is said to be the network's fault."""
    with pytest.raises(ModelError, match="check its weights"):
        paste(detection(box, soft(0)[0], score), FIELD)


def test_wrong_shapes_are_named() -> None:
    """Masks that are not uint8 (N, M, M) are refused by what they are."""
    with pytest.raises(ModelError, match="float32"):
        paste(detection((0, 0, 5, 5), soft(0)[0].astype(np.float32)), FIELD)
    with pytest.raises(ModelError, match="28, 14"):
        paste(detection((0, 0, 5, 5), soft(0)[0][:, :14]), FIELD)

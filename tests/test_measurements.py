"""Measurements of nuclei equal scikit-image's and NumPy's on whole images, and depend on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from skimage.color import separate_stains
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels

from slidebatch.errors import InputError
from slidebatch.measurements import MeasureSpec, Recipe, column_names, columns_of, recipe, tally
from slidebatch.measurements.stains import HAEMATOXYLIN_EOSIN, unmixing
from tests.support.fields import touching_field
from tests.support.measuring import bands_of, blobs, measured, nuclei_of, some_of, window_of

SHAPE = Recipe(("shape",), ())
FULL = Recipe(("shape", "intensity", "ring"), ("a", "b"), percentiles=(0.0, 12.5, 50.0, 100.0))
PROPERTIES = ("label", "perimeter", "eccentricity", "solidity", "orientation")
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def image_of(shape: Sequence[int], rng: np.random.Generator, dtype: str = "uint8") -> npt.NDArray[Any]:
    """An image of two channels whose values fill their type, or for floats lie around 0."""
    if dtype == "float32":
        return rng.normal(0, 1e3, (2, *shape)).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (2, *shape), endpoint=True).astype(dtype)


def slow_rings(labels: npt.NDArray[Any], inner: float, outer: float) -> npt.NDArray[np.int64]:
    """Whose ring each pixel is in, by trying every offset in order: (Y, X), 0 = nobody's."""
    reach = int(outer)
    offsets = sorted(
        (dy * dy + dx * dx, dy, dx)
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
        if dy * dy + dx * dx <= outer * outer
    )
    out = np.zeros(labels.shape, np.int64)
    for y, x in np.ndindex(*labels.shape):
        for far2, dy, dx in offsets:
            v, u = y + dy, x + dx
            if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1] and labels[v, u]:
                out[y, x] = labels[v, u] if far2 > inner * inner else 0
                break
    return out


def same_angle(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether axes point the same way: angles equal up to half turns."""
    apart = np.abs(a - b) % np.pi
    return np.minimum(apart, np.pi - apart) < 1e-4


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=SHAPES)
def test_shapes_equal_scikit_image(seed: int, shape: tuple[int, int]) -> None:
    """Perimeter, eccentricity, solidity and orientation of anything are those of regionprops on the whole image."""
    labels = blobs(shape, np.random.default_rng(seed))
    nuclei, got = measured(labels, np.zeros((0, *shape), np.uint8), SHAPE)
    want = regionprops_table(labels.astype(np.int64), properties=PROPERTIES)
    np.testing.assert_array_equal(nuclei.label, want["label"])
    np.testing.assert_allclose(got["perimeter"], want["perimeter"], rtol=1e-6)
    np.testing.assert_allclose(got["eccentricity"], want["eccentricity"], atol=1e-5)
    np.testing.assert_allclose(got["solidity"], want["solidity"], rtol=1e-6)
    long = want["eccentricity"] > 1e-3  # where no axis is longer, the angle is rounding
    assert same_angle(got["orientation"], want["orientation"])[long].all()


def test_a_field_of_nuclei_equals_scikit_image() -> None:
    """On a field of touching nuclei all shapes and intensities are those of regionprops."""
    rng = np.random.default_rng(4)
    labels = touching_field((300, 320), 22, rng, gap=0.4)
    image = image_of(labels.shape, rng, "uint16")
    _, got = measured(labels, image, FULL, mpp=0.5)
    told = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")
    want = regionprops_table(labels, np.moveaxis(image, 0, -1), properties=(*PROPERTIES, *told))
    for name in PROPERTIES[1:]:
        np.testing.assert_allclose(got[name], want[name], rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(got["perimeter_um"], want["perimeter"] * 0.5, rtol=1e-6)
    for ours, theirs in zip(("mean", "std", "min", "max"), told, strict=True):
        for c, channel in enumerate("ab"):
            np.testing.assert_allclose(got[f"{ours}_{channel}"], want[f"{theirs}-{c}"], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=SHAPES,
    inner=st.sampled_from([0.0, 1.0, 1.5, 3.0]),
    width=st.sampled_from([0.5, 1.0, 2.3, 5.0]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_values_equal_numpy(seed: int, shape: tuple[int, int], inner: float, width: float, dtype: str) -> None:
    """Mean, deviation, extremes and percentiles in nucleus and ring, and their ratio, are NumPy's of those pixels."""
    rng = np.random.default_rng(seed)
    labels, image = blobs(shape, rng, 5), image_of(shape, rng, dtype)
    how = Recipe(("intensity", "ring"), ("a", "b"), (inner, inner + width), FULL.percentiles)
    nuclei, got = measured(labels, image, how)
    rings = slow_rings(labels, *how.ring_px)
    for row, label in enumerate(nuclei.label):
        np.testing.assert_equal(got["ring_area"][row], (rings == label).sum())
        for where, mean, other in ((labels == label, "mean_", ""), (rings == label, "ring_", "ring_")):
            for c, channel in enumerate("ab"):
                values = image[c][where].astype(np.float64)
                names = [f"{mean}{channel}", *(f"{other}{s}_{channel}" for s in ("std", "min", "max"))]
                names += [f"{other}p{p:g}_{channel}" for p in how.percentiles]
                told = [got[name][row] for name in names]
                if not len(values):
                    assert np.isnan(told).all()
                    continue
                want = [values.mean(), values.std(), values.min(), values.max()]
                want += list(np.percentile(values, how.percentiles))
                np.testing.assert_allclose(told, want, rtol=1e-5, atol=1e-3)
    for channel in "ab":
        ratio = got[f"nucleus_to_ring_{channel}"]
        with np.errstate(invalid="ignore", divide="ignore"):
            want = got[f"mean_{channel}"].astype(np.float64) / got[f"ring_{channel}"]
        np.testing.assert_allclose(ratio, np.where(np.isfinite(want), want, np.nan), rtol=1e-3)


def test_rings_are_grown_labels_without_what_is_near() -> None:
    """Together the rings of 3 to 8 px are the labels that expand_labels grows by 8 less those that it grows by 3."""
    labels = touching_field((150, 170), 30, np.random.default_rng(1), gap=0.6)
    nuclei, got = measured(labels, np.zeros((1, *labels.shape), np.uint8), Recipe(("ring",), ("a",)))
    grown = np.where(expand_labels(labels, 3) == 0, expand_labels(labels, 8), 0)
    assert got["ring_area"].sum() == (grown > 0).sum()
    want = np.bincount(grown.ravel(), minlength=labels.max() + 1)[nuclei.label]
    assert np.abs(got["ring_area"].astype(int) - want).max() < 0.1 * want.max(), "more than ties differ"


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    dtype=st.sampled_from(["uint8", "float32"]),
    outer=st.sampled_from([2.0, 5.0, 9.5]),
)
def test_nothing_depends_on_windows_and_bands(seed: int, cuts: list[int], dtype: str, outer: float) -> None:
    """Some nuclei alone, in their own window, cut into any bands, have to the bit the values of the whole image."""
    rng = np.random.default_rng(seed)
    labels, image = blobs((60, 70), rng, 9), image_of((60, 70), rng, dtype)
    how = Recipe(FULL.sets, FULL.names, (1.0, outer), FULL.percentiles)
    nuclei, want = measured(labels, image, how)
    rows = np.flatnonzero(rng.random(len(nuclei.label)) < 0.4)
    if not len(rows):
        return
    some = some_of(nuclei, rows)
    window = window_of(some, how, (60, 70))
    got = columns_of(tally(bands_of(labels, image, how, window, cuts), some, how), None)
    assert list(got) == list(want)
    for name, values in got.items():
        np.testing.assert_array_equal(values, want[name][rows], err_msg=name)


def test_a_pixel_that_is_no_number_is_seen() -> None:
    """A nucleus, or a ring, with a NaN in a channel has NaN in all columns of that channel, and in no other."""
    labels = np.zeros((40, 60), np.uint32)
    labels[10:20, 10:20], labels[10:20, 40:50] = 1, 2
    image = np.ones((2, 40, 60), np.float32)
    image[0, 15, 15], image[1, 15, 55] = np.nan, np.nan
    _, got = measured(labels, image, FULL)
    harmed = {name: list(np.isnan(values)) for name, values in got.items() if np.isnan(values).any()}
    statistics = ["std", "min", "max", *(f"p{p:g}" for p in FULL.percentiles)]
    inside = {"mean_a", "nucleus_to_ring_a", *(f"{s}_a" for s in statistics)}
    around = {"ring_b", "nucleus_to_ring_b", *(f"ring_{s}_b" for s in statistics)}
    never = {"perimeter_um"}
    assert set(harmed) - never == inside | around
    assert all(harmed[name] == [True, False] for name in inside)
    assert all(harmed[name] == [False, True] for name in around)


def test_deviation_is_right_far_from_zero() -> None:
    """The deviation of values that lie close together, far from 0, is not lost in rounding."""
    labels = np.ones((20, 20), np.uint32)
    image = (1e6 + np.random.default_rng(0).normal(0, 0.5, (1, 20, 20))).astype(np.float32)
    _, got = measured(labels, image, Recipe(("intensity",), ("a",)))
    assert got["std_a"][0] == pytest.approx(image.astype(np.float64).std(), rel=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_stains_are_told_apart(dtype: str) -> None:
    """A nucleus stained with known amounts of two stains has these amounts, whatever the type of its pixels."""
    vectors = [np.array(v) / np.linalg.norm(v) for v in HAEMATOXYLIN_EOSIN.values()]
    density = 0.6 * vectors[0] + 0.2 * vectors[1]
    full = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    colour = full * 10.0**-density
    image = np.broadcast_to(colour[:, None, None], (3, 30, 30))
    image = (image if dtype == "float32" else np.rint(image)).astype(dtype)
    labels = np.zeros((30, 30), np.uint32)
    labels[5:15, 5:15] = 1
    how = Recipe(("stains",), ("R", "G", "B"), stains=tuple(HAEMATOXYLIN_EOSIN.items()))
    _, got = measured(labels, np.ascontiguousarray(image), how)
    np.testing.assert_allclose([got["od_hematoxylin"][0], got["od_eosin"][0]], [0.6, 0.2], atol=0.01)


def test_stains_equal_scikit_image() -> None:
    """With three stains the densities are those of scikit-image's separate_stains, which counts them in sixths."""
    stains = {"h": (0.65, 0.70, 0.29), "e": (0.07, 0.99, 0.11), "d": (0.27, 0.57, 0.78)}
    rng = np.random.default_rng(3)
    vectors = np.stack([np.array(v) / np.linalg.norm(v) for v in stains.values()])
    amounts = rng.uniform(0.05, 0.7, (50, 50, 3))  # none is negative, which separate_stains would cut off
    image = (10.0 ** -(amounts @ vectors)).astype(np.float32)
    labels = touching_field((50, 50), 14, rng)
    how = Recipe(("stains",), ("R", "G", "B"), stains=tuple(stains.items()))
    nuclei, got = measured(labels, np.ascontiguousarray(np.moveaxis(image, -1, 0)), how)
    theirs = separate_stains(image, unmixing(list(stains.values()))) * 6
    for s, name in enumerate(stains):
        want = [theirs[..., s][labels == label].mean() for label in nuclei.label]
        np.testing.assert_allclose(got[f"od_{name}"], want, atol=1e-4)


def test_no_nuclei_no_rows() -> None:
    """Without nuclei every column is there, and empty."""
    nuclei, got = measured(np.zeros((20, 20), np.uint32), np.zeros((2, 20, 20), np.uint8), FULL)
    assert len(nuclei.label) == 0
    assert tuple(got) == column_names(FULL)
    assert {len(values) for values in got.values()} == {0}


@pytest.mark.parametrize(
    ("sets", "begin"),
    [
        ((), []),
        (("shape",), ["perimeter", "perimeter_um", "eccentricity", "solidity", "orientation"]),
        (("intensity",), ["mean_DNA", "std_DNA", "min_DNA", "max_DNA"]),
        (("ring",), ["ring_area", "ring_DNA", "ring_std_DNA", "ring_min_DNA", "ring_max_DNA", "nucleus_to_ring_DNA"]),
    ],
)
def test_sets_name_their_columns(sets: Any, begin: list[str]) -> None:
    """Each set gives its own columns and no other."""
    assert list(column_names(Recipe(sets, ("DNA",)))) == begin
    nuclei = nuclei_of(np.ones((9, 9), np.uint32))
    how = Recipe(sets, ("DNA",))
    found = tally(bands_of(np.ones((9, 9)), np.ones((1, 9, 9)), how, window_of(nuclei, how, (9, 9))), nuclei, how)
    assert list(columns_of(found, None)) == begin


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"ring_px": (8, 3)}, "holds nothing"),
        ({"ring_px": (3, 8), "ring_um": (1, 2)}, "keep one"),
        ({"percentiles": (101,)}, "between 0 and 100"),
        ({"percentiles": (5, 5)}, "each once"),
        ({"stains": {"a": (1, 0, 0)}}, "two or three stains"),
        ({"stains": {"a": (1, 1, 0), "b": (2, 2, 0)}}, "different colours"),
        ({"sets": ("shapes",)}, "shape"),
    ],
)
def test_wrong_settings_are_refused(said: dict[str, Any], words: str) -> None:
    """Settings that make no sense are refused with what is wrong."""
    with pytest.raises(ValidationError, match=words):
        MeasureSpec.model_validate(said)


def test_rings_in_micrometres() -> None:
    """A ring in micrometres is turned into plan pixels, and refused where nobody states their size."""
    spec = MeasureSpec(ring_um=(0.9, 2.4))
    assert recipe(spec, "s", ["a"], False, 0.3).ring_px == (3.0, 8.0)
    with pytest.raises(InputError, match=r"s: measure\.ring_um needs the size of its pixels"):
        recipe(spec, "s", ["a"], False, None)
    with pytest.raises(InputError, match="expected at most 100"):
        recipe(spec, "s", ["a"], False, 0.001)


def test_stains_are_those_of_colour_images_alone() -> None:
    """Densities of stains are measured where the image is RGB, and only if they are asked for."""
    assert recipe(MeasureSpec(), "s", ["R", "G", "B"], True, None).stains
    assert not recipe(MeasureSpec(), "s", ["DNA"], False, None).stains
    assert not recipe(MeasureSpec(sets=("shape",)), "s", ["R", "G", "B"], True, None).stains

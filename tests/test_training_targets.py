"""Laws of what the network is asked: targets as documented, kept apart, and decoded to the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import ndimage

from slidebatch.decode import DecodeSpec, decode_dense
from slidebatch.geometry import whole
from slidebatch.metrics import dsb_score, equal_up_to_renaming
from slidebatch.training.spec import TargetSpec
from slidebatch.training.targets import CONTOUR, NUCLEUS, class_image, targets, weight_image
from tests.support.oracle import bricks, disks
from tests.support.slow_targets import slow_targets

SIDES = st.tuples(st.integers(1, 14), st.integers(1, 14))
SPECS = st.builds(
    TargetSpec, contour_px=st.integers(1, 3), touching_px=st.integers(1, 3), touching_weight=st.sampled_from([0.0, 3.0])
)


@st.composite
def label_images(draw: st.DrawFn) -> np.ndarray:
    """Blocks of a few labels, ignored ones among them, enlarged so that some nuclei have an interior."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    coarse = rng.choice(draw(st.sampled_from([[0, 0, 1], [-1, 0, 0, 1, 2, 3], [1, 2, 3]])), draw(SIDES))
    factor = draw(st.integers(1, 4))
    return np.kron(coarse, np.ones((factor, factor), np.int32)).astype(np.int32)[:14, :14]


@hypothesis_settings(max_examples=60, deadline=None)
@given(label_images(), SPECS)
def test_targets_are_what_their_documentation_says(labels, spec):
    """Classes and weights are those of the slow definition, pixel by pixel, for any labels and widths."""
    classes, weights = targets(labels, spec)
    slow_classes, slow_weights = slow_targets(labels, spec)
    np.testing.assert_array_equal(classes, slow_classes)
    np.testing.assert_array_equal(weights, slow_weights)


@pytest.mark.parametrize("labels", [disks((150, 170)), bricks((80, 90)), bricks((40, 50), height=2, width=20, gap=2)])
def test_targets_decode_to_the_truth(labels):
    """Perfect answers to the targets, decoded, are nearly the truth: nucleus and contour are the mask exactly."""
    classes = class_image(labels)
    np.testing.assert_array_equal(classes > 0, labels > 0)
    maps = np.stack([classes == NUCLEUS, classes == CONTOUR]) * np.uint8(255)
    found = decode_dense(maps, whole(labels.shape), DecodeSpec(min_seed_px=1)).labels
    assert dsb_score(found, labels) > 0.97


def test_targets_keep_touching_nuclei_apart():
    """Interiors of different nuclei never touch, and every nucleus keeps one, slivers too."""
    labels = bricks((81, 96))
    interior = np.where(class_image(labels) == NUCLEUS, labels, 0)
    seeds, n = ndimage.label(interior > 0)
    assert n == len(np.unique(labels)) - (0 in labels)
    assert equal_up_to_renaming(seeds, interior)
    sliver = np.zeros((20, 20), np.int32)
    sliver[5, 3:15] = 1
    assert (class_image(sliver)[5, 3:15] == NUCLEUS).all()


def test_weights_mark_touching_borders():
    """Pixels near two nuclei weigh more, all others one, and what does not count nothing."""
    labels = np.zeros((20, 30), np.int32)
    labels[5:15, 3:14], labels[5:15, 15:27], labels[0, 0] = 1, 2, -1
    weights = weight_image(labels, TargetSpec(touching_weight=3.0))
    assert weights[10, 14] == weights[10, 13] == 4.0
    assert weights[10, 5] == weights[0, 1] == 1.0
    assert weights[0, 0] == 0.0


def test_image_edges_are_no_contour():
    """A nucleus that the image's edge cuts has no contour there: it goes on outside."""
    labels = np.ones((12, 12), np.int32)
    assert (class_image(labels) == NUCLEUS).all()

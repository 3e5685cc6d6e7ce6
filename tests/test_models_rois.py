"""Laws of regions: boxes, pooled features, mask targets and pasted masks agree on where pixels lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.geometry import whole
from slidebatch.models.proposals import Limits
from slidebatch.models.protocol import Detections
from slidebatch.models.rois import AlignedPool, Truth, counting, covered, group_norm, mask_targets
from slidebatch.paste import paste
from tests.support.detectors import empty, tiny, truth_of
from tests.support.oracle import disks


def pasted(truth: Truth, boxes: torch.Tensor, rows: torch.Tensor) -> list[np.ndarray]:
    """The targets of nuclei in boxes, as a network would answer them, pasted as the engine does: bool (Y, X) each."""
    mask = mask_targets(truth, boxes, rows).mul(255).round().to(torch.uint8).numpy()
    found = paste(
        Detections(boxes[:, [1, 0, 3, 2]].numpy(), np.ones(len(boxes), np.float32), mask), whole(truth.image.shape)
    )
    out = []
    for i in range(len(found)):
        image = np.zeros(truth.image.shape, bool)
        image[found.at(i).slices()] = found.mask(i)
        out.append(image)
    return out


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_target_pasted_back_is_the_nucleus():
    """Targets in a nucleus's own box come back as it, but for a pixel here and there at its rim."""
    truth = truth_of(disks((120, 130), seed=3))
    rows = torch.arange(len(truth.names))
    for name, image in zip(truth.names.tolist(), pasted(truth, truth.boxes, rows), strict=True):
        assert overlap(image, truth.image.numpy() == name) > 0.96


def test_a_target_in_a_looser_box_is_the_nucleus_too():
    """The box around a target may be off by some pixels: the nucleus stays where it is, as far as the box holds it."""
    truth = truth_of(disks((120, 130), seed=4))
    rows = torch.arange(len(truth.names))
    for grow in ((-3, -2, 2, 4), (-5, 0, 0, 5), (-2.0, -6.0, 5.0, 1.0)):
        boxes = truth.boxes + torch.tensor(grow)
        inside = (boxes[:, 0] >= 0) & (boxes[:, 1] >= 0) & (boxes[:, 2] <= 130) & (boxes[:, 3] <= 120)
        for name, image in zip(truth.names[inside].tolist(), pasted(truth, boxes[inside], rows[inside]), strict=True):
            assert overlap(image, truth.image.numpy() == name) > 0.95


def test_targets_know_their_nucleus_alone():
    """Of two touching nuclei each target holds its own."""
    labels = np.zeros((20, 24), np.int32)
    labels[4:16, 2:12], labels[4:16, 12:22] = 1, 2
    truth = truth_of(labels)
    both = torch.tensor([[2.0, 4.0, 22.0, 16.0]] * 2)
    left, right = mask_targets(truth, both, torch.tensor([0, 1]))
    assert left[2:-2, 2:12].min() > 0.99
    assert left[:, 15:].max() == 0
    torch.testing.assert_close(left, right.flip(-1))


def test_pooling_reads_where_the_box_says():
    """Features that tell their own place, pooled, tell the middles of the box's parts, on every level."""
    strides = (2, 4, 8)
    features = {}
    for k, stride in enumerate(strides):
        y, x = torch.meshgrid(*(torch.arange(256 // stride, dtype=torch.float32),) * 2, indexing="ij")
        features[str(k)] = (torch.stack([y, x])[None] + 0.5) * stride
    boxes = torch.tensor([[40.0, 30.5, 61.0, 47.25], [20.0, 30.0, 90.0, 110.0], [40.0, 24.0, 200.0, 180.0]])
    pool = AlignedPool(["0", "1", "2"], strides, 7)
    assert pool.level(boxes).tolist() == [0, 1, 2]
    found = pool(features, [boxes])
    part = (torch.arange(7) + 0.5) / 7
    for box, (y, x) in zip(boxes, found, strict=True):
        torch.testing.assert_close(y[:, 0], box[1] + (box[3] - box[1]) * part)
        torch.testing.assert_close(x[0], box[0] + (box[2] - box[0]) * part)


def test_pooling_knows_whose_box_it_is():
    """Boxes of several images are pooled from their own image's features, in order."""
    features = {"0": torch.arange(3.0)[:, None, None, None].expand(3, 1, 32, 32)}
    boxes = [torch.tensor([[2.0, 2.0, 9.0, 9.0]]).repeat(n, 1) for n in (2, 0, 1)]
    assert AlignedPool(["0"], (2,), 7)(features, boxes)[:, 0, 0, 0].tolist() == [0, 0, 2]


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 12)] * 2), min_size=1, max_size=6),
    others=st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 12)] * 2), max_size=4),
)
def test_covered_shares_are_counted_pixels(boxes, others):
    """The share of a box in another one is that of its pixels; the largest counts."""

    def image(x, y, w, h):
        out = np.zeros((48, 48), bool)
        out[y : y + h, x : x + w] = True
        return out

    def corners(rows):
        return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows], dtype=torch.float32).reshape(-1, 4)

    found = covered(corners(boxes), corners(others))
    for box, share in zip(boxes, found.tolist(), strict=True):
        mine = image(*box)
        assert share == pytest.approx(max([(mine & image(*o)).sum() / mine.sum() for o in others], default=0))


def test_what_does_not_count_is_no_background():
    """Neither anchors nor proposals in ignored pixels are learned from, unless they are a nucleus's."""
    labels = np.zeros((64, 64), np.int32)
    labels[8:24, 8:24], labels[30:60, 30:60] = 1, -1
    truth = truth_of(labels)
    assert truth.ignored.tolist() == [[30, 30, 60, 60]]
    proposals = torch.tensor([[8.0, 8, 24, 24], [2, 40, 20, 60], [32, 32, 50, 50], [26, 26, 50, 50]])
    assert counting(proposals, truth).tolist() == [True, True, False, False]
    network = tiny()
    network.rpn._truths = [truth]
    labels_of, boxes = network.rpn.assign_targets_to_anchors([proposals], [truth.target()])
    assert labels_of[0].tolist() == [1, 0, -1, -1]
    assert boxes[0][0].tolist() == [8, 8, 24, 24]
    assert counting(proposals, empty((64, 64))).all()


def test_the_order_of_nuclei_plays_no_part():
    """Anchors take the same labels and boxes however the nuclei are numbered."""
    truth = truth_of(disks((96, 96), seed=5))
    turn = torch.randperm(len(truth.names), generator=torch.Generator().manual_seed(0))
    turned = Truth(truth.boxes[turn], truth.names[turn], truth.image, truth.ignored)
    anchors = torch.rand(400, 2, generator=torch.Generator().manual_seed(1)).mul(80)
    anchors = torch.cat([anchors, anchors + torch.rand(400, 2, generator=torch.Generator().manual_seed(2)) * 14 + 4], 1)
    answers = []
    for told in (truth, turned):
        network = tiny()
        network.rpn._truths = [told]
        answers.append(network.rpn.assign_targets_to_anchors([anchors], [told.target()]))
    assert torch.equal(answers[0][0][0], answers[1][0][0])
    positive = answers[0][0][0] > 0
    assert positive.sum() > 10
    assert torch.equal(answers[0][1][0][positive], answers[1][1][0][positive])


def test_limits_grow_with_the_patch():
    """A patch four times as large may keep four times as many, and the smallest keeps one."""
    limits = Limits(before=500, after=200)
    assert limits.of((256, 256)) == (500, 200)
    assert limits.of((512, 512)) == (2000, 800)
    assert limits.of((1, 1)) == (1, 1)


@pytest.mark.parametrize("features", [1, 6, 16, 64, 256])
def test_group_norms_fit_any_width(features):
    """Groups part the features evenly, and what shares no image or region shares no statistics."""
    norm = group_norm(features)
    values = torch.randn(3, features, 5, 5)
    torch.testing.assert_close(norm(values)[1:2], norm(values[1:2]))
    assert norm(values[:0]).shape == (0, features, 5, 5)

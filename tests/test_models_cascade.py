"""Laws of the cascade: what its parts see, what they learn from, and what they answer together."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from slidebatch import models
from slidebatch.errors import ModelError
from slidebatch.geometry import Box, whole
from slidebatch.models import networks
from slidebatch.models.candidates import LEAST_PX, candidates, chosen
from slidebatch.models.cascade import Architecture, cut, grey
from slidebatch.models.cascade_parts import CROP_PX, STRIDE_PX, Backbone, CropUNet, receptive_px
from slidebatch.models.proposals import Sampling
from slidebatch.models.protocol import Detections, Place
from slidebatch.models.rois import mask_targets
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import CardFile, write_weights
from slidebatch.paste import paste
from tests.support.cascades import PARTS, SMALL, small
from tests.support.detectors import empty, shown, truth_of
from tests.support.oracle import disks

LOSSES = {"proposals": {"rpn_class", "rpn_box"}, "classifier": {"region_class"}, "unet": {"mask"}}


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone((2, 2, 2, 2)).eval()


# What the parts see


@torch.inference_mode()
def test_the_backbone_sees_what_it_states():
    """A feature of 8 x 8 pixels changes with exactly the 160 pixels a side around them, as far in all directions."""
    network, at = backbone(), 30
    first = at * STRIDE_PX - (receptive_px() - STRIDE_PX) // 2
    seen = []
    for y in range(0, 512, 3):
        image = torch.zeros(1, 1, 512, 512)
        image[0, 0, y, at * STRIDE_PX] = torch.nan
        seen += [y] * bool(network(image)[0, :, at, at].isnan().any())
    assert receptive_px() == 160
    assert seen == [y for y in range(0, 512, 3) if first <= y < first + 160]
    for corner in (first, first + 159):
        image = torch.zeros(1, 1, 512, 512)
        image[0, 0, corner, corner] = torch.nan
        assert network(image)[0, :, at, at].isnan().all()


@torch.inference_mode()
def test_features_move_with_the_image():
    """There is a feature for every 8 pixels, and the image moved by 8 pixels moves them by one."""
    network = backbone()
    image = torch.rand(1, 1, 400, 416)
    features = network(image)
    assert features.shape == (1, 2, 50, 52)
    moved = network(image[:, :, STRIDE_PX:, 2 * STRIDE_PX :])
    torch.testing.assert_close(moved[:, :, 20:30, 20:30], features[:, :, 21:31, 22:32])


def test_networks_have_the_stated_layers():
    """Nine convolutions, the first 5 x 5; a 3 x 3 one to 128 features and two of 1 x 1; a U-Net of eight of 9 x 9."""
    network = networks.build("cascade", {})
    past = {id(m) for r in network.modules() if hasattr(r, "past") for m in r.past.modules()}

    def kernels(part: nn.Module) -> list[int]:
        return [m.kernel_size[0] for m in part.modules() if isinstance(m, nn.Conv2d) and id(m) not in past]

    assert kernels(network.proposals.backbone) == kernels(network.classifier) == [5] + [3] * 8
    head = network.proposals.rpn.head
    assert [(m.out_channels, m.kernel_size[0]) for m in (head.conv, head.scores, head.moves)] == [
        *((128, 3), (2 * 15, 1), (4 * 15, 1))
    ]
    assert kernels(network.unet) == [9] * 8
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.unet.modules()) == 7
    assert sum(isinstance(m, nn.Linear) for m in network.classifier.modules()) == 1


def test_crops_and_masks_have_their_shapes():
    """Crops are 32 x 32 whatever the boxes, the U-Net draws as many pixels, and no boxes make empty tables."""
    image = torch.rand(2, 1, 64, 80)
    boxes = [torch.tensor([[0.0, 0, 9, 5], [3, 3, 70, 60]]), torch.tensor([[10.0, 20, 42, 52]])]
    crops = cut(image, boxes)
    assert crops.shape == (3, 1, CROP_PX, CROP_PX)
    torch.testing.assert_close(crops[2, 0], image[1, 0, 20:52, 10:42])
    network = CropUNet((2, 2, 2, 2)).eval()
    assert network(crops).shape == (3, CROP_PX, CROP_PX)
    assert network(cut(image, [boxes[0][:0]] * 2)).shape == (0, CROP_PX, CROP_PX)


def test_grey_is_the_shares_of_the_channels():
    """Three equal channels give what they are, colours count by their shares, other channels alike."""
    flat = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(grey(flat.expand(1, 3, 4, 4)), flat)
    torch.testing.assert_close(grey(flat), flat)
    torch.testing.assert_close(grey(torch.eye(3)[None, :, None]).flatten(), torch.tensor([0.299, 0.587, 0.114]))
    torch.testing.assert_close(grey(torch.ones(1, 5, 2, 2) * 0.3), torch.full((1, 1, 2, 2), 0.3))


# What they learn from


def test_anchors_lie_around_features():
    """15 anchors of sides 8 to 128 px in three ratios around the middle of each feature's pixels."""
    network = networks.build("cascade", {}).eval()
    images = torch.zeros(1, 1, 64, 96)
    [anchors] = network.proposals.rpn.anchor_generator(_listed(images), [torch.zeros(1, 1, 8, 12)])
    assert anchors.shape == (8 * 12 * 15, 4)
    middle, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    assert set(middle[:, 0].tolist()) == {8.0 * i + 4 for i in range(12)}
    assert set(middle[:, 1].tolist()) == {8.0 * i + 4 for i in range(8)}
    squares = {s for s, t in sides.tolist() if s == t}
    assert squares == {8.0, 16.0, 32.0, 64.0, 128.0}
    area = sides.prod(dim=1).sqrt()
    assert ((area / torch.tensor([8.0, 16, 32, 64, 128])[:, None]).log2().abs().amin(dim=0) < 0.15).all()


def _listed(images: torch.Tensor):
    from torchvision.models.detection.image_list import ImageList

    return ImageList(images, [tuple(images.shape[2:])] * len(images))


def test_anchors_beyond_the_crop_do_not_count():
    """Anchors that cross the edge are left out; of the others IoU above 0.5 is a nucleus, below 0.1 background."""
    network = networks.build("cascade", {"last_part": "proposals"})
    network.sample(Sampling(anchors=100, anchor_iou=(0.1, 0.5), best_anchor=False))
    rpn, truth = network.proposals.rpn, truth_of(disks((128, 128), seed=1))
    rpn._truths = [truth]
    anchors = rpn.anchor_generator(_listed(torch.zeros(1, 1, 128, 128)), [torch.zeros(1, 1, 16, 16)])
    [labels], _ = rpn.assign_targets_to_anchors(anchors, [truth.target()])
    inside = ((anchors[0] >= 0) & (anchors[0] <= 128)).all(dim=1)
    best = box_iou(anchors[0], truth.boxes).amax(dim=1)
    assert 0 < int(inside.sum()) < len(inside)
    assert (labels[~inside] == -1).all()
    assert ((labels == 1) == (inside & (best >= 0.5))).all()
    assert ((labels == 0) == (inside & (best < 0.1))).all()
    on, off = rpn.fg_bg_sampler([labels])
    assert (int(on[0].sum()), int(off[0].sum())) == (50, 50)


def test_the_best_anchor_counts_where_it_is_asked_for():
    """A nucleus that no anchor overlaps well has one all the same where `best_anchor` says so, and none where not."""
    labels = np.zeros((64, 64), np.int32)
    labels[30:34, 20:44] = 1
    for best_anchor in (True, False):
        network = small(last_part="proposals")
        network.sample(Sampling(anchor_iou=(0.1, 0.5), best_anchor=best_anchor))
        rpn = network.proposals.rpn
        rpn._truths = [truth_of(labels)]
        anchors = rpn.anchor_generator(_listed(torch.zeros(1, 1, 64, 64)), [torch.zeros(1, 1, 8, 8)])
        found, _ = rpn.assign_targets_to_anchors(anchors, [rpn._truths[0].target()])
        assert bool((found[0] == 1).any()) == best_anchor


def test_boxes_to_learn_from_are_of_every_kind():
    """Boxes lie in the crop; some are on nuclei, some beside them and some on background; so many are taken."""
    torch.manual_seed(0)
    labels = disks((128, 128), seed=2)
    labels[:, 64:] = 0
    truth = truth_of(labels)
    boxes = candidates(torch.tensor([[5.0, 5, 60, 50]]), truth)
    assert (boxes >= 0).all()
    assert (boxes <= 128).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= LEAST_PX).all()
    near = box_iou(boxes, truth.boxes).amax(dim=1)
    assert all(int(kind.sum()) >= 20 for kind in (near >= 0.7, (near > 0.1) & (near < 0.5), near < 0.1))
    network = small()
    network.sample(Sampling(regions=40, regions_positive=0.5))
    taken = chosen(boxes, truth, network.regions, 0.5)
    assert (len(taken.boxes), int(taken.nucleus.sum())) == (40, 20)
    overlaps = box_iou(taken.boxes, truth.boxes)
    assert (overlaps[torch.arange(40), taken.rows] == overlaps.amax(dim=1)).all()
    assert ((overlaps.amax(dim=1) >= 0.5) == taken.nucleus).all()


def test_a_crop_without_nuclei_has_background_alone():
    """Of a blank crop no box is on a nucleus."""
    torch.manual_seed(0)
    truth = empty((64, 64))
    taken = chosen(candidates(torch.zeros(0, 4), truth), truth, small().regions, 0.5)
    assert len(taken.boxes) > 10
    assert not taken.nucleus.any()
    assert len(taken.on_nuclei().boxes) == 0


@pytest.mark.parametrize("part", PARTS)
def test_a_training_reaches_the_last_part_alone(part):
    """Losses of full and empty crops are finite; gradients and statistics of norms change in the last part only."""
    network = small(last_part=part).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for labels in (disks((96, 96), seed=3), np.zeros((96, 96), np.int32)):
        losses = network(shown(labels), [truth_of(labels)])
        assert set(losses) == LOSSES[part]
        assert all(torch.isfinite(loss) for loss in losses.values())
        network.zero_grad()
        sum(losses.values()).backward()
        reached = {name for name, weight in network.named_parameters() if weight.grad is not None}
        assert reached == {name for name, _ in network.named_parameters() if name.startswith(part)}
    moved = [k for k, v in network.state_dict().items() if not torch.equal(v, before[k])]
    assert moved
    assert all(k.startswith(part) for k in moved)
    assert all(torch.isfinite(v.float()).all() for v in network.state_dict().values())


def test_a_target_pasted_back_is_the_nucleus():
    """A nucleus drawn on 32 x 32 px and resized back to its box is that nucleus but for a pixel here and there."""
    labels = disks((120, 130), seed=3)
    truth = truth_of(labels)
    rows = torch.arange(len(truth.boxes))
    masks = mask_targets(truth, truth.boxes, rows, CROP_PX)
    assert masks.shape == (len(rows), CROP_PX, CROP_PX)
    box = truth.boxes[:, [1, 0, 3, 2]].numpy()
    grey_masks = masks.mul(255).round().to(torch.uint8).numpy()
    found = paste(Detections(box, np.ones(len(rows), np.float32), grey_masks), whole(labels.shape))
    for i in range(len(found)):
        mine = truth.image.numpy()[found.at(i).slices()] == int(truth.names[i])
        assert (mine & found.mask(i)).sum() / (mine | found.mask(i)).sum() > 0.95


# What they answer


@pytest.mark.parametrize("part", PARTS)
@torch.inference_mode()
def test_answers_have_their_shapes_and_stay_in_the_image(part):
    """Boxes are clipped to the image, best first, none overlaps a better one; masks are 32 x 32 in 0..1."""
    network = small(last_part=part, proposal_score=0.0).eval()
    found = network(torch.cat([shown(disks((64, 96), seed=2)), torch.zeros(1, 3, 64, 96)]))
    assert len(found) == 2
    boxes, scores, masks = (found[0][name] for name in ("boxes", "scores", "masks"))
    assert len(boxes) == len(scores) == len(masks) > 5
    assert masks.shape[1:] == (CROP_PX, CROP_PX)
    assert 0 <= masks.min() <= masks.max() <= 1
    assert (scores.diff() <= 0).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([96, 64, 96, 64])).all()
    assert ((boxes[:, :2] == 0).any(dim=1) | (boxes[:, 2:] == torch.tensor([96, 64])).any(dim=1)).any()
    overlaps = box_iou(boxes, boxes).fill_diagonal_(0)
    assert overlaps.max() <= 0.15
    assert bool((masks == 1).all()) == (part != "unet")
    nothing = small(last_part=part, proposal_score=1.0).eval()(torch.zeros(1, 3, 64, 96))[0]
    assert [tuple(v.shape) for v in nothing.values()] == [(0, 4), (0,), (0, CROP_PX, CROP_PX)]


@torch.inference_mode()
def test_the_classifier_rejects():
    """The score is the classifier's: a higher least score leaves the surest nuclei, each where it was."""
    image = shown(disks((96, 96), seed=4))
    every = small(proposal_score=0.0).eval()(image)[0]
    middle = float(every["scores"].median())
    some = small(proposal_score=0.0, score_threshold=middle).eval()(image)[0]
    count = int((every["scores"] >= middle).sum())
    assert 0 < count < len(every["scores"])
    torch.testing.assert_close(some["boxes"], every["boxes"][:count])
    alone = small(proposal_score=0.0, last_part="proposals").eval()(image)[0]
    assert {tuple(b) for b in alone["boxes"].tolist()} == {tuple(b) for b in every["boxes"].tolist()}
    assert not torch.equal(alone["scores"], every["scores"])


@torch.inference_mode()
def test_a_shift_of_masks_moves_their_logits():
    """Every pixel of every mask moves as its logit does, and nothing else changes."""
    image, network = shown(disks((96, 96), seed=4)), small(proposal_score=0.0).eval()
    before = network(image)[0]
    network.shift_masks(0.5)
    after = network(image)[0]
    torch.testing.assert_close(after["masks"].logit(), before["masks"].logit() + 0.5, atol=1e-3, rtol=1e-3)
    assert torch.equal(after["boxes"], before["boxes"])


def test_half_precision_keeps_boxes_exact():
    """In bfloat16 boxes, scores, masks and losses are still float32."""
    network, labels = small(proposal_score=0.0), disks((96, 96), seed=3)
    with torch.autocast("cpu", torch.bfloat16):
        for part in PARTS:
            losses = small(last_part=part).train()(shown(labels), [truth_of(labels)])
            assert all(loss.dtype == torch.float32 for loss in losses.values())
        with torch.inference_mode():
            found = network.eval()(shown(labels))[0]
    assert {v.dtype for v in found.values()} == {torch.float32}


def write(folder, **more) -> str:
    """The weights of a small cascade with their card; the path."""
    settings = SMALL | {"proposal_score": 0.0} | more
    made = networks.architecture("cascade", settings)
    card = CardFile(
        network="cascade", architecture=settings, maps=(), margin_px=made.margin_px, stride_px=made.stride_px
    )
    write_weights(folder / "own.safetensors", small(**more).state_dict(), card)
    return str(folder / "own.safetensors")


def test_the_engine_runs_it_as_one_detector(tmp_path, caplog):
    """By name and weights it is a detector with a card; limits may be set in use, and a full patch is told."""
    path = write(tmp_path)
    spec = ModelSpec(name="cascade", weights=path, precision="float32")
    model = models.load(spec)
    card = model.card
    assert card == models.card(spec)
    assert (card.family, card.channels, card.stride_px, card.margin_px) == ("detections", 3, 8, 96)
    patch = shown(disks((128, 128), seed=5)).numpy()
    [one] = model.detect(patch, [Place("a", Box(0, 0, 128, 128))])
    [two] = model.detect(patch, [Place("a", Box(40, -16, 168, 112))])
    assert one.mask.shape[1:] == (CROP_PX, CROP_PX)
    np.testing.assert_array_equal(one.box + np.float32([40, -16, 40, -16]), two.box)
    few = models.load(spec.model_copy(update={"settings": {"proposals": 8}}))
    with caplog.at_level(logging.WARNING):
        [found] = few.detect(patch, [Place("a", Box(0, 0, 128, 128))])
    assert len(found) <= 2
    assert "filled up model.settings.proposals" in caplog.text
    assert few.card.digest != card.digest
    with pytest.raises(ModelError, match="takes 1 or 3 channels and was given 2"):
        model.detect(patch[:, :2], [Place("a", Box(0, 0, 128, 128))])
    with pytest.raises(ModelError, match="knows no setting last_part"):
        models.card(spec.model_copy(update={"settings": {"last_part": "proposals"}}))


def test_the_stated_overlap_reaches_far_enough():
    """What patches overlap by at least holds what a proposal sees beyond its own 8 x 8 pixels, its head's too."""
    assert Architecture().margin_px >= (receptive_px() - STRIDE_PX) // 2 + STRIDE_PX
    assert Architecture().margin_px % STRIDE_PX == 0

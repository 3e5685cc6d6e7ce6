"""Laws of Mask R-CNN and of running detectors."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from slidebatch import models
from slidebatch.errors import ModelError
from slidebatch.geometry import Box
from slidebatch.models import networks
from slidebatch.models.checkpoints import begin_from
from slidebatch.models.engines import has_bfloat16
from slidebatch.models.mask_rcnn import Architecture, Sampling
from slidebatch.models.protocol import Place
from slidebatch.models.spec import ModelSpec
from tests.support.detectors import TINY, empty, shown, tiny, truth_of, write
from tests.support.oracle import disks

HERE = [Place("a", Box(100, 200, 228, 328))]
KINDS = [
    {"backbone": "resnet18", "stages": 3, "finest_px": 2, "anchors_px": ((8,), (16,), (32,), (64,), (128,))},
    {"backbone": "resnet50", "norm": "group", "head_norm": "none"},
    {"backbone": "resnet101", "norm": "frozen", "channels": 5},
]


def spec(path: str, **more) -> ModelSpec:
    return ModelSpec(weights=path, **{"precision": "float32", **more})


def patches(count: int = 1, side: int = 128) -> np.ndarray:
    return np.concatenate([shown(disks((side, side), seed=i)).numpy() for i in range(count)])


# The network


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k["backbone"])
def test_every_kind_learns_from_full_and_empty_crops(kind):
    """Losses of crops with and without nuclei are finite, have their names, and reach every weight that can learn."""
    torch.manual_seed(0)
    narrow = {"pyramid_width": 16, "box_width": 16, "mask_width": 8, "mask_layers": 1}
    network = networks.build("mask_rcnn", kind | narrow).train()
    channels = network.architecture.channels
    for labels in ([disks((128, 128), seed=1)], [np.zeros((128, 128), np.int32)]):
        losses = network(shown(labels[0], channels), [truth_of(labels[0])])
        assert set(losses) == {"rpn_class", "rpn_box", "region_class", "region_box", "mask"}
        assert all(torch.isfinite(loss) for loss in losses.values())
        network.zero_grad()
        sum(losses.values()).backward()
        assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
    assert losses["mask"] == losses["region_box"] == losses["rpn_box"] == 0


def test_answers_have_their_shapes_and_stay_in_the_image():
    """Boxes lie in the image, best first; masks are 28 x 28 in 0..1; where nothing is sure enough, tables are empty."""
    network = tiny(score_threshold=0.0).eval()
    with torch.inference_mode():
        found = network(torch.cat([shown(disks((64, 96), seed=2)), torch.zeros(1, 3, 64, 96)]))
        nothing = tiny(score_threshold=1.0).eval()(torch.zeros(1, 3, 64, 96))[0]
    assert len(found) == 2
    boxes, scores, masks = (found[0][name] for name in ("boxes", "scores", "masks"))
    assert len(boxes) == len(scores) == len(masks) > 10
    assert masks.shape[1:] == (28, 28)
    assert 0 <= masks.min() <= masks.max() <= 1
    assert (scores.diff() <= 0).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([96, 64, 96, 64])).all()
    assert [tuple(v.shape) for v in nothing.values()] == [(0, 4), (0,), (0, 28, 28)]


def test_half_precision_keeps_boxes_exact():
    """In bfloat16 boxes, scores and losses are still float32, and boxes are not rounded to a pixel."""
    network, image = tiny(), shown(disks((96, 96), seed=3))
    with torch.autocast("cpu", torch.bfloat16):
        losses = network.train()(image, [truth_of(disks((96, 96), seed=3))])
        found = network.eval()(image)[0]
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    rounded = found["boxes"].bfloat16().float()
    assert (found["boxes"] != rounded).float().mean() > 0.5


def test_sampling_says_what_a_step_learns_from():
    """So many proposals of each crop are in the loss, at most the stated share of them on nuclei."""
    network = tiny().train()
    network.sample(Sampling(anchors=32, regions=20, regions_positive=0.25))
    truth = truth_of(disks((96, 96), seed=4))
    proposals = [torch.cat([truth.boxes, torch.rand(90, 2).mul(60).repeat(1, 2) + torch.tensor([0.0, 0, 5, 5])])]
    chosen, _, labels, _ = network.roi_heads.select_training_samples(proposals, [truth.target()])
    assert len(chosen[0]) == 20
    assert labels[0].sum() == 5
    assert [int(s[0].sum()) for s in network.rpn.fg_bg_sampler([torch.arange(200) % 2])] == [16, 16]


def test_contradictory_settings_are_named():
    """Anchors that do not fit the levels, or channels without their mean, make a network that cannot be used."""
    assert networks.flaw(Architecture()) == ""
    assert "anchors_px has 1 levels and the pyramid 5" in Architecture(anchors_px=((8,),)).flaw
    uneven = ((8,), (16, 20), (32,), (64,), (128,))
    assert "as many anchors on every level" in Architecture(anchors_px=uneven).flaw
    assert "mean must have one value, or one for each channel" in Architecture(mean=(0.1, 0.2)).flaw
    with pytest.raises(ModelError, match="backbone: Input should be 'resnet18'"):
        networks.architecture("mask_rcnn", {"backbone": "resnet19"})


# Checkpoints of torchvision's


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """A checkpoint as torchvision's network for COCO has it, 91 classes, with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("coco") / "coco.pth"
    torch.save(maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict(), path)
    return path


COCO = {"norm": "frozen", "head_norm": "none", "anchors_px": ((4,), (8,), (16,), (128,), (256,))}


def test_a_checkpoint_of_torchvision_fills_the_network(coco):
    """All tensors but those of other classes take the checkpoint's values; these begin anew, and are named."""
    network = networks.build("mask_rcnn", COCO)
    left = begin_from(network, coco)
    assert left == [f"roi_heads.{n}" for n in ("box_predictor.bbox_pred", "box_predictor.cls_score")] + [
        "roi_heads.mask_predictor.mask_fcn_logits"
    ]
    found = torch.load(coco)
    for name, tensor in network.state_dict().items():
        if not name.startswith(tuple(left)):
            assert torch.equal(tensor, found[name]), name


def test_an_old_checkpoint_fills_the_network_too(coco, tmp_path):
    """Tensors under the shorter names of older checkpoints are found."""
    old = {}
    for name, tensor in torch.load(coco).items():
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for i in range(4):
            name = name.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
            name = name.replace(f"inner_blocks.{i}.0.", f"inner_blocks.{i}.")
            name = name.replace(f"layer_blocks.{i}.0.", f"layer_blocks.{i}.")
        old[name] = tensor
    assert set(old) != set(torch.load(coco))
    torch.save({"model": old}, tmp_path / "old.pth")
    one, two = (networks.build("mask_rcnn", COCO) for _ in range(2))
    begin_from(one, coco)
    begin_from(two, tmp_path / "old.pth")
    for name in ("rpn.head.conv.0.0.weight", "roi_heads.mask_head.3.0.bias", "backbone.fpn.layer_blocks.2.0.weight"):
        assert torch.equal(one.state_dict()[name], two.state_dict()[name])


def test_a_checkpoint_that_does_not_fit_is_refused(coco, tmp_path):
    """Another backbone or width is named tensor by tensor; what is no checkpoint is said to be none."""
    with pytest.raises(ModelError, match=r"does not fit: .*layer1\.0\.conv1\.weight \(found .* expected"):
        begin_from(networks.build("mask_rcnn", {**COCO, "backbone": "resnet18"}), coco)
    for content in ([1, 2], {"model": 3}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ModelError, match="no tensors by name"):
            begin_from(networks.build("mask_rcnn", COCO), tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"none")
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        begin_from(networks.build("mask_rcnn", COCO), tmp_path / "broken.pth")


# Running


@pytest.mark.parametrize("precision", ["float32", *(["bfloat16"] if has_bfloat16("cpu") else [])])
def test_batch_mates_do_not_matter(precision, tmp_path):
    """A patch among others gets the same answer as alone, bit for bit, whatever the order."""
    model = models.load(spec(write(tmp_path, score_threshold=0.3), precision=precision))
    three = patches(3)
    together = model.detect(three, HERE * 3)
    assert min(len(found) for found in together) > 10
    for order in ([0, 1, 2], [2, 0, 1]):
        for i, found in zip(order, model.detect(three[order], HERE * 3), strict=True):
            alone = model.detect(three[i : i + 1], HERE)[0]
            for name in ("box", "score", "mask"):
                np.testing.assert_array_equal(getattr(found, name), getattr(together[i], name))
                np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))


def test_detections_lie_where_the_patch_does(tmp_path):
    """Boxes are (y, x) in slide pixels: the patch's corner added to what the network found."""
    model = models.load(spec(write(tmp_path)))
    image = patches(side=128)[:, :, :, :64]
    network = tiny().eval()
    with torch.inference_mode():
        plain = network(torch.from_numpy(image).contiguous(memory_format=torch.channels_last))[0]
    found = model.detect(image, [Place("a", Box(100, -200, 228, -136))])[0]
    np.testing.assert_allclose(found.box - [100, -200, 100, -200], plain["boxes"][:, [1, 0, 3, 2]], atol=1e-4)
    np.testing.assert_array_equal(found.mask, plain["masks"].mul(255).round().numpy())
    assert found.box[:, 2].max() - 100 <= 128
    assert found.box.dtype == found.score.dtype == np.float32
    assert model.detect(image[:0], []) == []


def test_one_channel_is_repeated(tmp_path):
    """A single channel is what three equal ones are; other counts, and sides off the stride, are refused."""
    model = models.load(spec(write(tmp_path)))
    grey = patches()[:, :1]
    one, three = (model.detect(a, HERE)[0] for a in (grey, np.repeat(grey, 3, 1)))
    np.testing.assert_array_equal(one.box, three.box)
    with pytest.raises(ModelError, match="takes 1 or 3 channels and was given 2"):
        model.detect(np.repeat(grey, 2, 1), HERE)
    with pytest.raises(ValueError, match="no multiple of the stride 16 px"):
        model.detect(grey[:, :, :120], HERE)


def test_settings_in_use_change_what_is_found(tmp_path):
    """Thresholds and limits may be set without training, belong to the digest, and do what they say."""
    path = write(tmp_path)
    plain = models.load(spec(path))
    middle = float(np.median(plain.detect(patches(), HERE)[0].score))
    sure = models.load(spec(path, settings={"score_threshold": middle}))
    few = models.load(spec(path, settings={"detections": 8}))
    assert len({m.card.digest for m in (plain, sure, few)}) == 3
    every, some, eight = (m.detect(patches(), HERE)[0] for m in (plain, sure, few))
    assert 0 < len(some) < len(every)
    assert some.score.min() > middle
    assert len(eight) == 2  # 8 of 256 x 256 px
    np.testing.assert_array_equal(eight.score, every.score[:2])
    with pytest.raises(ModelError, match="knows no setting widths"):
        models.card(spec(path, settings={"widths": 3}))
    with pytest.raises(ModelError, match=r"model\.settings, cannot be used: .*detections: Input should be greater"):
        models.card(spec(path, settings={"detections": 0}))


def test_a_full_patch_is_told(tmp_path, caplog):
    """Where a patch holds more than may be kept, a warning says so, once, and names the limit."""
    roomy = {"before": 40_000, "proposals": 40_000, "detections": 40_000}
    for name in ("detections", "proposals"):
        caplog.clear()
        model = models.load(spec(write(tmp_path), settings={**roomy, name: 8}))
        with caplog.at_level(logging.WARNING):
            model.detect(patches(2), HERE * 2)
        assert len(caplog.records) == 1
        assert f"filled up model.settings.{name};" in caplog.text
    caplog.clear()
    models.load(spec(write(tmp_path), settings=roomy)).detect(patches(), HERE)
    assert not caplog.records


def test_the_card_says_what_the_digest_depends_on(tmp_path):
    """Threads, precision and device are in the digest; the card is that of a detector, whatever name asked for it."""
    path = write(tmp_path)
    card = models.card(spec(path))
    assert (card.name, card.family, card.maps, card.stride_px, card.margin_px) == (
        "mask_rcnn",
        "detections",
        (),
        16,
        16,
    )
    assert card == models.card(spec(path, name="mask_rcnn")) == models.load(spec(path)).card
    others = [models.card(spec(path, threads=2)), models.card(spec(path), "cuda")]
    assert len({card.digest, *(c.digest for c in others)}) == 3
    settled = models.settle(ModelSpec(weights=path))
    assert settled.precision != "auto"
    assert models.card(settled).digest == models.card(ModelSpec(weights=path)).digest


def test_cards_that_contradict_the_network_are_refused(tmp_path):
    """Maps, another stride, unknown networks and impossible settings are named."""
    for card, told in (
        ({"maps": ("nucleus",)}, r"maps \['nucleus'\]"),
        ({"stride_px": 8}, "stride_px 8, expected none and 16"),
        ({"network": "mask_rcn"}, r"no network is named 'mask_rcn'; did you mean mask_rcnn\?"),
        ({"architecture": {**TINY, "anchors_px": [[8]]}}, "cannot be run: anchors_px has 1 levels"),
    ):
        with pytest.raises(ModelError, match=told):
            models.card(spec(write(tmp_path, card=card)))
    for more in ({"engine": "openvino"}, {"tta": "flips"}):
        with pytest.raises(ModelError, match=r"is a detector: model\.engine must be auto or eager and model\.tta none"):
            models.card(spec(write(tmp_path), **more))


def test_weights_of_another_width_are_refused(tmp_path):
    """Tensors that do not fit are named."""
    path = write(tmp_path, network=tiny(mask_width=8))
    with pytest.raises(ModelError, match=r"do not fit mask_rcnn: misshapen .*mask_head\.0\.0\.weight"):
        models.load(spec(path))
    assert json.loads(Path(path).with_suffix(".json").read_text())["network"] == "mask_rcnn"


def test_an_empty_crop_is_all_background():
    """A crop without nuclei has tables without rows."""
    truth = empty((20, 30))
    assert truth.boxes.shape == (0, 4)
    assert truth.ignored.shape == (0, 4)
    assert len(truth.names) == 0

"""Laws of training a detector: its truth, its losses, a resume that changes nothing, weights that the engine runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from slidebatch.config import read
from slidebatch.errors import ConfigError
from slidebatch.metrics import f1
from slidebatch.models import networks
from slidebatch.models.weights_file import read_tensors
from slidebatch.training import detectors, feed, loop, train
from slidebatch.training.dataset import load, split
from slidebatch.training.optimise import kept
from slidebatch.training.score import Fitted
from slidebatch.training.spec import TrainSpec
from slidebatch.training.state import begin
from slidebatch.training.truths import truth
from tests.conftest import ROOT
from tests.support.detectors import TINY, shown, tiny, truth_of
from tests.support.oracle import disks
from tests.support.runs import config, labels_of, run, write_slides
from tests.support.training_sets import PLAIN, STILL, settings, write_set

NETWORK = {"name": "mask_rcnn", "settings": TINY}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "twelve")


def few(dataset: Path, output: Path, **more: Any) -> TrainSpec:
    """A detector's training of a few quick steps."""
    return settings(dataset, output, network=NETWORK, sampling={"kind": "crops", "crop_px": 64}, **more)


# What it must answer


def test_boxes_are_the_outer_edges_of_pixels():
    """Each nucleus has the box of its pixels, and its own pixels in the label image; what is negative is ignored."""
    labels = np.zeros((30, 40), np.int32)
    labels[3:9, 5:20], labels[12:14, 30:40], labels[20:30, 0:7] = 7, 4, -1
    found = truth(labels, least_px=1)
    assert found.boxes.tolist() == [[5, 3, 20, 9], [30, 12, 40, 14]]
    assert found.ignored.tolist() == [[0, 20, 7, 30]]
    for name, box in zip(found.names.tolist(), found.boxes.int().tolist(), strict=True):
        inside = found.image.numpy()[box[1] : box[3], box[0] : box[2]]
        assert (inside == name).all()
    assert (found.image.numpy() > 0).sum() == (labels > 0).sum()


def test_pieces_are_nuclei_of_their_own():
    """Two pieces of one label, as mirroring makes them, are two nuclei; corners hold a nucleus together."""
    labels = np.zeros((20, 20), np.int32)
    labels[0:4, 0:4] = labels[10:14, 0:4] = 3
    labels[10:14, 10:14] = labels[14:18, 14:18] = 5
    assert sorted(truth(labels, least_px=1).boxes.tolist()) == [[0, 0, 4, 4], [0, 10, 4, 14], [10, 10, 18, 18]]


def test_slivers_do_not_count():
    """Pieces with too few pixels are no nuclei and no background; their boxes are ignored."""
    labels = np.zeros((20, 20), np.int32)
    labels[0:2, 0:3], labels[8:16, 8:16] = 1, 2
    found = truth(labels, least_px=7)
    assert found.boxes.tolist() == [[8, 8, 16, 16]]
    assert found.ignored.tolist() == [[0, 0, 3, 2]]


def test_no_nuclei_make_empty_tables():
    """A blank crop, and one of which nothing counts, have no boxes."""
    for labels in (np.zeros((8, 9), np.int32), np.full((8, 9), -1, np.int32)):
        found = truth(labels, least_px=1)
        assert found.boxes.shape == (0, 4)
        assert len(found.names) == 0
    assert found.ignored.tolist() == [[0, 0, 9, 8]]


def test_batches_hold_each_crop_with_its_truth(dataset):
    """Batches from any number of loaders are the same, and each crop's truth is that of its own pixels."""
    batches = []
    for loaders in (0, 1):
        spec = few(dataset, Path("out"), loaders=loaders, augment={**STILL, **PLAIN})
        source = feed.source(load(spec.data, split(spec.data, 0).fit), spec, 3)
        batches.append(next(iter(feed.batches(source, spec, range(3, 4)))))
    (images, truths), (others, also) = batches
    assert torch.equal(images, others)
    assert len(truths) == len(images) == 2
    for image, one, two in zip(images, truths, also, strict=True):
        assert torch.equal(one.boxes, two.boxes)
        assert torch.equal(one.image, two.image)
        shade, inside = image[0], one.image > 0
        bright = shade > (shade.min() + shade.max()) / 2
        assert ((bright == inside).float().mean() > 0.97) or ((bright != inside).float().mean() > 0.97)


# Learning


def test_losses_weigh_what_the_settings_say(dataset, tmp_path):
    """Each loss is multiplied by its weight; all are told beside their sum."""
    batch = [shown(disks((64, 64))), [truth_of(disks((64, 64)))]]
    weighed = {"rpn_class": 2.0, "rpn_box": 0.0, "region_class": 1.0, "region_box": 3.0, "mask": 0.5}
    found = []
    for weights in ({}, weighed):
        spec = few(dataset, tmp_path, detection=weights)
        network = begin(spec, torch.device("cpu")).network.train()
        torch.manual_seed(3)
        found.append(detectors.losses(network, batch, spec))
    for name, weight in weighed.items():
        torch.testing.assert_close(found[1][name], weight * found[0][name])
    row = loop.run(few(dataset, tmp_path / "out", epochs=1)).rows[0]
    assert row["loss"] == pytest.approx(sum(v for k, v in row.items() if k.startswith("loss_")), rel=1e-5)


def test_a_resumed_training_ends_the_same(dataset, tmp_path):
    """Stopped in the middle of its second epoch, a detector's training ends with the same bits and log."""

    def tell(told: loop.Told) -> None:
        if told.step == 3 and told.row is None:
            raise KeyboardInterrupt

    more = {"epochs": 2, "score_every": 1, "frozen": {"backbone.body": 0.6}}
    straight = loop.run(few(dataset, tmp_path / "a", **more))
    with pytest.raises(KeyboardInterrupt):
        loop.run(few(dataset, tmp_path / "b", **more), tell)
    resumed = loop.run(few(dataset, tmp_path / "b", **more))
    assert resumed.epoch == straight.epoch == 2
    for one, other in ((straight.network, resumed.network), (straight.averaged, resumed.averaged)):
        assert all(torch.equal(other.state_dict()[k], v) for k, v in one.state_dict().items())
    for row in (*straight.rows, *resumed.rows):
        row.pop("seconds")
    assert straight.rows == resumed.rows


def test_frozen_parts_stay_until_their_share_is_over(dataset, tmp_path):
    """Weights and statistics of frozen parts are those of the beginning; afterwards they learn; others always do."""
    assert kept(0, 10, {"a": 0.5, "b": 0.0}) == ["a"]
    assert kept(5, 10, {"a": 0.5}) == []
    spec = few(dataset, tmp_path / "a", epochs=1, frozen={"backbone.body": 1.0})
    begun = begin(spec, torch.device("cpu")).network.state_dict()
    still = loop.run(spec).network.state_dict()
    freed = loop.run(few(dataset, tmp_path / "b", epochs=1, frozen={"backbone.body": 0.5})).network.state_dict()
    inside = [k for k in begun if k.startswith("backbone.body.") and begun[k].is_floating_point()]
    assert len(inside) > 20
    assert all(torch.equal(still[k], begun[k]) for k in inside)
    assert all(not torch.equal(freed[k], begun[k]) for k in inside if k.endswith("conv1.weight"))
    assert not torch.equal(still["rpn.head.conv.0.0.weight"], begun["rpn.head.conv.0.0.weight"])
    with pytest.raises(ConfigError, match="frozen: mask_rcnn has no part spine"):
        loop.run(few(dataset, tmp_path / "c", frozen={"spine": 0.5}))


def test_wrong_settings_of_a_detector_are_refused(dataset, tmp_path):
    """Anchors that do not fit the pyramid, and overlaps in the wrong order, end before anything starts."""
    uneven = {"name": "mask_rcnn", "settings": {**TINY, "anchors_px": ((8,),)}}
    with pytest.raises(ConfigError, match=r"mask_rcnn could not be run .*anchors_px has 1 levels"):
        loop.run(settings(dataset, tmp_path, network=uneven))
    with pytest.raises(ValueError, match="the first must not be above the second"):
        few(dataset, tmp_path, detection={"anchor_iou": (0.6, 0.5)})
    with pytest.raises(ConfigError, match="multiples of 16 px"):
        loop.run(settings(dataset, tmp_path, network=NETWORK, sampling={"kind": "crops", "crop_px": 40}))


@pytest.mark.parametrize("name", ["small", "b", "c", "nuclei"])
def test_shipped_configs_make_networks(name):
    """Each shipped config of a detector reads, and its network can be built and takes its crops."""
    spec = read(TrainSpec, f"conf/train/mask_rcnn_{name}.yaml")
    loop.check_network(spec)
    made = networks.architecture(spec.network.name, spec.network.settings)
    feed.check_size((spec.sampling.crop_px,) * 2, made)
    names = dict(networks.build(spec.network.name, spec.network.settings).named_modules())
    assert set(spec.frozen) <= set(names)
    assert spec.data.exclude == "validation.txt"


def test_the_small_one_is_small():
    """The detector that ships has at most 10 M parameters: 40 MB."""
    spec = read(TrainSpec, "conf/train/mask_rcnn_small.yaml")
    network = networks.build(spec.network.name, spec.network.settings)
    assert 4 * sum(p.numel() for p in network.parameters()) < 40e6


@pytest.mark.slow
def test_two_processes_train_a_detector(dataset, tmp_path):
    """Under torchrun two processes share each batch, with and without nuclei, and leave one set of weights."""
    spec = few(dataset, tmp_path / "two", batch=4, data={"holdout": 0}, epochs=1)
    (tmp_path / "c.yaml").write_text(json.dumps(spec.model_dump(mode="json")))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "slidebatch", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, *launch, str(tmp_path / "c.yaml")]
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stderr.count("epoch 1:") == 1
    weights = read_tensors(tmp_path / "two" / "mask_rcnn.safetensors")
    assert all(torch.isfinite(tensor.float()).all() for tensor in weights.values())


# Scores and calibration


def fitted(**more: Any) -> Fitted:
    return Fitted(tiny(**more), networks.architecture("mask_rcnn", TINY | more))


def test_shifted_masks_are_those_of_shifted_logits():
    """A shift of a mask's logits moves its grey levels as the sigmoid does, to a level."""
    grey = np.arange(1, 255, dtype=np.uint8)
    for shift in (-0.75, 0.0, 0.5):
        logits = np.log(grey / (255.0 - grey)) + shift
        assert np.abs(detectors.shifted(grey, shift) - 255 / (1 + np.exp(-logits))).max() <= 0.5 + 1e-6


def test_calibration_takes_what_scores_best(dataset, monkeypatch):
    """The least score and the shift are those of the best held-out score, and the network then answers with them."""
    one = load(settings(dataset).data, ["x01"])
    network = fitted()
    before = {k: v.clone() for k, v in network.network.state_dict().items()}
    asked = []

    def judged(found, example, least):
        asked.append(least)
        return 1.0 if least == 0.4 and (found.mask.astype(int).sum() > light) else 0.5 if least == 0.4 else 0.0

    light = detectors.detected(network, one[0]).mask.astype(int).sum()
    monkeypatch.setattr(detectors, "judged", judged)
    made, told = detectors.calibrated(network, one, {})
    assert told["score_threshold"] == made.architecture.score_threshold == 0.4
    assert told["mask"] > 0
    assert set(detectors.THRESHOLDS) <= set(asked)
    moved = [k for k, v in network.network.state_dict().items() if not torch.equal(v, before[k])]
    assert moved == ["roi_heads.mask_predictor.mask_fcn_logits.bias"]
    assert detectors.calibrated(network, [], {}) == (network, {})


# From a training to a run


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A tiny detector that has learned to find bright disks; its weights."""
    folder = tmp_path_factory.mktemp("learned")
    truths = write_set(folder / "set")
    easy = {"augment": {**STILL, **PLAIN, "flips": True}, "data": {"mix": {"fluorescence": 1.0}, "holdout": 0.3}}
    steps = {"epochs": 3, "steps_per_epoch": 40, "batch": 4, "score_every": 1, "ema": 0.9}
    rate = {"optimiser": {"learning_rate": 0.003}, "detection": {"anchor_iou": (0.3, 0.5), "regions": 48}}
    spec = few(truths, folder / "out", **easy, **steps, **rate)
    path = folder / "learn.yaml"
    path.write_text(json.dumps(spec.model_dump(mode="json")))
    made = train(str(path))
    assert made is not None
    return made


def test_a_trained_detector_finds_nuclei(weights):
    """A few steps on easy images are enough to find most held-out nuclei, and the card tells how well."""
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["network"] == "mask_rcnn"
    assert card["maps"] == []
    assert card["scores"]["held_out"]["all"] > 0.3
    assert card["training"]["bias_shift"]["score_threshold"] == card["architecture"]["score_threshold"]
    assert card["training"]["settings"]["detection"]["regions"] == 48


def detect(folder: Path, output: str, weights: Path, **tiling: int) -> dict[str, np.ndarray]:
    """Run the detector over all slides, with one window of intensities; their labels."""
    model = {"name": "mask_rcnn", "weights": str(weights), "settings": {"overlap_px": 64}, "precision": "float32"}
    more = {"tiling": {"largest_px": 40, **tiling}, "decode": {"min_area_px": 16}, "normalise": {"per": "plate"}}
    outcome = run(config(folder, output, model=model, **more))
    assert outcome.exit_status == 0
    slides = [path.stem for path in sorted((folder / "images").iterdir())]
    return {slide: labels_of(folder / output, slide).astype(np.int32) for slide in slides}


def test_tiles_and_patches_play_no_part(weights, tmp_path):
    """Tiles change no pixel; small patches, which meet in the middle of nuclei, give the nuclei of one large patch."""
    labels = disks((300, 330), seed=9)
    write_slides(tmp_path, {"a": labels})
    whole = detect(tmp_path, "whole", weights, patch_px=512, core_px=512)["a"]
    assert f1(whole, labels, 0.5) > 0.9
    one = detect(tmp_path, "one", weights, patch_px=256, core_px=512)["a"]
    for core_px in (64, 131):
        found = detect(tmp_path, f"core{core_px}", weights, patch_px=256, core_px=core_px)["a"]
        np.testing.assert_array_equal(found, one)
    assert f1(one, whole, 0.9) >= 0.995


def test_shifting_the_patch_grid_changes_nothing(weights, tmp_path):
    """The image cut off half a cell later at two sides, so that all patches lie elsewhere: F1 at IoU 0.9 >= 0.995."""
    cell, edge, labels = 128, 64, disks((420, 400), seed=10)
    write_slides(tmp_path, {"a": labels})
    pixels = tifffile.imread(tmp_path / "images" / "a.tif")
    tifffile.imwrite(tmp_path / "images" / "b.tif", pixels[cell // 2 :, cell // 2 :], tile=(64, 64))
    found = detect(tmp_path, "out", weights, patch_px=cell + 2 * edge, core_px=512)
    common = found["a"][cell // 2 :, cell // 2 :]
    one, other = beyond(common, edge), beyond(found["b"], edge)
    assert len(np.unique(one)) > 200
    assert f1(other, one, 0.9) >= 0.995


def beyond(labels: np.ndarray, edge_px: int) -> np.ndarray:
    """Labels without the nuclei that have a pixel within `edge_px` of the upper or the left side."""
    near = np.union1d(labels[:edge_px], labels[:, :edge_px])
    return np.where(np.isin(labels, near), 0, labels)

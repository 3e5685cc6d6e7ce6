"""Laws of training: what may be seen, what is asked of the network, and that a resume changes nothing."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from slidebatch import models
from slidebatch.config import find_config
from slidebatch.decode import DecodeSpec, decode_dense
from slidebatch.errors import ConfigError
from slidebatch.geometry import whole
from slidebatch.metrics import dsb_score, equal_up_to_renaming
from slidebatch.models.small_unet import SmallUNet
from slidebatch.models.spec import ModelSpec
from slidebatch.training import export, loop, train
from slidebatch.training.crops import Crops
from slidebatch.training.dataset import load, read_column, split
from slidebatch.training.score import decoded, whole_maps
from slidebatch.training.spec import TrainSpec
from slidebatch.training.targets import CONTOUR, NUCLEUS, class_image, weight_image
from tests.support.oracle import bricks, disks

TINY = {
    "epochs": 3,
    "steps_per_epoch": 2,
    "batch": 2,
    "crop_px": 64,
    "score_every": 2,
    "threads": 1,
    "holdout": 0.3,
    "mix": {"fluorescence": 0.7, "stained-purple": 0.3},
}
CALM = {
    "gamma": (1, 1),
    "contrast": (1, 1),
    "brightness": 0,
    "tint": 0,
    "noise_chance": 0,
    "blur_chance": 0,
    "invert_chance": 0,
    "grey_chance": 0,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Twelve images in six groups, in the layout of a training set; x00 and x01 are a group, and so on."""
    folder = tmp_path_factory.mktemp("set")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    index, groups = ["id\tmodality"], ["id\tgroup"]
    for i in range(12):
        labels = disks((90, 100), seed=i)
        image = 30 + 150 * (labels > 0) + np.random.default_rng(i).normal(0, 4, labels.shape)
        stained = i % 3 == 0
        rgb = np.repeat((255 - image if stained else image)[..., None], 3, 2).clip(0, 255).astype(np.uint8)
        Image.fromarray(rgb).save(folder / "images" / f"x{i:02d}.png")
        Image.fromarray(labels.astype(np.uint16)).save(folder / "labels" / f"x{i:02d}.png")
        index.append(f"x{i:02d}\t{'stained-purple' if stained else 'fluorescence'}")
        groups.append(f"x{i:02d}\tg{i // 2}")
    (folder / "index.tsv").write_text("\n".join(index))
    (folder / "groups.tsv").write_text("\n".join(groups))
    (folder / "validation.txt").write_text("x03\n")
    return folder


def spec(dataset, output, **more):
    return TrainSpec(dataset=str(dataset), output=str(output), **(TINY | more))


def test_excluded_groups_are_never_seen(dataset):
    """No excluded image, none of its group, and no group on both sides of the split."""
    parts = split(spec(dataset, "out"))
    group = read_column(dataset / "groups.tsv", "group")
    assert not {"x02", "x03"} & {*parts.fit, *parts.held}
    assert len(parts.fit) + len(parts.held) == 10
    assert parts.held
    assert not {group[i] for i in parts.fit} & {group[i] for i in parts.held}


@pytest.mark.realdata
def test_real_validation_groups_are_never_seen(realdata):
    """On the real training set neither fitting nor choosing sees a validation image or its micrograph."""
    real = TrainSpec(dataset=str(realdata / "dsb2018"), output="out")
    group = read_column(realdata / "dsb2018" / "groups.tsv", "group")
    banned = {group[i] for i in (realdata / "dsb2018" / "validation.txt").read_text().split()}
    parts = split(real)
    assert not banned & {group[i] for i in (*parts.fit, *parts.held)}
    assert len(parts.fit) > 450
    assert 20 < len(parts.held) < 100


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
    """Pixels near two nuclei weigh more, all others one."""
    labels = np.zeros((20, 30), np.int32)
    labels[5:15, 3:14], labels[5:15, 15:27] = 1, 2
    weights = weight_image(labels, 3.0)
    assert weights[10, 14] == weights[10, 13] == 4.0
    assert weights[10, 5] == weights[0, 0] == 1.0


def test_crops_are_pure(dataset):
    """The same step gives the same crops in any order; other steps give others."""
    examples = load(str(dataset), split(spec(dataset, "out")).fit)
    one, two = Crops(examples, spec(dataset, "out")), Crops(examples, spec(dataset, "out"))
    later = two.batch(7)
    for a, b in zip(one.batch(3), two.batch(3), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(later[0], one.batch(3)[0])
    images, classes, weights = later
    assert images.shape == (2, 3, 64, 64)
    assert classes.shape == weights.shape == (2, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1


def test_crop_and_labels_turn_together(dataset):
    """After all geometry the bright pixels are still the labelled ones."""
    calm = spec(dataset, "out", augment=CALM, mix={"fluorescence": 1.0}, batch=12)
    images, classes, _ = Crops(load(str(dataset), split(calm).fit), calm).batch(0)
    inside = classes > 0
    assert images[:, 0][inside].mean() > 0.8
    assert images[:, 0][~inside].mean() < 0.2


def test_resumed_training_ends_the_same(dataset, tmp_path):
    """Stopped after one epoch and started again, training ends with the same bits, log and weights."""
    straight = loop.run(spec(dataset, tmp_path / "a"))
    stopped = spec(dataset, tmp_path / "b")
    state = loop.begin(stopped)
    parts = split(stopped)
    (tmp_path / "b").mkdir()
    loop.epoch(state, Crops(load(stopped.dataset, parts.fit), stopped), stopped)
    state.epoch = 1
    loop.save_checkpoint(tmp_path / "b" / "checkpoint.pt", state, stopped)
    resumed = loop.run(stopped)
    assert resumed.epoch == straight.epoch == 3
    assert resumed.best_score == straight.best_score
    for name, tensor in straight.averaged.state_dict().items():
        assert torch.equal(tensor, resumed.averaged.state_dict()[name]), name


def test_other_settings_do_not_resume(dataset, tmp_path):
    """A checkpoint made with other settings is refused, and the setting that differs is named."""
    made = spec(dataset, tmp_path, epochs=1, score_every=1)
    loop.run(made)
    with pytest.raises(ConfigError, match=r"epochs: 1 there, 5 here"):
        loop.run(spec(dataset, tmp_path, epochs=5, score_every=1))


def test_loss_falls(dataset, tmp_path):
    """Some steps on easy images lower the loss by a third."""
    mix = {"fluorescence": 1.0}
    quick = spec(dataset, tmp_path, epochs=1, steps_per_epoch=24, learning_rate=4e-3, augment=CALM, mix=mix)
    state = loop.begin(quick)
    crops = Crops(load(quick.dataset, split(quick).fit), quick)
    losses = [loop.step(state, crops.batch(k), k, quick) for k in range(24)]
    assert np.mean(losses[-4:]) < 0.67 * np.mean(losses[:2])


def test_learning_rate_warms_up_and_falls(dataset):
    """The rate rises to its peak in the warm-up and falls to nearly zero at the last step."""
    long = spec(dataset, "out", epochs=10, steps_per_epoch=10, warmup=0.1)
    rates = [loop.learning_rate(k, long) for k in range(100)]
    assert max(rates) == rates[9] == rates[10] == long.learning_rate
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01 * long.learning_rate


def test_calibration_moves_the_biases_alone(dataset):
    """Calibrated weights answer what the shifted logits say, at least as well as before; no other weight moves."""
    torch.manual_seed(0)
    network, before = SmallUNet(), SmallUNet()
    before.load_state_dict(network.state_dict())
    held = load(str(dataset), ["x01", "x05"])
    mix = {"fluorescence": 1.0}
    shift = export.calibrate(network, held, mix)
    maps = [whole_maps(loop.forward_of(network), e, *loop.reach()) for e in held]
    logits = whole_maps(loop.logits_of(before), held[0], *loop.reach())
    assert np.abs(export.shifted(logits, shift).astype(int) - maps[0]).max() <= 1
    plain = [whole_maps(loop.forward_of(before), e, *loop.reach()) for e in held]
    assert export.weighted_score(maps, held, mix) >= export.weighted_score(plain, held, mix)
    moved = [k for k, v in network.state_dict().items() if not torch.equal(v, before.state_dict()[k])]
    assert set(moved) <= {"head.bias"}


def test_train_exports_a_network_that_runs(dataset, tmp_path):
    """The command's function leaves weights that load by path, a card that says how they were made, and a log."""
    config = tmp_path / "tiny.yaml"
    lines = [
        f"dataset: {dataset}",
        f"output: {tmp_path / 'out'}",
        "epochs: 1",
        "steps_per_epoch: 1",
        "batch: 1",
        "crop_px: 64",
        "score_every: 1",
        "threads: 1",
        "holdout: 0.3",
        "mix: {fluorescence: 1.0}",
    ]
    config.write_text("\n".join(lines) + "\n")
    path = train(str(config), ["seed=4"])
    network = models.load(ModelSpec(weights=str(path)))
    assert network.maps(np.zeros((1, 1, 64, 64), np.float32), ()).shape == (1, 2, 64, 64)
    assert 0.5 < network.card.mpp < 1.0  # disks of 13 px stand for nuclei of 10 um
    card = path.with_suffix(".json").read_text()
    assert "--set seed=4" in card
    assert str(dataset) not in card.replace(str(config), "")
    rows = list(csv.DictReader((tmp_path / "out" / "log.csv").open()))
    assert {"loss", "dsb_all"} <= {r["measure"] for r in rows}


def test_broken_training_sets_are_refused(dataset, tmp_path):
    """A missing table, a missing list of ids and a modality without images are named."""
    with pytest.raises(ConfigError, match=r"index\.tsv is missing"):
        split(spec(tmp_path, "out"))
    with pytest.raises(ConfigError, match="exclude: neither"):
        split(spec(dataset, "out", exclude="none.txt"))
    lonely = spec(dataset, "out", mix={"brightfield": 1.0})
    with pytest.raises(ConfigError, match="no brightfield images"):
        Crops(load(str(dataset), ["x00"]), lonely)


def test_shipped_config_is_valid():
    """The shipped training config reads, and trains what is shipped."""
    from slidebatch.config import read

    assert find_config("conf/train/small_unet.yaml")
    assert read(TrainSpec, "conf/train/small_unet.yaml").exclude == "validation.txt"


@pytest.mark.realdata
def test_shipped_network_segments_held_out_images(realdata):
    """On a few validation images the shipped network, run whole, is well above the floor of 0.35."""
    folder = realdata / "dsb2018"
    ids = sorted((folder / "validation.txt").read_text().split())
    small = [e for e in load(str(folder), ids) if e.labels.size <= 256 * 256 and e.modality == "fluorescence"][:8]
    network = models.load(ModelSpec())
    scores = []
    for example in small:
        maps = whole_maps(lambda a: network.maps(a, ()), example, network.card.margin_px, network.card.stride_px)
        scores.append(dsb_score(decoded(maps, DecodeSpec()), example.labels))
    assert np.mean(scores) > 0.35


def test_example_is_shown_as_the_engine_shows_it(dataset):
    """Training images go through the engine's own window: 0..1, the ends of the window reached."""
    example = load(str(dataset), ["x01"])[0]
    shown = example.normalised()
    assert shown.shape == (3, 90, 100)
    assert shown.min() == 0
    assert shown.max() == 1
    dark = dataclasses.replace(example, image=np.full_like(example.image, 7))
    assert np.ptp(dark.normalised()) == 0

"""Laws of training the cascade: three parts by config, one set of weights, a batch; and of held-out losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from slidebatch.config import read
from slidebatch.errors import ConfigError
from slidebatch.metrics import f1
from slidebatch.models import networks
from slidebatch.models.weights_file import read_card, read_tensors
from slidebatch.training import feed, loop
from slidebatch.training.dataset import load, split
from slidebatch.training.held_out import held_out_losses
from slidebatch.training.spec import TrainSpec
from slidebatch.training.state import begin
from slidebatch.validate import validate
from tests.support.cascades import PARTS, spec_of, train_all
from tests.support.detectors import TINY as TINY_RCNN
from tests.support.oracle import disks
from tests.support.runs import config, labels_of, run, write_slides
from tests.support.training_sets import settings, write_set

LOSSES = {"proposals": ["rpn_class", "rpn_box"], "classifier": ["region_class"], "unet": ["mask"]}
FILES = {"proposals": "cascade_proposals", "classifier": "cascade_classifier", "unet": "cascade"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "twelve")


@pytest.fixture(scope="module")
def weights(dataset, tmp_path_factory) -> Path:
    """A small cascade that has learned to find bright disks; the weights of the whole."""
    easy = {"data": {"mix": {"fluorescence": 1.0}, "holdout": 0.3}}
    steps = {"epochs": 2, "steps_per_epoch": 30, "batch": 4, "score_every": 2}
    return train_all(dataset, tmp_path_factory.mktemp("learned"), **easy, **steps)


# Learning


def log_of(weights: Path, part: str) -> pd.DataFrame:
    return pd.read_parquet(weights.parent.parent / part / "log.parquet")


@pytest.mark.parametrize("part", PARTS)
def test_the_loss_of_each_part_falls(part, weights):
    """Losses on held-out crops, told before the first step and after each epoch, fall below half of the first."""
    table = log_of(weights, part)
    assert list(table["epoch"]) == [0, 1, 2]
    for name in LOSSES[part]:
        told = table[f"held_out_{name}"]
        assert told.iloc[-1] < 0.5 * told.iloc[0], name
    assert np.isnan(table["loss"].iloc[0])
    assert table["loss"].iloc[1:].notna().all()


def test_three_trainings_make_one_set_of_weights(weights):
    """The last file holds the parts of the trainings before to the bit, and its card says that all are in use."""
    found = {part: read_tensors(next((weights.parent.parent / part).glob("*.safetensors"))) for part in PARTS}
    whole = read_tensors(weights)
    for earlier in ("proposals", "classifier"):
        names = [name for name in whole if name.startswith(earlier)]
        assert names
        assert all(torch.equal(whole[name], found[earlier][name]) for name in names)
        assert any(not torch.equal(whole[n], found[earlier][n]) for n in whole if n.startswith("unet"))
    card = read_card(weights)
    assert (card.network, card.architecture["last_part"]) == ("cascade", "unet")
    assert card.training["bias_shift"]["score_threshold"] == card.architecture["score_threshold"]
    assert card.scores["held_out"]["all"] > 0.4


@pytest.mark.parametrize("part", PARTS)
def test_a_resumed_training_ends_the_same(part, dataset, tmp_path):
    """Stopped in the middle of its second epoch, a part's training ends with the same bits and log."""

    def tell(told: loop.Told) -> None:
        if told.step == 3 and told.row is None:
            raise KeyboardInterrupt

    def spec(name: str) -> TrainSpec:
        return spec_of(part, dataset, tmp_path / name, epochs=2, steps_per_epoch=2, batch=2)

    straight = loop.run(spec("a"))
    with pytest.raises(KeyboardInterrupt):
        loop.run(spec("b"), tell)
    resumed = loop.run(spec("b"))
    assert resumed.epoch == straight.epoch == 2
    assert all(torch.equal(resumed.network.state_dict()[k], v) for k, v in straight.network.state_dict().items())
    for row in (*straight.rows, *resumed.rows):
        row.pop("seconds")
    assert str(straight.rows) == str(resumed.rows)  # the first row's loss is no number, which equals nothing


@pytest.mark.parametrize("part", PARTS)
def test_shipped_configs_are_the_recipe(part):
    """Each part's config fits that part as the authors did, and begins with the weights of the part before."""
    spec = read(TrainSpec, f"conf/train/cascade_{part}.yaml")
    loop.check_network(spec)
    made = networks.architecture(spec.network.name, spec.network.settings)
    feed.check_size((spec.sampling.crop_px,) * 2, made)
    assert (made.last_part, spec.name, spec.data.exclude) == (part, FILES[part], "validation.txt")
    assert spec.optimiser.learning_rate == (1e-4 if part == "classifier" else 1e-3)
    assert (spec.epochs, spec.schedule.name, spec.schedule.factor) == (4, "steps", 0.1)
    assert spec.schedule.milestones == (0.25, 0.5, 0.75)
    before = {"proposals": None, "classifier": "proposals", "unet": "classifier"}[part]
    if before is None:
        assert spec.network.start is None
        told = spec.detection
        assert (told.anchors, told.anchors_positive, told.anchor_iou, told.best_anchor) == (100, 0.5, (0.1, 0.5), False)
    else:
        earlier = read(TrainSpec, f"conf/train/cascade_{before}.yaml")
        assert spec.network.start == f"{earlier.output}/{earlier.name}.safetensors"


# Losses on held-out crops

RCNN = {"network": {"name": "mask_rcnn", "settings": TINY_RCNN}, "sampling": {"kind": "crops", "crop_px": 64}}


@pytest.mark.parametrize("kind", [{}, RCNN], ids=["unet", "mask_rcnn"])
def test_held_out_losses_are_the_same_every_time(kind, dataset, tmp_path):
    """Any network's losses on held-out crops depend on its weights alone, and telling them changes no training."""
    spec = settings(dataset, tmp_path, held_out_crops=3, **kind)
    network = begin(spec, torch.device("cpu")).network.train()
    held = load(spec.data, split(spec.data, 0).held)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    one, two = (held_out_losses(network, held, spec) for _ in range(2))
    assert one == two
    names = {"rpn_class", "rpn_box", "region_class", "region_box", "mask"} if kind else {"loss"}
    assert set(one) == {f"held_out_{name}" for name in names}
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    states = [loop.run(settings(dataset, tmp_path / str(n), epochs=1, held_out_crops=n, **kind)) for n in (0, 3)]
    plain, told = (state.network.state_dict() for state in states)
    assert all(torch.equal(told[k], v) for k, v in plain.items())
    assert not any(name.startswith("held_out") for row in states[0].rows for name in row)


def test_held_out_losses_need_crops(dataset, tmp_path):
    """A grid of patches, which has no random crops, is refused; without held-out images nothing is told."""
    grid = {"kind": "grid", "image_px": (64, 64), "images": 4, "divisions": 2}
    with pytest.raises(ConfigError, match="held_out_crops: a grid has no crops"):
        loop.run(settings(dataset, tmp_path, held_out_crops=2, sampling=grid))
    spec = settings(dataset, tmp_path, held_out_crops=2)
    assert held_out_losses(torch.nn.Identity(), [], spec) == {}


# From a training to a run

ONE_PATCH = {"patch_px": 384, "core_px": 512, "largest_px": 40}


def detect(folder: Path, output: str, weights: Path, **tiling: int) -> dict[str, np.ndarray]:
    """Run the cascade over all slides, with one window of intensities; their labels."""
    model = {"name": "cascade", "weights": str(weights), "settings": {"overlap_px": 96}, "precision": "float32"}
    decode = {"min_area_px": 16, "iou_threshold": 0.5}
    more = {"tiling": {"largest_px": 40, **tiling}, "decode": decode, "normalise": {"per": "plate"}}
    outcome = run(config(folder, output, model=model, **more))
    assert outcome.exit_status == 0
    assert validate(folder / output) == []
    slides = [path.stem for path in sorted((folder / "images").iterdir())]
    return {slide: labels_of(folder / output, slide).astype(np.int32) for slide in slides}


def test_tiles_and_patches_play_no_part(weights, tmp_path):
    """Tiles change no pixel; small patches, which meet in the middle of nuclei, give the nuclei of one large patch."""
    labels = disks((300, 330), seed=9, step_px=32)
    write_slides(tmp_path, {"a": labels})
    whole = detect(tmp_path, "whole", weights, patch_px=576, core_px=512)["a"]
    assert f1(whole, labels, 0.5) > 0.9
    one = detect(tmp_path, "one", weights, patch_px=320, core_px=512)["a"]
    tiled = detect(tmp_path, "tiled", weights, patch_px=320, core_px=96)["a"]
    np.testing.assert_array_equal(tiled, one)
    assert f1(one, whole, 0.9) >= 0.995


def test_shifting_the_patch_grid_changes_nothing(weights, tmp_path):
    """The image cut off half a cell later at two sides, so that all patches lie elsewhere: F1 at IoU 0.9 >= 0.995."""
    cell, edge, labels = 128, 96, disks((420, 400), seed=10, step_px=32)
    write_slides(tmp_path, {"a": labels})
    pixels = tifffile.imread(tmp_path / "images" / "a.tif")
    tifffile.imwrite(tmp_path / "images" / "b.tif", pixels[cell // 2 :, cell // 2 :], tile=(64, 64))
    found = detect(tmp_path, "out", weights, patch_px=cell + 2 * edge, core_px=512)
    common = found["a"][cell // 2 :, cell // 2 :]
    one, other = beyond(common, edge), beyond(found["b"], edge)
    assert len(np.unique(one)) > 60
    assert f1(other, one, 0.9) >= 0.995


def beyond(labels: np.ndarray, edge_px: int) -> np.ndarray:
    """Labels without the nuclei that have a pixel within `edge_px` of the upper or the left side."""
    near = np.union1d(labels[:edge_px], labels[:, :edge_px])
    return np.where(np.isin(labels, near), 0, labels)


def test_thresholds_within_and_between_patches_are_two(weights, tmp_path):
    """Proposals of a patch compete by `proposal_iou`; `decode.iou_threshold`, which all patches share, comes after."""
    labels = disks((160, 160), seed=11, step_px=32)
    write_slides(tmp_path, {"a": labels})

    def nuclei(proposal_iou: float, iou_threshold: float) -> int:
        model = {"name": "cascade", "weights": str(weights), "settings": {"proposal_iou": proposal_iou}}
        output = f"out{proposal_iou}{iou_threshold}"
        spec = config(tmp_path, output, model=model, tiling=ONE_PATCH, decode={"iou_threshold": iou_threshold})
        assert run(spec).exit_status == 0
        return int(labels_of(tmp_path / output, "a").max())

    low, double, late = nuclei(0.15, 1.0), nuclei(0.9, 1.0), nuclei(0.9, 0.5)
    assert abs(low - labels.max()) < 0.1 * labels.max()
    assert double > 1.5 * low
    assert late < double

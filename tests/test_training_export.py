"""Laws of what a training leaves: calibrated weights with their card, a log, curves; and of the shipped config."""

from __future__ import annotations

import csv
import json
import re
import shlex
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

from slidebatch import models
from slidebatch.cli.app import app
from slidebatch.config import read
from slidebatch.decode import DecodeSpec, label_image
from slidebatch.metrics import dsb_score
from slidebatch.models import networks
from slidebatch.models.spec import ModelSpec
from slidebatch.training import dense, record
from slidebatch.training.dataset import load
from slidebatch.training.score import Fitted, held_out_score, judged, weighted, whole_maps
from slidebatch.training.spec import (
    AugmentSpec,
    CropsSpec,
    DataSpec,
    GridSpec,
    LossSpec,
    NetworkSpec,
    OptimiserSpec,
    ScheduleSpec,
    TargetSpec,
    TrainSpec,
)
from tests.conftest import ROOT
from tests.support.training_sets import settings, write_set


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "twelve")


def fitted(seed: int = 0) -> Fitted:
    torch.manual_seed(seed)
    return Fitted(networks.build("small_unet", {}), networks.architecture("small_unet", {}))


def examples(dataset, *ids: str):
    return load(DataSpec(path=str(dataset)), ids)


def maps_of(network: Fitted, example):
    return whole_maps(network.maps, example, network.margin_px, network.stride_px)


def test_calibration_moves_the_biases_alone(dataset):
    """Calibrated weights answer what the shifted logits say, at least as well as before; no other weight moves."""
    network, before = fitted(), fitted()
    held, mix = examples(dataset, "x01", "x05"), {"fluorescence": 1.0}
    shift = dense.calibrated(network, held, mix)[1]
    maps = [maps_of(network, e) for e in held]
    logits = whole_maps(before.logits, held[0], before.margin_px, before.stride_px)
    assert np.abs(dense.shifted(logits, shift).astype(int) - maps[0]).max() <= 1
    plain = [maps_of(before, e) for e in held]
    after, then = ([judged(m, e) for m, e in zip(found, held, strict=True)] for found in (maps, plain))
    assert weighted(after, held, mix) >= weighted(then, held, mix)
    own = before.network.state_dict()
    moved = [k for k, v in network.network.state_dict().items() if not torch.equal(v, own[k])]
    assert set(moved) <= {"head.bias"}


def test_a_shift_that_gains_nothing_is_not_made(dataset):
    """Where all shifts score alike, none is made."""
    network = fitted()
    with torch.no_grad():
        network.network.head.bias += torch.tensor([100.0, 0.0, 0.0])  # nothing is ever found
    assert set(dense.calibrated(network, examples(dataset, "x01"), {})[1].values()) == {0.0}


def test_without_held_out_images_nothing_is_shifted():
    """No image to choose by, no shift, and no bias moved."""
    network, before = fitted(), fitted()
    assert set(dense.calibrated(network, [], {})[1].values()) == {0.0}
    assert torch.equal(network.network.head.bias, before.network.head.bias)


def test_scores_are_means_by_modality(dataset):
    """A perfect answer scores 1 in every modality, a blank one 0, and `all` is the mean over images."""
    from slidebatch.training.targets import class_image

    shown = examples(dataset, "x00", "x01", "x02")
    answers = iter([class_image(shown[0].labels), class_image(shown[1].labels), np.zeros_like(shown[2].labels)])

    def forward(image):
        classes = next(answers)
        return (np.stack([classes == 1, classes == 2]) * np.uint8(255))[None]

    found = held_out_score(forward, shown, margin_px=0, stride_px=1)
    assert found["stained-purple"] > 0.97
    assert found["fluorescence"] == pytest.approx(0.5, abs=0.02)
    assert found["all"] == pytest.approx((found["stained-purple"] + 2 * found["fluorescence"]) / 3)


@pytest.mark.parametrize("shape", [(40, 48), (41, 53)])
def test_whole_maps_do_not_depend_on_padding(shape, dataset):
    """Any shape is answered at its own size, and pixels far from the edges as without anything added."""
    network = fitted()
    example = examples(dataset, "x01")[0]
    image = np.tile(example.image, (1, 2, 2))[:, : 120 + shape[0], : 120 + shape[1]]
    grown = type(example)("a", "m", "g", image, np.zeros(image.shape[1:], np.int32), colour=False)
    maps = maps_of(network, grown)
    assert maps.shape == (2, *image.shape[1:])
    whole = [n // 8 * 8 for n in image.shape[1:]]
    bare = network.maps(grown.normalised()[None, :, : whole[0], : whole[1]])[0]
    middle = np.s_[:, 56 : whole[0] - 56, 56 : whole[1] - 56]
    assert np.abs(maps[middle].astype(int) - bare[middle]).max() <= 1


def test_train_exports_a_network_that_runs(dataset, tmp_path):
    """The command leaves weights that load by path, a card that says how they were made, a log and curves."""
    spec = settings(
        dataset, tmp_path / "out", epochs=1, steps_per_epoch=1, name="mine", data={"exclude": "validation.txt"}
    )
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(spec.model_dump(mode="json")))
    ended = CliRunner().invoke(app, ["train", str(config), "--set", "seed=4"])
    assert ended.exit_code == 0, ended.stderr
    assert "epoch 1: loss" in ended.stderr
    path = tmp_path / "out" / "mine.safetensors"
    assert ended.stdout.strip() == f"weights: {path}"
    network = models.load(ModelSpec(weights=str(path), engine="eager"))
    assert network.maps(np.zeros((1, 1, 64, 64), np.float32), ()).shape == (1, 2, 64, 64)
    assert 0.5 < network.card.mpp < 1.0  # disks of 13 px stand for nuclei of 10 um
    card = path.with_suffix(".json").read_text()
    assert "--set seed=4" in card
    assert str(dataset) not in card.replace(str(config), "")
    scores = json.loads(card)["scores"]
    assert scores["excluded"]["images"] == 1
    assert set(scores["held_out"]) >= {"images", "all"}
    assert Image.open(tmp_path / "out" / "curves.png").size[0] > 300


def test_the_log_tells_the_same_twice(tmp_path):
    """CSV and parquet hold one row for each epoch, with scores where there are some."""
    rows = [{"epoch": 1, "loss": 2.5, "learning_rate": 1e-3, "seconds": 1.0}]
    rows += [{"epoch": 2, "loss": 1.25, "learning_rate": 5e-4, "seconds": 1.0, "dsb_all": 0.5}]
    record.write(tmp_path, rows)
    written = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [(r["epoch"], r["loss"], r["dsb_all"]) for r in written] == [("1", "2.5", ""), ("2", "1.25", "0.5")]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "log.parquet"), pd.DataFrame(rows))


def test_the_command_ends_with_one_sentence_where_settings_are_wrong(tmp_path):
    """A wrong training config gives exit status 2 and a sentence, no traceback."""
    wrong = ["--set", f"data.path={tmp_path / 'nowhere'}", "--set", f"output={tmp_path / 'out'}"]
    ended = CliRunner().invoke(app, ["train", "conf/train/small_unet.yaml", *wrong])
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: data.path:")
    assert "Traceback" not in ended.stderr


def test_shipped_config_is_valid():
    """The shipped training config reads, and trains what is shipped."""
    spec = read(TrainSpec, "conf/train/small_unet.yaml")
    assert spec.data.exclude == "validation.txt"
    assert spec.network.name == "small_unet"
    assert isinstance(spec.sampling, CropsSpec)


@pytest.mark.realdata
def test_shipped_network_segments_held_out_images(realdata):
    """On a few validation images the shipped network, run whole, is well above the floor of 0.35."""
    folder = realdata / "dsb2018"
    ids = sorted((folder / "validation.txt").read_text().split())
    found = load(DataSpec(path=str(folder)), ids[::4])
    small = [e for e in found if e.labels.size <= 256 * 256 and e.modality == "fluorescence"][:8]
    assert len(small) == 8
    network = models.load(ModelSpec())
    scores = []
    for example in small:
        maps = whole_maps(lambda a: network.maps(a, ()), example, network.card.margin_px, network.card.stride_px)
        scores.append(dsb_score(label_image(maps, DecodeSpec()), example.labels))
    assert np.mean(scores) > 0.35


def page() -> str:
    return (ROOT / "docs" / "training.md").read_text()


def test_settings_in_the_docs_are_known():
    """Every block of settings that docs/training.md shows is valid."""
    blocks = re.findall(r"```yaml\n(.*?)```", page(), re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        told = YAML(typ="safe").load(block)
        data = {"path": "x", **told.pop("data", {})}
        TrainSpec.model_validate_json(json.dumps({"output": "x", "data": data, **told}))


def test_commands_in_the_docs_are_understood():
    """Every `slidebatch train` that docs/training.md shows names a shipped config and known settings."""
    lines = [line for line in page().replace("\\\n", " ").splitlines() if "slidebatch train conf" in line]
    assert len(lines) > 3
    for line in lines:
        words = shlex.split(line)
        config = words[words.index("train") + 1]
        read(TrainSpec, config, [b for a, b in pairwise(words) if a == "--set"])


def test_sections_in_the_docs_are_complete():
    """Every setting of a training is named in docs/training.md, as a setting."""
    names = set(TrainSpec.model_fields)
    for part in (DataSpec, NetworkSpec, AugmentSpec, TargetSpec, LossSpec, OptimiserSpec, ScheduleSpec, GridSpec):
        names |= set(part.model_fields)
    shown = " ".join(re.findall(r"```.*?```|`[^`\n]+`", page(), re.DOTALL))
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", shown)] == []

"""Laws of calibration from results: a known relation is found, errors are honest, cards keep their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from slidebatch import models
from slidebatch.cli import status_of
from slidebatch.errors import ConfigError, InputError, ModelError
from slidebatch.evaluate import Bootstrap, Column, calibrate
from slidebatch.instances import SCORE_MAX
from slidebatch.metrics import overlap, partner_iou
from slidebatch.models.spec import ModelSpec
from slidebatch.models.weights_file import SHIPPED, read_card, read_tensors, write_weights
from tests.support.oracle import disks
from tests.support.results_folder import Made, squares, table_of, write_results
from tests.support.runs import config, run, write_slides
from tests.test_ensembles import ensemble, member

SIDE_PX = 8


def with_scores(folder: Path, scores: dict[str, np.ndarray]) -> Path:
    """Give the tables of results a score for each nucleus, and the manifest a config."""
    for slide, score in scores.items():
        path = folder / "instances" / f"{slide}.parquet"
        pd.read_parquet(path).assign(score=score.astype(np.float32)).to_parquet(path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"] = {"model": {"name": "oracle"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def worth(tmp_path: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """Four slides of squares, each cut to k of its 8 rows in the truth or absent; raw scores say (k / 8) ** 0.5."""
    labels = squares((120, 130), SIDE_PX, 3).astype(np.uint32)
    (tmp_path / "truth").mkdir()
    made, scores = [], {}
    for i, slide in enumerate("abcd"):
        tall = np.random.default_rng(i).integers(0, SIDE_PX + 1, labels.max() + 1)
        row = np.arange(120)[:, None] % (SIDE_PX + 3)
        np.save(tmp_path / "truth" / f"{slide}.npy", np.where(row < tall[labels], labels, 0))
        made.append(Made(slide, labels))
        scores[slide] = np.sqrt(tall[1:] / SIDE_PX)
    folder = with_scores(write_results(tmp_path / "out", made), scores)
    return folder, tmp_path / "truth", scores


def test_a_known_relation_is_found(worth: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    """Where the overlap is the square of the score, the calibration squares, on images that it never saw too."""
    folder, truth, scores = worth
    found = calibrate(folder, truth)
    raw = np.rint(np.sqrt(np.arange(SIDE_PX + 1) / SIDE_PX) * SCORE_MAX).astype(int)
    np.testing.assert_allclose(found.calibration.apply(raw) / SCORE_MAX, np.arange(SIDE_PX + 1) / SIDE_PX, atol=1e-4)
    before = np.concatenate([np.abs(s - s**2) for s in scores.values()]).mean()
    assert found.errors["before"][0] == pytest.approx(before, abs=1e-4)
    assert found.errors["cross-fitted"][0] < 1e-4
    mean, low, high = found.errors["gain"]
    assert 0.05 < low <= mean <= high


def test_errors_are_of_other_groups(worth: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    """What a group's scores mean does not flatter its own error: where they mean the opposite, it is found out."""
    folder, truth, scores = worth
    with_scores(folder, {s: 1 - scores[s] for s in "cd"})
    groups = tmp_path / "groups.tsv"
    groups.write_text("id\tgroup\na\tg1\nb\tg1\nc\tg2\nd\tg2\n")
    alone = calibrate(folder, truth).errors
    apart = calibrate(folder, truth, bootstrap=Bootstrap(Column(groups))).errors
    assert apart["cross-fitted"][0] > alone["cross-fitted"][0] > alone["after"][0] - 1e-9
    assert apart["after"][0] == alone["after"][0]


def test_partners_are_those_that_share_most() -> None:
    """A nucleus is judged by the true one that it shares most pixels with, by the better of two equals; 0 alone."""
    truth = np.array([[1, 1, 1, 2, 2, 0, 0, 3, 4, 4, 0]])
    pred = np.array([[5, 5, 5, 5, 5, 0, 6, 7, 7, 0, 9]])
    np.testing.assert_allclose(partner_iou(overlap(pred, truth)), [3 / 5, 0, 1 / 2, 0])


def test_what_cannot_be_calibrated_is_refused(worth: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    """No scores, one group, images on one side alone: each one clear sentence."""
    folder, truth, _ = worth
    (tmp_path / "one.tsv").write_text("id\tgroup\n" + "".join(f"{s}\tg\n" for s in "abcd"))
    with pytest.raises(ConfigError, match="at least two groups"):
        calibrate(folder, truth, bootstrap=Bootstrap(Column(tmp_path / "one.tsv")))
    (tmp_path / "ids.txt").write_text("a\nz\n")
    with pytest.raises(InputError, match=r"lacks 1 image \(z\) of the subset"):
        calibrate(folder, truth, tmp_path / "ids.txt")
    (truth / "d.npy").unlink()
    assert "1 image (d)" in calibrate(folder, truth).notes[0]
    pd.DataFrame(table_of(squares((120, 130), SIDE_PX, 3))).to_parquet(folder / "instances" / "a.parquet")
    with pytest.raises(ConfigError, match="no column score"):
        calibrate(folder, truth)
    with pytest.raises(ModelError, match="oracle has no weights"):
        models.store_calibration(ModelSpec(name="oracle"), tmp_path / "x.safetensors", None)  # type: ignore[arg-type]


def test_an_ensemble_has_no_score_of_its_own(tmp_path: Path) -> None:
    """Results of an ensemble are refused: its scores are no network's."""
    folder = write_slides(tmp_path, {"a": disks((80, 80))})
    run(ensemble(folder, "out", [member(folder), member(folder)], rule="nms"))
    with pytest.raises(ConfigError, match="results of an ensemble"):
        calibrate(folder / "out", folder / "truth")


def test_weights_keep_the_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run's calibration goes into the card of its own weights, which stay as they are; of others it is refused."""
    folder = write_slides(tmp_path, {s: disks((90, 100), seed=i) for i, s in enumerate("abc")})
    weights = tmp_path / "own.safetensors"
    for suffix in (".safetensors", ".json"):
        shutil.copy(SHIPPED / f"small_unet{suffix}", weights.with_suffix(suffix))
    other = tmp_path / "other.safetensors"
    write_weights(other, {n: 1.01 * t for n, t in read_tensors(weights).items()}, read_card(weights))
    model = {"name": "small_unet", "weights": str(weights), "engine": "eager", "settings": {}}
    run(config(folder, "out", model=model, tiling={"patch_px": 160}, decode={"seed_threshold": 0.1}))
    before, content = read_card(weights), weights.read_bytes()
    command = ["calibrate", str(folder / "out"), str(folder / "truth"), "--weights"]
    assert status_of([*command, str(other)]) == 2
    assert "are not the weights that were run" in capsys.readouterr().err
    told = tmp_path / "told.json"
    assert status_of([*command, str(weights), "--json", str(told)]) == 0
    assert "cross-fitted" in capsys.readouterr().out
    stored = json.loads(told.read_text())["calibration"]
    assert read_card(weights) == before.model_copy(update={"calibration": stored})
    assert weights.read_bytes() == content
    found = models.calibration(ModelSpec(name="small_unet", weights=str(weights)))
    assert found is not None
    assert found.as_dict() == stored
